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
    let serving = server::run(listener, Arc::clone(&agent.agent), async {
        let _ = ended.await;
    });
    let server = tokio::spawn(async { serving.await.expect("there are descriptors") });
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

/// Waits until the names in the workspace are as wanted, woken by each that comes or goes.
pub(crate) async fn until_names(agent: &TestAgent, wanted: impl Fn(&[String]) -> bool) {
    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        fs::inotify::{self, CreateFlags, WatchFlags},
    };
    let inotify = Arc::new(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap());
    loop {
        // Watched first and looked at then, so that nothing comes in between unseen.
        for name in agent.names().iter().map(String::as_str).chain([""]) {
            let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE | WatchFlags::ONLYDIR;
            let _ = inotify::add_watch(&*inotify, agent.root().join(name), flags);
        }
        if wanted(&agent.names()) {
            return;
        }
        let waiting = Arc::clone(&inotify);
        let ready = tokio::task::spawn_blocking(move || {
            let ready = poll(&mut [PollFd::new(&*waiting, PollFlags::IN)], Timespec::try_from(PATIENCE).ok().as_ref());
            while rustix::io::read(&*waiting, &mut [0; 4096]).is_ok() {}
            ready.unwrap()
        });
        assert_ne!(ready.await.unwrap(), 0, "it never happened: {:?}", agent.names());
    }
}

/// Waits until other tasks have brought something about that nobody is told of; it is asked after each turn of theirs.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("it happens");
}
