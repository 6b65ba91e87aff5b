//! What a client types: bytes in binary frames for one command, for as long as a streamed `commandInput` lasts.
//!
//! The client has credit as the agent has in the other direction: what the command has taken in is granted anew, so what waits
//! here is bounded by the first credit.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use axum::body::Bytes;
use corehold_types::{
    Code, Problem, Tool as _,
    rpc::{Credit, INITIAL_CREDIT, RpcId, StreamOpened, methods},
    tools::{CommandInput, CommandInputRequest, CommandInputResponse},
};
use tokio::sync::{Notify, mpsc};

use super::{Outgoing, dispatch::notification};
use crate::{
    audit::Notes,
    calls::{self, Json},
    handler::Call,
    process::Command,
    server::body,
    tools,
};

/// What came and the command hasn't read: never more than the client's credit.
#[derive(Debug)]
struct Waiting {
    bytes: Mutex<(Vec<u8>, bool)>,
    came: Notify,
    /// Bytes that the client may have sent by now, from the beginning.
    granted: AtomicU64,
}

/// Where the client's frames go.
#[derive(Debug)]
pub(super) struct InputLine {
    waiting: Arc<Waiting>,
    /// Bytes that the client has sent.
    sent: u64,
}

/// The other end of an [`InputLine`].
pub(super) struct Input(Arc<Waiting>);

/// A frame that the client should not have sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misfit {
    /// It doesn't begin where the one before ended.
    OutOfOrder,
    /// It goes beyond the credit.
    BeyondCredit,
}

/// A line for a call of `commandInput`.
pub(super) fn line() -> (InputLine, Input) {
    let waiting = Arc::new(Waiting {
        bytes: Mutex::default(),
        came: Notify::new(),
        granted: AtomicU64::new(INITIAL_CREDIT.into()),
    });
    (InputLine { waiting: Arc::clone(&waiting), sent: 0 }, Input(waiting))
}

impl InputLine {
    /// The client has sent a frame. An empty one ends the input.
    pub(super) fn take(&mut self, offset: u64, payload: &[u8]) -> Result<(), Misfit> {
        if offset != self.sent {
            return Err(Misfit::OutOfOrder);
        }
        self.sent += payload.len() as u64;
        if self.sent > self.waiting.granted.load(Ordering::Acquire) {
            return Err(Misfit::BeyondCredit);
        }
        let mut waiting = self.waiting.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.0.extend_from_slice(payload);
        waiting.1 |= payload.is_empty();
        drop(waiting);
        self.waiting.came.notify_one();
        Ok(())
    }
}

impl Input {
    /// Writes what comes to the command, until the client ends it or the command does.
    pub(super) async fn run(
        self,
        call: Call,
        params: Bytes,
        id: RpcId,
        stream: u32,
        out: mpsc::Sender<Outgoing>,
    ) -> Result<Json, Problem> {
        let share = call.share.clone();
        let request = parse(&params).inspect_err(|problem| calls::refused(&call, CommandInput::NAME, problem))?;
        drop(params);
        let work = async |call: Call, request: CommandInputRequest| {
            let command = tools::find_command(&call.agent, &request.id)?;
            self.write(&command, id, stream, &out, &call.notes).await
        };
        let response = calls::run_framed::<CommandInput, _>(call, request, work).await?;
        Json::of::<CommandInput>(response, &share).await
    }

    async fn write(
        &self,
        command: &Command,
        id: RpcId,
        stream: u32,
        out: &mpsc::Sender<Outgoing>,
        notes: &Notes,
    ) -> Result<CommandInputResponse, Problem> {
        let say = |text: String| async {
            // The reader notices when the socket is gone, and ends this.
            let _ = out.send(Outgoing::text(text)).await;
        };
        say(notification(methods::STREAM, &StreamOpened { id, stream })).await;
        let mut accepted = 0;
        loop {
            let (bytes, end) = tokio::select! {
                came = self.next() => came,
                () = command.input_closed() => return Err(tools::input_closed().with("accepted", accepted)),
            };
            let before = accepted;
            let written = command.write(&bytes, end, &mut accepted).await;
            notes.note(|touched| touched.came_in((accepted - before) as u64));
            if written.is_err() {
                return Err(tools::input_closed().with("accepted", accepted));
            }
            if end {
                return Ok(CommandInputResponse { accepted: accepted as u64, complete: true });
            }
            let bytes = bytes.len() as u64;
            self.0.granted.fetch_add(bytes, Ordering::AcqRel);
            say(notification(methods::CREDIT, &Credit { stream, bytes })).await;
        }
    }

    /// All that waits, and whether it is the last.
    async fn next(&self) -> (Vec<u8>, bool) {
        loop {
            let came = self.0.came.notified();
            {
                let mut waiting = self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner);
                if waiting.1 || !waiting.0.is_empty() {
                    return (std::mem::take(&mut waiting.0), waiting.1);
                }
            }
            came.await;
        }
    }
}

fn parse(params: &[u8]) -> Result<CommandInputRequest, Problem> {
    let request: CommandInputRequest = body::parse(params)?;
    if request.data.is_some() || request.end.is_some() || request.timeout_ms.is_some() {
        let problem =
            Problem::new(Code::InvalidRequest, "a streamed commandInput takes its bytes and its end in binary frames");
        return Err(problem.suggest("leave out data, end and timeoutMs, or call it without `stream`"));
    }
    Ok(request)
}
