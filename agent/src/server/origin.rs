//! Browsers: which pages may call. A program that is no browser sends no `Origin` and isn't concerned.

use axum::response::{IntoResponse as _, Response};
use corehold_types::{Code, Problem};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::problem::Failure;
use crate::config;

/// What the boundary does about a request's origin.
pub(super) enum Origin {
    /// Not from a page of a browser.
    Absent,
    /// From a page that may call.
    Allowed(HeaderValue),
    /// From a page that may not.
    Refused(Problem),
}

/// Judges the request by its `Origin` header.
pub(super) fn judge(headers: &HeaderMap, allowed: &[String]) -> Origin {
    let Some(origin) = headers.get(header::ORIGIN) else { return Origin::Absent };
    if allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) {
        return Origin::Allowed(origin.clone());
    }
    let shown = String::from_utf8_lossy(origin.as_bytes());
    Origin::Refused(
        Problem::new(Code::Forbidden, format!("pages of the origin {shown:?} may not call this agent"))
            .with("variable", config::ALLOWED_ORIGINS)
            .suggest(format!("{} names the origins that may", config::ALLOWED_ORIGINS)),
    )
}

/// The answer to a browser that asks before it calls (Fetch standard, CORS-preflight).
pub(super) fn preflight(method: &Method, headers: &HeaderMap) -> Option<Response> {
    if method != Method::OPTIONS || !headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, PUT, POST, DELETE"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, accept, range, if-match, if-none-match, if-range, x-request-id",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}

/// Lets the page read the answer.
pub(super) fn allow(response: &mut Response, origin: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("etag, content-range, x-request-id, allow"),
    );
}

/// The answer to a page that may not call.
pub(super) fn refusal(problem: Problem) -> Response {
    Failure(problem).into_response()
}
