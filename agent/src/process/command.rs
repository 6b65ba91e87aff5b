//! One command as everybody but the keeper sees it: what it is, what it wrote, how it ended.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use corehold_types::{
    Timestamp,
    tools::{CommandExit, CommandInfo, PtySize},
};
use tokio::sync::watch;

use super::{
    input::{Input, InputClosed},
    log::{Log, Stream},
    members::{self, Whose},
    pace::Viewers,
    store::StoreFile,
};

/// Characters of a command's line that listings show.
const LINE_CHARACTERS: usize = 1_024;

/// A command that was started.
pub struct Command {
    id: String,
    /// Counts the agent's commands from 1: the order of listings.
    pub(super) number: u64,
    label: Option<String>,
    line: String,
    pid: i32,
    started: Timestamp,
    pub(super) file: Arc<StoreFile>,
    /// Absent where nobody may write to it.
    pub(super) input: Option<Input>,
    state: Mutex<State>,
    /// Told whenever the state changed. Readers wait here, each at its own pace.
    changed: watch::Sender<()>,
}

/// What changes while a command runs.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) log: Log,
    pub(super) viewers: Viewers,
    pub(super) ended: Option<Ended>,
}

/// A command's end.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) exit: CommandExit,
    /// Where the log stood.
    pub(super) offset: u64,
}

/// What is known of a command before it starts.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) id: String,
    pub(super) number: u64,
    pub(super) label: Option<String>,
    pub(super) line: String,
}

impl Command {
    pub(super) fn new(identity: Identity, pid: i32, file: Arc<StoreFile>, input: Option<Input>) -> Self {
        Self {
            id: identity.id,
            number: identity.number,
            label: identity.label,
            line: identity.line,
            pid,
            started: Timestamp::now(),
            file,
            input,
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// Names it: 25 lower-case letters and digits, the first a letter.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its leader's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    pub(super) fn leader(&self) -> i32 {
        self.pid
    }

    /// When it was started.
    #[must_use]
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// The label that its caller gave.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// What runs, for people: cut, and its arguments joined by spaces.
    #[must_use]
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Whether it was started on a terminal.
    #[must_use]
    pub fn is_on_terminal(&self) -> bool {
        self.input.as_ref().is_some_and(Input::is_terminal)
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<CommandExit> {
        self.state().ended.as_ref().map(|ended| ended.exit.clone())
    }

    /// Resolves when its leader has ended: how, and where its log stood then.
    pub async fn ended(&self) -> (CommandExit, u64) {
        let mut changed = self.subscribe();
        loop {
            if let Some(ended) = &self.state().ended {
                return (ended.exit.clone(), ended.offset);
            }
            // It lives as long as the command does, which is held.
            let _ = changed.changed().await;
        }
    }

    /// Bytes written to standard output and standard error, kept or not.
    #[must_use]
    pub fn totals(&self) -> [u64; 2] {
        self.state().log.totals()
    }

    /// Bytes of its output that are kept.
    #[must_use]
    pub fn kept(&self) -> u64 {
        let state = self.state();
        state.log.end() - state.log.first()
    }

    /// Where its log ends.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.state().log.end()
    }

    /// Writes to its input, waiting for room and for those who came before, and ends it if that is wanted: a pipe is
    /// closed, a terminal gets its end-of-input character. `accepted` counts what was taken, also when the caller stops
    /// waiting by dropping this.
    ///
    /// # Errors
    /// It takes no input (any more).
    pub async fn write(&self, bytes: &[u8], end: bool, accepted: &mut usize) -> Result<(), InputClosed> {
        self.input.as_ref().ok_or(InputClosed)?.write(bytes, end, accepted).await
    }

    /// Resolves when it takes no input any more; at once if it never did.
    pub async fn input_closed(&self) {
        if let Some(input) = &self.input {
            input.closed().await;
        }
    }

    /// Whether it takes input.
    #[must_use]
    pub fn takes_input(&self) -> bool {
        self.input.as_ref().is_some_and(Input::is_open)
    }

    /// The size of its terminal, if it has one still.
    #[must_use]
    pub fn terminal_size(&self) -> Option<PtySize> {
        self.input.as_ref().and_then(Input::size)
    }

    /// Sets the size of its terminal.
    ///
    /// # Errors
    /// It has no terminal, or none any more.
    pub fn resize(&self, size: PtySize) -> Result<(), InputClosed> {
        self.input.as_ref().and_then(|input| input.resize(size)).ok_or(InputClosed)?.map_err(|_| InputClosed)
    }

    /// How many of its processes live. Looks through `/proc`: not for a thread that others wait for.
    #[must_use]
    pub fn count_processes(&self) -> usize {
        let leader_is_there = self.state().ended.is_none();
        members::find(Whose { id: &self.id, leader: self.pid, leader_is_there }).len()
    }

    /// As listings show it.
    #[must_use]
    pub fn info(&self) -> CommandInfo {
        let state = self.state();
        CommandInfo {
            id: self.id.clone(),
            label: self.label.clone(),
            line: self.line.clone(),
            pid: self.pid(),
            started: self.started,
            exit: state.ended.as_ref().map(|ended| ended.exit.clone()),
            first_offset: state.log.first(),
            offset: state.log.end(),
        }
    }

    /// The state, for a moment: nobody holds it while reading or writing a file.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held can't leave it half-changed in a way that matters: at worst a count is behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self) {
        self.changed.send_replace(());
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Takes output into memory, if it has room there.
    pub(super) fn push_inline(&self, stream: Stream, record: &[u8]) -> bool {
        self.state().log.push_inline(stream, record)
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Command").field("id", &self.id).field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// A command's line as listings show it: cut, and its arguments joined by spaces.
pub(super) fn shown_line(parts: &[impl AsRef<str>]) -> String {
    let mut line = String::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            line.push(' ');
        }
        line.push_str(part.as_ref());
        if line.len() > LINE_CHARACTERS * 4 {
            break;
        }
    }
    if let Some((cut, _)) = line.char_indices().nth(LINE_CHARACTERS) {
        line.truncate(cut);
    }
    line
}

/// An id: 120 random bits in base32, behind a letter so that it is a DNS label and a word everywhere.
pub(super) fn new_id() -> Result<String, getrandom::Error> {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut random = [0; 24];
    getrandom::fill(&mut random)?;
    let digits = random.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)]));
    Ok(std::iter::once('c').chain(digits).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_dns_labels_of_at_most_32_characters() {
        let id = new_id().unwrap();
        assert_eq!(id.len(), 25);
        assert!(id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
        assert_ne!(id, new_id().unwrap());
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        assert_eq!(shown_line(&["npm", "run", "dev"]), "npm run dev");
        assert_eq!(shown_line(&["ž".repeat(5_000)]).chars().count(), LINE_CHARACTERS);
        assert_eq!(shown_line(&[""; 0]), "");
    }
}
