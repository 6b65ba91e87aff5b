//! The room's door: what the rest of the agent asks of commands.

use std::{
    collections::BTreeMap,
    fmt, io,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    thread,
    time::Duration,
};

use corehold_types::{Timestamp, tools::CommandInfo};
use rustix::{
    event::{EventfdFlags, eventfd},
    process::{Pid, Resource, Rlimit, Signal},
};
use tokio::sync::{oneshot, watch};

use super::{
    ProcessConfig, StartError,
    command::{Command, Identity, new_id, shown_line},
    confine, environment,
    keeper::Keeper,
    members,
    memory_events::MemoryEvents,
    registry::Registry,
    spawner::{self, Job, Program, Start},
    store::Store,
    sys::SignalSet,
    table::Inbox,
};

/// All commands of the agent.
#[derive(Debug)]
pub struct Processes {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    guards: Vec<&'static str>,
}

/// What the room's threads and its door share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: ProcessConfig,
    /// The environment that came with a claim.
    pub(super) handed: Handed,
    pub(super) registry: Arc<Registry>,
    /// Where the keeper is told of processes, and woken.
    pub(super) inbox: Arc<Inbox>,
    orders: Mutex<Vec<Order>>,
    pub(super) told_to_end: watch::Sender<bool>,
    /// Whether the agent is PID 1.
    pub(super) is_init: bool,
    pub(super) memory_events: MemoryEvents,
}

/// Variables that came with a claim. Their values may be secrets, so none are shown.
#[derive(Default)]
pub(super) struct Handed(OnceLock<BTreeMap<String, String>>);

impl Handed {
    /// The variables; none before the claim.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.get().into_iter().flatten()
    }
}

impl fmt::Debug for Handed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.variables().map(|(name, _)| name)).finish()
    }
}

/// What the keeper is asked to do.
#[derive(Debug)]
pub(super) enum Order {
    /// A signal to all of a command; the answer is how many there were.
    Signal { command: Arc<Command>, signal: Signal, answer: oneshot::Sender<usize> },
    /// An end to everything.
    Shutdown { grace: Duration, answer: oneshot::Sender<()> },
    /// The room is gone: its keeper may go too.
    Stop,
}

impl Shared {
    pub(super) fn take_orders(&self) -> Vec<Order> {
        std::mem::take(&mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn order(&self, order: Order) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        self.inbox.wake();
    }
}

impl Processes {
    /// Makes the agent ready for commands and starts the room's threads. Called once, before any other thread exists: the
    /// signals that it takes over must be blocked in all of them.
    ///
    /// From then on every child of the process is reaped here, also those that others start.
    ///
    /// # Errors
    /// The operating system refused a thread, a descriptor, or memory.
    pub fn start(config: ProcessConfig) -> io::Result<Self> {
        let signals = SignalSet::of(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT]);
        signals.block()?;
        let signals = signals.descriptor()?;
        confine::make_undumpable()?;
        let is_init = std::process::id() == 1;
        if !is_init {
            // As PID 1 orphans come to us anyway.
            rustix::process::set_child_subreaper(Some(Pid::from_raw(1).ok_or(io::ErrorKind::InvalidInput)?))?;
        }
        let open_files = raise_open_files();
        let store = Store::open(config.log_directory.as_deref(), config.log_bytes.value, config.logs_bytes.value)?;
        let shared = Arc::new(Shared {
            memory_events: MemoryEvents::open(config.kill_counter.as_deref()),
            config,
            handed: Handed::default(),
            registry: Arc::default(),
            inbox: Arc::new(Inbox::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)),
            orders: Mutex::default(),
            told_to_end: watch::Sender::new(false),
            is_init,
        });
        let (jobs, restricted) = spawner::start(Arc::clone(&shared), store.file(), open_files)?;
        let mut guards = restricted.guards;
        guards.push("not-dumpable");
        if is_init {
            guards.push("init");
        }
        let keeper = Keeper::new(Arc::clone(&shared), signals, restricted.questions, store)?;
        start_thread("keeper", move || keeper.run())?;
        Ok(Self { shared, jobs, guards })
    }

    /// The guards against commands that are active, for `info`.
    #[must_use]
    pub fn guards(&self) -> Vec<String> {
        self.guards.iter().map(|guard| (*guard).to_owned()).collect()
    }

    /// How commands run here.
    #[must_use]
    pub fn config(&self) -> &ProcessConfig {
        &self.shared.config
    }

    /// Hands over variables for the commands that are started from now on; they take precedence over the agent's own. The
    /// first call counts. The variables live in the agent's memory, which commands can't read, and in no environment but theirs.
    pub fn hand_over(&self, variables: BTreeMap<String, String>) {
        let _ = self.shared.handed.0.set(variables);
    }

    /// Starts a command. Once it has begun it goes on, also when the caller doesn't wait for the answer.
    ///
    /// # Errors
    /// [`StartError`] says why there is no such process.
    pub async fn start_command(&self, start: Start) -> Result<Arc<Command>, StartError> {
        check(&start, &self.shared.config)?;
        let line = match &start.program {
            Program::Arguments(arguments) => shown_line(arguments),
            Program::Line(line) => shown_line(std::slice::from_ref(line)),
        };
        let slot = self.shared.registry.reserve(self.shared.config.commands)?;
        let id = new_id().map_err(|error| StartError::Internal(io::Error::other(error.to_string())))?;
        let identity = Identity { id, number: slot.number, label: start.label.clone(), line };
        let (answer, answered) = oneshot::channel();
        let gone = || StartError::Internal(io::Error::other("the spawner has ended"));
        self.jobs.send(Job { start, identity, slot, answer }).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// The command with this id, running or finished.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<Arc<Command>> {
        self.shared.registry.find(id)
    }

    /// Commands with this label or any, newest first, older than the one with number `before`; and where to go on.
    #[must_use]
    pub fn list(&self, label: Option<&str>, before: Option<u64>, limit: usize) -> (Vec<CommandInfo>, Option<u64>) {
        self.shared.registry.list(label, before, limit)
    }

    /// The commands that run, oldest first.
    #[must_use]
    pub fn running(&self) -> Vec<Arc<Command>> {
        let mut all = self.shared.registry.all();
        all.retain(|command| command.exit().is_none());
        all
    }

    /// Those that have ended and are still known, each with its end.
    #[must_use]
    pub fn over(&self) -> Vec<(Arc<Command>, Timestamp)> {
        let ended = |command: Arc<Command>| {
            let lasted = Duration::from_millis(command.exit()?.duration_ms);
            let end = command.started().after(lasted);
            Some((command, end))
        };
        self.shared.registry.all().into_iter().filter_map(ended).collect()
    }

    /// How many commands are known, and how many bytes of their output are kept.
    #[must_use]
    pub fn kept(&self) -> (usize, u64) {
        let all = self.shared.registry.all();
        let bytes = all.iter().map(|command| command.kept()).sum();
        (all.len(), bytes)
    }

    /// The command that a process belongs to, by its environment or its session, if the command is still known.
    #[must_use]
    pub fn command_of(&self, pid: u32) -> Option<String> {
        let pid = i32::try_from(pid).ok()?;
        if let Some(command) = members::command_of(pid).and_then(|id| self.find(&id)) {
            return Some(command.id().to_owned());
        }
        let session = u32::try_from(members::session_of(pid)?).ok()?;
        let running = self.running();
        running.iter().find(|command| command.pid() == session).map(|command| command.id().to_owned())
    }

    /// Sends a signal to every process of a command. Returns how many there were.
    pub async fn signal(&self, command: Arc<Command>, signal: Signal) -> usize {
        let (answer, answered) = oneshot::channel();
        self.shared.order(Order::Signal { command, signal, answer });
        answered.await.unwrap_or(0)
    }

    /// Resolves when the agent is told to end: by TERM or INT, as PID 1 only if sent from outside of the container.
    pub async fn told_to_end(&self) {
        // The sender lives in `self`.
        let _ = self.shared.told_to_end.subscribe().wait_for(|told| *told).await;
    }

    /// Ends all commands and starts no more: TERM, and KILL after the grace. Returns when all have ended, or a second after
    /// they were killed.
    pub async fn shutdown(&self, grace: Duration) {
        self.shared.registry.close();
        let (answer, answered) = oneshot::channel();
        self.shared.order(Order::Shutdown { grace, answer });
        let _ = answered.await;
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.shared.order(Order::Stop);
    }
}

fn check(start: &Start, config: &ProcessConfig) -> Result<(), StartError> {
    let (first, parts): (Option<&String>, Vec<&String>) = match &start.program {
        Program::Arguments(arguments) => (arguments.first(), arguments.iter().collect()),
        Program::Line(line) => (Some(line), vec![line]),
    };
    if first.is_none_or(String::is_empty) {
        return Err(StartError::Invalid("the command is empty"));
    }
    let has_nul = |text: &&String| text.contains('\0');
    if parts.iter().any(has_nul) || start.environment.values().any(|value| has_nul(&value)) {
        return Err(StartError::Invalid(
            "an argument or a variable's value holds a NUL byte, which no program can be given",
        ));
    }
    if !start.environment.keys().all(|name| environment::is_valid_name(name.as_ref())) {
        return Err(StartError::Invalid("a variable's name is empty, or holds an equals sign or a NUL byte"));
    }
    let bytes = parts.iter().map(|part| part.len() + 1).sum::<usize>()
        + start.environment.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>();
    if bytes > config.argument_bytes.as_usize() {
        let what = "the size of arguments and environment";
        return Err(StartError::Limit { what, limit: config.argument_bytes });
    }
    Ok(())
}

/// A thread that the room can't do without: if it should panic, the agent ends rather than go on without it.
pub(super) fn start_thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let in_panic = name.to_owned();
    thread::Builder::new().name(name.to_owned()).stack_size(256 * 1024).spawn(move || {
        if panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
            tracing::error!(thread = in_panic, "a thread of the agent has panicked");
            std::process::abort();
        }
    })?;
    Ok(())
}

/// Raises the agent's limit of open files to the most it may have: a running command takes four. Returns what commands are
/// to get, since programs that use `select` break above 1,024.
fn raise_open_files() -> Option<libc::rlimit> {
    let before = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    if before.current == before.maximum || rustix::process::setrlimit(Resource::Nofile, raised).is_err() {
        return None;
    }
    let number = |value: Option<u64>| value.unwrap_or(libc::RLIM_INFINITY);
    Some(libc::rlimit { rlim_cur: number(before.current), rlim_max: number(before.maximum) })
}
