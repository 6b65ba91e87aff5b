//! Whose process it was that the kernel killed for want of memory.
//!
//! The kernel counts such kills for the container as a whole and tells nobody whom it took, so a rise of the counter alone says
//! nothing about one command. A control group for each command, which would, can't be made in a container without privileges.
//! What can be told is told, the rest is absent:
//!
//! | the counter rose while the command ran, and at that time | it was this command's |
//! |---|---|
//! | nothing else of the workspace ran | yes, also where only a child was killed |
//! | its leader ended by a SIGKILL that the agent didn't send, as did at most as many others' as were counted | yes |
//! | that explains all that was counted, but with leaders of others | no |
//! | anything else | can't be told |
//!
//! "At that time" is from the last look at the counter to the one that saw it rise. A look is taken when a command starts and
//! whenever a child of the agent was reaped, so the same commands run from one look to the next. It is not proof against a
//! process inside that kills another command's leader by SIGKILL between the two looks, beside a kill of the kernel's elsewhere.

use std::collections::HashMap;

/// What is known of the kills since each of the running commands began.
#[derive(Debug)]
pub(super) struct Kills {
    /// What the counter was at the last look; `None` where there is none.
    seen: Option<u64>,
    running: HashMap<u64, Known>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nothing can have been killed.
    Spared,
    /// Some process was, and it may have been one of its.
    Doubtful,
    /// One of its was.
    Hit,
}

impl Kills {
    pub(super) fn new(now: Option<u64>) -> Self {
        Self { seen: now, running: HashMap::new() }
    }

    /// A command was started. `before` is what the counter was before it; `others` as in [`Self::look`].
    pub(super) fn begins(&mut self, number: u64, before: Option<u64>, others: impl FnOnce() -> bool) {
        self.look(before, &[], others);
        // The counter has risen since it began: at a look that didn't know of it yet.
        let known = if before < self.seen { Known::Doubtful } else { Known::Spared };
        self.running.insert(number, known);
    }

    /// A look at the counter. `killed` are the commands whose leaders have ended since the last one by a SIGKILL that the agent didn't
    /// send; `others` says whether processes may have run that belong to none of the running commands.
    pub(super) fn look(&mut self, now: Option<u64>, killed: &[u64], others: impl FnOnce() -> bool) {
        let Some((now, seen)) = now.zip(self.seen) else { return };
        let Some(mut rise) = now.checked_sub(seen).filter(|rise| *rise > 0) else { return };
        self.seen = Some(now);
        let is_alone = self.running.len() == 1 && !others();
        let explained = is_alone || (killed.len() as u64) <= rise;
        if explained {
            rise = if is_alone { 0 } else { rise - killed.len() as u64 };
        }
        for (number, known) in &mut self.running {
            if is_alone || (explained && killed.contains(number)) {
                *known = Known::Hit;
            } else if rise > 0 && *known == Known::Spared {
                *known = Known::Doubtful;
            }
        }
    }

    /// A command's end is told: whether one of its processes was killed. `None` where it can't be told.
    pub(super) fn ends(&mut self, number: u64) -> Option<bool> {
        self.seen?;
        match self.running.remove(&number)? {
            Known::Spared => Some(false),
            Known::Doubtful => None,
            Known::Hit => Some(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YES: Option<bool> = Some(true);
    const NO: Option<bool> = Some(false);

    /// Commands 1 to `commands` run; then a look sees `rise` more kills.
    fn told(commands: u64, rise: u64, killed: &[u64], others: bool) -> Vec<Option<bool>> {
        let mut kills = Kills::new(Some(7));
        for number in 1..=commands {
            kills.begins(number, Some(7), || false);
        }
        kills.look(Some(7 + rise), killed, || others);
        (1..=commands).map(|number| kills.ends(number)).collect()
    }

    #[test]
    fn it_is_told_where_it_can_be() {
        for (commands, rise, killed, others, expected, why) in [
            (1, 0, &[][..], true, &[NO][..], "nothing was killed"),
            (1, 0, &[1], false, &[NO], "somebody inside sent the signal"),
            (1, 1, &[], false, &[YES], "a child, and nobody else was there"),
            (1, 3, &[1], false, &[YES], "all of it"),
            (1, 1, &[], true, &[None], "or what another command left"),
            (1, 1, &[1], true, &[YES], "its leader"),
            (2, 0, &[], false, &[NO, NO], "nothing was killed"),
            (2, 1, &[], false, &[None, None], "a child of either"),
            (2, 1, &[2], false, &[NO, YES], "the leader of one, so none of the other's"),
            (2, 2, &[2], false, &[None, YES], "and a child of either"),
            (3, 2, &[1, 2], false, &[YES, YES, NO], "two leaders"),
            (3, 1, &[1, 2], false, &[None, None, None], "one of two leaders; the other had the signal from inside"),
        ] {
            assert_eq!(told(commands, rise, killed, others), expected, "{commands} {rise} {killed:?} {others}: {why}");
        }
    }

    #[test]
    fn only_who_ran_meanwhile_is_asked_about() {
        let mut kills = Kills::new(Some(0));
        kills.begins(1, Some(0), || false);
        assert_eq!(kills.ends(1), NO);
        // Between two looks, the first command alone: the second had not begun.
        kills.begins(2, Some(0), || false);
        kills.begins(3, Some(1), || false);
        assert_eq!((kills.ends(2), kills.ends(3)), (YES, NO));
    }

    #[test]
    fn a_kill_that_was_seen_before_the_command_was_known_leaves_doubt() {
        let mut kills = Kills::new(Some(0));
        kills.look(Some(1), &[], || false);
        kills.begins(1, Some(0), || false);
        assert_eq!(kills.ends(1), None);
    }

    #[test]
    fn what_is_sure_stays_sure_and_a_doubt_may_become_sure() {
        let mut kills = Kills::new(Some(0));
        kills.begins(1, Some(0), || false);
        kills.look(Some(1), &[], || false);
        kills.begins(2, Some(1), || false);
        kills.look(Some(2), &[], || false);
        kills.look(Some(3), &[2], || false);
        assert_eq!((kills.ends(1), kills.ends(2)), (YES, YES));
    }

    #[test]
    fn without_a_counter_nothing_is_told() {
        let mut kills = Kills::new(None);
        kills.begins(1, None, || false);
        kills.look(None, &[1], || false);
        assert_eq!(kills.ends(1), None);
        let mut lost = Kills::new(Some(1));
        lost.begins(1, None, || false);
        assert_eq!(lost.ends(1), None, "it couldn't be read when the command began");
    }
}
