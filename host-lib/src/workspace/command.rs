//! Commands, the friendly way.

use std::{path::Path, time::Duration};

use corehold_types::{
    CollectedOutput, Data, WorkspacePath,
    tools::{
        Command, CommandExit, CommandInput, CommandInputRequest, CommandRequest, CommandResize, CommandResizeRequest,
        CommandSearch, CommandSearchRequest, Pty, PtySize,
    },
};

use super::Workspace;
use crate::{
    client::ToolStream,
    error::{Error, ErrorKind, Result},
};

/// A command about to run. It belongs to the agent: whoever stops waiting for it doesn't end it.
#[must_use = "a command runs when `run`, `stream` or `detach` is awaited"]
pub struct RunCommand {
    workspace: Workspace,
    request: CommandRequest,
}

/// How a command ended, and what it wrote.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CommandOutcome {
    /// Names it for `commandOutput` and the other tools.
    pub id: String,
    /// How it ended. A failing command is no error.
    pub exit: CommandExit,
    /// Standard output: all of it, or its head and tail.
    pub stdout: CollectedOutput,
    /// Standard error: all of it, or its head and tail.
    pub stderr: CollectedOutput,
}

impl CommandOutcome {
    /// Whether it ended by itself with exit code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.exit.code == Some(0) && !self.exit.timed_out && !self.exit.stalled
    }

    /// Standard output as text, what isn't UTF-8 replaced; a cut in the middle is marked by a line with three dots.
    #[must_use]
    pub fn stdout_text(&self) -> String {
        text(&self.stdout)
    }

    /// Standard error as text, like [`stdout_text`](Self::stdout_text).
    #[must_use]
    pub fn stderr_text(&self) -> String {
        text(&self.stderr)
    }
}

/// Bytes of a command's output as text for people.
pub(crate) fn lossy(data: &Data) -> String {
    match data {
        Data::Text(text) => text.clone(),
        Data::Base64(_) => String::from_utf8_lossy(&data.to_bytes().unwrap_or_default()).into_owned(),
    }
}

fn text(output: &CollectedOutput) -> String {
    let mut text = lossy(&output.head);
    if let Some(tail) = &output.tail {
        text.push_str("\n...\n");
        text.push_str(&lossy(tail));
    }
    text
}

impl RunCommand {
    pub(super) fn line(workspace: Workspace, line: String) -> Self {
        Self { workspace, request: CommandRequest { line: Some(line), ..Default::default() } }
    }

    pub(super) fn argv(workspace: Workspace, argv: Vec<String>) -> Self {
        Self { workspace, request: CommandRequest { argv: Some(argv), ..Default::default() } }
    }

    /// Working directory, relative to the workspace root. Default: the root.
    pub fn cwd(mut self, path: impl AsRef<Path>) -> Self {
        use std::os::unix::ffi::OsStrExt as _;
        self.request.cwd = Some(WorkspacePath::from_bytes(path.as_ref().as_os_str().as_bytes()));
        self
    }

    /// Sets a variable for this command.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.env.insert(name.into(), value.into());
        self
    }

    /// What it reads from its standard input, which then ends. Default: nothing.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.request.stdin = Some(Data::from_bytes(bytes.into()));
        self
    }

    /// Leaves its standard input open for [`Workspace::send_input`] and [`Workspace::end_input`].
    pub fn interactive(mut self) -> Self {
        self.request.interactive = Some(true);
        self
    }

    /// Runs it in a terminal. All that it writes there is standard output, and its input stays open.
    pub fn terminal(mut self, terminal: Pty) -> Self {
        self.request.pty = Some(terminal);
        self
    }

    /// Time after which its whole process group is ended. Default: the agent's limit, or none for a detached command.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout_ms = Some(milliseconds(timeout));
        self
    }

    /// Lets it run as long as it likes.
    pub fn no_timeout(mut self) -> Self {
        self.request.timeout_ms = Some(0);
        self
    }

    /// Time without output after which its process group is ended. Default: none.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.request.stall_timeout_ms = Some(milliseconds(timeout));
        self
    }

    /// Bytes of each stream that [`run`](Self::run) returns, half from the head and half from the tail. Default 64 KiB.
    pub fn max_output_bytes(mut self, bytes: u64) -> Self {
        self.request.max_output_bytes = Some(bytes);
        self
    }

    /// A word by which [`Workspace::latest_command`] finds it again.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.request.label = Some(label.into());
        self
    }

    /// Runs it to its end and returns what it wrote.
    /// Dropping the future abandons the wait: a command that was started goes on.
    ///
    /// # Errors
    /// `Agent` when it couldn't be started. A command that fails is no error: see [`CommandOutcome::success`].
    pub async fn run(self) -> Result<CommandOutcome> {
        let response = self.workspace.call::<Command>(&self.request).await?;
        let Some(exit) = response.exit else {
            return Err(Error::new(
                ErrorKind::Agent,
                format!("the agent didn't say how command {} ended", response.id),
            ));
        };
        Ok(CommandOutcome { id: response.id, exit, stdout: response.stdout, stderr: response.stderr })
    }

    /// Runs it and returns its output as it comes.
    /// Dropping the future abandons the wait: a command that was started goes on.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn stream(self) -> Result<ToolStream<Command>> {
        let stream = self.workspace.stream::<Command>(&self.request).await?;
        self.workspace.log_rooms().command_started(self.workspace.id());
        Ok(stream)
    }

    /// Starts it and returns its id at once. Its output is kept for the tool `commandOutput`.
    /// Dropping the future abandons the wait: a command that was started goes on.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn detach(mut self) -> Result<String> {
        self.request.detach = Some(true);
        Ok(self.workspace.call::<Command>(&self.request).await?.id)
    }
}

impl Workspace {
    /// Hands bytes to the standard input or terminal of a command that was started with [`interactive`](RunCommand::interactive)
    /// or [`terminal`](RunCommand::terminal), and waits until all are taken, however long it doesn't read.
    ///
    /// Dropping the future leaves open how many of the bytes were taken.
    ///
    /// # Errors
    /// `Agent` with the problem `INPUT_CLOSED` when the command has ended or takes no more input, or `NOT_FOUND`.
    pub async fn send_input(&self, command: &str, bytes: impl Into<Vec<u8>>) -> Result<()> {
        let mut rest = bytes.into();
        while !rest.is_empty() {
            let request = CommandInputRequest {
                id: command.to_owned(),
                data: Some(Data::from_bytes(rest.clone())),
                ..Default::default()
            };
            let response = self.call::<CommandInput>(&request).await?;
            if response.complete {
                return Ok(());
            }
            let accepted = usize::try_from(response.accepted).unwrap_or(usize::MAX).min(rest.len());
            rest.drain(..accepted);
        }
        Ok(())
    }

    /// Ends a command's standard input. A terminal gets its end-of-input character (Ctrl-D) instead.
    /// Cancel-safe: it may be called again.
    ///
    /// # Errors
    /// As [`send_input`](Self::send_input).
    pub async fn end_input(&self, command: &str) -> Result<()> {
        let request = CommandInputRequest { id: command.to_owned(), end: Some(true), ..Default::default() };
        while !self.call::<CommandInput>(&request).await?.complete {}
        Ok(())
    }

    /// Searches what a command has written until now for a regular expression or literal, and tells the lines as they are found, each with
    /// its stream, its offset in the log and where in it the matches are. What the bounded log has dropped is told as a gap.
    ///
    /// The answer at the end says where to go on (`offset`) when it isn't complete (`truncated`), or when the command has written more.
    /// [`CommandSearchRequest`]'s other fields have their defaults in `CommandSearchRequest { id, pattern, ..Default::default() }`.
    ///
    /// Dropping the future, or the stream, ends the search.
    ///
    /// # Errors
    /// `Agent` with the problem `INVALID_REQUEST` for a pattern that can't be read, or `NOT_FOUND` for a command that the agent doesn't
    /// know; `AgentUnavailable` when it can't be reached.
    pub async fn search_output(&self, request: &CommandSearchRequest) -> Result<ToolStream<CommandSearch>> {
        self.stream::<CommandSearch>(request).await
    }

    /// Tells a command's terminal its size, 1 to 4,096 each way; its foreground processes get SIGWINCH.
    /// Cancel-safe: it may be called again.
    ///
    /// # Errors
    /// As [`send_input`](Self::send_input).
    pub async fn resize_terminal(&self, command: &str, size: PtySize) -> Result<()> {
        let request = CommandResizeRequest { id: command.to_owned(), columns: size.columns, rows: size.rows };
        self.call::<CommandResize>(&request).await.map(|_| ())
    }
}

fn milliseconds(duration: Duration) -> u64 {
    // 0 would mean "never" to the agent.
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).clamp(1, (1 << 53) - 1)
}
