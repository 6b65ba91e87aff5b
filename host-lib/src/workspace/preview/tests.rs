//! Previews of an agent in the same process, for which "inside" is this machine's loopback.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use super::*;
use crate::{
    CreateWorkspace, Host,
    runtime::{ContainerStatus, Runtime as _},
    testing::{AgentScript, EngineScript, FakeEngine, Fixture},
};

/// Longer than anything takes here; only a broken test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

async fn workspace() -> (Fixture, Workspace) {
    let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
    let workspace = fixture.host.create(CreateWorkspace::empty().id("w")).await.unwrap();
    (fixture, workspace)
}

/// A host that is configured further, with a home of its own, and a workspace of it.
async fn configured(
    configure: impl FnOnce(crate::HostBuilder) -> crate::HostBuilder,
) -> (tempfile::TempDir, Workspace) {
    let home = tempfile::tempdir().unwrap();
    let engine = Arc::new(FakeEngine::new(EngineScript::default(), AgentScript::default()));
    let host = configure(Host::builder().runtime(engine).home(home.path())).build().await.unwrap();
    let workspace = host.create(CreateWorkspace::empty().id("w")).await.unwrap();
    (home, workspace)
}

async fn server() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn address(preview: &Preview) -> SocketAddr {
    preview.url.strip_prefix("http://").unwrap().parse().unwrap()
}

async fn connect(preview: &Preview) -> TcpStream {
    TcpStream::connect(address(preview)).await.unwrap()
}

async fn accept(listener: &TcpListener) -> TcpStream {
    timeout(PATIENCE, listener.accept()).await.expect("the agent connects").unwrap().0
}

/// Waits for the end; an error is a reset.
async fn end(stream: &mut TcpStream) -> io::Result<usize> {
    timeout(PATIENCE, stream.read(&mut [0; 64])).await.expect("it ends")
}

async fn until_ended(address: SocketAddr) {
    timeout(PATIENCE, async {
        while TcpListener::bind(address).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the listener ends");
}

#[tokio::test]
async fn all_who_ask_share_one_listener_that_says_whether_something_listens() {
    let (fixture, workspace) = workspace().await;
    let (listener, port) = server().await;
    let preview = workspace.preview(port).await.unwrap();
    assert_eq!((preview.port, preview.status, &preview.failure), (port, PreviewStatus::Listening, &None));
    let others = fixture.host.workspace("w").await.unwrap();
    assert_eq!(others.preview(port).await.unwrap(), preview);
    let (_other_listener, other_port) = server().await;
    assert_ne!(workspace.preview(other_port).await.unwrap().url, preview.url, "another port has another address");

    let mut client = connect(&preview).await;
    let mut server = accept(&listener).await;
    client.write_all(b"question").await.unwrap();
    let mut question = [0; 8];
    server.read_exact(&mut question).await.unwrap();
    server.write_all(b"answer").await.unwrap();
    let mut answer = [0; 6];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!((&question, &answer), (b"question", b"answer"));

    drop((listener, server));
    assert_eq!(workspace.preview(port).await.unwrap().status, PreviewStatus::NotListening);
    assert!(end(&mut connect(&preview).await).await.is_err(), "a refusal must not look like an empty answer");
    let failure = workspace.preview(port).await.unwrap().failure.expect("it is told");
    assert!(failure.contains(&format!("nothing listens on port {port}")), "{failure}");

    // A server that starts later is reached under the same address, and the failure is over.
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let mut client = connect(&preview).await;
    accept(&listener).await.write_all(b"x").await.unwrap();
    assert_eq!(end(&mut client).await.unwrap(), 1);
    assert_eq!(workspace.preview(port).await.unwrap(), preview);
}

#[tokio::test]
async fn what_nothing_may_be_previewed_of_is_refused() {
    let (_fixture, workspace) = workspace().await;
    for port in [0, 3001] {
        let error = workspace.preview(port).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    assert!(workspace.previews().is_empty());
}

#[tokio::test]
async fn previews_end_with_the_workspace_and_with_the_host() {
    let (fixture, workspace) = workspace().await;
    let (listener, port) = server().await;
    let preview = workspace.preview(port).await.unwrap();
    let mut client = connect(&preview).await;
    let mut server = accept(&listener).await;
    workspace.remove().await.unwrap();
    until_ended(address(&preview)).await;
    assert_eq!(end(&mut server).await.unwrap_or(0), 0);
    let _ = end(&mut client).await;
    assert_eq!(workspace.preview(port).await.unwrap_err().kind(), ErrorKind::NotFound);

    // Removed by somebody else, its connections end, and it ends when the next one comes.
    let made = fixture.host.create(CreateWorkspace::empty().id("again")).await.unwrap();
    let preview = made.preview(port).await.unwrap();
    let mut client = connect(&preview).await;
    let mut server = accept(&listener).await;
    client.write_all(b"x").await.unwrap();
    server.read_exact(&mut [0]).await.unwrap();
    // What listens inside goes on: here it is the engine alone that says that the container is gone.
    fixture.engine.remove(&made.container()).await.unwrap();
    assert_eq!(end(&mut client).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(end(&mut connect(&preview).await).await.is_err());
    until_ended(address(&preview)).await;
    assert!(made.previews().is_empty());
    drop(made);

    // One of the same name is another one.
    let made = fixture.host.create(CreateWorkspace::empty().id("again")).await.unwrap();
    let preview = made.preview(port).await.unwrap();
    let mut client = connect(&preview).await;
    let server = accept(&listener).await;
    drop((fixture, made, workspace));
    until_ended(address(&preview)).await;
    drop(server);
    let _ = end(&mut client).await;
}

#[tokio::test]
async fn a_workspace_that_does_not_run_keeps_its_address() {
    let (fixture, workspace) = workspace().await;
    let (listener, port) = server().await;
    let preview = workspace.preview(port).await.unwrap();
    let container = workspace.container();
    fixture.engine.stop(&container, Duration::ZERO).await.unwrap();
    let stopped = workspace.preview(port).await.unwrap();
    assert_eq!((stopped.status, &stopped.url), (PreviewStatus::NotRunning, &preview.url));
    assert!(end(&mut connect(&preview).await).await.is_err());
    fixture.engine.start(&container).await.unwrap();
    let mut client = connect(&preview).await;
    accept(&listener).await.write_all(b"x").await.unwrap();
    assert_eq!(end(&mut client).await.unwrap(), 1);

    fixture.engine.set_status("corehold-w", ContainerStatus::Paused);
    assert_eq!(workspace.preview(port).await.unwrap().status, PreviewStatus::NotRunning);
}

/// Regression: a connection to one that was asleep asked for its container before it was woken, and was reset.
#[tokio::test]
async fn a_workspace_that_sleeps_is_woken_by_the_next_connection() {
    let (fixture, workspace) = workspace().await;
    let (listener, port) = server().await;
    let preview = workspace.preview(port).await.unwrap();
    let before = workspace.container();
    workspace.sleep(Duration::ZERO).await.unwrap();
    assert!(fixture.engine.names().is_empty());
    let asleep = workspace.preview(port).await.unwrap();
    assert_eq!((asleep.status, &asleep.url), (PreviewStatus::NotRunning, &preview.url));
    let mut client = connect(&preview).await;
    accept(&listener).await.write_all(b"x").await.unwrap();
    assert_eq!(end(&mut client).await.unwrap(), 1);
    assert_ne!(workspace.container(), before);

    // It ends with the container into which it leads now.
    let mut client = connect(&preview).await;
    let _server = accept(&listener).await;
    fixture.engine.remove(&workspace.container()).await.unwrap();
    assert_eq!(end(&mut client).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_connection_waits_for_what_the_host_does_before() {
    let (gate, refuses) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicBool::new(false)));
    let hook = {
        let (gate, refuses) = (gate.clone(), refuses.clone());
        move |workspace: WorkspaceId| {
            assert_eq!(workspace.as_str(), "w");
            let (gate, refuses) = (gate.clone(), refuses.clone());
            async move {
                gate.acquire().await.unwrap().forget();
                match refuses.load(Ordering::Relaxed) {
                    true => Err(Error::new(ErrorKind::Timeout, "it could not be woken").hint("try again")),
                    false => Ok(()),
                }
            }
        }
    };
    let (_home, workspace) = configured(|builder| builder.before_connect(hook)).await;
    let (listener, port) = server().await;
    let preview = workspace.preview(port).await.unwrap();
    let mut client = connect(&preview).await;
    assert!(timeout(Duration::from_millis(50), listener.accept()).await.is_err(), "it did not wait");
    gate.add_permits(1);
    accept(&listener).await.write_all(b"x").await.unwrap();
    assert_eq!(end(&mut client).await.unwrap(), 1);

    refuses.store(true, Ordering::Relaxed);
    gate.add_permits(1);
    assert!(end(&mut connect(&preview).await).await.is_err());
    let failure = workspace.preview(port).await.unwrap().failure;
    assert_eq!(failure.as_deref(), Some("it could not be woken (try again)"));
}

#[tokio::test]
async fn what_goes_through_is_counted() {
    let (_fixture, workspace) = workspace().await;
    let (listener, port) = server().await;
    let preview = workspace.preview(port).await.unwrap();
    let used = || workspace.previews().remove(0);
    assert_eq!((used().port, used().connections), (port, 0));
    let mut client = connect(&preview).await;
    let mut server = accept(&listener).await;
    assert_eq!(used().connections, 1);

    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(used().quiet >= Duration::from_millis(20), "an open connection on which nothing happens is quiet");
    let written = tokio::time::Instant::now();
    client.write_all(b"x").await.unwrap();
    server.read_exact(&mut [0]).await.unwrap();
    let quiet = used().quiet;
    assert!(quiet <= written.elapsed() + Duration::from_millis(1), "{quiet:?}");
    assert_eq!(serde_json::to_value(used()).unwrap()["connections"], 1);

    drop((client, server));
    timeout(PATIENCE, async {
        while used().connections > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is over");
}

#[tokio::test]
async fn ports_of_a_range_are_used_up_and_said_to_be() {
    let (taken, first) = server().await;
    // Of a range of a few, whatever else of this machine has some of them.
    let range = first..=first.saturating_add(3);
    let (_home, workspace) = configured(|builder| builder.port_range(range.clone())).await;
    let mut ports = Vec::new();
    let error = loop {
        match workspace.preview(4000 + u16::try_from(ports.len()).unwrap()).await {
            Ok(preview) => ports.push(address(&preview).port()),
            Err(error) => break error,
        }
    };
    assert!(ports.len() <= 3 && ports.iter().all(|port| *port != first && range.contains(port)), "{ports:?}");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains(&format!("{first} to {}", range.end())), "{error}");
    assert!(error.hint_text().unwrap().contains("COREHOLD_PORT_RANGE"));
    // What ends gives its port back.
    drop(taken);
    assert_eq!(address(&workspace.preview(5000).await.unwrap()).port(), first);
    let wrong = Host::builder().port_range(0..=5).home(workspace.host.home.clone()).build().await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn an_agent_that_is_gone_is_told() {
    let (fixture, workspace) = workspace().await;
    let (_listener, port) = server().await;
    let preview = workspace.preview(port).await.unwrap();
    fixture.engine.silence("corehold-w");
    assert!(end(&mut connect(&preview).await).await.is_err());
    assert!(workspace.preview(port).await.is_err(), "nobody can say whether something listens");
    let (url, line) = workspace.host.previews.line(&workspace, port).unwrap();
    assert_eq!(url, preview.url);
    assert_eq!(line.failure().as_deref(), Some("workspace w: it does not run"));
}
