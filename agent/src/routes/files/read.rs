//! `GET` and `HEAD`: a file or a range of it, if it has changed.

use std::{fs::File, io, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use corehold_types::{Code, Problem, Scope, WorkspacePath};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{conditions::Conditions, content, path_of, set_version, span::Span};
use crate::{
    agent::Agent,
    blocking,
    calls::Room,
    root::{OpenFile, Version, is_current},
    routes::audited::Asked,
    server::problem::Failure,
};

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
    let room = Arc::clone(&agent.room);
    let Found { version, outcome } = match agent.root.open_ready(&path) {
        Some(opened) => find(&room, opened, &path, &headers, is_head)?,
        None => {
            blocking::run(move |_| find(&agent.room, agent.root.open_file(&path)?, &path, &headers, is_head)).await?
        }
    };
    let mut response = match outcome {
        Outcome::NotModified => StatusCode::NOT_MODIFIED.into_response(),
        Outcome::Unsatisfiable { size } => unsatisfiable(size),
        Outcome::Content { size, part, content } => content_response(room, size, part, content),
    };
    set_version(&mut response, &version);
    Ok(response)
}

fn find(
    room: &Room,
    opened: OpenFile,
    path: &WorkspacePath,
    headers: &HeaderMap,
    is_head: bool,
) -> Result<Found, Problem> {
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
    let read = if is_head { None } else { content::at_once(room, &opened.file, start, end).map_err(failed)? };
    let content = read.map_or_else(|| Content::Open(opened.file), Content::Read);
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

fn content_response(room: Arc<Room>, size: u64, part: Option<(u64, u64)>, content: Content) -> Response {
    let (start, end) = part.unwrap_or((0, size));
    let body = match content {
        Content::Read(bytes) => Body::from(bytes),
        Content::Open(file) => Body::from_stream(content::pieces(room, file, start, end)),
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
