//! Notes: what a call's handler, its surface and its record tell one another while it lasts.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::{Audit, Entry, Touched};

/// Notes of one call. Clones are the same notes.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    replayed: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    touched: Touched,
    /// The call is recorded, but some of its work may go on.
    late: Option<Late>,
}

/// What is needed for a record of what comes after the call's own.
#[derive(Debug)]
struct Late {
    audit: Arc<Audit>,
    began: Instant,
    entry: Box<Entry>,
}

impl Notes {
    /// Adds to what the call touches. A call that ends early is recorded with what was noted by then; what work that can't be
    /// stopped notes after that has a record of its own, as soon as nobody holds the notes any more.
    pub fn note(&self, note: impl FnOnce(&mut Touched)) {
        note(&mut self.0.state().touched);
    }

    /// Notes what a result says, and hands it on: for work that may outlive its caller.
    pub fn of<T, E>(&self, result: Result<T, E>, note: impl FnOnce(&T, &mut Touched)) -> Result<T, E> {
        result.inspect(|value| self.note(|touched| note(value, touched)))
    }

    /// The call is answered with the answer of an earlier one.
    pub(crate) fn replay(&self) {
        self.0.replayed.store(true, Ordering::Relaxed);
    }

    /// Whether it is, as far as is known by now.
    pub(crate) fn is_replayed(&self) -> bool {
        self.0.replayed.load(Ordering::Relaxed)
    }

    /// What was noted by now.
    pub(super) fn so_far(&self) -> Touched {
        self.0.state().touched.clone()
    }

    /// What was noted. From now on there is nothing.
    pub(super) fn take(&self) -> Touched {
        std::mem::take(&mut self.0.state().touched)
    }

    /// What was noted of a call whose caller has gone away. What is noted from now on is recorded under this entry.
    pub(super) fn leave(&self, audit: &Arc<Audit>, began: Instant, entry: Entry) -> Touched {
        let mut state = self.0.state();
        state.late = Some(Late { audit: Arc::clone(audit), began, entry: Box::new(entry) });
        std::mem::take(&mut state.touched)
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // At worst a note is incomplete.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(Late { audit, began, mut entry }) = state.late.take()
            && state.touched.says_something()
        {
            entry.touched = std::mem::take(&mut state.touched);
            entry.end_after(began.elapsed());
            audit.push(*entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use corehold_types::tools::{AuditOutcome, AuditReadRequest, AuditRecord};

    use super::*;
    use crate::{access::Caller, audit::Pending, config::Limits, handler::Surface};

    fn records(audit: &Audit) -> Vec<AuditRecord> {
        audit.page(&Caller::with_every_scope("x"), &AuditReadRequest::default(), 0, 9).records
    }

    #[test]
    fn what_is_done_after_its_caller_went_away_is_recorded_when_it_is_done() {
        let audit = Arc::new(Audit::new(&Limits::default()));
        let pending = Pending::new(&audit, None, Surface::Http, "mine", "remove");
        pending.note(|touched| touched.path(&"a".into()));
        let (worker, other) = (pending.notes(), pending.notes());
        drop(pending);
        let _ = worker.of(Ok::<_, ()>(3), |removed, touched| touched.counted(*removed, None));
        drop(worker);
        assert_eq!(records(&audit).len(), 1, "there may be more to come");
        drop(other);
        let records = records(&audit);
        let outcomes: Vec<_> =
            records.iter().map(|record| (record.outcome, record.changed.map(|all| all.entries))).collect();
        assert_eq!(outcomes, [(AuditOutcome::CallerGone, None), (AuditOutcome::Ended, Some(3))]);
        assert_eq!((&records[1].request_id, records[1].tool.as_str()), (&"mine".to_owned(), "remove"));
        assert_eq!(records[1].time, records[0].time);
    }

    #[test]
    fn what_fails_then_or_is_noted_in_time_leaves_no_second_record() {
        let audit = Arc::new(Audit::new(&Limits::default()));
        let gone = Pending::new(&audit, None, Surface::Http, "1", "remove");
        let worker = gone.notes();
        drop(gone);
        let _ = worker.of(Err::<u64, _>(()), |removed, touched| touched.counted(*removed, None));
        drop(worker);
        let answered = Pending::new(&audit, None, Surface::Http, "2", "remove");
        let worker = answered.notes();
        answered.finish(None);
        worker.note(|touched| touched.counted(1, None));
        drop(worker);
        assert_eq!(records(&audit).len(), 2);
    }
}
