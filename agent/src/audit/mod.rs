//! Audit: one record of every call, whoever made it and wherever it came in, in a bounded log in memory.
//!
//! A command inside can't reach the agent's memory, so it can't change what was recorded; a host that wants to keep records
//! for longer follows the log with `auditRead`. What calls carry (contents, input, values of variables) never lands here.

mod log;
mod notes;
mod refusal;
mod ring;
mod secrets;
mod telling;
mod touched;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use corehold_types::{
    Code, Timestamp,
    tools::{AuditOutcome, AuditSurface},
};

use crate::{
    access::Caller,
    handler::{Call, Surface},
    metrics::UnderWay,
};

pub use log::{Audit, Page};
pub use notes::Notes;
pub(crate) use refusal::{Recorded, refused_refresh, refused_request, unknown_tool};
pub use touched::Touched;

/// A call as the log keeps it: what it shares with others is not copied.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) seq: u64,
    time: Timestamp,
    caller: Option<Arc<Caller>>,
    surface: Surface,
    request_id: Box<str>,
    tool: &'static str,
    touched: Touched,
    duration_ms: u64,
    outcome: AuditOutcome,
    code: Option<Code>,
    replayed: bool,
    /// How many refusals it stands for, and when the first of them began.
    times: u64,
    since: Option<Timestamp>,
}

impl Entry {
    /// Another record of the same call, with nothing in it yet.
    fn like_this(&self) -> Self {
        Self {
            caller: self.caller.clone(),
            request_id: self.request_id.clone(),
            touched: Touched::default(),
            times: 1,
            since: None,
            ..*self
        }
    }

    /// It says that something has ended which took so long.
    fn end_after(&mut self, duration: Duration) {
        (self.duration_ms, self.outcome, self.code) = (milliseconds(duration), AuditOutcome::Ended, None);
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A call that isn't recorded yet. Dropped unfinished, its caller went away.
#[derive(Debug)]
pub struct Pending {
    audit: Arc<Audit>,
    began: Instant,
    notes: Notes,
    entry: Option<Entry>,
    /// As long as it is a call: what one has started may outlive it.
    under_way: Option<UnderWay>,
}

impl Pending {
    /// Begins the record of a call, with the call's notes.
    pub(crate) fn of(call: &Call, tool: &'static str) -> Self {
        let caller = Some(Arc::clone(&call.caller));
        let mut pending = Self::new(&call.agent.audit, caller, call.surface, &call.request_id, tool);
        pending.notes = call.notes.clone();
        pending
    }

    /// Begins the record of what a call starts and doesn't wait for, from what is noted of the call by now.
    pub(crate) fn of_what_follows(call: &Call, tool: &'static str) -> Self {
        let caller = Some(Arc::clone(&call.caller));
        let mut pending = Self::new(&call.agent.audit, caller, call.surface, &call.request_id, tool);
        pending.under_way = None;
        pending.note(|touched| {
            *touched = call.notes.so_far();
            // Those are the call's own.
            (touched.bytes_in, touched.bytes_out) = (None, None);
        });
        pending
    }

    pub(crate) fn new(
        audit: &Arc<Audit>,
        caller: Option<Arc<Caller>>,
        surface: Surface,
        request_id: &str,
        tool: &'static str,
    ) -> Self {
        let entry = Entry {
            seq: 0,
            time: Timestamp::now(),
            caller,
            surface,
            request_id: request_id.into(),
            tool,
            touched: Touched::default(),
            duration_ms: 0,
            outcome: AuditOutcome::Ok,
            code: None,
            replayed: false,
            times: 1,
            since: None,
        };
        let under_way = Some(UnderWay::begin(audit, surface));
        Self { audit: Arc::clone(audit), began: Instant::now(), notes: Notes::default(), entry: Some(entry), under_way }
    }

    /// What is noted of the call by others.
    pub(crate) fn notes(&self) -> Notes {
        self.notes.clone()
    }

    /// What the call touches, to be added to.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Touched)) {
        self.notes.note(note);
    }

    /// The call is answered with that of an earlier one.
    pub(crate) fn replayed(&self) {
        self.notes.replay();
    }

    /// Somebody else records the call.
    pub(crate) fn forget(mut self) {
        self.entry = None;
    }

    /// The call has been answered.
    pub(crate) fn finish(mut self, failed: Option<Code>) {
        // A claim that came too late is kept with those who were turned away.
        if failed == Some(Code::AlreadyClaimed) {
            return self.record(AuditOutcome::Refused, failed);
        }
        let outcome = if failed.is_some() { AuditOutcome::Failed } else { AuditOutcome::Ok };
        self.record(outcome, failed);
    }

    /// The call was turned away before anything was done.
    pub(crate) fn refuse(mut self, code: Code) {
        // Somebody of another workspace: what they wanted is none of the owner's business.
        if let (Code::NotClaimed, Some(entry)) = (code, &mut self.entry) {
            entry.request_id = Box::default();
            self.notes.take();
        }
        self.record(AuditOutcome::Refused, Some(code));
    }

    /// This is no call: what one had started has ended, so long after it began.
    pub(crate) fn end(mut self, began: Timestamp, duration: Duration) {
        let Some(mut entry) = self.entry.take() else { return };
        entry.time = began;
        entry.end_after(duration);
        entry.touched = self.notes.take();
        self.audit.push(entry);
    }

    fn record(&mut self, outcome: AuditOutcome, code: Option<Code>) {
        let Some(mut entry) = self.entry.take() else { return };
        let duration = self.began.elapsed();
        self.audit.metrics.count(entry.tool, entry.surface, outcome, duration);
        entry.duration_ms = milliseconds(duration);
        (entry.outcome, entry.code) = (outcome, code);
        entry.touched = match outcome {
            AuditOutcome::CallerGone => self.notes.leave(&self.audit, self.began, entry.like_this()),
            _ => self.notes.take(),
        };
        entry.replayed = self.notes.is_replayed();
        self.audit.push(entry);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.record(AuditOutcome::Failed, Some(Code::Internal));
        } else {
            self.record(AuditOutcome::CallerGone, None);
        }
    }
}

impl From<Surface> for AuditSurface {
    fn from(surface: Surface) -> Self {
        match surface {
            Surface::Http => Self::Http,
            Surface::WebSocket => Self::WebSocket,
            Surface::Mcp => Self::Mcp,
        }
    }
}
