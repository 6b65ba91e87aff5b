//! `read`: one or many files, whole or by line or byte range.
//!
//! A file is never loaded beyond what is asked for: a byte range is read where it lies, a line range is found by
//! counting line ends through one buffer. What was read is described by [`describe`].

mod describe;
mod range;

use corehold_types::{
    Code, Problem,
    tools::{FileContent, Read, ReadRequest, ReadResponse, ReadResult, ReadTarget},
};

use crate::{
    agent::Agent,
    audit::{Notes, Touched},
    blocking::{self, Cancelled},
    handler::{Call, Events, Handler},
    root::{OpenFile, Version},
};
use range::Piece;

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
        let Call { agent, notes, .. } = call;
        if let [target] = &request.files[..]
            && let Some(opened) = agent.root.open_ready(&target.path)
        {
            let read = read_opened(&opened, target, budget, &Cancelled::default());
            return Ok(response(vec![result(read, target)], &notes));
        }
        let files = blocking::run(move |cancelled| read_all(&agent, request.files, budget, cancelled)).await?;
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

fn read_all(
    agent: &Agent,
    targets: Vec<ReadTarget>,
    mut budget: u64,
    cancelled: &Cancelled,
) -> Result<Vec<ReadResult>, Problem> {
    let mut results = Vec::with_capacity(targets.len());
    for target in targets {
        if cancelled.is_set() {
            return Err(Cancelled::problem());
        }
        let read = read_one(agent, &target, budget, cancelled);
        if let Ok((_, length)) = &read {
            budget -= length;
        }
        results.push(result(read, &target));
    }
    Ok(results)
}

fn result(read: Result<(FileContent, u64), Problem>, target: &ReadTarget) -> ReadResult {
    match read {
        Ok((content, _)) => ReadResult::Ok(content),
        Err(problem) => ReadResult::Error { path: target.path.clone(), problem },
    }
}

/// Opens a file and reads it.
fn read_one(
    agent: &Agent,
    target: &ReadTarget,
    budget: u64,
    cancelled: &Cancelled,
) -> Result<(FileContent, u64), Problem> {
    range::check(target)?;
    read_opened(&agent.root.open_file(&target.path)?, target, budget, cancelled)
}

/// Reads a file, at most `budget` bytes of it. Also says how many bytes that were.
fn read_opened(
    opened: &OpenFile,
    target: &ReadTarget,
    budget: u64,
    cancelled: &Cancelled,
) -> Result<(FileContent, u64), Problem> {
    let path = &target.path;
    let failed = |error: std::io::Error| Problem::new(Code::Internal, format!("{path} can't be read: {error}"));
    range::check(target)?;
    // Before the content, so that a change in between makes the version an old one and never the content.
    let version = Version::of_opened(opened).map_err(failed)?;
    let piece = match (target.lines, target.bytes) {
        (Some(lines), _) => range::lines(&opened.file, lines, budget, cancelled).map_err(failed)?,
        (None, Some(bytes)) => range::bytes(&opened.file, bytes, budget).map_err(failed)?,
        (None, None) => range::whole(&opened.file, opened.size(), budget).map_err(failed)?,
    };
    let head = describe::head(&opened.file, &piece).map_err(failed)?;
    let length = piece.bytes.len() as u64;
    Ok((content(path, piece, &head, version, opened.size()), length))
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
