//! Tunnels and forwarded ports through an agent in the same process, for which "inside" is this machine's loopback.

use std::{io, time::Duration};

use corehold_types::Code;
use http::StatusCode;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{carry::reset, *};
use crate::{
    CreateWorkspace,
    testing::{AgentScript, EngineScript, Fixture, Route, reply},
};

/// Longer than anything takes here; only a broken test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

async fn workspace(route: Option<Route>) -> (Fixture, Workspace) {
    let agent = AgentScript { route, ..AgentScript::default() };
    let fixture = Fixture::new(EngineScript::default(), agent).await;
    let workspace = fixture.host.create(CreateWorkspace::empty().id("w")).await.unwrap();
    (fixture, workspace)
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    timeout(PATIENCE, listener.accept()).await.expect("the agent connects").unwrap().0
}

async fn connect(forward: &Forward) -> TcpStream {
    TcpStream::connect(forward.local_address()).await.unwrap()
}

async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("it ends")?;
    Ok(all)
}

#[tokio::test]
async fn a_direction_that_ends_leaves_the_other_open() {
    let (_fixture, workspace) = workspace(None).await;
    let (listener, port) = listen().await;
    let mut tunnel = workspace.tunnel(port).await.unwrap();
    assert_eq!(tunnel.port(), port);
    let mut server = accept(&listener).await;
    tunnel.write_all(b"all of the question").await.unwrap();
    tunnel.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut server).await.unwrap(), b"all of the question");
    server.write_all(b"the answer").await.unwrap();
    drop(server);
    assert_eq!(read_to_end(&mut tunnel).await.unwrap(), b"the answer");

    // The same through a forwarded port, and the other way round.
    let forward = workspace.forward(port, ForwardOptions::default()).await.unwrap();
    let mut client = connect(&forward).await;
    let mut server = accept(&listener).await;
    server.write_all(b"greeting").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await.unwrap(), b"greeting");
    client.write_all(b"thanks").await.unwrap();
    drop(client);
    assert_eq!(read_to_end(&mut server).await.unwrap(), b"thanks");
}

#[tokio::test]
async fn where_nothing_listens_it_says_so_and_goes_on() {
    let (_fixture, workspace) = workspace(None).await;
    let (listener, port) = listen().await;
    drop(listener);
    let error = workspace.tunnel(port).await.unwrap_err();
    assert_eq!((error.kind(), error.problem().unwrap().code), (ErrorKind::Agent, Code::NotListening));

    let mut forward = workspace.forward(port, ForwardOptions::default()).await.unwrap();
    assert_eq!(forward.url(), format!("http://{}", forward.local_address()));
    let error = read_to_end(&mut connect(&forward).await).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "a refusal must not look like an empty answer");
    let failure = timeout(PATIENCE, forward.next_failure()).await.expect("it is told");
    assert_eq!(failure.problem().unwrap().code, Code::NotListening);

    // A server that starts later is reached.
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let _client = connect(&forward).await;
    accept(&listener).await;

    workspace.remove().await.unwrap();
    let mut late = connect(&forward).await;
    assert!(read_to_end(&mut late).await.is_err());
    timeout(PATIENCE, async {
        // The connection that was open may be told of too.
        while forward.next_failure().await.kind() != ErrorKind::NotFound {}
    })
    .await
    .expect("it is told");
}

#[tokio::test]
async fn an_answer_that_opens_no_tunnel_is_an_error() {
    let (_fixture, workspace) = workspace(Some(|request| {
        request.uri().path().starts_with("/v1/tunnel/").then(|| reply(StatusCode::OK, "a page"))
    }))
    .await;
    let error = workspace.tunnel(80).await.unwrap_err();
    assert!(error.to_string().contains("opened no tunnel"), "{error}");
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_their_turn() {
    let (_fixture, workspace) = workspace(None).await;
    let (listener, port) = listen().await;
    let forward = workspace.forward(port, ForwardOptions::default().connections(2)).await.unwrap();
    // One after the other: which tunnel is whose is to be known.
    let mut client = connect(&forward).await;
    let first = accept(&listener).await;
    let _others = (connect(&forward).await, accept(&listener).await, connect(&forward).await);
    assert!(timeout(Duration::from_millis(100), listener.accept()).await.is_err(), "a third got through");
    drop(first);
    client.shutdown().await.unwrap();
    accept(&listener).await;
}

#[tokio::test]
async fn it_listens_where_it_was_told() {
    let (_fixture, workspace) = workspace(None).await;
    let (taken, port) = listen().await;
    let error = workspace.forward(80, ForwardOptions::default().local_port(port)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains(&port.to_string()) && error.hint_text().unwrap().contains('0'), "{error}");
    // Of a range, the first that is free.
    let ports = port..=port.saturating_add(50);
    let forward = workspace.forward(80, ForwardOptions::default().local_ports(ports.clone())).await.unwrap();
    assert!(forward.local_address().port() != port && ports.contains(&forward.local_address().port()));
    assert!(forward.local_address().ip().is_loopback());
    drop(taken);

    #[expect(clippy::reversed_empty_ranges, reason = "that it is refused is tested")]
    let empty = 9..=8;
    for (inside, options) in [
        (0, ForwardOptions::default()),
        (80, ForwardOptions::default().connections(0)),
        (80, ForwardOptions::default().local_ports(empty)),
    ] {
        let error = workspace.forward(inside, options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}

#[tokio::test]
async fn it_ends_with_its_handle_and_so_do_its_connections() {
    let (_fixture, workspace) = workspace(None).await;
    let (listener, port) = listen().await;
    for explicitly in [true, false] {
        let forward = workspace.forward(port, ForwardOptions::default()).await.unwrap();
        let address = forward.local_address();
        let mut client = connect(&forward).await;
        let mut server = accept(&listener).await;
        if explicitly {
            forward.close().await;
            let again = TcpListener::bind(address).await;
            assert!(again.is_ok(), "the port is free when close has returned: {again:?}");
        } else {
            drop(forward);
        }
        assert_eq!(read_to_end(&mut server).await.unwrap(), b"");
        // Whether it is an end or a reset depends on what was in flight; that it is over counts.
        let _ = read_to_end(&mut client).await;
    }
}

#[tokio::test]
async fn a_connection_that_breaks_inside_breaks_outside() {
    let (_fixture, workspace) = workspace(None).await;
    let (listener, port) = listen().await;
    let forward = workspace.forward(port, ForwardOptions::default()).await.unwrap();
    let mut client = connect(&forward).await;
    let mut server = accept(&listener).await;
    server.write_all(b"half of the ans").await.unwrap();
    let mut half = [0; 15];
    client.read_exact(&mut half).await.unwrap();
    // The agent is killed with the container, and the kernel resets what it had.
    reset(&server);
    drop(server);
    let error = read_to_end(&mut client).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
