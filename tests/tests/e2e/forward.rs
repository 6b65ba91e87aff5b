//! Ports inside, reached through the agent: tunnels and forwarded ports to listeners on the container's own loopback.

use std::process::Stdio;

use corehold_e2e::{
    corehold::Corehold,
    web::{Socket, address, get},
};
use corehold_host::{
    CreateWorkspace, ErrorKind, ForwardOptions, Workspace,
    tools::{Ports, PortsRequest},
    types::Code,
};
use rustix::process::{Pid, Signal};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::Command,
};

/// A page and a WebSocket on 8080, on 8081 whatever comes goes back; both on the container's loopback only.
const SERVER: &str = r"
const { createHash } = require('crypto');
const page = require('http').createServer((request, answer) => answer.end('hello from ' + request.headers.host));
page.on('upgrade', (request, socket) => {
  const key = request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
    'Sec-WebSocket-Protocol: ' + request.headers['sec-websocket-protocol'] + '\r\n' +
    'Sec-WebSocket-Accept: ' + createHash('sha1').update(key).digest('base64') + '\r\n\r\n');
  socket.write(Buffer.concat([Buffer.from([0x81, 7]), Buffer.from('welcome')]));
});
page.listen(8080, '127.0.0.1');
require('net').createServer({ allowHalfOpen: true }, socket => socket.pipe(socket)).listen(8081, '127.0.0.1');
";

async fn served(corehold: &Corehold) -> Workspace {
    let workspace = corehold.host.create(CreateWorkspace::empty()).await.unwrap();
    workspace.write_file("server.js", SERVER).await.unwrap();
    workspace.command("node server.js").detach().await.unwrap();
    for port in [8080, 8081] {
        let request = PortsRequest { wait_for: Some(port), ..Default::default() };
        workspace.call::<Ports>(&request).await.unwrap();
    }
    workspace
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_websockets_of_the_containers_own_loopback_are_reached() {
    let corehold = Corehold::start().await;
    let workspace = served(&corehold).await;
    let forward = workspace.forward(8080, ForwardOptions::default()).await.unwrap();
    let (status, body) = get(&forward.url(), "/").await;
    assert_eq!((status, body.as_str()), (200, format!("hello from {}", forward.local_address()).as_str()));
    let mut socket = Socket::open(&forward.url(), "/", "hmr").await;
    assert_eq!(socket.wait_for(|text| text == "welcome").await, "welcome");

    // With the workspace its connections end, and whoever connects then learns why.
    let mut forward = forward;
    workspace.remove().await.unwrap();
    let mut late = TcpStream::connect(forward.local_address()).await.unwrap();
    assert!(late.read(&mut [0; 1]).await.is_err(), "it is reset");
    // That the WebSocket's connection broke may be told first.
    while forward.next_failure().await.kind() != ErrorKind::NotFound {}
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_megabytes_go_both_ways_unchanged() {
    const BYTES: usize = 64 << 20;
    let corehold = Corehold::start().await;
    let workspace = served(&corehold).await;
    let forward = workspace.forward(8081, ForwardOptions::default()).await.unwrap();
    let stream = TcpStream::connect(forward.local_address()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let sending = tokio::spawn(async move {
        let mut source = blake3::Hasher::new_derive_key("a test of tunnels").finalize_xof();
        let (mut sent, mut piece) = (blake3::Hasher::new(), vec![0; 1 << 20]);
        for _ in 0..BYTES / piece.len() {
            source.fill(&mut piece);
            sent.update(&piece);
            writer.write_all(&piece).await.unwrap();
        }
        // Only this direction ends; what is under way in the other still comes.
        writer.shutdown().await.unwrap();
        sent.finalize()
    });
    let (mut received, mut length, mut piece) = (blake3::Hasher::new(), 0, vec![0; 1 << 20]);
    loop {
        match reader.read(&mut piece).await.unwrap() {
            0 => break,
            read => {
                received.update(&piece[..read]);
                length += read;
            }
        }
    }
    assert_eq!((length, received.finalize()), (BYTES, sending.await.unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_forwards_until_it_is_interrupted() {
    let corehold = Corehold::start().await;
    let workspace = served(&corehold).await;
    let id = workspace.id().as_str();
    for (json, signal) in [(false, Signal::INT), (true, Signal::TERM)] {
        let mut command = corehold.cli(&["forward", id, "8080:0", "9:0"]);
        command.args(json.then_some("--json")).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Command::from(command).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut urls = Vec::new();
        for port in [8080, 9] {
            let line = lines.next_line().await.unwrap().expect("a line for each port");
            urls.push(if json {
                let value: serde_json::Value = serde_json::from_str(&line).unwrap();
                assert_eq!((value["type"].as_str(), value["port"].as_u64()), (Some("forward"), Some(port)), "{line}");
                value["url"].as_str().unwrap().to_owned()
            } else {
                assert!(line.ends_with(&format!(" leads to port {port} of {id}")), "{line}");
                line.split(' ').next().unwrap().to_owned()
            });
        }
        assert_eq!(get(&urls[0], "/").await.0, 200);
        // On a busy machine even before this process has seen that it is connected.
        if let Ok(mut nobody) = TcpStream::connect(address(&urls[1])).await {
            assert!(nobody.read(&mut [0; 1]).await.is_err(), "it is reset");
        }
        let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
        let told = loop {
            let line = if json { lines.next_line().await } else { errors.next_line().await };
            let line = line.unwrap().expect("it says why");
            if line.contains("nothing listens on port 9") {
                break line;
            }
        };
        assert_eq!(json, told.contains("\"type\":\"failure\""), "{told}");
        rustix::process::kill_process(Pid::from_raw(child.id().unwrap() as i32).unwrap(), signal).unwrap();
        assert_eq!(child.wait().await.unwrap().code(), Some(0));
    }
    // A workspace that is not there, and a port that is in use, are told at once.
    let missing = corehold.cli(&["forward", "no-such", "80"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let refused = corehold.cli(&["forward", id, &format!("8080:{port}")]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("in use"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_where_nothing_listens_is_told_from_one_that_is_refused() {
    let corehold = Corehold::start().await;
    let workspace = corehold.host.create(CreateWorkspace::empty()).await.unwrap();
    let nobody = workspace.tunnel(9).await.unwrap_err();
    assert_eq!(nobody.problem().map(|problem| problem.code), Some(Code::NotListening), "{nobody}");
    let agent = workspace.tunnel(3001).await.unwrap_err();
    assert_eq!(agent.problem().map(|problem| problem.code), Some(Code::Forbidden), "{agent}");
}
