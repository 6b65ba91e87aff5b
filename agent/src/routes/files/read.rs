//! `GET` and `HEAD`: a file or a range of it, if it has changed.

use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use corehold_types::{Code, Problem, Scope, WorkspacePath};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{conditions::Conditions, path_of, set_version, span::Span};
use crate::{
    agent::Agent,
    blocking,
    root::{OpenFile, Version, is_current},
    routes::audited::Asked,
    server::problem::Failure,
};

/// Bytes read and handed to the connection at a time; what is smaller is read at once with the opening.
const CHUNK: usize = 256 << 10;

pub(super) async fn get(State(agent): State<Arc<Agent>>, request: Request) -> Response {
    answer(agent, request).await.unwrap_or_else(|problem| Failure(problem).into_response())
}

/// An opened file, and what the request's headers make of it.
struct Found {
    version: Version,
    outcome: Outcome,
}

enum Outcome {
    NotModified,
    Unsatisfiable { size: u64 },
    Content { size: u64, part: Option<(u64, u64)>, content: Content },
}

enum Content {
    Read(Bytes),
    Open(File),
}

async fn answer(agent: Arc<Agent>, request: Request) -> Result<Response, Problem> {
    Asked::with(request.extensions(), Scope::Read)?;
    let path = path_of(request.uri())?;
    let is_head = request.method() == Method::HEAD;
    let headers = request.into_parts().0.headers;
    let Found { version, outcome } = match agent.root.open_ready(&path) {
        Some(opened) => find(opened, &path, &headers, is_head)?,
        None => blocking::run(move |_| find(agent.root.open_file(&path)?, &path, &headers, is_head)).await?,
    };
    let mut response = match outcome {
        Outcome::NotModified => StatusCode::NOT_MODIFIED.into_response(),
        Outcome::Unsatisfiable { size } => unsatisfiable(size),
        Outcome::Content { size, part, content } => content_response(size, part, content),
    };
    set_version(&mut response, &version);
    Ok(response)
}

fn find(opened: OpenFile, path: &WorkspacePath, headers: &HeaderMap, is_head: bool) -> Result<Found, Problem> {
    let failed = |error: io::Error| Problem::new(Code::Internal, format!("{path} can't be read: {error}"));
    let conditions = Conditions::of(headers)?;
    let version = Version::of_opened(&opened).map_err(failed)?;
    if !conditions.match_holds(Some(&opened.file)).map_err(failed)? {
        return Err(super::conditions::mismatch(path, Some(version)));
    }
    if !conditions.none_match_holds(Some(&opened.file)).map_err(failed)? {
        return Ok(Found { version, outcome: Outcome::NotModified });
    }
    let size = opened.size();
    let span =
        if range_applies(headers, &opened.file).map_err(failed)? { Span::of(headers, size) } else { Span::Whole };
    let part = match span {
        Span::Whole => None,
        Span::Part(start, end) => Some((start, end)),
        Span::Unsatisfiable => return Ok(Found { version, outcome: Outcome::Unsatisfiable { size } }),
    };
    let (start, end) = part.unwrap_or((0, size));
    let content = if !is_head && end - start <= CHUNK as u64 {
        Content::Read(read_piece(&opened.file, start, end).map_err(failed)?)
    } else {
        Content::Open(opened.file)
    };
    Ok(Found { version, outcome: Outcome::Content { size, part, content } })
}

/// `If-Range` (section 13.1.5): the range counts only if the file is still that version. We give no weak tags, and no
/// dates that are precise enough.
fn range_applies(headers: &HeaderMap, file: &File) -> io::Result<bool> {
    let Some(value) = headers.get(header::IF_RANGE) else { return Ok(true) };
    match value.to_str().ok().and_then(|value| value.strip_prefix('"')?.strip_suffix('"')) {
        Some(tag) => is_current(file, tag),
        None => Ok(false),
    }
}

fn unsatisfiable(size: u64) -> Response {
    let mut problem = Problem::new(Code::InvalidRequest, format!("the range has no byte of the file's {size}"));
    problem.status = StatusCode::RANGE_NOT_SATISFIABLE.as_u16();
    let mut response = Failure(problem).into_response();
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    response
}

fn content_response(size: u64, part: Option<(u64, u64)>, content: Content) -> Response {
    let (start, end) = part.unwrap_or((0, size));
    let body = match content {
        Content::Read(bytes) => Body::from(bytes),
        Content::Open(file) => Body::from_stream(chunks(file, start, end)),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(end - start));
    if part.is_some() {
        if let Ok(value) = HeaderValue::from_str(&format!("bytes {start}-{}/{size}", end - 1)) {
            headers.insert(header::CONTENT_RANGE, value);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

/// The bytes from `start` to `end`, a chunk at a time, each read when the connection wants it.
fn chunks(file: File, start: u64, end: u64) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((Arc::new(file), start), move |(file, offset)| async move {
        if offset >= end {
            return Ok(None);
        }
        let until = end.min(offset + CHUNK as u64);
        let reader = Arc::clone(&file);
        let read = tokio::task::spawn_blocking(move || read_piece(&reader, offset, until));
        let piece = read.await.map_err(io::Error::other)??;
        Ok(Some((piece, (file, until))))
    })
}

/// All bytes from `start` to `end`; a file that has become shorter is an error, since the length was promised.
fn read_piece(file: &File, start: u64, end: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(end - start).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes.into())
}
