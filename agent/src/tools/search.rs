//! `search`: runs the engine beside the server's threads, and carries what it finds to the caller.

use std::{io, sync::Arc};

use corehold_types::{
    Code, Data, Problem, WorkspacePath,
    tools::{
        Search, SearchEvent, SearchFile, SearchFileLine, SearchLine, SearchRequest, SearchResponse, SearchTruncation,
    },
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::Agent,
    audit::Touched,
    calls::{SMALL, Share},
    handler::{Call, CallerGone, Events, Handler},
    search::{
        Control, Stop,
        control::StopOnDrop,
        kept::{Lookup, gather},
        memory_of,
        plan::{SearchPlan, max_matches, timeout},
        run,
    },
};

/// Batches of events that may wait for a slow caller, and bytes in them; then the search waits too.
const WAITING_BATCHES: usize = 16;
const WAITING_BYTES: usize = 1 << 20;
/// What a line costs in a collected answer besides its text.
const LINE_OVERHEAD: u64 = 48;
/// What it takes of the agent's memory besides its text, and what of its JSON: some 160 bytes the one, 100 the other.
const LINE_MEMORY: usize = 128;

impl Handler for Search {
    async fn handle(
        call: Call,
        request: SearchRequest,
        events: Events<SearchEvent>,
    ) -> Result<SearchResponse, Problem> {
        let limits = &call.agent.config.limits;
        let control = Arc::new(Control::new(max_matches(limits, request.max_matches)?));
        let timeout = timeout(limits, request.timeout_ms)?;
        let permit = turn(&call.agent).await?;
        // Whoever stops waiting for the answer drops this future, and with it this.
        let _stops = StopOnDrop(control.clone());
        // The search's threads wait for memory no longer than for the search.
        let ended = CancellationToken::new();
        let _ends = ended.clone().drop_guard();
        let (sender, mut batches) = mpsc::channel::<Batch>(WAITING_BATCHES);
        let search = {
            let (agent, control, ended) = (call.agent.clone(), control.clone(), ended.clone());
            let (runtime, waiting) = (Handle::current(), Arc::new(Semaphore::new(WAITING_BYTES)));
            tokio::task::spawn_blocking(move || {
                let _permit = permit;
                let plan = SearchPlan::new(&agent.root, &agent.config.limits, &request)?;
                let deliver = |events: Vec<SearchEvent>| {
                    let bytes = events.iter().map(memory_of).sum::<usize>().min(WAITING_BYTES);
                    let waits = Arc::clone(&waiting);
                    let held = waits.try_acquire_many_owned(bytes as u32).ok().or_else(|| {
                        runtime.block_on(async {
                            tokio::select! {
                                held = Arc::clone(&waiting).acquire_many_owned(bytes as u32) => held.ok(),
                                () = sender.closed() => None,
                            }
                        })
                    });
                    held.is_some_and(|held| sender.blocking_send(Batch { events, _held: held }).is_ok())
                };
                let lend = |bytes| {
                    runtime.block_on(async {
                        tokio::select! {
                            loan = agent.room.lend(bytes) => loan,
                            () = ended.cancelled() => Err(gone()),
                        }
                    })
                };
                let lookup = Lookup::new(&agent.kept, plan.needs.as_ref());
                let response = run::run(&agent.root, &plan, Some(&lookup), &control, &deliver, &lend);
                let unknown = lookup.unknown();
                let kept = Arc::clone(&agent.kept);
                kept.after_search(unknown, move |kept| gather(kept, &agent.root, &plan));
                response
            })
        };
        let mut collected = Collected::new(limits.search_bytes.value, call.share.clone());
        let mut full = false;
        // Memory of events that may not have been taken.
        let mut waiting = 0;
        let timer = tokio::time::sleep(timeout);
        tokio::pin!(timer);
        loop {
            tokio::select! {
                batch = batches.recv() => {
                    let Some(Batch { events: batch, _held }) = batch else { break };
                    let bytes = batch.iter().map(line_bytes).sum();
                    call.notes.note(|touched| touched.went_out(bytes));
                    for event in batch {
                        if events.wanted() {
                            let memory = memory_of(&event);
                            if memory > SMALL {
                                // One is written while the next one waits.
                                call.share.widen_stream(2 * (memory + json_bytes(&event)?)).await?;
                            }
                            waiting += memory;
                            events.send(event).await.map_err(|CallerGone| gone())?;
                            if waiting > SMALL {
                                events.taken().await.map_err(|CallerGone| gone())?;
                                waiting = 0;
                            }
                        } else if !collected.add(event) {
                            // It may have ended already, so what it says about itself isn't enough.
                            full = true;
                            control.stop(Stop::AnswerBytes);
                            ended.cancel();
                        }
                    }
                    call.progress.say(|| {
                        format!("{} matching lines in {} files so far", collected.matched_lines, collected.files.len())
                    });
                }
                () = &mut timer, if control.why().is_none() => {
                    control.stop(Stop::Timeout);
                    ended.cancel();
                }
            }
        }
        let mut response = search.await.map_err(|error| failed(&error))??;
        if full && !response.truncated.contains(&SearchTruncation::AnswerBytes) {
            response.truncated.push(SearchTruncation::AnswerBytes);
        }
        Ok(SearchResponse { files: collected.files, ..response })
    }

    fn touches(request: &SearchRequest, touched: &mut Touched) {
        touched.paths(&request.paths);
        touched.detail(&request.pattern);
    }
}

/// Events on their way to the caller, with their part of what may wait.
struct Batch {
    events: Vec<SearchEvent>,
    _held: OwnedSemaphorePermit,
}

/// Bytes of the line that an event brings.
fn line_bytes(event: &SearchEvent) -> u64 {
    match event {
        SearchEvent::Match(hit) | SearchEvent::Context(hit) => hit.line.data.decoded_bytes(),
        SearchEvent::File { .. } | SearchEvent::Binary { .. } => 0,
    }
}

/// Bytes of an event's JSON.
fn json_bytes(event: &SearchEvent) -> Result<usize, Problem> {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    let written = serde_json::to_writer(&mut count, event);
    written.map_err(|error| Problem::new(Code::Internal, format!("an event can't be written as JSON: {error}")))?;
    Ok(count.0)
}

/// Waits for a turn to search.
pub(super) async fn turn(agent: &Agent) -> Result<OwnedSemaphorePermit, Problem> {
    let turn = agent.searches.clone().acquire_owned().await;
    turn.map_err(|_| Problem::new(Code::ShuttingDown, "the agent takes no more searches"))
}

/// The problem of a caller who isn't there to read it.
pub(super) fn gone() -> Problem {
    Problem::new(Code::Internal, "the caller went away")
}

/// The problem of a search that panicked.
pub(super) fn failed(error: &tokio::task::JoinError) -> Problem {
    Problem::new(Code::Internal, format!("the search failed: {error}"))
}

/// The files of a collected answer.
struct Collected {
    files: Vec<SearchFile>,
    matched_lines: u64,
    bytes_left: u64,
    share: Share,
}

impl Collected {
    fn new(max_bytes: u64, share: Share) -> Self {
        Self { files: Vec::new(), matched_lines: 0, bytes_left: max_bytes, share }
    }

    /// Takes an event; false when there is no room for it.
    fn add(&mut self, event: SearchEvent) -> bool {
        match event {
            SearchEvent::Match(hit) => self.line(hit.path, hit.line, true),
            SearchEvent::Context(hit) => self.line(hit.path, hit.line, false),
            SearchEvent::File { path, matched_lines } => {
                self.take(LINE_OVERHEAD + path_bytes(&path)) && {
                    self.matched_lines += matched_lines;
                    self.file(path).matched_lines = matched_lines;
                    true
                }
            }
            SearchEvent::Binary { path, offset } => {
                // Only about a file that is here already.
                if let Some(file) = self.files.last_mut().filter(|file| file.path == path) {
                    file.binary_offset = Some(offset);
                }
                true
            }
        }
    }

    fn line(&mut self, path: WorkspacePath, line: SearchLine, matches: bool) -> bool {
        let text = match &line.data {
            Data::Text(text) | Data::Base64(text) => text.len() as u64,
        };
        let ranges = 8 * line.ranges.len() as u64;
        let known = self.files.last().is_some_and(|file| file.path == path);
        let path_bytes = if known { 0 } else { path_bytes(&path) };
        if !self.take(LINE_OVERHEAD + text + ranges + path_bytes) {
            return false;
        }
        self.matched_lines += u64::from(matches);
        let file = self.file(path);
        file.matched_lines += u64::from(matches);
        file.lines.push(if matches { SearchFileLine::Match(line) } else { SearchFileLine::Context(line) });
        true
    }

    fn take(&mut self, bytes: u64) -> bool {
        let memory = usize::try_from(bytes - LINE_OVERHEAD).unwrap_or(usize::MAX).saturating_add(LINE_MEMORY);
        let left = self.bytes_left.checked_sub(bytes);
        match left.filter(|_| self.share.try_gather(memory)) {
            Some(left) => {
                self.bytes_left = left;
                true
            }
            None => {
                // Nothing smaller is let through later, so that what is there has no holes.
                self.bytes_left = 0;
                false
            }
        }
    }

    /// The file at hand: the last one, since the events of a file come together.
    fn file(&mut self, path: WorkspacePath) -> &mut SearchFile {
        if self.files.last().is_none_or(|file| file.path != path) {
            self.files.push(SearchFile { path, matched_lines: 0, lines: Vec::new(), binary_offset: None });
        }
        let last = self.files.len() - 1;
        &mut self.files[last]
    }
}

fn path_bytes(path: &WorkspacePath) -> u64 {
    match path {
        WorkspacePath::Text(text) | WorkspacePath::Bytes { base64: text } => text.len() as u64,
    }
}

#[cfg(test)]
mod tests;
