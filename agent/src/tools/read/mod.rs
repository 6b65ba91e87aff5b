//! `read`: one or many files, whole or by line or byte range.
//!
//! A file is never loaded beyond what is asked for: a byte range is read where it lies, a line range is found by
//! counting line ends through one buffer. What was read is described by [`describe`].

mod describe;
mod range;

use std::{io, sync::Arc};

use corehold_types::{
    Code, Problem,
    tools::{FileContent, Read, ReadRequest, ReadResponse, ReadResult, ReadTarget},
};

use crate::{
    agent::Agent,
    audit::{Notes, Touched},
    blocking::{self, Cancelled},
    calls::Share,
    handler::{Call, Events, Handler},
    root::{OpenFile, Version},
};
use range::{Piece, Room};

impl Handler for Read {
    async fn handle(call: Call, request: ReadRequest, _: Events<Self::Event>) -> Result<ReadResponse, Problem> {
        let limits = &call.agent.config.limits;
        if request.files.is_empty() {
            return Err(Problem::new(Code::InvalidRequest, "files: at least one file is needed").with("field", "files"));
        }
        if request.files.len() > limits.read_files.as_usize() {
            return Err(limits.read_files.exceeded("the number of files"));
        }
        if request.max_bytes.is_some_and(|bytes| bytes > limits.read_bytes.value) {
            return Err(limits.read_bytes.exceeded("maxBytes"));
        }
        let budget = request.max_bytes.unwrap_or(limits.read_bytes.value);
        let Call { agent, notes, share, .. } = call;
        if let [target] = &request.files[..]
            && let Some(opened) = agent.root.open_ready(&target.path)
            && let Ok(read) = read_opened(&opened, target, budget, &Cancelled::default(), &|_| true)
        {
            return Ok(response(vec![result(read, target)], &notes));
        }
        let targets = Arc::new(request.files);
        let read = || {
            let (agent, targets, share) = (Arc::clone(&agent), Arc::clone(&targets), share.clone());
            blocking::run(move |cancelled| read_all(&agent, &targets, budget, cancelled, &share))
        };
        let files = match read().await? {
            Gathered::All(files) => files,
            // No thread waits for it, and nothing that was read by now.
            Gathered::NoRoom { needed } => {
                share.gather(needed).await?;
                match read().await? {
                    Gathered::All(files) => files,
                    Gathered::NoRoom { .. } => return Err(grew()),
                }
            }
        };
        Ok(response(files, &notes))
    }

    fn touches(request: &ReadRequest, touched: &mut Touched) {
        touched.paths(request.files.iter().map(|file| &file.path));
    }
}

fn response(files: Vec<ReadResult>, notes: &Notes) -> ReadResponse {
    let bytes = files.iter().map(|result| match result {
        ReadResult::Ok(file) => file.data.decoded_bytes(),
        ReadResult::Error { .. } => 0,
    });
    notes.note(|touched| touched.went_out(bytes.sum()));
    ReadResponse { files }
}

enum Gathered {
    All(Vec<ReadResult>),
    /// There is no room for all of it; at most so many bytes are needed.
    NoRoom {
        needed: usize,
    },
}

fn grew() -> Problem {
    let mut problem =
        Problem::new(Code::LimitExceeded, "the files grew while they were read, and there is no room for more");
    problem.retryable = true;
    problem
}

fn read_all(
    agent: &Agent,
    targets: &[ReadTarget],
    budget: u64,
    cancelled: &Cancelled,
    share: &Share,
) -> Result<Gathered, Problem> {
    let mut results = Vec::with_capacity(targets.len());
    let mut left = budget;
    for target in targets {
        if cancelled.is_set() {
            return Err(Cancelled::problem());
        }
        let Ok(read) = read_one(agent, target, left, cancelled, &|bytes| share.try_gather(bytes)) else {
            return Ok(Gathered::NoRoom { needed: needed(agent, targets, budget) });
        };
        if let Ok((_, length)) = &read {
            left -= length;
        }
        results.push(result(read, target));
    }
    Ok(Gathered::All(results))
}

/// How many bytes targets have at most.
fn needed(agent: &Agent, targets: &[ReadTarget], budget: u64) -> usize {
    let sizes = targets.iter().map(|target| {
        let size = agent.root.open_file(&target.path).map_or(0, |opened| opened.size());
        // One more is read than is wanted, and the buffer is as large as that at once.
        let wanted = target.bytes.and_then(|range| range.length).unwrap_or(u64::MAX);
        size.min(wanted).saturating_add(range::BUFFER as u64)
    });
    let all = sizes.fold(0, u64::saturating_add).min(budget.saturating_add(range::BUFFER as u64));
    usize::try_from(all).unwrap_or(usize::MAX)
}

fn result(read: Result<(FileContent, u64), Problem>, target: &ReadTarget) -> ReadResult {
    match read {
        Ok((content, _)) => ReadResult::Ok(content),
        Err(problem) => ReadResult::Error { path: target.path.clone(), problem },
    }
}

/// There is no room for what is to be read.
#[derive(Debug)]
struct NoRoom;

/// Opens a file and reads it.
fn read_one(
    agent: &Agent,
    target: &ReadTarget,
    budget: u64,
    cancelled: &Cancelled,
    room: Room<'_>,
) -> Result<Result<(FileContent, u64), Problem>, NoRoom> {
    match range::check(target).and_then(|()| agent.root.open_file(&target.path)) {
        Ok(opened) => read_opened(&opened, target, budget, cancelled, room),
        Err(problem) => Ok(Err(problem)),
    }
}

/// Reads a file, at most `budget` bytes of it. Also says how many bytes that were.
fn read_opened(
    opened: &OpenFile,
    target: &ReadTarget,
    budget: u64,
    cancelled: &Cancelled,
    room: Room<'_>,
) -> Result<Result<(FileContent, u64), Problem>, NoRoom> {
    if let Err(problem) = range::check(target) {
        return Ok(Err(problem));
    }
    let read = || {
        // Before the content, so that a change in between makes the version an old one and never the content.
        let version = Version::of_opened(opened)?;
        let piece = match (target.lines, target.bytes) {
            (Some(lines), _) => range::lines(&opened.file, lines, budget, cancelled, room)?,
            (None, Some(bytes)) => range::bytes(&opened.file, bytes, budget, room)?,
            (None, None) => range::whole(&opened.file, opened.size(), budget, room)?,
        };
        let head = describe::head(&opened.file, &piece)?;
        let length = piece.bytes.len() as u64;
        Ok::<_, io::Error>((content(&target.path, piece, &head, version, opened.size()), length))
    };
    match read() {
        Ok(read) => Ok(Ok(read)),
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => Err(NoRoom),
        Err(error) => Ok(Err(Problem::new(Code::Internal, format!("{} can't be read: {error}", target.path)))),
    }
}

fn content(
    path: &corehold_types::WorkspacePath,
    mut piece: Piece,
    head: &[u8],
    version: Version,
    size: u64,
) -> FileContent {
    if piece.truncated {
        describe::cut_at_character(&mut piece.bytes);
    }
    let encoding = describe::encoding(head, &piece.bytes);
    let total_lines = if piece.is_whole { Some(describe::count_lines(&piece.bytes)) } else { piece.total_lines };
    FileContent {
        path: path.clone(),
        version: version.into_string(),
        hash: piece.is_whole.then(|| blake3::hash(&piece.bytes).to_hex().to_string()),
        // What was read is the truth for a file that grew or shrank since it was opened.
        size: if piece.is_whole { piece.bytes.len() as u64 } else { size },
        start_byte: piece.start_byte,
        start_line: piece.start_line,
        total_lines,
        encoding,
        line_ending: describe::line_ending(&piece.bytes),
        binary: memchr::memchr(0, &piece.bytes).is_some(),
        truncated: piece.truncated,
        data: describe::data(piece.bytes, encoding),
    }
}

#[cfg(test)]
mod tests;
