//! Ending commands, step by step, as the keeper's clock and the ends of their processes have it.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use super::{Due, Keeper, MEMBER, token};
use crate::process::{
    ending::{Ending, Phase, Progress},
    members::Whose,
};

impl Keeper {
    /// Asks all of a command to end, and sees to it.
    pub(super) fn begin_ending(&mut self, number: u64, grace: Duration) {
        let Some(kept) = self.kept.get_mut(&number) else { return };
        if kept.slot.is_none() || kept.ending.is_some() {
            return;
        }
        let until = self.clock.now().saturating_add(grace);
        let command = Arc::clone(&kept.command);
        let whose = Whose { leader_is_there: !kept.facts.has_ended(), id: command.id(), leader: command.leader() };
        kept.ending = Some(Ending::begin(whose, &self.epoll, token(number, MEMBER)));
        self.due.push(Reverse((until, number, Due::Ending)));
    }

    pub(super) fn member_ended(&mut self, number: u64) {
        let ending = self.kept.get_mut(&number).and_then(|kept| kept.ending.as_mut());
        if ending.is_some_and(Ending::one_ended) {
            self.progress(number);
        }
    }

    pub(super) fn ending_is_due(&mut self, number: u64) {
        let Some(kept) = self.kept.get_mut(&number) else { return };
        let command = Arc::clone(&kept.command);
        let whose = Whose { leader_is_there: !kept.facts.has_ended(), id: command.id(), leader: command.leader() };
        let Some(ending) = kept.ending.as_mut() else { return };
        match ending.phase() {
            Phase::Asked => {
                kept.facts.sent_kill = true;
                let until = ending.kill(whose, self.clock.now(), &self.epoll, token(number, MEMBER));
                self.due.push(Reverse((until, number, Due::Ending)));
                self.progress(number);
            }
            Phase::Killed => {
                // What can't even be killed (it waits for a dead disk) is told as a survivor.
                ending.give_up();
                if kept.facts.has_ended() {
                    self.tell_exit(number);
                }
            }
            Phase::GivenUp => {}
        }
    }

    pub(super) fn progress(&mut self, number: u64) {
        let Some(kept) = self.kept.get_mut(&number) else { return };
        let command = Arc::clone(&kept.command);
        let has_ended = kept.facts.has_ended();
        let whose = Whose { leader_is_there: !has_ended, id: command.id(), leader: command.leader() };
        let Some(ending) = kept.ending.as_mut() else { return };
        let progress = ending.look(whose, &self.epoll, token(number, MEMBER));
        if has_ended && progress == Progress::NoneLeft {
            self.tell_exit(number);
        }
    }
}
