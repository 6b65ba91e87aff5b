//! The one thread that keeps all commands: reads what they write, feeds what they read, reaps, and ends them in time.
//!
//! One thread, since order matters here: output is read before the exit is told, and only one writer changes a log. It waits in `epoll` and nowhere else; it never
//! waits for a reader. It needs no tokio: a busy runtime doesn't delay a reap, and a time-out doesn't depend on a task.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use corehold_types::tools::CommandExit;
use rustix::{
    event::{Timespec, epoll},
    io::Errno,
    process::Signal,
};
use tokio::sync::oneshot;

use super::{
    Order, Shared,
    arrival::{Arrival, Feed},
    clock::{Clock, LONGEST_SLEEP},
    command::{Command, Ended},
    confine::{self, Answered},
    ending::{Ending, Phase},
    exit::{self, Facts},
    log::Stream,
    members::{self, Whose},
    oom::Kills,
    orphans::Orphans,
    output::{Output, READ, Read},
    registry::Slot,
    store::Store,
    sys::{self, Reaped},
    table::{self, Delivery},
};

mod ends;

/// Full reads from one pipe before the others get their turn.
const READS_IN_A_ROW: usize = 4;

/// More than a terminal holds: 64 KiB on the way and 4 KiB to be read.
const TERMINAL_BYTES: u64 = 128 * 1024;

/// A command in the keeper's care: until it has ended and its pipes are closed by all that inherited them.
struct Kept {
    command: Arc<Command>,
    /// Present until the end is told.
    slot: Option<Slot>,
    handle: Option<OwnedFd>,
    pipes: [Option<OwnedFd>; 2],
    /// Whether as much as it gets was done for a pipe that holds more at a time.
    is_wide: [bool; 2],
    feed: Option<Feed>,
    is_terminal: bool,
    stall_timeout: Option<Duration>,
    last_output: Duration,
    /// Until when its output is left where it is, for those who watch it.
    held: Option<Duration>,
    facts: Facts,
    ending: Option<Ending>,
}

/// A moment of the keeper's clock at which something is to be done about a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Timeout,
    Stall,
    Hold,
    Ending,
}

/// What an epoll event is about: the command's number and which of its descriptors.
const KINDS: u64 = 8;
const OUTPUT: u64 = 0;
const ERROR: u64 = 1;
const INPUT: u64 = 2;
const HANDLE: u64 = 3;
pub(super) const MEMBER: u64 = 4;
/// Number 0 is no command: these are the keeper's own.
const WAKE: u64 = 0;
const SIGNALS: u64 = 1;
const QUESTIONS: u64 = 2;

/// The event's data for a command's descriptor.
pub(super) fn token(number: u64, kind: u64) -> epoll::EventData {
    epoll::EventData::new_u64(number * KINDS + kind)
}

pub(super) struct Keeper {
    shared: Arc<Shared>,
    epoll: OwnedFd,
    signals: OwnedFd,
    /// Where the kernel asks about calls of commands.
    questions: Option<OwnedFd>,
    output: Output,
    clock: Clock,
    kept: HashMap<u64, Kept>,
    by_leader: HashMap<i32, u64>,
    due: BinaryHeap<Reverse<(Duration, u64, Due)>>,
    /// Commands whose output is left where it is.
    held: Vec<u64>,
    orphans: Orphans,
    kills: Kills,
    shutdown: Option<(Duration, Vec<oneshot::Sender<()>>)>,
    is_done: bool,
}

impl Keeper {
    pub(super) fn new(
        shared: Arc<Shared>,
        signals: OwnedFd,
        questions: Option<OwnedFd>,
        store: Store,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, shared.inbox.wake_fd(), token(0, WAKE), epoll::EventFlags::IN)?;
        epoll::add(&epoll, &signals, token(0, SIGNALS), epoll::EventFlags::IN)?;
        if let Some(questions) = &questions {
            epoll::add(&epoll, questions, token(0, QUESTIONS), epoll::EventFlags::IN)?;
        }
        let kills = Kills::new(shared.memory_events.kills());
        Ok(Self {
            shared,
            epoll,
            signals,
            questions,
            output: Output::new(store),
            clock: Clock::new(),
            kept: HashMap::new(),
            by_leader: HashMap::new(),
            due: BinaryHeap::new(),
            held: Vec::new(),
            orphans: Orphans::open(),
            kills,
            shutdown: None,
            is_done: false,
        })
    }

    /// Works until nobody can ask for anything any more, which in the agent is until the process ends.
    pub(super) fn run(mut self) {
        let mut events = Vec::with_capacity(256);
        while !self.is_done {
            self.wait(&mut events);
            let mut children_ended = false;
            for event in &events {
                let data = event.data.u64();
                match (data / KINDS, data % KINDS) {
                    (0, WAKE) => self.answer_wake(),
                    (0, QUESTIONS) => self.answer_question(event.flags),
                    (0, _) => children_ended |= self.read_signals(),
                    (number, OUTPUT) => self.read(number, Stream::Output),
                    (number, ERROR) => self.read(number, Stream::Error),
                    (number, INPUT) => self.feed(number),
                    (_, HANDLE) => children_ended = true,
                    (number, _) => self.member_ended(number),
                }
            }
            if children_ended {
                self.reap();
            }
            self.do_what_is_due();
            self.answer_shutdown();
        }
    }

    fn wait(&mut self, events: &mut Vec<epoll::Event>) {
        events.clear();
        let planned =
            self.due.peek().map(|Reverse((when, ..))| when.saturating_sub(self.clock.now()).min(LONGEST_SLEEP));
        let timeout = planned.map(|planned| Timespec {
            tv_sec: planned.as_secs() as i64,
            // rustix rounds up to the milliseconds that older kernels count in: what is due is due on waking.
            tv_nsec: i64::from(planned.subsec_nanos()),
        });
        let began = Instant::now();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                // Only a mistake of ours (a bad descriptor) leads here, and without it nothing works any more.
                tracing::error!(error = %errno, "the keeper of commands can't wait");
                std::process::abort();
            }
        }
        if let Some(planned) = planned {
            self.clock.slept(began, Instant::now(), planned);
        }
    }

    fn answer_wake(&mut self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(self.shared.inbox.wake_fd(), &mut count);
        self.take_deliveries(false);
        for number in self.held.clone() {
            let kept = self.kept.get(&number);
            if kept.is_some_and(|kept| !kept.command.state().viewers.are_waited_for()) {
                self.let_flow(number);
            }
        }
        for order in self.shared.take_orders() {
            match order {
                Order::Signal { command, signal, answer } => {
                    let leader = command.leader();
                    let members = members::find(self.whose(&command));
                    if let Some(kept) = self.kept.get_mut(&command.number) {
                        kept.facts.sent_kill |= signal == Signal::KILL;
                    }
                    let _ = answer.send(members::signal(&members, leader, signal));
                }
                Order::Stop => self.is_done = true,
                Order::Shutdown { grace, answer } => {
                    let (_, answers) = self.shutdown.get_or_insert((grace, Vec::new()));
                    answers.push(answer);
                    let numbers: Vec<u64> = self.kept.keys().copied().collect();
                    for number in numbers {
                        self.begin_ending(number, grace);
                    }
                }
            }
        }
    }

    /// Who made the call waits, and no one else.
    fn answer_question(&mut self, flags: epoll::EventFlags) {
        let Some(questions) = &self.questions else { return };
        let there = flags.contains(epoll::EventFlags::IN);
        if !there || confine::answer(questions.as_fd()) == Answered::NoMore {
            let _ = epoll::delete(&self.epoll, questions);
            self.questions = None;
        }
    }

    fn whose<'a>(&self, command: &'a Command) -> Whose<'a> {
        let leader_is_there = self.by_leader.get(&command.leader()) == Some(&command.number);
        Whose { id: command.id(), leader: command.leader(), leader_is_there }
    }

    fn take_deliveries(&mut self, orphans_ended: bool) {
        let mut ended = Vec::new();
        for delivery in self.shared.inbox.take() {
            match delivery {
                Delivery::Started(arrival) => self.adopt(*arrival),
                Delivery::Ended(child) => {
                    ended.extend(self.by_leader.remove(&child.pid).map(|number| (number, child)));
                }
            }
        }
        if orphans_ended || !ended.is_empty() {
            let was_killed = |(number, child): &(u64, Reaped)| {
                let facts = &self.kept.get(number)?.facts;
                (libc::WTERMSIG(child.status) == libc::SIGKILL && !facts.sent_kill).then_some(*number)
            };
            let killed: Vec<u64> = ended.iter().filter_map(was_killed).collect();
            self.look_for_kills(&killed, orphans_ended);
        }
        for (number, child) in ended {
            self.leader_ended(number, child);
        }
    }

    fn look_for_kills(&mut self, killed: &[u64], orphans_ended: bool) {
        let now = self.shared.memory_events.kills();
        self.kills.look(now, killed, || orphans_ended || self.orphans.are_there(&self.by_leader));
    }

    fn adopt(&mut self, arrival: Arrival) {
        let now = self.clock.now();
        let number = arrival.command.number;
        let add = |fd: BorrowedFd<'_>, kind, flags| {
            if let Err(error) = epoll::add(&self.epoll, fd, token(number, kind), flags) {
                tracing::error!(%error, number, kind, "a command's descriptor can't be watched");
            }
        };
        add(arrival.output.as_fd(), OUTPUT, epoll::EventFlags::IN);
        if let Some(error) = &arrival.error {
            add(error.as_fd(), ERROR, epoll::EventFlags::IN);
        }
        if let Some(handle) = &arrival.handle {
            add(handle.as_fd(), HANDLE, epoll::EventFlags::IN);
        }
        if let Some(feed) = &arrival.feed {
            add(feed.as_fd(), INPUT, epoll::EventFlags::OUT);
        }
        self.output.begins(&arrival.command);
        self.by_leader.insert(arrival.command.leader(), number);
        self.kills.begins(number, arrival.kills_before, || self.orphans.are_there(&self.by_leader));
        for (timeout, due) in [(arrival.timeout, Due::Timeout), (arrival.stall_timeout, Due::Stall)] {
            if let Some(timeout) = timeout {
                self.due.push(Reverse((now.saturating_add(timeout), number, due)));
            }
        }
        let kept = Kept {
            command: arrival.command,
            slot: Some(arrival.slot),
            handle: arrival.handle,
            is_terminal: arrival.error.is_none(),
            pipes: [Some(arrival.output), arrival.error],
            is_wide: [false; 2],
            feed: arrival.feed,
            stall_timeout: arrival.stall_timeout,
            last_output: now,
            held: None,
            facts: Facts::new(arrival.started, arrival.own_peak_memory_bytes),
            ending: None,
        };
        self.kept.insert(number, kept);
        if let Some((grace, _)) = self.shutdown {
            self.begin_ending(number, grace);
        }
    }

    /// Returns whether children have ended.
    fn read_signals(&mut self) -> bool {
        let mut children_ended = false;
        while let Some(received) = sys::next_signal(self.signals.as_fd()) {
            if received.signal == libc::SIGCHLD {
                children_ended = true;
            } else if received.tells_to_end(self.shared.is_init) {
                tracing::info!(signal = exit::signal_name(received.signal), "told to end");
                self.shared.told_to_end.send_replace(true);
            } else {
                tracing::warn!(
                    signal = exit::signal_name(received.signal),
                    sender = received.sender,
                    "a signal from inside is ignored"
                );
            }
        }
        children_ended
    }

    fn read(&mut self, number: u64, stream: Stream) {
        for _ in 0..READS_IN_A_ROW {
            if self.hold(number) || self.read_once(number, stream, READ) != Some(READ) {
                return;
            }
        }
        // It is filled as fast as it is read.
        if let Some(kept) = self.kept.get_mut(&number)
            && !kept.is_wide[stream as usize]
            && let Some(pipe) = &kept.pipes[stream as usize]
        {
            kept.is_wide[stream as usize] = self.output.widen(&kept.command, pipe);
        }
    }

    /// Leaves a command's output where it is if one who watches it would miss something else. Returns whether it does.
    fn hold(&mut self, number: u64) -> bool {
        let Some(kept) = self.kept.get_mut(&number) else { return false };
        if kept.held.is_some() {
            return true;
        }
        // Once the leader has ended, what others write is read as it comes: nobody waits for a command that is over.
        if kept.slot.is_none() || !self.output.is_to_wait(&kept.command, &self.shared.inbox) {
            return false;
        }
        let until = self.clock.now().saturating_add(self.shared.config.hold);
        kept.held = Some(until);
        for pipe in kept.pipes.iter().flatten() {
            let _ = epoll::delete(&self.epoll, pipe);
        }
        self.held.push(number);
        self.due.push(Reverse((until, number, Due::Hold)));
        true
    }

    /// Reads a command's output again.
    fn let_flow(&mut self, number: u64) {
        self.held.retain(|held| *held != number);
        let Some(kept) = self.kept.get_mut(&number) else { return };
        if kept.held.take().is_none() {
            return;
        }
        kept.command.state().viewers.give_up();
        // It was not silent, it was not heard.
        kept.last_output = self.clock.now();
        for (pipe, kind) in kept.pipes.iter().zip([OUTPUT, ERROR]) {
            let Some(pipe) = pipe else { continue };
            if let Err(error) = epoll::add(&self.epoll, pipe, token(number, kind), epoll::EventFlags::IN) {
                tracing::error!(%error, number, kind, "a command's output can't be watched again");
            }
        }
    }

    /// Reads at most `most` bytes. Returns how many came; `None` when there are none now or never will be.
    fn read_once(&mut self, number: u64, stream: Stream, most: usize) -> Option<usize> {
        let kept = self.kept.get_mut(&number)?;
        let pipe = kept.pipes[stream as usize].as_ref()?;
        match self.output.read(&kept.command, stream, pipe, most) {
            Read::Bytes(read) => {
                kept.last_output = self.clock.now();
                Some(read)
            }
            Read::Nothing => None,
            Read::End => {
                self.close_pipe(number, stream);
                None
            }
        }
    }

    /// Nobody has the other end any more.
    fn close_pipe(&mut self, number: u64, stream: Stream) {
        if let Some(kept) = self.kept.get_mut(&number) {
            // Closing alone wouldn't take a terminal out of the epoll set: its writers have copies.
            if let Some(pipe) = kept.pipes[stream as usize].take() {
                let _ = epoll::delete(&self.epoll, &pipe);
            }
        }
        self.let_go(number);
    }

    /// Forgets a command that needs no care any more.
    fn let_go(&mut self, number: u64) {
        let is_done = self.kept.get(&number).is_some_and(|kept| {
            kept.slot.is_none()
                && kept.ending.is_none()
                && kept.feed.is_none()
                && kept.pipes.iter().all(Option::is_none)
        });
        if is_done {
            self.kept.remove(&number);
            self.output.ends(number);
            self.output.forget_oldest(self.shared.config.commands_kept.as_usize(), &self.shared.registry);
        }
    }

    fn feed(&mut self, number: u64) {
        let Some(kept) = self.kept.get_mut(&number) else { return };
        if kept.feed.as_mut().is_some_and(Feed::push) {
            if let Some(feed) = kept.feed.take() {
                // Who writes next has a copy.
                let _ = epoll::delete(&self.epoll, feed.as_fd());
            }
            self.let_go(number);
        }
    }

    /// Reaps everything that has ended: leaders, and orphans that became ours.
    fn reap(&mut self) {
        let orphans = table::reap_all(&self.shared.inbox);
        for orphan in &orphans {
            self.orphans.forget(*orphan);
        }
        self.take_deliveries(!orphans.is_empty());
    }

    fn leader_ended(&mut self, number: u64, child: Reaped) {
        for stream in [Stream::Output, Stream::Error] {
            self.drain(number, stream);
        }
        let Some(kept) = self.kept.get_mut(&number) else { return };
        kept.handle = None;
        kept.facts.ended(child);
        if kept.ending.as_ref().is_some_and(|ending| ending.phase() != Phase::GivenUp) {
            // Its end is told when all of it has ended, or has had its time.
            self.progress(number);
        } else {
            self.tell_exit(number);
        }
    }

    /// Reads what is in a pipe now: all that the leader wrote, and not what others may go on writing.
    fn drain(&mut self, number: u64, stream: Stream) {
        let pipe = self.kept.get(&number).and_then(|kept| kept.pipes[stream as usize].as_ref());
        let is_terminal = self.kept.get(&number).is_some_and(|kept| kept.is_terminal);
        let mut left = match pipe {
            // It doesn't count what is still on its way through; it holds less than this, and its leader's end hung it up.
            Some(_) if is_terminal => TERMINAL_BYTES,
            pipe => pipe.and_then(|pipe| rustix::io::ioctl_fionread(pipe).ok()).unwrap_or(0),
        };
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(READ).min(READ);
            let Some(read) = self.read_once(number, stream, most) else { return };
            left = left.saturating_sub(read as u64);
        }
        // Where nobody holds the other end any more, this sees it and lets go of the pipe at once.
        let _ = self.read_once(number, stream, READ);
    }

    fn tell_exit(&mut self, number: u64) {
        self.let_flow(number);
        let Some(kept) = self.kept.get_mut(&number) else { return };
        let Some(slot) = kept.slot.take() else { return };
        let command = Arc::clone(&kept.command);
        let whose = Whose { id: command.id(), leader: command.leader(), leader_is_there: false };
        let survivors = match self.orphans.has_any_of(whose) {
            true => members::find(whose).into_iter().map(|member| member.pid.unsigned_abs()).collect(),
            false => Vec::new(),
        };
        let was_being_ended = kept.ending.take().is_some();
        if was_being_ended {
            self.look_for_kills(&[], false);
        }
        let oom_killed = self.kills.ends(number);
        let Some(kept) = self.kept.get_mut(&number) else { return };
        let exit: CommandExit = kept.facts.to_exit(survivors, oom_killed);
        {
            let mut state = command.state();
            let offset = state.log.end();
            state.ended = Some(Ended { exit, offset });
        }
        if let Some(input) = &command.input {
            input.close();
        }
        drop(slot);
        command.tell();
        self.output.finished(&command);
        if self.by_leader.is_empty() || self.due.len() > 16 + 2 * self.kept.len() {
            // Time-outs of what has ended would keep waking the keeper.
            self.due.retain(|Reverse((_, number, _))| self.kept.get(number).is_some_and(|kept| kept.slot.is_some()));
        }
        self.let_go(number);
    }

    fn do_what_is_due(&mut self) {
        while let Some(Reverse((when, number, due))) = self.due.peek().copied() {
            let now = self.clock.now();
            if when > now {
                return;
            }
            self.due.pop();
            let Some(kept) = self.kept.get_mut(&number) else { continue };
            match due {
                Due::Ending => self.ending_is_due(number),
                // Of an earlier hold, if it is too early.
                Due::Hold if kept.held.is_none_or(|until| until > now) => {}
                Due::Hold => self.let_flow(number),
                // It has ended already, or is being ended: too late for a time-out.
                _ if kept.facts.has_ended() || kept.ending.is_some() || kept.slot.is_none() => {}
                Due::Timeout => {
                    kept.facts.timed_out = true;
                    self.begin_ending(number, self.shared.config.grace);
                }
                Due::Stall => {
                    let last_output = if kept.held.is_some() { now } else { kept.last_output };
                    let stalls_at = last_output.saturating_add(kept.stall_timeout.unwrap_or(Duration::MAX));
                    if stalls_at > now {
                        self.due.push(Reverse((stalls_at, number, due)));
                    } else {
                        kept.facts.stalled = true;
                        self.begin_ending(number, self.shared.config.grace);
                    }
                }
            }
        }
    }

    fn answer_shutdown(&mut self) {
        let is_done = |kept: &Kept| {
            kept.slot.is_none() || kept.ending.as_ref().is_some_and(|ending| ending.phase() == Phase::GivenUp)
        };
        if self.shutdown.is_some() && self.kept.values().all(is_done) && self.shared.inbox.is_empty() {
            for answer in self.shutdown.iter_mut().flat_map(|(_, answers)| answers.drain(..)) {
                let _ = answer.send(());
            }
        }
    }
}
