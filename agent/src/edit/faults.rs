//! The seam by which tests let the disk fill, or the agent die, before any chosen change of the disk.
//!
//! Every call of [`disk`](super::disk) that changes something asks here first. In a release this is nothing.

/// What a step asks of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It may need space: what fails on a full disk.
    Takes,
    /// It needs no space of its own: renames in place, removals.
    Frees,
}

/// Goes on, unless a test says otherwise.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn step(_: Step) -> Result<(), rustix::io::Errno> {
    Ok(())
}

#[cfg(test)]
pub(crate) use in_tests::{Fault, Stopped, inject, kernel_exchanges, meanwhile, step, synced, syncs};

/// Tells a test what was synced.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn synced(_: impl std::os::fd::AsFd) {}

/// Whether the kernel may be asked to exchange names; tests say no to see the way without.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn kernel_exchanges() -> bool {
    true
}

#[cfg(test)]
mod in_tests {
    use std::cell::{Cell, RefCell};

    use rustix::io::Errno;

    use super::Step;

    /// What happens, and before which step (from 0).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Fault {
        None,
        /// This process is killed.
        Kill(u64),
        /// The work stops as if the process had been killed: it unwinds, and there is nothing that unwinding cleans up.
        Stop(u64),
        /// The disk is full for this one step.
        FullOnce(u64),
        /// The disk is full from this step on.
        FullFrom(u64),
        /// The disk fails from this step on, whatever is asked of it.
        BrokenFrom(u64),
        /// Somebody else does something: see [`meanwhile`].
        Else(u64),
        /// Somebody looks before every step: what is done [`meanwhile`].
        Watch,
    }

    /// What unwinds at [`Fault::Stop`].
    pub(crate) struct Stopped;

    thread_local! {
        static FAULT: Cell<Fault> = const { Cell::new(Fault::None) };
        static STEPS: Cell<u64> = const { Cell::new(0) };
        static EXCHANGES: Cell<bool> = const { Cell::new(true) };
        static SYNCS: RefCell<Vec<(usize, u64)>> = const { RefCell::new(Vec::new()) };
        static MEANWHILE: RefCell<Box<dyn FnMut()>> = RefCell::new(Box::new(|| {}));
    }

    /// From now on, in this thread. Returns the steps since the last call.
    pub(crate) fn inject(fault: Fault, exchanges: bool) -> u64 {
        FAULT.set(fault);
        EXCHANGES.set(exchanges);
        STEPS.replace(0)
    }

    /// Notes what a step has synced.
    pub(crate) fn synced(what: impl std::os::fd::AsFd) {
        let inode = rustix::fs::fstat(what).unwrap().st_ino;
        // The step is counted already.
        SYNCS.with_borrow_mut(|syncs| syncs.push((STEPS.get() as usize - 1, inode)));
    }

    /// The syncs since the last call: by which step, and of which inode.
    pub(crate) fn syncs() -> Vec<(usize, u64)> {
        SYNCS.take()
    }

    /// What somebody else does at [`Fault::Else`] and [`Fault::Watch`].
    pub(crate) fn meanwhile(act: impl FnMut() + 'static) {
        MEANWHILE.set(Box::new(act));
    }

    pub(crate) fn kernel_exchanges() -> bool {
        EXCHANGES.get()
    }

    pub(crate) fn step(step: Step) -> Result<(), Errno> {
        let number = STEPS.get();
        STEPS.set(number + 1);
        match FAULT.get() {
            Fault::Kill(at) if number == at => {
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                unreachable!("nobody survives this")
            }
            Fault::Stop(at) if number == at => std::panic::resume_unwind(Box::new(Stopped)),
            Fault::Else(at) if number == at => {
                MEANWHILE.with_borrow_mut(|act| act());
                Ok(())
            }
            Fault::Watch => {
                MEANWHILE.with_borrow_mut(|act| act());
                Ok(())
            }
            Fault::FullOnce(at) if number == at => Err(Errno::NOSPC),
            Fault::FullFrom(at) if number >= at && step == Step::Takes => Err(Errno::NOSPC),
            Fault::BrokenFrom(at) if number >= at => Err(Errno::IO),
            _ => Ok(()),
        }
    }
}
