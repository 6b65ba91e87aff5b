//! Previews that outlive the container behind them: paused, asleep in a real archive, and in another container at another address.

use std::{collections::BTreeSet, time::Duration};

use corehold_e2e::{
    corehold::Corehold,
    web::{Socket, get},
};
use corehold_host::{
    CreateWorkspace, PreviewStatus, Workspace, WorkspaceState,
    runtime::{ContainerId, Runtime as _},
};

const GRACE: Duration = Duration::from_secs(1);

/// Counts its pages in a file, says hello on a WebSocket, and takes its time to listen, as dev servers do.
const SERVER: &str = r"
const { createHash } = require('crypto'), fs = require('fs');
const server = require('http').createServer((request, answer) => {
  fs.appendFileSync('visits', '.');
  answer.end(`page ${fs.readFileSync('visits').length}`);
});
server.on('upgrade', (request, socket) => {
  const key = createHash('sha1').update(request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: test\r\nSec-WebSocket-Accept: ${key}\r\n\r\n`);
  socket.write(Buffer.concat([Buffer.from([0x81, 5]), Buffer.from('hello')]));
  socket.on('error', () => {});
});
setTimeout(() => server.listen(process.env.PORT, '0.0.0.0'), 1000);
";

async fn state(workspace: &Workspace) -> WorkspaceState {
    workspace.state().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_wakes_what_is_behind_it_and_then_serves() {
    let corehold = Corehold::start().await;
    let folder = corehold.folder("site", &[("server.js", SERVER), ("template.json", r#"{"dev": "node server.js"}"#)]);
    let template = corehold.host.catalog().resolve(folder.to_str().unwrap()).unwrap();
    let workspace = corehold.host.create(CreateWorkspace::from_template(&template)).await.unwrap();
    let preview = workspace.preview(template.port).await.unwrap();
    let page = async || get(&preview.url, "/").await.1;
    let hello = async || {
        let mut socket = Socket::open(&preview.url, "/", "test").await;
        socket.wait_for(|text| text == "hello").await;
        socket
    };
    // The creation looked at it before.
    let first: u32 = page().await.strip_prefix("page ").unwrap().parse().unwrap();

    workspace.pause().await.unwrap();
    assert_eq!(workspace.preview(template.port).await.unwrap().status, PreviewStatus::NotRunning);
    assert_eq!(page().await, format!("page {}", first + 1));
    workspace.pause().await.unwrap();
    hello().await;
    assert_eq!(state(&workspace).await, WorkspaceState::Ready);

    for round in 2..4 {
        let open = hello().await;
        workspace.sleep(GRACE).await.unwrap();
        assert_eq!(state(&workspace).await, WorkspaceState::Asleep);
        // Another container is at its address meanwhile.
        let other = corehold.host.create(CreateWorkspace::empty()).await.unwrap();
        // Of many who come at once each is served, by one waking.
        let pages = futures_util::future::join_all((0..5).map(|_| page())).await;
        let pages: BTreeSet<String> = pages.into_iter().collect();
        assert!(pages.len() == 5 && pages.contains(&format!("page {}", first + (round - 2) * 5 + 2)), "{pages:?}");
        hello().await;
        drop(open);
        other.remove().await.unwrap();
    }
    assert_eq!(workspace.preview(template.port).await.unwrap().url, preview.url);

    // First a WebSocket, after a sleep and after a stop of somebody else.
    workspace.sleep(GRACE).await.unwrap();
    hello().await;
    let container = ContainerId(workspace.info().await.unwrap().container.unwrap());
    corehold.docker.stop(&container, GRACE).await.unwrap();
    assert_eq!(state(&workspace).await, WorkspaceState::Stopped);
    workspace.start().await.unwrap();
    hello().await;
    assert_eq!(page().await, format!("page {}", first + 12));
}
