//! The bounded log: two rings in memory, one of calls and one of refusals, so that whoever is turned away all the time drives
//! out no record of a call; and what of it a reader may see.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use corehold_types::{
    Timestamp, WorkspacePath,
    tools::{AuditGap, AuditOutcome, AuditReadRequest, AuditRecord},
};
use tokio::sync::{Notify, futures::Notified};

use super::{Entry, ring::Ring};
use crate::{access::Caller, config::Limits, metrics::Metrics};

/// The part of the log's bytes that is for refusals: one in so many.
const REFUSALS: u64 = 8;

/// The records of calls.
#[derive(Debug)]
pub struct Audit {
    state: Mutex<State>,
    grown: Notify,
    /// The same calls, counted.
    pub metrics: Metrics,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    /// The newest record when the agent was claimed: what was before is nobody's of the owner's.
    before_the_owner: u64,
    calls: Ring,
    refusals: Ring,
}

/// Some of the records.
#[derive(Debug)]
pub struct Page {
    /// Oldest first.
    pub records: Vec<AuditRecord>,
    /// What is missing before them.
    pub gap: Option<AuditGap>,
    /// Up to which record the log was looked through.
    pub seen: u64,
    /// The newest that there is.
    pub last: u64,
}

impl Audit {
    pub(crate) fn new(limits: &Limits) -> Self {
        let bytes = limits.audit_bytes.value;
        let (calls, refusals) = (Ring::new(bytes - bytes / REFUSALS), Ring::new(bytes / REFUSALS));
        let state = State { last: 0, before_the_owner: 0, calls, refusals };
        Self { state: Mutex::new(state), grown: Notify::new(), metrics: Metrics::default() }
    }

    pub(super) fn push(&self, mut entry: Entry) {
        {
            let mut state = self.state();
            state.last += 1;
            entry.seq = state.last;
            match entry.outcome {
                AuditOutcome::Refused => state.refusals.push_alike(entry),
                _ => state.calls.push(entry),
            }
        }
        self.grown.notify_waiters();
    }

    /// The agent is being claimed: from here on the log is its owner's.
    pub(crate) fn begin_for_owner(&self) {
        let mut state = self.state();
        state.before_the_owner = state.last;
    }

    /// Resolves at the next record. Made before the log is read, it misses none.
    pub(crate) fn grown(&self) -> Notified<'_> {
        self.grown.notified()
    }

    /// At most `limit` records after `after` that the request asks for and the reader may see.
    #[must_use]
    pub fn page(&self, reader: &Caller, request: &AuditReadRequest, after: u64, limit: usize) -> Page {
        // Entries are shared, so that nothing is compared or copied under the lock.
        let (entries, gap, last, before_the_owner) = {
            let state = self.state();
            let mut entries: Vec<Arc<Entry>> =
                [&state.calls, &state.refusals].into_iter().flat_map(|ring| ring.after(after)).cloned().collect();
            entries.sort_unstable_by_key(|entry| entry.seq);
            (entries, state.gap(after), state.last, state.before_the_owner)
        };
        let mut page = Page { records: Vec::new(), gap, seen: last, last };
        for entry in &entries {
            let view = entry.view_of(reader, before_the_owner);
            if view == View::Nothing || !entry.is_asked_for(request, view) {
                continue;
            }
            if page.records.len() == limit {
                page.seen = page.records.last().map_or(after, |record| record.seq);
                break;
            }
            page.records.push(entry.record(view));
        }
        page
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // At worst a count of bytes is off.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn gap(&self, after: u64) -> Option<AuditGap> {
        let to = self.calls.dropped.max(self.refusals.dropped);
        (to > after).then(|| AuditGap { from: after + 1, to, refusals_only: self.calls.dropped <= after })
    }
}

/// How much of a record a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    All,
    /// What was done, but not by whom.
    WithoutWho,
    Nothing,
}

impl Entry {
    /// What a reader may see of it. The static token's bearer has set the agent up and sees everything. An owner sees what
    /// their own callers did; that somebody of another workspace tried, but not who; and nothing from before the claim.
    fn view_of(&self, reader: &Caller, before_the_owner: u64) -> View {
        let Some(own) = &reader.workspace else { return View::All };
        let of_another = self.caller.as_ref().map(|caller| caller.workspace.as_ref().is_some_and(|other| other != own));
        match of_another {
            Some(false) => View::All,
            _ if self.seq <= before_the_owner => View::Nothing,
            Some(true) => View::WithoutWho,
            None => View::All,
        }
    }

    fn subject(&self, view: View) -> Option<&str> {
        self.caller.as_ref().filter(|_| view == View::All).map(|caller| caller.subject.as_str())
    }

    fn is_asked_for(&self, request: &AuditReadRequest, view: View) -> bool {
        request.tool.as_ref().is_none_or(|tool| self.tool == tool)
            && request.subject.as_ref().is_none_or(|wanted| self.subject(view) == Some(wanted))
            && request.command.as_ref().is_none_or(|id| self.touched.command.as_ref().is_some_and(|own| own.id == *id))
            && request.since.is_none_or(|since: Timestamp| self.time >= since)
            && request.path.as_ref().is_none_or(|path| self.touched.paths.iter().any(|named| is_in(&named.path, path)))
    }

    fn record(&self, view: View) -> AuditRecord {
        AuditRecord {
            seq: self.seq,
            time: self.time,
            subject: self.subject(view).map(str::to_owned),
            surface: self.surface.into(),
            request_id: if view == View::All { self.request_id.to_string() } else { String::new() },
            tool: self.tool.to_owned(),
            paths: self.touched.paths.clone(),
            paths_omitted: (self.touched.omitted > 0).then_some(self.touched.omitted),
            detail: self.touched.detail.clone(),
            command: self.touched.command.as_deref().cloned(),
            changed: self.touched.changed,
            bytes_in: self.touched.bytes_in,
            bytes_out: self.touched.bytes_out,
            duration_ms: self.duration_ms,
            outcome: self.outcome,
            code: self.code,
            replayed: self.replayed,
            times: (self.times > 1).then_some(self.times),
            since: self.since,
        }
    }
}

/// Whether a path is another or lies in it, component by component.
fn is_in(path: &WorkspacePath, directory: &WorkspacePath) -> bool {
    match (path.to_path_buf(), directory.to_path_buf()) {
        (Ok(path), Ok(directory)) => directory.as_os_str() == "." || path.starts_with(directory),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use corehold_types::Code;

    use super::*;
    use crate::{audit::Pending, handler::Surface};

    fn log(bytes: u64) -> Arc<Audit> {
        let mut limits = Limits::default();
        limits.audit_bytes.value = bytes;
        Arc::new(Audit::new(&limits))
    }

    fn call(audit: &Arc<Audit>, tool: &'static str, path: &str) {
        let pending = Pending::new(audit, None, Surface::Http, "1", tool);
        pending.note(|touched| touched.path(&path.into()));
        pending.finish(None);
    }

    fn refusal(audit: &Arc<Audit>) {
        Pending::new(audit, None, Surface::Http, "1", "read").refuse(Code::Unauthorized);
    }

    /// Whoever set the agent up.
    fn operator() -> Caller {
        Caller::with_every_scope("standalone")
    }

    fn page_of(audit: &Audit, request: &AuditReadRequest, after: u64, limit: usize) -> Page {
        audit.page(&operator(), request, after, limit)
    }

    fn of_workspace(subject: &str, workspace: &str) -> Arc<Caller> {
        let mut caller = Caller::with_every_scope(subject);
        caller.workspace = Some(workspace.to_owned());
        Arc::new(caller)
    }

    fn call_by(audit: &Arc<Audit>, caller: &Arc<Caller>) {
        Pending::new(audit, Some(Arc::clone(caller)), Surface::Http, "mine", "info").finish(None);
    }

    fn sequence(page: &Page) -> Vec<u64> {
        page.records.iter().map(|record| record.seq).collect()
    }

    #[test]
    fn pages_go_on_where_the_one_before_ended() {
        let audit = log(1 << 20);
        for number in 0..5 {
            call(&audit, if number % 2 == 0 { "read" } else { "edit" }, &format!("src/{number}"));
        }
        refusal(&audit);
        let all = AuditReadRequest::default();
        let page = page_of(&audit, &all, 0, 4);
        assert_eq!((sequence(&page), page.seen, page.last), (vec![1, 2, 3, 4], 4, 6));
        let page = page_of(&audit, &all, page.seen, 4);
        assert_eq!((sequence(&page), page.seen), (vec![5, 6], 6));
        let reads = AuditReadRequest { tool: Some("read".into()), ..all.clone() };
        assert_eq!(sequence(&page_of(&audit, &reads, 0, 9)), [1, 3, 5, 6]);
        for (path, found) in [("src", 5), ("src/1", 1), (".", 5), ("sr", 0), ("src/1/x", 0)] {
            let under = AuditReadRequest { path: Some(path.into()), ..all.clone() };
            assert_eq!(page_of(&audit, &under, 0, 9).records.len(), found, "{path}");
        }
        let nobody = AuditReadRequest { subject: Some("x".into()), ..all.clone() };
        assert!(page_of(&audit, &nobody, 0, 9).records.is_empty());
        let later = AuditReadRequest { since: Some(Timestamp::from_unix(i64::MAX, 0)), ..all };
        assert!(page_of(&audit, &later, 0, 9).records.is_empty());
    }

    #[test]
    fn a_flood_of_refusals_is_a_few_records_that_say_how_many_they_stand_for() {
        let audit = log(64 << 10);
        call(&audit, "edit", "a");
        for _ in 0..10_000 {
            refusal(&audit);
        }
        let all = page_of(&audit, &AuditReadRequest::default(), 0, 10_000);
        assert_eq!(all.records[0].tool, "edit");
        assert_eq!((all.records.len(), all.gap, all.last), (9, None, 10_001));
        let times: u64 = all.records[1..].iter().map(|record| record.times.unwrap_or(1)).sum();
        assert_eq!(times, 10_000);
        assert!(all.records[1..].iter().all(|record| record.since.unwrap() <= record.time));
        assert_eq!(all.records[8].seq, 10_001, "the newest are kept");
    }

    #[test]
    fn records_are_dropped_of_who_has_most_and_what_is_missing_is_said() {
        let audit = log(64 << 10);
        let (quiet, loud) = (of_workspace("quiet", "w"), of_workspace("loud", "w"));
        for _ in 0..3 {
            call_by(&audit, &quiet);
        }
        // Refusals of so many kinds that they don't fit.
        for number in 0..1_000 {
            let caller = of_workspace(&format!("{number}"), "w");
            Pending::new(&audit, Some(caller), Surface::Http, "1", "read").refuse(Code::Forbidden);
        }
        let all = page_of(&audit, &AuditReadRequest::default(), 0, 10_000);
        assert!(all.gap.unwrap().refusals_only && all.records.len() < 100);
        for _ in 0..10_000 {
            call_by(&audit, &loud);
        }
        call_by(&audit, &quiet);
        let of_quiet = AuditReadRequest { subject: Some("quiet".into()), ..AuditReadRequest::default() };
        assert_eq!(sequence(&page_of(&audit, &of_quiet, 0, 9)), [1, 2, 3, 11_004]);
        let all = page_of(&audit, &AuditReadRequest::default(), 5, 100_000);
        let gap = all.gap.unwrap();
        assert!((5..11_004).contains(&gap.to) && gap.from == 6 && !gap.refusals_only, "{gap:?}");
        assert!(page_of(&audit, &AuditReadRequest::default(), gap.to, 1).gap.is_none());
        let state = audit.state();
        assert!(state.calls.bytes + state.refusals.bytes <= 64 << 10);
    }

    #[test]
    fn an_owner_sees_nothing_of_who_came_before_and_not_who_else_tried() {
        let audit = log(1 << 20);
        let (owner, other) = (of_workspace("ada", "w"), of_workspace("bob", "x"));
        refusal(&audit);
        call_by(&audit, &other);
        call_by(&audit, &owner);
        audit.begin_for_owner();
        call_by(&audit, &other);
        refusal(&audit);
        call_by(&audit, &Arc::new(operator()));
        let all = AuditReadRequest::default();
        let seen = |reader: &Caller, request: &AuditReadRequest| -> Vec<(u64, Option<String>, String)> {
            let records = audit.page(reader, request, 0, 9).records.into_iter();
            records.map(|record| (record.seq, record.subject, record.request_id)).collect()
        };
        let one = |seq, subject: Option<&str>, request: &str| (seq, subject.map(str::to_owned), request.to_owned());
        assert_eq!(
            seen(&owner, &all),
            [one(3, Some("ada"), "mine"), one(4, None, ""), one(5, None, "1"), one(6, Some("standalone"), "mine")]
        );
        let of_bob = AuditReadRequest { subject: Some("bob".into()), ..all.clone() };
        assert!(seen(&owner, &of_bob).is_empty(), "nor can it be guessed");
        assert_eq!(seen(&operator(), &all).len(), 6);
        assert_eq!(seen(&operator(), &of_bob).len(), 2);
    }

    #[test]
    fn a_call_that_is_dropped_has_lost_its_caller() {
        let audit = log(1 << 20);
        drop(Pending::new(&audit, None, Surface::Mcp, "1", "search"));
        let record = page_of(&audit, &AuditReadRequest::default(), 0, 1).records.remove(0);
        assert_eq!((record.outcome, record.code), (AuditOutcome::CallerGone, None));
    }
}
