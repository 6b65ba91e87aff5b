//! The bounded log: two rings in memory, one of calls and one of refusals, so that whoever is turned away all the time drives
//! out no record of a call.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use corehold_types::{
    Timestamp, WorkspacePath,
    tools::{AuditGap, AuditOutcome, AuditReadRequest, AuditRecord},
};
use tokio::sync::{Notify, futures::Notified};

use super::Entry;
use crate::{config::Limits, metrics::Metrics};

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
    calls: Ring,
    refusals: Ring,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Arc<Entry>>,
    bytes: u64,
    most_bytes: u64,
    /// The newest that was dropped; 0 when none was.
    dropped: u64,
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
        let ring = |most_bytes| Ring { most_bytes, ..Ring::default() };
        let bytes = limits.audit_bytes.value;
        let state = State { last: 0, calls: ring(bytes - bytes / REFUSALS), refusals: ring(bytes / REFUSALS) };
        Self { state: Mutex::new(state), grown: Notify::new(), metrics: Metrics::default() }
    }

    pub(super) fn push(&self, mut entry: Entry) {
        {
            let mut state = self.state();
            state.last += 1;
            entry.seq = state.last;
            let ring = if entry.outcome == AuditOutcome::Refused { &mut state.refusals } else { &mut state.calls };
            ring.push(entry);
        }
        self.grown.notify_waiters();
    }

    /// Resolves at the next record. Made before the log is read, it misses none.
    pub(crate) fn grown(&self) -> Notified<'_> {
        self.grown.notified()
    }

    /// At most `limit` records after `after` that the request asks for.
    #[must_use]
    pub fn page(&self, request: &AuditReadRequest, after: u64, limit: usize) -> Page {
        // Entries are shared, so that nothing is compared or copied under the lock.
        let (entries, gap, last) = {
            let state = self.state();
            let mut entries: Vec<Arc<Entry>> =
                [&state.calls, &state.refusals].into_iter().flat_map(|ring| ring.after(after)).cloned().collect();
            entries.sort_unstable_by_key(|entry| entry.seq);
            (entries, state.gap(after), state.last)
        };
        let mut page = Page { records: Vec::new(), gap, seen: last, last };
        for entry in entries.iter().filter(|entry| entry.is_asked_for(request)) {
            if page.records.len() == limit {
                page.seen = page.records.last().map_or(after, |record| record.seq);
                break;
            }
            page.records.push(entry.record());
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

impl Ring {
    fn push(&mut self, entry: Entry) {
        self.bytes += entry.size();
        self.entries.push_back(Arc::new(entry));
        while self.bytes > self.most_bytes {
            let Some(dropped) = self.entries.pop_front() else { return };
            self.bytes -= dropped.size();
            self.dropped = dropped.seq;
        }
    }

    fn after(&self, seq: u64) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.range(self.entries.partition_point(|entry| entry.seq <= seq)..)
    }
}

impl Entry {
    fn size(&self) -> u64 {
        (size_of::<Self>() + 2 * size_of::<usize>() + self.request_id.len() + self.touched.bytes) as u64
    }

    fn is_asked_for(&self, request: &AuditReadRequest) -> bool {
        let subject = || self.caller.as_ref().map(|caller| caller.subject.as_str());
        request.tool.as_ref().is_none_or(|tool| self.tool == tool)
            && request.subject.as_ref().is_none_or(|wanted| subject() == Some(wanted))
            && request.command.as_ref().is_none_or(|id| self.touched.command.as_ref().is_some_and(|own| own.id == *id))
            && request.since.is_none_or(|since: Timestamp| self.time >= since)
            && request.path.as_ref().is_none_or(|path| self.touched.paths.iter().any(|named| is_in(&named.path, path)))
    }

    fn record(&self) -> AuditRecord {
        AuditRecord {
            seq: self.seq,
            time: self.time,
            subject: self.caller.as_ref().map(|caller| caller.subject.clone()),
            surface: self.surface.into(),
            request_id: self.request_id.to_string(),
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
            times: None,
            since: None,
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
        let page = audit.page(&all, 0, 4);
        assert_eq!((sequence(&page), page.seen, page.last), (vec![1, 2, 3, 4], 4, 6));
        let page = audit.page(&all, page.seen, 4);
        assert_eq!((sequence(&page), page.seen), (vec![5, 6], 6));
        let reads = AuditReadRequest { tool: Some("read".into()), ..all.clone() };
        assert_eq!(sequence(&audit.page(&reads, 0, 9)), [1, 3, 5, 6]);
        for (path, found) in [("src", 5), ("src/1", 1), (".", 5), ("sr", 0), ("src/1/x", 0)] {
            let under = AuditReadRequest { path: Some(path.into()), ..all.clone() };
            assert_eq!(audit.page(&under, 0, 9).records.len(), found, "{path}");
        }
        let nobody = AuditReadRequest { subject: Some("x".into()), ..all.clone() };
        assert!(audit.page(&nobody, 0, 9).records.is_empty());
        let later = AuditReadRequest { since: Some(Timestamp::from_unix(i64::MAX, 0)), ..all };
        assert!(audit.page(&later, 0, 9).records.is_empty());
    }

    #[test]
    fn a_flood_of_refusals_drives_out_refusals_only_and_what_is_missing_is_said() {
        let audit = log(64 << 10);
        call(&audit, "edit", "a");
        for _ in 0..10_000 {
            refusal(&audit);
        }
        let page = audit.page(&AuditReadRequest::default(), 0, 10_000);
        assert_eq!(page.records[0].tool, "edit");
        assert!(page.records.len() < 100 && page.gap.unwrap().refusals_only);
        for number in 0..10_000 {
            call(&audit, "read", &format!("{number}"));
        }
        let page = audit.page(&AuditReadRequest::default(), 5, 100_000);
        let gap = page.gap.unwrap();
        assert!((5..20_001).contains(&gap.to) && gap.from == 6 && !gap.refusals_only, "{gap:?}");
        assert!(page.records.iter().filter(|record| record.tool == "read").count() < 1_000);
        assert_eq!(page.last, 20_001);
        assert!(audit.page(&AuditReadRequest::default(), gap.to, 1).gap.is_none());
        let state = audit.state();
        assert!(state.calls.bytes + state.refusals.bytes <= 64 << 10);
    }

    #[test]
    fn a_call_that_is_dropped_has_lost_its_caller() {
        let audit = log(1 << 20);
        drop(Pending::new(&audit, None, Surface::Mcp, "1", "search"));
        let record = audit.page(&AuditReadRequest::default(), 0, 1).records.remove(0);
        assert_eq!((record.outcome, record.code), (AuditOutcome::CallerGone, None));
    }
}
