//! An agent behind a real socket, and raw connections to it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use corehold_agent::server;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use crate::support::TestAgent;

/// Longer than anything here takes; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A served agent.
pub(crate) struct Served {
    pub(crate) agent: TestAgent,
    pub(crate) address: SocketAddr,
    /// Tells it to end.
    pub(crate) end: oneshot::Sender<()>,
    pub(crate) server: JoinHandle<()>,
}

/// Serves an agent with these variables.
pub(crate) async fn serve(variables: &[(&str, &str)]) -> Served {
    serve_agent(TestAgent::with(variables)).await
}

/// Serves an agent.
pub(crate) async fn serve_agent(agent: TestAgent) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, ended) = oneshot::channel();
    let server = tokio::spawn(server::run(listener, Arc::clone(&agent.agent), async {
        let _ = ended.await;
    }));
    Served { agent, address, end, server }
}

impl Served {
    /// Sends bytes over a connection of their own.
    pub(crate) async fn send(&self, request: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_ref()).await.unwrap();
        stream
    }

    /// Sends a request, and reads until the agent closes the connection.
    pub(crate) async fn exchange(&self, request: impl AsRef<[u8]>) -> String {
        read(&mut self.send(request).await).await
    }
}

/// Reads until the agent closes the connection.
pub(crate) async fn read(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer is no matter: the agent didn't read all that was sent.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the agent closes the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until what came contains this.
pub(crate) async fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut answer = String::new();
    let mut piece = [0; 4096];
    while !answer.contains(wanted) {
        let length = timeout(PATIENCE, stream.read(&mut piece)).await.expect("more comes").unwrap();
        assert_ne!(length, 0, "the connection ended after {answer}");
        answer.push_str(&String::from_utf8_lossy(&piece[..length]));
    }
    answer
}

/// Waits for something that happens in a thread of the agent's, which nobody is told of.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "it never happened");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
