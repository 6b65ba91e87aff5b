//! An engine whose containers and published ports aren't reached from here, as on another machine: all goes through its API.

use std::{path::Path, sync::Arc, time::Duration};

use corehold_e2e::{
    corehold::templates,
    elsewhere::{Elsewhere, Wire},
    web::{address, get},
};
use corehold_host::{
    CreateEventKind, CreateWorkspace, ErrorKind, Frame, Host, Step, Template, Workspace, WorkspaceState,
    runtime::{
        Endpoint, Runtime as _,
        docker::{Docker, DockerAddress},
    },
    tools::{Command, CommandRequest, Search, SearchRequest},
    types::Scopes,
};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue},
};

/// Longer than anything takes here; only a broken test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_elsewhere_serves_whole_workspaces_and_a_cut_is_told_and_leaves_nothing() {
    let engine = Elsewhere::start().await;
    let wire = Wire::to(engine.socket()).await;
    // In another network namespace, which its address doesn't tell; and on what its address says is another machine.
    for address in [engine.address(), wire.address()] {
        println!("{address}");
        let home = tempfile::tempdir().unwrap();
        let host = host(&address, home.path()).await;
        a_workspace_lives(&host, &engine).await;
    }
    let home = tempfile::tempdir().unwrap();
    let host = host(&wire.address(), home.path()).await;
    a_cut_is_told(&host, &engine, &wire).await;
}

async fn host(address: &str, home: &Path) -> Host {
    let docker = Docker::connect(DockerAddress::At(address.to_owned())).await.unwrap();
    assert!(!docker.publishes_here().await.unwrap());
    Host::builder().runtime(Arc::new(docker)).home(home).templates(templates()).build().await.unwrap()
}

async fn a_workspace_lives(host: &Host, engine: &Elsewhere) {
    let template = host.catalog().find("node-api").unwrap();
    let workspace = host.create(CreateWorkspace::from_template(&template)).await.unwrap();
    assert_eq!(workspace.agent_endpoint().await.unwrap(), Endpoint::ThroughRuntime);
    assert!(workspace.read_file("server.js").await.unwrap().starts_with(b"import"));
    let request = SearchRequest { pattern: "createServer\\(".to_owned(), ..SearchRequest::default() };
    assert_eq!(workspace.call::<Search>(&request).await.unwrap().matched_files, 1);
    many_lines_over_the_websocket(&workspace).await;

    let preview = workspace.preview(template.port).await.unwrap();
    assert_eq!(get(&preview.url, "/health").await.0, 200);
    let info = workspace.info().await.unwrap();
    assert_eq!((info.published.len(), info.preview_url), (0, Some(preview.url)));
    // Calls one after the other share a process inside; those at once have as many as are kept.
    let container = info.container.unwrap();
    for _ in 0..20 {
        workspace.read_file("server.js").await.unwrap();
    }
    let relays = relays(engine, &container);
    assert!(relays <= 6, "{:#?}", engine.processes(&container));

    workspace.write_file("kept", "as it was").await.unwrap();
    workspace.pause().await.unwrap();
    assert_eq!(workspace.read_file("kept").await.unwrap(), "as it was");
    workspace.sleep(Duration::ZERO).await.unwrap();
    assert_eq!(workspace.state().await.unwrap(), WorkspaceState::Asleep);
    assert_eq!(workspace.read_file("kept").await.unwrap(), "as it was");
    let copies = workspace.fork(1).await.unwrap();
    assert_eq!(copies[0].read_file("kept").await.unwrap(), "as it was");
    let large = vec![7; 16 << 20];
    copies[0].write_file("large", large.clone()).await.unwrap();
    assert!(copies[0].read_file("large").await.unwrap() == large);

    let folder = tempfile::tempdir().unwrap();
    a_set_up_is_kept(host, folder.path()).await;
    // There would be such a port, on another machine.
    let error = host.create(CreateWorkspace::empty().publish(8080)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.hint_text().unwrap().contains("corehold forward"), "{error:?}");
    for workspace in copies.into_iter().chain([workspace]) {
        workspace.remove().await.unwrap();
    }
}

/// What carries this host's calls isn't what a set-up has left running.
async fn a_set_up_is_kept(host: &Host, folder: &Path) {
    std::fs::write(folder.join("template.json"), json!({ "setup": ["echo once > installed"] }).to_string()).unwrap();
    let template = Template::load(folder).unwrap();
    let mut creation = host.create(CreateWorkspace::from_template(&template));
    let mut kept = None;
    while let Some(event) = creation.next_event().await {
        if let (Step::Keep, CreateEventKind::Finished { detail, .. }) = (event.step, event.kind) {
            kept = detail;
        }
    }
    creation.await.unwrap().remove().await.unwrap();
    assert!(kept.as_ref().is_some_and(|kept| kept.starts_with("kept, ")), "{kept:?}");
}

/// Relays in a container.
fn relays(engine: &Elsewhere, container: &str) -> usize {
    engine.processes(container).iter().filter(|line| line.contains("corehold-agent relay ")).count()
}

async fn many_lines_over_the_websocket(workspace: &Workspace) {
    let token = workspace.mint_token("somebody", &Scopes::all(), Duration::from_secs(60));
    let mut request = "ws://127.0.0.1/v1/ws".into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
    headers.insert("sec-websocket-protocol", HeaderValue::from_static("corehold.v1"));
    let connection = workspace.connect_agent().await.unwrap();
    let (mut socket, _) = client_async(request, connection).await.unwrap();
    let call =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "command", "params": { "line": "seq 100000" }, "stream": true });
    socket.send(Message::text(call.to_string())).await.unwrap();
    let mut output = Vec::new();
    let reading = async {
        while let Some(message) = socket.next().await {
            match message.unwrap() {
                // Kind, stream and offset, then what the command wrote; more of it is granted as it comes.
                Message::Binary(bytes) => {
                    let stream = u32::from_be_bytes(bytes[1..5].try_into().unwrap());
                    output.extend_from_slice(&bytes[13..]);
                    let params = json!({ "stream": stream, "bytes": bytes.len() - 13 });
                    let credit = json!({ "jsonrpc": "2.0", "method": "$/credit", "params": params });
                    socket.send(Message::text(credit.to_string())).await.unwrap();
                }
                Message::Text(text) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if message["id"] == 1 {
                        return assert!(message["error"].is_null(), "{message}");
                    }
                }
                _ => {}
            }
        }
        panic!("the socket was closed")
    };
    timeout(PATIENCE, reading).await.expect("the command's end is told");
    let expected: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    assert!(output == expected.as_bytes(), "{} bytes", output.len());
}

async fn a_cut_is_told(host: &Host, engine: &Elsewhere, wire: &Wire) {
    let workspace = host.create(CreateWorkspace::empty()).await.unwrap();
    let container = workspace.info().await.unwrap().container.unwrap();
    let serve =
        "require('net').createServer(socket => { socket.write('hello'); socket.on('error', () => {}); }).listen(8080)";
    workspace.command_argv(["node", "-e", serve]).detach().await.unwrap();
    let endless = CommandRequest { line: Some("while sleep 0.05; do echo on; done".to_owned()), ..Default::default() };
    let mut stream = workspace.stream::<Command>(&endless).await.unwrap();
    assert!(matches!(stream.next().await, Some(Ok(Frame::Event(_)))));
    let preview = workspace.preview(8080).await.unwrap();
    let mut viewer = loop {
        let mut viewer = TcpStream::connect(address(&preview.url)).await.unwrap();
        if viewer.read_exact(&mut [0; 5]).await.is_ok() {
            break viewer;
        }
    };
    assert!(relays(engine, &container) >= 2);

    wire.cut();
    let broken = async {
        loop {
            match stream.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error,
                None => panic!("it looked as if it had ended"),
            }
        }
    };
    let error = timeout(PATIENCE, broken).await.expect("it is told in time");
    assert_eq!(error.kind(), ErrorKind::AgentUnavailable, "{error}");
    let end = timeout(PATIENCE, viewer.read(&mut [0])).await.expect("it is told in time");
    assert!(end.is_err(), "it looked as if it had ended: {end:?}");
    let error = timeout(PATIENCE, workspace.read_file("x")).await.expect("it is told in time").unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::AgentUnavailable | ErrorKind::EngineUnavailable), "{error:?}");
    // What the engine had started for this host ends with its connection; the command is the workspace's.
    timeout(PATIENCE, async {
        while relays(engine, &container) > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{:#?}", engine.processes(&container)));
    assert!(engine.processes(&container).iter().any(|line| line.contains("while sleep")));

    wire.mend();
    workspace.write_file("x", "again").await.unwrap();
    assert_eq!(workspace.read_file("x").await.unwrap(), "again");
    workspace.remove().await.unwrap();
}
