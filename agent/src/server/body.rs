//! Request bodies: bounded in size and time, and as JSON with errors that say where.

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody as _};
use corehold_types::{Code, Problem};
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use serde::de::DeserializeOwned;

use crate::{
    calls::{FREE, Room, Taken},
    config::{Limit, Limits},
};

/// Reads a tool's request. Beside it is what it holds of the room, for as long as it is kept.
///
/// An empty body is an empty object. `null` for an optional field means that it is absent, since that is how many
/// languages write one; answers never contain it.
///
/// # Errors
/// `INVALID_REQUEST` says the field, line and column; `LIMIT_EXCEEDED` and `TIMEOUT` name the limit and its variable.
pub(crate) async fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    limits: &Limits,
    room: &Room,
) -> Result<(T, Option<Taken>), Problem> {
    if body.is_end_stream() {
        return Ok((parse(b"{}")?, None));
    }
    let (bytes, taken) = raw(headers, body, limits, room).await?;
    Ok((parse(if bytes.is_empty() { b"{}" } else { &bytes })?, taken))
}

/// A body that says that it is JSON, as it came.
///
/// # Errors
/// `INVALID_REQUEST`, `LIMIT_EXCEEDED` and `TIMEOUT`, as [`json`].
pub(crate) async fn raw(
    headers: &HeaderMap,
    body: Body,
    limits: &Limits,
    room: &Room,
) -> Result<(Bytes, Option<Taken>), Problem> {
    if !is_json(headers) {
        return Err(unsupported_media_type(headers));
    }
    let coming = collect(body, limits.body_bytes, room);
    let (bytes, mut taken) = within(limits.receive_ms, limits.receive_ms.as_duration(), coming).await??;
    room.settle_request(&mut taken, &bytes)?;
    Ok((bytes, taken))
}

/// Bytes of a streamed body that must come while it is waited for as long as `receiveMs`, unless it ends: who sends a byte
/// now and then keeps others from a transfer. With the default 546 bytes a second; Apache's `mod_reqtimeout` asks for 500.
const LEAST: usize = 16 << 10;

/// How a streamed body comes in. Only the time counts in which it is waited for, not that in which its reader works.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    waited: Duration,
    came: usize,
}

impl Pace {
    /// The next piece; nothing at the body's end.
    ///
    /// # Errors
    /// `TIMEOUT` when too little comes in time; `INVALID_REQUEST` when the caller's connection broke or its framing is wrong.
    pub(crate) async fn next_piece(&mut self, body: &mut Body, limits: &Limits) -> Result<Option<Bytes>, Problem> {
        loop {
            let since = Instant::now();
            let frame = within(limits.receive_ms, self.left(limits.receive_ms), body.frame()).await?;
            // Trailers are nothing to us.
            let piece = frame.transpose().map_err(|error| broken(&error))?.map(Frame::into_data);
            let length = piece.as_ref().and_then(|piece| piece.as_ref().ok()).map_or(0, Bytes::len);
            self.took(since.elapsed(), length);
            match piece {
                None => return Ok(None),
                Some(Ok(piece)) => return Ok(Some(piece)),
                Some(Err(_)) => {}
            }
        }
    }

    fn left(&self, limit: Limit) -> Duration {
        limit.as_duration().saturating_sub(self.waited)
    }

    fn took(&mut self, waited: Duration, length: usize) {
        self.waited += waited;
        self.came += length;
        if self.came >= LEAST {
            *self = Self::default();
        }
    }
}

/// Waits for as long as is left of the limit.
async fn within<T>(limit: Limit, left: Duration, work: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::time::timeout(left, work).await.map_err(|_| {
        Problem::new(Code::Timeout, format!("too little of the request's body came within {} ms", limit.value))
            .with("limit", limit.value)
            .with("variable", limit.variable)
            .suggest(format!("{} sets this limit", limit.variable))
    })
}

async fn collect(mut body: Body, limit: Limit, room: &Room) -> Result<(Bytes, Option<Taken>), Problem> {
    let too_large = || limit.exceeded("the request's body");
    if body.size_hint().lower() > limit.value {
        return Err(too_large());
    }
    // Of one whose length isn't known, as much as it may be.
    let most = body.size_hint().exact().unwrap_or(limit.value);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut taken = None;
    let mut first: Option<Bytes> = None;
    let mut rest: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        let length = first.as_ref().map_or(0, Bytes::len).max(rest.len()) + piece.len();
        if u64::try_from(length).unwrap_or(u64::MAX) > limit.value {
            return Err(too_large());
        }
        if taken.is_none() && 2 * length > FREE {
            taken = Some(room.take_for_request(most.saturating_mul(2)).await?);
        }
        // Most bodies are one piece, which is then parsed where it lies.
        match &first {
            None => first = Some(piece),
            Some(head) => {
                if rest.is_empty() {
                    rest.extend_from_slice(head);
                }
                if taken.is_some() && rest.capacity() < most {
                    // Once, and what nothing comes for is never the agent's: the kernel gives pages as they are written.
                    rest.reserve_exact(most - rest.len());
                }
                rest.extend_from_slice(&piece);
            }
        }
    }
    Ok((if rest.is_empty() { first.unwrap_or_default() } else { rest.into() }, taken))
}

fn broken(error: &axum::Error) -> Problem {
    Problem::new(Code::InvalidRequest, format!("the request's body broke off or is malformed: {error}"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let is_identity = headers.get(header::CONTENT_ENCODING).is_none_or(|encoding| encoding == "identity");
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    is_identity && media_type.eq_ignore_ascii_case("application/json")
}

fn unsupported_media_type(headers: &HeaderMap) -> Problem {
    let shown = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let detail = match (shown(header::CONTENT_ENCODING), shown(header::CONTENT_TYPE)) {
        (Some(encoding), _) if encoding != "identity" => format!("the body's Content-Encoding is {encoding:?}"),
        (_, Some(content_type)) => format!("the body's Content-Type is {content_type:?}"),
        (_, None) => "the body has no Content-Type".to_owned(),
    };
    let mut problem = Problem::new(Code::InvalidRequest, detail).suggest("send `Content-Type: application/json`");
    problem.status = http::StatusCode::UNSUPPORTED_MEDIA_TYPE.as_u16();
    problem
}

/// A response as JSON.
///
/// # Errors
/// `INTERNAL`: a response that has no JSON is a mistake of ours.
pub(crate) fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(value)
        .map_err(|error| Problem::new(Code::Internal, format!("the response can't be written as JSON: {error}")))
}

/// Characters of a message about a malformed request.
const SHOWN: usize = 400;

/// Parses a request; on failure once more, slower, to say where.
///
/// # Errors
/// `INVALID_REQUEST` says the field, line and column.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde would take an array for a struct, field by field.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first == b'[') {
        return Err(Problem::new(Code::InvalidRequest, "the body is a JSON array; a JSON object was expected")
            .with("line", 1)
            .with("column", 1));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let field = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
            Err(error) if error.path().iter().len() > 0 => Some(error.path().to_string()),
            _ => None,
        };
        malformed(&error, field)
    })
}

fn malformed(error: &serde_json::Error, field: Option<String>) -> Problem {
    let what = error.to_string().replace(
        "data did not match any variant of untagged enum WorkspacePath",
        "a path is a string, or {\"base64\": …} where it isn't UTF-8",
    );
    let (what, field) = (shortened(what), field.map(shortened));
    let problem = match &field {
        Some(field) => Problem::new(Code::InvalidRequest, format!("{field}: {what}")).with("field", field.as_str()),
        None => Problem::new(Code::InvalidRequest, what),
    };
    problem.with("line", error.line()).with("column", error.column())
}

/// What a caller sent may be in it, of any length.
fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(SHOWN) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use corehold_types::tools::ReadRequest;

    use super::*;

    #[test]
    fn a_body_may_take_long_but_not_crawl() {
        const SECOND: Duration = Duration::from_secs(1);
        let limit = Limits::default().receive_ms;
        let mut pace = Pace::default();
        for _ in 0..1_000 {
            assert!(pace.left(limit) >= 15 * SECOND, "16 KiB every 16 seconds");
            pace.took(SECOND, 1 << 10);
        }
        let mut pace = Pace::default();
        for waited in 0..40 {
            assert_eq!(pace.left(limit), (30 * SECOND).saturating_sub(waited * SECOND), "a byte a second");
            pace.took(SECOND, 1);
        }
    }

    #[test]
    fn a_refusal_is_short_however_long_the_name_was() {
        let long = "é".repeat(100_000);
        for body in [format!(r#"{{"{long}":1}}"#), format!(r#"{{"files":"{long}"}}"#)] {
            let refusal = refusal(body);
            assert!(refusal.detail.ends_with('…') && refusal.detail.chars().count() < 1000, "{}", refusal.detail);
        }
    }

    fn refusal(body: impl AsRef<[u8]>) -> Problem {
        parse::<ReadRequest>(body.as_ref()).unwrap_err()
    }

    #[test]
    fn says_which_field_line_and_column() {
        let problem = refusal("{\n \"files\": [{\"path\": \"a\"}, {\"path\": \"b\", \"lines\": {\"start\": -1}}]}");
        assert_eq!(problem.context["field"], "files[1].lines.start");
        assert_eq!(problem.context["line"], 2);
        assert!(problem.detail.contains("invalid value: integer `-1`, expected u64"), "{}", problem.detail);
    }

    #[test]
    fn malformed_json_of_every_kind_is_refused() {
        for (body, expected) in [
            (&b"{"[..], "EOF while parsing"),
            (b"{\"files\": []", "EOF while parsing"),
            (b"{\"files\": []} x", "trailing characters"),
            (b"{\"files\": [], \"maxBytes\": NaN}", "expected value"),
            (b"{\"files\": [], \"maxBytes\": 1e400}", "number out of range"),
            (b"{\"files\": [], \"maxBytes\": 1.5}", "expected u64"),
            (b"{\"files\": [{\"path\": \"\\ud800\\ud800\"}]}", "lone leading surrogate"),
            (b"{\"files\": [{\"path\": \"\\udc00\"}]}", "lone leading surrogate"),
            (b"{\"files\": [{\"path\": \"\\ud800\"}]}", "unexpected end of hex escape"),
            (b"{\"files\": [{\"path\": \"\xff\"}]}", "invalid unicode code point"),
            (b"{\"files\": [{\"path\": \"a\nb\"}]}", "control character"),
            (b"{\"files\": [{\"path\": 7}]}", "a path is a string"),
            (b"{\"files\": [], \"files\": []}", "duplicate field"),
            (b"{\"files\": [], \"colour\": 1}", "unknown field `colour`"),
            (b"{}", "missing field `files`"),
            (b"[[]]", "a JSON array"),
            (b"  [1, 2]", "a JSON array"),
            (b"\"files\"", "invalid type: string"),
            (b"null", "invalid type: null"),
            (b"\xef\xbb\xbf{}", "expected value"),
        ] {
            let detail = refusal(body).detail;
            assert!(detail.contains(expected), "{}: {detail}", body.escape_ascii());
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_not_a_stack_overflow() {
        let nested = format!("{{\"files\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(refusal(&nested).code, Code::InvalidRequest);
        let unknown = format!("{{\"x\": {}", "{\"x\":".repeat(100_000));
        assert_eq!(refusal(unknown).code, Code::InvalidRequest);
    }

    #[test]
    fn null_for_an_optional_field_means_absent() {
        let request: ReadRequest =
            parse(br#"{"files": [{"path": "a", "lines": null, "bytes": null}], "maxBytes": null}"#).unwrap();
        assert!(request.max_bytes.is_none() && request.files[0].lines.is_none());
    }
}
