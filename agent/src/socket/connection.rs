//! One socket from its upgrade to its end: reads in this task, writes in another, so that a client who reads slowly is still
//! heard when it cancels.

use std::{sync::Arc, time::Duration};

use axum::body::Bytes;
use corehold_types::rpc::{MAX_PAYLOAD, TOKEN_EXPIRED};
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWriteExt as _,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, interval_at, sleep, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        error::{CapacityError, ProtocolError},
        protocol::{
            CloseFrame, Role, WebSocketConfig,
            frame::{
                Frame,
                coding::{CloseCode, Data, OpCode},
            },
        },
    },
};

use super::{
    Outgoing,
    dispatch::Dispatch,
    meter::{Meter, Metered},
};
use crate::{access::Caller, agent::Agent, server::RequestId};

type Socket = WebSocketStream<Metered<TokioIo<Upgraded>>>;

/// Returns the sink after the goodbye; nothing if the socket broke before.
type Writer = JoinHandle<Option<SplitSink<Socket, Message>>>;

/// Messages between the calls and the socket. The channel serves those who wait in their order, so streams take turns.
const QUEUE: usize = 4;

/// Bytes that are read at once. Small, as nearly all that clients say is: the library fills as many with zeros each time that it
/// looks whether something has come, and by default it is 128 KiB.
const READ_BUFFER: usize = 16 << 10;

/// How long a client has to take in what is left, and to answer a close.
const PARTING: Duration = Duration::from_secs(5);

/// A token that never expires is looked at again after a day.
const FOR_EVER: Duration = Duration::from_secs(86_400);

/// Serves a socket to its end.
pub(super) async fn serve(agent: Arc<Agent>, caller: Arc<Caller>, request_id: RequestId, upgrade: OnUpgrade) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => TokioIo::new(upgraded),
        Err(error) => {
            tracing::debug!(%error, "a WebSocket's client went away before it was open");
            return;
        }
    };
    tracing::info!(subject = caller.subject, request_id = &*request_id.0, "WebSocket opened");
    let largest = agent.config.limits.body_bytes.as_usize();
    let config = WebSocketConfig::default()
        .max_message_size(Some(largest))
        .max_frame_size(Some(largest))
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(MAX_PAYLOAD);
    let meter = Meter::default();
    let upgraded = Metered::new(upgraded, meter.clone(), Arc::clone(&agent.room), largest);
    let socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await;
    let (sink, mut source) = socket.split();
    let (out, queue) = mpsc::channel(QUEUE);
    let mut writer = tokio::spawn(write(sink, queue));
    let mut dispatch = Dispatch::new(Arc::clone(&agent), caller, &request_id, out.clone());
    let goodbye = listen(&agent, (&mut source, &meter), &mut dispatch, &out, &mut writer).await;
    // The calls end with their owner; commands that they started are the agent's.
    drop(dispatch);
    let writing = writer.abort_handle();
    if let Some(close) = goodbye {
        let _ = timeout(PARTING, part(close, out, writer, source)).await;
    }
    // Who takes nothing in would hold it, and the connection with it, for ever.
    writing.abort();
}

/// Says goodbye, and takes in what the client still sends until it is gone too: the kernel resets a connection that is
/// closed with bytes unread, and the client would never see why.
async fn part(close: CloseFrame, out: mpsc::Sender<Outgoing>, writer: Writer, source: SplitStream<Socket>) {
    let _ = out.send(Message::Close(Some(close)).into()).await;
    drop(out);
    let Ok(Some(sink)) = writer.await else { return };
    let Ok(socket) = sink.reunite(source) else { return };
    let mut connection = socket.into_inner();
    let _ = connection.shutdown().await;
    let _ = tokio::io::copy(&mut connection, &mut tokio::io::sink()).await;
}

/// Hears the client until the socket is to be closed, or is gone.
async fn listen(
    agent: &Agent,
    (source, meter): (&mut SplitStream<Socket>, &Meter),
    dispatch: &mut Dispatch,
    out: &mpsc::Sender<Outgoing>,
    writer: &mut Writer,
) -> Option<CloseFrame> {
    let idle = agent.config.limits.idle_ms.as_duration();
    let receive = agent.config.limits.receive_ms.as_duration();
    let mut heard = Instant::now();
    let mut ping = interval_at(heard + idle / 3, idle / 3);
    let mut leave_by = None;
    loop {
        let expiry = dispatch.caller().lasts();
        tokio::select! {
            message = source.next() => {
                heard = Instant::now();
                let taken = match &message {
                    Some(Ok(Message::Text(_) | Message::Binary(_))) => meter.heard_message(),
                    _ => None,
                };
                let text = match message {
                    Some(Ok(Message::Text(text))) => text,
                    Some(Ok(Message::Binary(bytes))) => match dispatch.take(&bytes) {
                        Ok(()) => continue,
                        Err(reason) => return Some(close(CloseCode::Policy, reason)),
                    },
                    Some(Ok(Message::Close(_))) => return Some(close(CloseCode::Normal, "")),
                    None => return None,
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => return reason(&error),
                };
                // Who asks and asks but never reads is not waited for.
                tokio::select! {
                    () = dispatch.hear(text, taken) => {}
                    _ = &mut *writer => return None,
                    () = sleep(idle) => return Some(silent()),
                }
            }
            _ = &mut *writer => return None,
            () = sleep(expiry.unwrap_or(FOR_EVER)) => if expiry.is_some() {
                return Some(close(CloseCode::from(TOKEN_EXPIRED), "the token has expired"));
            },
            () = agent.shutting_down(), if leave_by.is_none() => {
                // Within the grace of all that is under way, so that the goodbye is still sent.
                leave_by = Some(Instant::now() + agent.config.shutdown_grace / 4 * 3);
            }
            () = dispatch.idle(), if leave_by.is_some() => return Some(leaving()),
            () = sleep_until(leave_by.unwrap_or(heard + FOR_EVER)), if leave_by.is_some() => return Some(leaving()),
            _ = ping.tick() => {
                // Full: then the client has something to answer to already.
                let _ = out.try_send(Message::Ping(Vec::new().into()).into());
            }
            () = meter.overdue(receive) => return Some(close(CloseCode::Policy, "a message took longer to come than the limit receiveMs")),
            () = meter.starved() => return Some(close(CloseCode::Again, "there was no room for a long message: the limit answerBytes")),
            () = sleep_until(heard + idle) => return Some(silent()),
        }
    }
}

fn leaving() -> CloseFrame {
    close(CloseCode::Away, "the agent is shutting down")
}

fn silent() -> CloseFrame {
    close(CloseCode::Policy, "nothing was heard or taken in for too long")
}

/// Sends until the goodbye, and returns the sink then; nothing if the socket broke before.
async fn write(
    mut sink: SplitSink<Socket, Message>,
    mut queue: mpsc::Receiver<Outgoing>,
) -> Option<SplitSink<Socket, Message>> {
    while let Some(outgoing) = queue.recv().await {
        let last = matches!(&outgoing, Outgoing::Message(message) if message.is_close());
        let sent = match outgoing {
            Outgoing::Message(message) => sink.feed(message).await,
            Outgoing::Text(fragments) => feed(&mut sink, fragments).await,
        };
        // What waits already goes out with it.
        let sent = if sent.is_ok() && (queue.is_empty() || last) { sink.flush().await } else { sent };
        if let Err(error) = sent
            && !last
        {
            tracing::debug!(%error, "a WebSocket broke");
            return None;
        }
        if last {
            return Some(sink);
        }
    }
    None
}

/// A text in its fragments (RFC 6455, section 5.4). The library copies what it sends, so each is given up when it goes out. They
/// are parts of JSON that was just written: nobody need look again whether they are UTF-8.
async fn feed(sink: &mut SplitSink<Socket, Message>, fragments: Vec<Bytes>) -> Result<(), Error> {
    let last = fragments.len().saturating_sub(1);
    for (number, fragment) in fragments.into_iter().enumerate() {
        let opcode = OpCode::Data(if number == 0 { Data::Text } else { Data::Continue });
        sink.feed(Message::Frame(Frame::message(fragment, opcode, number == last))).await?;
    }
    Ok(())
}

fn close(code: CloseCode, reason: &'static str) -> CloseFrame {
    CloseFrame { code, reason: Utf8Bytes::from_static(reason) }
}

/// What to tell a client whose frames can't be read; nothing if it is gone.
fn reason(error: &Error) -> Option<CloseFrame> {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            Some(close(CloseCode::Size, "the message is longer than the limit bodyBytes"))
        }
        Error::Utf8(_) => Some(close(CloseCode::Invalid, "the text is not UTF-8")),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(close(CloseCode::Protocol, "the frames break RFC 6455")),
        _ => None,
    }
}
