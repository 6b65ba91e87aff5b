//! The one thread that starts every command. It restricted itself first, so no command can do what it can't.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString, NulError, OsStr},
    io, iter,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use bytes::Bytes;
use corehold_types::tools::{CommandLimits, PtySize};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    pipe::PipeFlags,
};
use tokio::sync::oneshot;

use super::{
    Shared,
    arrival::{Arrival, Feed},
    command::{Command, Identity},
    confine::{self, Restricted},
    environment::{self, Prepared},
    error::StartError,
    input::Input,
    limits,
    lookup::{self, Beginning, Miss},
    registry::Slot,
    spawn::{self, ChildStack, Plan, Step},
    store::StoreFile,
    sys::{self, SignalSet},
    table::Starting,
    terminal,
};

/// What runs a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// A program and its arguments.
    Arguments(Vec<String>),
    /// A line for `/bin/sh -c`.
    Line(String),
}

/// A command to start.
#[derive(Debug)]
pub struct Start {
    /// What to run.
    pub program: Program,
    /// Where: an open directory.
    pub directory: OwnedFd,
    /// Variables besides those that every command gets.
    pub environment: BTreeMap<String, String>,
    /// What it reads first.
    pub stdin: Bytes,
    /// Whether its standard input then stays open, for [`Command::write`].
    pub interactive: bool,
    /// The size of the terminal that its streams are, if they are one. Its input stays open.
    pub terminal: Option<PtySize>,
    /// What it may use.
    pub limits: CommandLimits,
    /// Time after which it is ended.
    pub timeout: Option<Duration>,
    /// Time without output after which it is ended.
    pub stall_timeout: Option<Duration>,
    /// A word for people.
    pub label: Option<String>,
}

impl Start {
    /// Of a program that gets nothing to read, for as long as it takes.
    #[must_use]
    pub fn new(program: Program, directory: OwnedFd) -> Self {
        Self {
            program,
            directory,
            environment: BTreeMap::new(),
            stdin: Bytes::new(),
            interactive: false,
            terminal: None,
            limits: CommandLimits::default(),
            timeout: None,
            stall_timeout: None,
            label: None,
        }
    }
}

/// A command to start, its place, and who waits for the answer.
pub(super) struct Job {
    pub(super) start: Start,
    pub(super) identity: Identity,
    pub(super) slot: Slot,
    pub(super) answer: oneshot::Sender<Result<Arc<Command>, StartError>>,
}

pub(super) struct Spawner {
    shared: Arc<Shared>,
    file: Arc<StoreFile>,
    stack: ChildStack,
    /// What a command reads that is given no input: ends at once, and is no pipe that programs would wait on.
    nothing: OwnedFd,
    /// The limit of open files that the agent had before it raised its own.
    open_files: Option<libc::rlimit>,
    /// What commands get as `oom_score_adj`.
    oom_score: String,
    /// The variables that all commands have, and whether those are among them that came with a claim.
    variables: Option<(Arc<Prepared>, bool)>,
    /// What a signal does in the agent that is to do in commands what it does by default.
    changed_signals: Vec<i32>,
}

/// How much more than the agent's a command's `oom_score_adj` is: 100 counts as a tenth of the container's memory.
const OOM_SCORE_MORE: i32 = 100;

fn oom_score_of_commands() -> String {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|score| score.trim().parse().ok());
    (own.unwrap_or(0) + OOM_SCORE_MORE).min(1_000).to_string()
}

/// Starts the thread and returns once it is restricted, with what holds.
pub(super) fn start(
    shared: Arc<Shared>,
    file: Arc<StoreFile>,
    open_files: Option<libc::rlimit>,
) -> io::Result<(mpsc::Sender<Job>, Restricted)> {
    let nothing = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut spawner = Spawner {
        shared,
        file,
        stack: ChildStack::new()?,
        nothing,
        open_files,
        oom_score: oom_score_of_commands(),
        variables: None,
        changed_signals: spawn::changed_signals(),
    };
    #[expect(clippy::disallowed_methods, reason = "each job holds a slot, so there are no more than commands may run")]
    let (jobs, to_do) = mpsc::channel::<Job>();
    let (ready, is_ready) = mpsc::sync_channel(1);
    super::start_thread("spawner", move || {
        let blocked = SignalSet::full().block();
        let _ = ready.send(blocked.map(|()| confine::restrict_this_thread()));
        for job in to_do {
            let result = spawner.start(job.start, job.identity, job.slot);
            // Nobody may be waiting any more: the command runs on, it belongs to the agent.
            let _ = job.answer.send(result);
        }
    })?;
    let restricted = is_ready.recv().map_err(|_| io::Error::other("the spawner ended"))??;
    Ok((jobs, restricted))
}

impl Spawner {
    fn start(&mut self, start: Start, identity: Identity, slot: Slot) -> Result<Arc<Command>, StartError> {
        if self.shared.registry.is_closed() {
            return Err(StartError::ShuttingDown);
        }
        let (of_all, own) = (self.variables()?, prepare(&start.environment)?);
        let search = own.get("PATH").or_else(|| of_all.get("PATH")).unwrap_or(OsStr::new(lookup::DEFAULT_PATH));
        let (program, arguments) = match start.program {
            Program::Line(line) => ("/bin/sh".to_owned(), vec!["/bin/sh".to_owned(), "-c".to_owned(), line]),
            Program::Arguments(arguments) => (arguments.first().cloned().unwrap_or_default(), arguments),
        };
        let directory = start.directory;
        let path = lookup::find(OsStr::new(&program), search, directory.as_fd())
            .map_err(|miss| explain_miss(&program, miss, search, &directory))?;

        let mut ends = match start.terminal {
            Some(size) => terminal_ends(size, start.stdin)?,
            None => pipe_ends(start.stdin, start.interactive)?,
        };
        let limits = limits::to_set(&start.limits, self.open_files)?;
        let mut arguments: Vec<CString> =
            arguments.into_iter().map(|argument| c_string(argument.as_bytes())).collect::<Result<_, _>>()?;
        let cookie = c_string(format!("{}={}", environment::COMMAND, identity.id).as_bytes())?;
        // First, so that it is found within the first bytes of a huge environment.
        let environment: Vec<&CStr> = iter::once(cookie.as_c_str()).chain(of_all.with(&own)).collect();
        let mut file_to_run = c_string(path.as_os_str().as_bytes())?;
        let mut tried_as_script = false;
        let kills_before = self.shared.memory_events.kills();

        loop {
            let plan = Plan {
                program: &file_to_run,
                arguments: &arguments,
                environment: &environment,
                directory: directory.as_fd(),
                streams: ends.of_command(&self.nothing),
                is_terminal: start.terminal.is_some(),
                limits: &limits,
                changed_signals: &self.changed_signals,
            };
            // From before the process exists until it is entered, so that its status isn't lost if it ends at once.
            let starting = Starting::begin();
            match spawn::spawn(&mut self.stack, &plan) {
                Ok(spawned) => {
                    let started = Instant::now();
                    let command =
                        Arc::new(Command::new(identity, spawned.pid, Arc::clone(&self.file), ends.input.take()));
                    self.shared.registry.insert(&command);
                    let arrival = Arrival {
                        command: Arc::clone(&command),
                        slot,
                        handle: spawned.handle,
                        output: ends.output,
                        error: ends.error,
                        feed: ends.feed,
                        timeout: start.timeout,
                        stall_timeout: start.stall_timeout,
                        started,
                        own_peak_memory_bytes: sys::own_peak_memory_bytes(),
                        kills_before,
                    };
                    starting.enter(&self.shared.inbox, arrival);
                    self.shared.inbox.wake();
                    self.prefer_to_the_agent(command.leader());
                    return Ok(command);
                }
                Err(failed) => {
                    drop(starting);
                    let errno = failed.error.raw_os_error().unwrap_or(0);
                    let is_script = failed.step == Step::Program && errno == libc::ENOEXEC && !tried_as_script;
                    // As execvp(3) and shells do: a text without `#!` is a script of `/bin/sh`.
                    if is_script && lookup::beginning(directory.as_fd(), &path) == Some(Beginning::Text) {
                        tried_as_script = true;
                        let script = std::mem::replace(&mut file_to_run, c"/bin/sh".to_owned());
                        arguments.splice(..1.min(arguments.len()), [c"/bin/sh".to_owned(), script]);
                        continue;
                    }
                    return Err(explain_failure(&program, &path, &directory, failed));
                }
            }
        }
    }

    /// Where memory runs out, the kernel takes the process with the highest score. The agent must not be it, since the
    /// container ends with it; so commands get a little more, which those that they start inherit.
    fn prefer_to_the_agent(&self, pid: i32) {
        if let Err(error) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), &self.oom_score) {
            // It may have ended already, or have become another user.
            tracing::debug!(%error, pid, "a command's score for want of memory can't be raised");
        }
    }

    /// The variables that all commands have.
    fn variables(&mut self) -> Result<Arc<Prepared>, StartError> {
        let handed: Vec<_> = self.shared.handed.variables().collect();
        if let Some((variables, with_handed)) = &self.variables
            && *with_handed != handed.is_empty()
        {
            return Ok(Arc::clone(variables));
        }
        let own = self.shared.config.environment.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()));
        // The last of a name counts.
        let all = own.chain(handed.iter().map(|(name, value)| (OsStr::new(name), OsStr::new(value))));
        let prepared = Arc::new(Prepared::new(all).map_err(no_nul)?);
        self.variables = Some((Arc::clone(&prepared), !handed.is_empty()));
        Ok(prepared)
    }
}

/// The variables that one command has besides.
fn prepare(variables: &BTreeMap<String, String>) -> Result<Prepared, StartError> {
    let variables = variables.iter().map(|(name, value)| (OsStr::new(name), OsStr::new(value)));
    Prepared::new(variables).map_err(no_nul)
}

/// A pipe that we read without waiting and a command writes as to any pipe.
fn output_pipe() -> Result<(OwnedFd, OwnedFd), StartError> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(no_descriptor)?;
    rustix::fs::fcntl_setfl(&reader, OFlags::NONBLOCK).map_err(no_descriptor)?;
    Ok((reader, writer))
}

/// The ends of a command's streams: ours, and its own until it runs.
struct Ends {
    output: OwnedFd,
    error: Option<OwnedFd>,
    feed: Option<Feed>,
    input: Option<Input>,
    /// Standard input, output and error of the command; no input means none at all, no error the same as output.
    theirs: (Option<OwnedFd>, OwnedFd, Option<OwnedFd>),
}

impl Ends {
    fn of_command<'a>(&'a self, nothing: &'a OwnedFd) -> [BorrowedFd<'a>; 3] {
        let (input, output, error) = &self.theirs;
        [input.as_ref().unwrap_or(nothing).as_fd(), output.as_fd(), error.as_ref().unwrap_or(output).as_fd()]
    }
}

/// Pipes, the first of them with as much of the input as it takes; nothing at all for no input.
fn pipe_ends(bytes: Bytes, interactive: bool) -> Result<Ends, StartError> {
    let (output, output_end) = output_pipe()?;
    let (error, error_end) = output_pipe()?;
    let mut ends =
        Ends { output, error: Some(error), feed: None, input: None, theirs: (None, output_end, Some(error_end)) };
    if bytes.is_empty() && !interactive {
        return Ok(ends);
    }
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(no_descriptor)?;
    rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).map_err(no_descriptor)?;
    ends.theirs.0 = Some(reader);
    if interactive {
        return ends.with_input(writer, bytes, false);
    }
    let mut feed = Feed::new(writer, bytes);
    ends.feed = (!feed.push()).then_some(feed);
    Ok(ends)
}

/// A terminal for all three streams.
fn terminal_ends(size: PtySize, bytes: Bytes) -> Result<Ends, StartError> {
    let (ours, theirs) = terminal::open(size).map_err(no_descriptor)?;
    let writer = rustix::io::fcntl_dupfd_cloexec(&ours, 3).map_err(no_descriptor)?;
    let input_end = rustix::io::fcntl_dupfd_cloexec(&theirs, 3).map_err(no_descriptor)?;
    let ends = Ends { output: ours, error: None, feed: None, input: None, theirs: (Some(input_end), theirs, None) };
    ends.with_input(writer, bytes, true)
}

impl Ends {
    /// An input that stays open, with these bytes before all others.
    fn with_input(mut self, writer: OwnedFd, bytes: Bytes, is_terminal: bool) -> Result<Self, StartError> {
        let feed_end = rustix::io::fcntl_dupfd_cloexec(&writer, 3).map_err(no_descriptor)?;
        let input = Input::new(writer, is_terminal);
        let mut feed = Feed::new(feed_end, bytes).in_turn(input.first_turn());
        self.feed = (!feed.push()).then_some(feed);
        self.input = Some(input);
        Ok(self)
    }
}

fn no_descriptor(errno: Errno) -> StartError {
    match errno {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => StartError::Exhausted(errno.into()),
        errno => StartError::Internal(errno.into()),
    }
}

fn c_string(bytes: &[u8]) -> Result<CString, StartError> {
    CString::new(bytes).map_err(no_nul)
}

fn no_nul(_: NulError) -> StartError {
    StartError::Invalid("an argument or a variable holds a NUL byte")
}

fn explain_miss(program: &str, miss: Miss, search: &OsStr, directory: &OwnedFd) -> StartError {
    let program = program.to_owned();
    match miss {
        Miss::Missing => {
            let beside = |path: String| lookup::is_beside(directory.as_fd(), Path::new(&path)).then_some(path);
            let suggestion = if program.contains(char::is_whitespace) {
                "`argv` takes the program and each argument apart; a shell line goes into `line`".to_owned()
            } else if program == "/bin/sh" {
                "this image has no shell; give the program and its arguments in `argv`".to_owned()
            } else if program.contains('/') {
                "the path counts from the command's working directory".to_owned()
            } else if let Some(path) = beside(format!("./{program}")) {
                format!("the working directory has {path}; a name without a slash is looked for in PATH only")
            } else if let Some(path) = beside(format!("node_modules/.bin/{program}")) {
                format!("{path} is there: run it by `npx {program}` or by that path")
            } else {
                format!("it is not in the command's PATH, {}; is it installed?", search.to_string_lossy())
            };
            StartError::NotFound { program, suggestion }
        }
        Miss::IrregularFile(path) => StartError::NotRunnable {
            program,
            why: format!("{} is not a regular file", path.display()),
            suggestion: "name a program; a directory is given in `cwd`".to_owned(),
        },
        Miss::Unexecutable(path) => StartError::NotRunnable {
            program,
            why: format!("{} is not executable for the agent's user", path.display()),
            suggestion: format!("chmod +x {0}, or run it by its interpreter", path.display()),
        },
    }
}

fn explain_failure(program: &str, path: &Path, directory: &OwnedFd, failed: spawn::Failed) -> StartError {
    let error = failed.error;
    let errno = Errno::from_io_error(&error);
    match (failed.step, errno) {
        (Step::Process, _) => StartError::Exhausted(error),
        (Step::Setup, _) => StartError::Internal(error),
        (Step::Directory, _) => StartError::Directory(error),
        (Step::Program, Some(Errno::TOOBIG)) => StartError::TooLarge,
        (Step::Program, Some(Errno::NOMEM | Errno::AGAIN | Errno::MFILE | Errno::NFILE)) => {
            StartError::Exhausted(error)
        }
        (Step::Program, _) => {
            let (why, suggestion) = match (errno, lookup::beginning(directory.as_fd(), path)) {
                (Some(Errno::NOENT), Some(Beginning::Interpreter(interpreter))) => (
                    format!("its first line names the interpreter {interpreter:?}, which is not there"),
                    "install the interpreter, or correct the first line".to_owned(),
                ),
                (Some(Errno::NOENT), Some(Beginning::Binary)) => (
                    "the loader or a library that it names is not there".to_owned(),
                    "it was built for another C library than this image has".to_owned(),
                ),
                (Some(Errno::NOEXEC), _) => (
                    "it is no program that this machine can run".to_owned(),
                    "it was built for another processor, or is damaged".to_owned(),
                ),
                (Some(Errno::TXTBSY), _) => {
                    ("somebody has it open for writing".to_owned(), "try again when it is written".to_owned())
                }
                _ => (error.to_string(), "see that the file and its directories may be read and executed".to_owned()),
            };
            StartError::NotRunnable { program: program.to_owned(), why, suggestion }
        }
    }
}
