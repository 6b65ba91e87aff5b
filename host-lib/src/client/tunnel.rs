//! A connection to a port inside, through the agent: `GET /v1/tunnel/{port}` of `docs/protocol.md`.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http::{Method, StatusCode, header};
use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    AgentClient, Repeat, TokenSource, authorized,
    connect::{AgentStream, Stream},
    root_cause,
};
use crate::error::{Error, ErrorKind, Result};

/// What the connection is upgraded to.
const PROTOCOL: &str = "corehold-tunnel";

/// An agent that has vanished without a word (a cable, a virtual machine that was switched off) is noticed by probes: after
/// a minute of silence, and four without an answer.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;

/// An open connection to a port inside a workspace: the port's bytes as they are, both ways. Shutting down the writing side
/// is carried on as the end of that direction; the other one stays open. Dropping it closes both.
pub struct Tunnel {
    port: u16,
    /// What came together with the agent's answer.
    early: Bytes,
    stream: AgentStream,
}

impl Tunnel {
    /// The port inside.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tunnel").field("port", &self.port).finish_non_exhaustive()
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.early.len().min(buffer.remaining());
        buffer.put_slice(&self.early[..length]);
        self.early.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl AgentClient {
    /// Opens a tunnel. Cancel-safe: one that nobody waits for any more is closed.
    pub(crate) async fn tunnel(&self, tokens: &TokenSource, port: u16) -> Result<Tunnel> {
        let path = format!("/v1/tunnel/{port}");
        let response = self
            .while_alive(async {
                let request = authorized(Method::GET, &path, tokens)
                    .header(header::CONNECTION, "upgrade")
                    .header(header::UPGRADE, PROTOCOL);
                // A tunnel that was opened and is not used harms nobody.
                self.send(request, Bytes::new(), Repeat::Safe).await
            })
            .await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status();
            return Err(Error::new(ErrorKind::Agent, format!("the agent answered {status} and opened no tunnel")));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| {
            Error::new(ErrorKind::AgentUnavailable, format!("the tunnel was not opened: {}", root_cause(&error)))
        })?;
        let parts = upgraded.downcast::<Stream>().map_err(|_| {
            Error::new(ErrorKind::AgentUnavailable, "the tunnel's connection is none that this library made")
        })?;
        let stream = parts.io.into_inner();
        if let AgentStream::Tcp(socket) = &stream {
            notice_loss(socket);
        }
        Ok(Tunnel { port, early: parts.read_buf, stream })
    }
}

/// Without probes, an agent whose machine is gone would hold an idle tunnel for ever.
fn notice_loss(socket: &TcpStream) {
    let set = sockopt::set_socket_keepalive(socket, true)
        .and_then(|()| sockopt::set_tcp_keepidle(socket, PROBE_AFTER))
        .and_then(|()| sockopt::set_tcp_keepintvl(socket, PROBE_EVERY))
        .and_then(|()| sockopt::set_tcp_keepcnt(socket, PROBES));
    if let Err(error) = set {
        tracing::debug!(%error, "a tunnel's agent can't be probed");
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Servers that speak first (SSH, SMTP, MySQL) may have spoken before the head was read.
    #[tokio::test]
    async fn what_came_with_the_agents_answer_comes_first() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let stream = AgentStream::Tcp(stream);
        let mut tunnel = Tunnel { port: 22, early: Bytes::from_static(b"SSH-2.0"), stream };
        server.write_all(b"-OpenSSH\r\n").await.unwrap();
        server.shutdown().await.unwrap();
        let mut first = [0; 3];
        tunnel.read_exact(&mut first).await.unwrap();
        let mut rest = String::new();
        tunnel.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&first, rest.as_str()), (b"SSH", "-2.0-OpenSSH\r\n"));
    }
}
