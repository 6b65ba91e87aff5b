//! Connections to an agent, at an address or through its runtime, pooled by hyper-util.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Uri, uri::PathAndQuery};
use hyper::{
    body::Incoming,
    rt::{Read, ReadBufCursor, Write},
};
use hyper_util::{
    client::legacy::{
        Client, Error,
        connect::{Connected, Connection as ConnectionInfo},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};
use tower_service::Service;

use super::Body;
use crate::runtime::{BoxConnection, ContainerId, Endpoint, Runtime};

/// An address that doesn't answer in this time is taken for unreachable. All are on this machine or next to it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Idle connections that are kept of those that the runtime opens: each costs a process inside.
const MOST_IDLE_THROUGH_RUNTIME: usize = 4;

/// A port inside, and how it is reached.
#[derive(Clone)]
pub(super) struct Destination {
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) container: ContainerId,
    pub(super) port: u16,
    pub(super) endpoint: Endpoint,
}

impl Destination {
    /// What a request names, which nothing but messages needs: where to is known beforehand.
    fn authority(&self) -> String {
        match self.endpoint {
            Endpoint::Tcp(address) => address.to_string(),
            Endpoint::ThroughRuntime => format!("127.0.0.1:{}", self.port),
        }
    }

    /// Opens one connection. Cancel-safe.
    pub(super) async fn connect(&self) -> io::Result<AgentStream> {
        match self.endpoint {
            Endpoint::Tcp(address) => {
                let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
                    .await
                    .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer to the connection attempt"))??;
                stream.set_nodelay(true)?;
                Ok(AgentStream::Tcp(stream))
            }
            // The runtime bounds its calls itself.
            Endpoint::ThroughRuntime => match self.runtime.connect(&self.container, self.port).await {
                Ok(connection) => Ok(AgentStream::ThroughRuntime(connection)),
                Err(error) => Err(io::Error::other(error)),
            },
        }
    }
}

/// For messages.
impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.endpoint {
            Endpoint::Tcp(address) => address.fmt(formatter),
            Endpoint::ThroughRuntime => write!(formatter, "port {} of its container", self.port),
        }
    }
}

/// A pool of connections to one agent.
pub(crate) struct Connection {
    destination: Destination,
    client: Client<Connector, Body>,
}

impl Connection {
    pub(super) fn new(destination: Destination) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_TIMEOUT);
        if destination.endpoint == Endpoint::ThroughRuntime {
            builder.pool_max_idle_per_host(MOST_IDLE_THROUGH_RUNTIME);
        }
        let client = builder.build(Connector { destination: destination.clone() });
        Self { destination, client }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.destination.endpoint
    }

    pub(super) fn destination(&self) -> &Destination {
        &self.destination
    }

    pub(super) async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Error> {
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let uri = Uri::builder().scheme("http").authority(self.destination.authority()).path_and_query(path).build();
        // An address and a path that were both parsed already always make a URI.
        if let Ok(uri) = uri {
            *request.uri_mut() = uri;
        }
        self.client.request(request).await
    }
}

/// Makes one connection for the pool. Where to is known beforehand; the URI only names it.
#[derive(Clone)]
struct Connector {
    destination: Destination,
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let destination = self.destination.clone();
        Box::pin(async move { Ok(Stream::new(destination.connect().await?)) })
    }
}

/// A connection to an agent, whichever way it goes.
pub(super) enum AgentStream {
    Tcp(TcpStream),
    ThroughRuntime(BoxConnection),
}

impl AgentStream {
    fn inner(self: Pin<&mut Self>) -> Pin<&mut dyn crate::runtime::Duplex> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream),
            Self::ThroughRuntime(connection) => Pin::new(&mut **connection),
        }
    }
}

impl AsyncRead for AgentStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_read(context, buffer)
    }
}

impl AsyncWrite for AgentStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.inner().poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::ThroughRuntime(connection) => connection.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write_vectored(context, slices)
    }
}

/// A connection as hyper-util wants it.
///
/// Who refuses an upload half-way answers, and closes: why, is there to be read when no more can be written. hyper gives up at the write
/// that fails, and doesn't look. So that fails only a while later, and meanwhile what is read decides: the answer, or that there is none.
pub(super) struct Stream {
    socket: TokioIo<AgentStream>,
    /// Until when a write that failed isn't told.
    refused: Option<Pin<Box<Sleep>>>,
}

/// For an answer that is there to be read by whoever waits for it.
const ANSWER: Duration = Duration::from_secs(2);

impl Stream {
    fn new(socket: AgentStream) -> Self {
        Self { socket: TokioIo::new(socket), refused: None }
    }

    /// The connection itself, where it speaks HTTP no more.
    pub(super) fn into_inner(self) -> AgentStream {
        self.socket.into_inner()
    }

    fn told<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        match written {
            Poll::Ready(Err(error)) if matches!(error.kind(), BrokenPipe | ConnectionReset) => {
                let until = self.refused.get_or_insert_with(|| Box::pin(tokio::time::sleep(ANSWER)));
                until.as_mut().poll(context).map(|()| Err(error))
            }
            written => written,
        }
    }
}

impl ConnectionInfo for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.told(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(context);
        self.told(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.told(context, written)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use bytes::Bytes;
    use futures_util::stream;
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::body::Frame;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::testing::{AgentScript, EngineScript, FakeEngine};

    /// Takes the beginning of a request, says this, and closes with the rest unread. As often as it is asked.
    async fn refusing(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut beginning = [0; 1 << 10];
                let _ = stream.read(&mut beginning).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    /// An upload that has no end of its own. `held` says how many of its kind there are.
    fn endless(held: Arc<()>) -> Request<Body> {
        let chunk = Bytes::from_static(&[0; 64 << 10]);
        let chunks = stream::repeat_with(move || {
            let _held = &held;
            Ok(Frame::data(chunk.clone()))
        });
        Request::put("/").body(StreamBody::new(chunks).boxed_unsync()).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn why_an_upload_was_refused_is_heard_though_no_more_of_it_is_taken() {
        let refusal = "HTTP/1.1 507 Insufficient Storage\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfull";
        for (answer, heard) in [(refusal, Some("full")), ("", None)] {
            let connection = Connection::new(Destination {
                runtime: Arc::new(FakeEngine::new(EngineScript::default(), AgentScript::default())),
                container: ContainerId("c".to_owned()),
                port: 3001,
                endpoint: Endpoint::Tcp(refusing(answer).await),
            });
            let held = Arc::new(());
            for round in 0..20 {
                let sent = connection.send(endless(held.clone())).await;
                let said = match sent {
                    Ok(response) => Some(response.into_body().collect().await.unwrap().to_bytes()),
                    Err(_) => None,
                };
                assert_eq!(said.as_deref(), heard.map(str::as_bytes), "round {round}");
            }
            // Nothing goes on with what nobody takes.
            while Arc::strong_count(&held) > 1 {
                tokio::task::yield_now().await;
            }
        }
    }
}
