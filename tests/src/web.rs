//! What a browser does, as far as the tests need it.

use std::{net::SocketAddr, time::Duration};

use corehold_host::Workspace;
use futures_util::StreamExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue},
};

/// Longer than any answer takes; only a broken test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The address in `http://127.0.0.1:1234`.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn address(url: &str) -> SocketAddr {
    let authority = url.strip_prefix("http://").unwrap_or_else(|| panic!("{url} is no http address"));
    authority.trim_end_matches('/').parse().unwrap_or_else(|_| panic!("{url} has no socket address"))
}

/// Fetches a page and returns status and body.
///
/// # Panics
/// When there is no answer.
pub async fn get(url: &str, path: &str) -> (u16, String) {
    let address = address(url);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    timeout(PATIENCE, async {
        let mut stream = TcpStream::connect(address).await.expect("the preview accepts connections");
        stream.write_all(request.as_bytes()).await.expect("the request is sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("the answer comes");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {answer:?}"));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        (status.unwrap_or_else(|| panic!("no status: {head:?}")), body.to_owned())
    })
    .await
    .expect("the page comes in time")
}

/// An open WebSocket.
pub struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// Opens a WebSocket with a subprotocol.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn open(url: &str, path: &str, protocol: &'static str) -> Self {
        let address = address(url);
        let mut request = format!("ws://{address}{path}").into_client_request().expect("the address is valid");
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
        request.headers_mut().insert("origin", HeaderValue::from_str(url.trim_end_matches('/')).expect("it is text"));
        let stream = TcpStream::connect(address).await.expect("the preview accepts connections");
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.expect("the WebSocket opens");
        Self(socket)
    }

    /// Waits for a text message that a condition holds for.
    ///
    /// # Panics
    /// When the socket closes before one came.
    pub async fn wait_for(&mut self, condition: impl Fn(&str) -> bool) -> String {
        let mut seen = Vec::new();
        let found = timeout(PATIENCE, async {
            while let Some(message) = self.0.next().await {
                if let Message::Text(text) = message.expect("the WebSocket works") {
                    seen.push(text.to_string());
                    if condition(&text) {
                        return Some(text.to_string());
                    }
                }
            }
            None
        })
        .await;
        match found {
            Ok(Some(text)) => text,
            Ok(None) => panic!("the WebSocket was closed; it had said {seen:#?}"),
            Err(_) => panic!("the message did not come; it had said {seen:#?}"),
        }
    }
}

/// Opens the page of a workspace of the template `vite-react`, changes a module of it, and sees it change.
///
/// # Panics
/// When any of it fails.
pub async fn reload_hot(url: &str, workspace: &Workspace) {
    let (status, page) = get(url, "/").await;
    assert_eq!(status, 200);
    assert!(page.contains("id=\"root\""), "{page}");

    // As a browser does: the page's modules, then the dev server's own WebSocket with the token that its client carries.
    let (_, main) = get(url, "/src/main.jsx").await;
    assert!(main.contains("App.jsx"), "{main}");
    assert_eq!(get(url, "/src/App.jsx").await.0, 200);
    let (_, client) = get(url, "/@vite/client").await;
    let token = client.split("wsToken = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a token");
    let mut socket = Socket::open(url, &format!("/?token={token}"), "vite-hmr").await;
    socket.wait_for(|text| text.contains("\"connected\"")).await;

    let source = workspace.read_file("src/App.jsx").await.expect("the template has it");
    let edited = String::from_utf8_lossy(&source).replacen("<h1>", "<h1>edited ", 1);
    assert!(edited.contains("<h1>edited "), "the template's App.jsx has a heading");
    workspace.write_file("src/App.jsx", edited).await.expect("it is written");
    let update = socket.wait_for(|text| text.contains("\"update\"") || text.contains("full-reload")).await;
    assert!(update.contains("\"update\"") && update.contains("/src/App.jsx"), "{update}");
    let (_, module) = get(url, "/src/App.jsx").await;
    assert!(module.contains("edited"), "{module}");
}
