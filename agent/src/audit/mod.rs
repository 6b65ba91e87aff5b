//! Audit: one record of every call, whoever made it and wherever it came in, in a bounded log in memory.
//!
//! A command inside can't reach the agent's memory, so it can't change what was recorded; a host that wants to keep records
//! for longer follows the log with `auditRead`. What calls carry (contents, input, values of variables) never lands here.

mod log;
mod touched;

use std::{sync::Arc, time::Instant};

use corehold_types::{
    Code, Timestamp,
    tools::{AuditOutcome, AuditSurface},
};

use crate::{
    access::Caller,
    handler::{Call, Surface},
};

pub use log::{Audit, Page};
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
}

/// A call that isn't recorded yet. Dropped unfinished, its caller went away.
#[derive(Debug)]
pub struct Pending {
    audit: Arc<Audit>,
    began: Instant,
    entry: Option<Entry>,
}

impl Pending {
    /// Begins the record of a call.
    pub(crate) fn of(call: &Call, tool: &'static str) -> Self {
        let caller = Some(Arc::clone(&call.caller));
        Self::new(&call.agent.audit, caller, call.surface, &call.request_id, tool)
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
        };
        Self { audit: Arc::clone(audit), began: Instant::now(), entry: Some(entry) }
    }

    /// What the call touches, to be added to. Nothing once it is recorded.
    pub(crate) fn touched(&mut self) -> Option<&mut Touched> {
        self.entry.as_mut().map(|entry| &mut entry.touched)
    }

    /// The call is answered with that of an earlier one.
    pub(crate) fn replayed(&mut self) {
        if let Some(entry) = &mut self.entry {
            entry.replayed = true;
        }
    }

    /// Somebody else records the call.
    pub(crate) fn forget(mut self) {
        self.entry = None;
    }

    /// The call has been answered.
    pub(crate) fn finish(mut self, failed: Option<Code>) {
        let outcome = if failed.is_some() { AuditOutcome::Failed } else { AuditOutcome::Ok };
        self.record(outcome, failed);
    }

    /// The call was turned away before anything was done.
    pub(crate) fn refuse(mut self, code: Code) {
        self.record(AuditOutcome::Refused, Some(code));
    }

    fn record(&mut self, outcome: AuditOutcome, code: Option<Code>) {
        let Some(mut entry) = self.entry.take() else { return };
        let duration = self.began.elapsed();
        self.audit.metrics.count(entry.tool, entry.surface, outcome, duration);
        entry.duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        (entry.outcome, entry.code) = (outcome, code);
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
