//! The least of a client of the agent's WebSocket: calls, what commands write and read in binary frames, and credit.

use std::{
    io::ErrorKind,
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{
    Error, Message, WebSocket, client, client::IntoClientRequest as _, http::HeaderValue, protocol::WebSocketConfig,
};

use crate::agent::Agent;

/// Bytes before a binary frame's payload: kind, stream and offset.
const HEADER: usize = 13;

/// A client that hears nothing for this long has found a fault, not a figure.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a stream was read of before as much is granted anew. A stream begins with four times as much.
const GRANT: u64 = 64 << 10;

/// An open socket.
pub struct Socket {
    socket: WebSocket<TcpStream>,
    /// The id of the last call.
    asked: u64,
    /// Bytes read of each stream since it was last granted more.
    owed: Vec<(u32, u64)>,
    /// How long a read waits now.
    patience: Duration,
}

/// What the agent says.
#[derive(Debug)]
pub enum Heard {
    /// What a command has written.
    Bytes {
        /// The stream that shows it.
        stream: u32,
        /// Where it begins in the command's log.
        offset: u64,
        /// The bytes.
        payload: Bytes,
    },
    /// An answer, or a notification.
    Text(Value),
}

impl Socket {
    /// Opens a socket.
    ///
    /// # Errors
    /// When the agent refuses it.
    pub fn open(agent: &Agent) -> Result<Self> {
        let mut request = format!("ws://127.0.0.1:{}/v1/ws", agent.port()).into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("authorization", HeaderValue::from_str(&agent.authorization())?);
        headers.insert("sec-websocket-protocol", HeaderValue::from_static("corehold.v1"));
        let stream = TcpStream::connect(("127.0.0.1", agent.port()))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let config = WebSocketConfig::default().read_buffer_size(64 << 10);
        let (socket, _) = client::client_with_config(request, stream, Some(config)).context("opening a WebSocket")?;
        Ok(Self { socket, asked: 0, owed: Vec::new(), patience: PATIENCE })
    }

    /// Asks for something, without waiting for the answer. Returns the call's id.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn ask(&mut self, method: &str, params: &Value, stream: bool) -> Result<u64> {
        self.asked += 1;
        let call = json!({ "jsonrpc": "2.0", "id": self.asked, "method": method, "params": params, "stream": stream });
        self.socket.send(Message::text(call.to_string()))?;
        Ok(self.asked)
    }

    /// Asks for something and waits for the answer or, for a stream, for its number. What else is said before is let go.
    ///
    /// # Errors
    /// When the agent answers with an error.
    pub fn call(&mut self, method: &str, params: &Value, stream: bool) -> Result<Value> {
        let id = self.ask(method, params, stream)?;
        loop {
            match self.hear()? {
                Heard::Text(mut said) if stream && said["params"]["id"] == id => {
                    return Ok(said["params"]["stream"].take());
                }
                Heard::Text(mut said) if said["id"] == id => return Ok(said["result"].take()),
                _ => {}
            }
        }
    }

    /// Sends what a command reads next.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn input(&mut self, stream: u32, offset: u64, payload: &[u8]) -> Result<()> {
        let frame = [&[0][..], &stream.to_be_bytes(), &offset.to_be_bytes(), payload].concat();
        Ok(self.socket.send(Message::binary(frame))?)
    }

    /// What the agent says next. What is read of a stream is granted anew.
    ///
    /// # Errors
    /// When the connection is broken or closed, nothing comes for a minute, or a call has failed.
    pub fn hear(&mut self) -> Result<Heard> {
        self.hear_until(Instant::now() + PATIENCE)?.context("the agent says nothing")
    }

    /// The same; nothing, when nothing has come by then.
    ///
    /// # Errors
    /// When the connection is broken or closed, or a call has failed.
    pub fn hear_until(&mut self, until: Instant) -> Result<Option<Heard>> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            // Not for each message: setting it is a call of the kernel, and a fiftieth too late is early enough.
            if left + left / 50 < self.patience || left > self.patience * 2 {
                self.socket.get_ref().set_read_timeout(Some(left))?;
                self.patience = left;
            }
            let message = match self.socket.read() {
                Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    continue;
                }
                message => message?,
            };
            match message {
                Message::Binary(frame) => {
                    ensure!(frame.len() > HEADER, "a frame of {} bytes", frame.len());
                    let stream = u32::from_be_bytes(frame[1..5].try_into()?);
                    let offset = u64::from_be_bytes(frame[5..HEADER].try_into()?);
                    let payload = frame.slice(HEADER..);
                    self.took_in(stream, payload.len() as u64)?;
                    return Ok(Some(Heard::Bytes { stream, offset, payload }));
                }
                Message::Text(text) => {
                    let said: Value = serde_json::from_str(text.as_str())?;
                    ensure!(said.get("error").is_none(), "{said}");
                    return Ok(Some(Heard::Text(said)));
                }
                Message::Close(reason) => bail!("the agent closed the socket: {reason:?}"),
                _ => {}
            }
        }
    }

    fn took_in(&mut self, stream: u32, bytes: u64) -> Result<()> {
        let index = self.owed.iter().position(|owed| owed.0 == stream).unwrap_or_else(|| {
            self.owed.push((stream, 0));
            self.owed.len() - 1
        });
        let owed = &mut self.owed[index].1;
        *owed += bytes;
        if *owed >= GRANT {
            let params = json!({ "stream": stream, "bytes": std::mem::take(owed) });
            let credit = json!({ "jsonrpc": "2.0", "method": "$/credit", "params": params });
            self.socket.send(Message::text(credit.to_string()))?;
        }
        Ok(())
    }
}
