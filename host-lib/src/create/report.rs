//! Turns work into events.

use std::{
    collections::VecDeque,
    future::Future,
    time::{Duration, Instant},
};

use corehold_types::{Data, tools::CommandEvent};
use tokio::sync::mpsc;
use tracing::Instrument as _;

use super::{CreateEvent, CreateEventKind, OutputStream, Step};
use crate::{
    error::{Error, Result},
    events::{EventBus, EventKind},
    runtime::PullProgress,
    workspace::WorkspaceId,
};

/// What a step made, and what to say about it.
pub(super) type Done<T> = (T, Option<String>);

/// Says what happens: to whoever asked for the workspace, and to whoever reads the host's events.
#[derive(Clone)]
pub(super) struct Reporter {
    sender: mpsc::Sender<CreateEvent>,
    host: EventBus,
    workspace: WorkspaceId,
}

impl Reporter {
    pub(super) fn new(sender: mpsc::Sender<CreateEvent>, host: EventBus, workspace: WorkspaceId) -> Self {
        Self { sender, host, workspace }
    }

    /// Does a step, saying when it begins and how it ends; its error carries its name.
    pub(super) async fn step<T>(
        &self,
        step: Step,
        detail: Option<String>,
        work: impl Future<Output = Result<Done<T>>>,
    ) -> Result<T> {
        self.say(step, CreateEventKind::Started { detail }).await;
        let began = Instant::now();
        match work.instrument(tracing::info_span!("step", %step)).await {
            Ok((made, detail)) => {
                self.say(step, CreateEventKind::Finished { duration: began.elapsed(), detail }).await;
                Ok(made)
            }
            Err(error) => {
                let error = error.in_step(step);
                // The innermost step is the one that failed.
                let step = error.step().unwrap_or(step);
                self.say(step, CreateEventKind::Failed { duration: began.elapsed() }).await;
                Err(error)
            }
        }
    }

    /// Says how far a pull has come, unless whoever reads is behind: the next one says more.
    pub(super) fn received(&self, step: Step, progress: PullProgress) {
        let PullProgress { received_bytes, total_bytes } = progress;
        let _ =
            self.sender.try_send(CreateEvent { step, kind: CreateEventKind::Received { received_bytes, total_bytes } });
    }

    async fn say(&self, step: Step, kind: CreateEventKind) {
        let event = CreateEvent { step, kind };
        if !matches!(event.kind, CreateEventKind::Output { .. }) {
            self.host.emit(Some(&self.workspace), EventKind::Creation(event.clone()));
        }
        // The reader is gone only when the whole creation is, and this with it.
        let _ = self.sender.send(event).await;
    }
}

/// How a creation ends, for whoever reads the host's events: given up, unless something else is said of it.
pub(super) struct Ending {
    host: EventBus,
    workspace: WorkspaceId,
    began: Instant,
    told: bool,
}

impl Ending {
    /// Of a creation that begins now.
    pub(super) fn new(host: EventBus, workspace: WorkspaceId) -> Self {
        Self { host, workspace, began: Instant::now(), told: false }
    }

    pub(super) fn created(mut self) {
        let duration = self.began.elapsed();
        self.tell(EventKind::Created { duration });
    }

    pub(super) fn failed(mut self, error: &Error) {
        self.tell(EventKind::CreationFailed { step: error.step(), error: error.to_string() });
    }

    fn tell(&mut self, kind: EventKind) {
        self.told = true;
        self.host.emit(Some(&self.workspace), kind);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.told {
            self.tell(EventKind::CreationFailed { step: None, error: "it was given up".to_owned() });
        }
    }
}

/// A line longer than this is split, so that a program that never ends one can't fill the memory.
const LINE_BYTES: usize = 4 << 10;
/// What an error shows of a command's output.
const TAIL_BYTES: usize = 8 << 10;
const TAIL_LINES: usize = 40;

/// Lines that are told in a window of time. A program that floods its output is not slowed by whoever shows its progress;
/// the agent keeps what is left out here, and the end is remembered in any case.
const TOLD_LINES: usize = 10_000;
const WINDOW: Duration = Duration::from_secs(1);

/// The output of one command: said line by line, its end remembered for an error.
pub(super) struct Output<'a> {
    reporter: &'a Reporter,
    step: Step,
    window: Instant,
    told: usize,
    left_out: usize,
    pending: [Vec<u8>; 2],
    tail: VecDeque<String>,
    tail_bytes: usize,
}

impl<'a> Output<'a> {
    pub(super) fn new(reporter: &'a Reporter, step: Step) -> Self {
        let window = Instant::now();
        Self {
            reporter,
            step,
            window,
            told: 0,
            left_out: 0,
            pending: Default::default(),
            tail: VecDeque::new(),
            tail_bytes: 0,
        }
    }

    /// Takes an event of the command; true when it brought output.
    pub(super) async fn take(&mut self, event: &CommandEvent) -> bool {
        if self.window.elapsed() >= WINDOW {
            self.confess().await;
            (self.window, self.told) = (Instant::now(), 0);
        }
        match event {
            CommandEvent::Stdout { data, .. } => self.add(OutputStream::Stdout, data).await,
            CommandEvent::Stderr { data, .. } => self.add(OutputStream::Stderr, data).await,
            CommandEvent::Gap { from, to } => {
                let missing = format!("... {} bytes of output were dropped ...", to.saturating_sub(*from));
                self.line(OutputStream::Stderr, missing).await;
            }
            CommandEvent::Status { .. } | CommandEvent::Exit { .. } => return false,
        }
        true
    }

    /// The end of what the command wrote. Lines that were begun count.
    pub(super) async fn tail(&mut self) -> String {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let rest = std::mem::take(&mut self.pending[index(stream)]);
            if !rest.is_empty() {
                self.line(stream, String::from_utf8_lossy(&rest).into_owned()).await;
            }
        }
        self.confess().await;
        self.tail.iter().map(|line| format!("{line}\n")).collect()
    }

    async fn add(&mut self, stream: OutputStream, data: &Data) {
        // Malformed base64 can only come from a broken agent; nothing is known of what the command wrote then.
        let bytes = data.to_bytes().unwrap_or_default();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let pending = &mut self.pending[index(stream)];
            pending.extend_from_slice(part);
            if part.ends_with(b"\n") || pending.len() >= LINE_BYTES {
                let whole = std::mem::take(pending);
                for line in whole.chunks(LINE_BYTES) {
                    let line = line.strip_suffix(b"\n").unwrap_or(line);
                    let line = line.strip_suffix(b"\r").unwrap_or(line);
                    self.line(stream, String::from_utf8_lossy(line).into_owned()).await;
                }
            }
        }
    }

    async fn line(&mut self, stream: OutputStream, line: String) {
        self.tail_bytes += line.len();
        let told = (self.told < TOLD_LINES).then(|| line.clone());
        self.tail.push_back(line);
        while self.tail.len() > TAIL_LINES || (self.tail_bytes > TAIL_BYTES && self.tail.len() > 1) {
            self.tail_bytes -= self.tail.pop_front().map_or(0, |line| line.len());
        }
        match told {
            Some(line) => {
                self.told += 1;
                self.reporter.say(self.step, CreateEventKind::Output { stream, line }).await;
            }
            None => self.left_out += 1,
        }
    }

    /// Says how much was left out since it was said last.
    async fn confess(&mut self) {
        if self.left_out > 0 {
            let line = format!("... {} lines left out ...", std::mem::take(&mut self.left_out));
            let stream = OutputStream::Stderr;
            self.reporter.say(self.step, CreateEventKind::Output { stream, line }).await;
        }
    }
}

fn index(stream: OutputStream) -> usize {
    match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines_of(chunks: &[&[u8]]) -> (Vec<String>, String) {
        let (sender, mut events) = mpsc::channel(2 * TOLD_LINES);
        let reporter = Reporter::new(sender, EventBus::new(), "w".parse().unwrap());
        let mut output = Output::new(&reporter, Step::Setup);
        for chunk in chunks {
            let data = Data::from_bytes(chunk.to_vec());
            output.take(&CommandEvent::Stdout { offset: 0, end: 0, data }).await;
        }
        let tail = output.tail().await;
        drop(reporter);
        let mut lines = Vec::new();
        while let Ok(event) = events.try_recv() {
            let CreateEventKind::Output { line, .. } = event.kind else { panic!("{event:?}") };
            lines.push(line);
        }
        (lines, tail)
    }

    #[tokio::test]
    async fn lines_are_whole_whatever_the_chunks() {
        let text = "one\r\ntwo é\n\nthree";
        for size in 1..text.len() {
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            let (lines, tail) = lines_of(&chunks).await;
            assert_eq!(lines, ["one", "two é", "", "three"], "chunks of {size}");
            assert_eq!(tail, "one\ntwo é\n\nthree\n");
        }
    }

    #[tokio::test]
    async fn neither_a_line_without_end_nor_many_lines_fill_the_memory() {
        let (lines, tail) = lines_of(&[&vec![b'x'; 100_000]]).await;
        assert!(lines.iter().all(|line| line.len() <= LINE_BYTES));
        assert_eq!(lines.iter().map(String::len).sum::<usize>(), 100_000);
        assert!(tail.len() <= TAIL_BYTES + LINE_BYTES);
        let (lines, tail) = lines_of(&[&b"y\n".repeat(5000)]).await;
        assert_eq!((lines.len(), tail.lines().count()), (5000, TAIL_LINES));
    }

    #[tokio::test]
    async fn a_flood_is_told_in_part_and_its_end_is_kept() {
        let text: String = (0..TOLD_LINES + 500).map(|number| format!("{number}\n")).collect();
        let (lines, tail) = lines_of(&[text.as_bytes()]).await;
        assert_eq!(lines.len(), TOLD_LINES + 1);
        assert_eq!(lines.last().unwrap(), "... 500 lines left out ...");
        assert!(tail.ends_with(&format!("\n{}\n", TOLD_LINES + 499)));
    }
}
