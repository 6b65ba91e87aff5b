//! Ending a command with all that belongs to it: TERM, time to obey, KILL.
//!
//! The end of each member is an event, so a command that obeys is done at once and the grace is only the longest it takes.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use rustix::{event::epoll, process::Signal};

use super::members::{self, Process, Whose};

/// How long killed processes get to disappear before those that don't are told as survivors.
const KILLED_GRACE: Duration = Duration::from_secs(1);

/// Rounds of killing: a member that forks while it is being killed is found in the next one.
const ROUNDS: usize = 8;

/// A command that is being ended.
#[derive(Debug)]
pub(super) struct Ending {
    phase: Phase,
    /// Descriptors of members that lived when they were looked at; closed with this.
    watched: Vec<OwnedFd>,
    /// How many of them have not told their end.
    living: usize,
}

/// How far it has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// TERM was sent.
    Asked,
    /// KILL was sent.
    Killed,
    /// Some didn't go.
    GivenUp,
}

/// What a look at the members showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    NoneLeft,
    SomeLeft,
}

impl Ending {
    /// Asks all members to end.
    pub(super) fn begin(whose: Whose<'_>, epoll: &OwnedFd, data: epoll::EventData) -> Self {
        let members = members::find(whose);
        let mut ending = Self { phase: Phase::Asked, watched: Vec::new(), living: 0 };
        // Watched first: one that ends at once must be seen to.
        ending.watch(&members, epoll, data);
        members::signal(&members, whose.leader, Signal::TERM);
        // A stopped process gets the signal when it continues.
        members::signal(&members, whose.leader, Signal::CONT);
        ending
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Kills all members. Returns until when they get to disappear.
    pub(super) fn kill(
        &mut self,
        whose: Whose<'_>,
        now: Duration,
        epoll: &OwnedFd,
        data: epoll::EventData,
    ) -> Duration {
        self.phase = Phase::Killed;
        self.kill_all(whose, epoll, data);
        now.saturating_add(KILLED_GRACE)
    }

    fn kill_all(&mut self, whose: Whose<'_>, epoll: &OwnedFd, data: epoll::EventData) {
        let mut known: Vec<Process> = Vec::new();
        for _ in 0..ROUNDS {
            let members = members::find(whose);
            if members.iter().all(|member| known.contains(member)) {
                break;
            }
            members::signal(&members, whose.leader, Signal::KILL);
            known = members;
        }
        self.watched.clear();
        self.living = 0;
        self.watch(&known, epoll, data);
    }

    /// Nothing more can be done.
    pub(super) fn give_up(&mut self) {
        self.phase = Phase::GivenUp;
        self.watched.clear();
    }

    /// One of those watched has ended. Returns whether it was the last.
    pub(super) fn one_ended(&mut self) -> bool {
        self.living = self.living.saturating_sub(1);
        self.living == 0
    }

    /// Looks for members that are left or came meanwhile, and waits for their end too.
    pub(super) fn look(&mut self, whose: Whose<'_>, epoll: &OwnedFd, data: epoll::EventData) -> Progress {
        for _ in 0..ROUNDS {
            let members = members::find(whose);
            if members.is_empty() {
                return Progress::NoneLeft;
            }
            if self.living > 0 || self.phase == Phase::GivenUp {
                break;
            }
            if self.phase == Phase::Killed {
                members::signal(&members, whose.leader, Signal::KILL);
            }
            self.watched.clear();
            self.watch(&members, epoll, data);
        }
        Progress::SomeLeft
    }

    /// Once each: a descriptor of an ended process stays readable, and its event is wanted only once.
    fn watch(&mut self, members: &[Process], epoll: &OwnedFd, data: epoll::EventData) {
        for member in members {
            let Some(handle) = members::handle(member) else { continue };
            if epoll::add(epoll, handle.as_fd(), data, epoll::EventFlags::IN | epoll::EventFlags::ONESHOT).is_ok() {
                self.watched.push(handle);
                self.living += 1;
            }
        }
    }
}
