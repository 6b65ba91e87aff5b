//! From a [`Problem`] to an HTTP answer: the one place where errors meet HTTP.

use axum::response::{IntoResponse, Response};
use corehold_types::Problem;
use http::{HeaderValue, StatusCode, header};

/// A request failed. The boundary adds the request's id, logs it and writes the body.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) Problem);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).into_response();
        response.extensions_mut().insert(self.0);
        response
    }
}

/// Media type of RFC 9457.
pub(super) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Turns a failed response into what the caller gets. Headers that the route set (`Allow`, `Content-Range`) stay.
pub(super) fn render(response: &mut Response, problem: &Problem) {
    // A Problem is strings and numbers; nothing in it can fail to become JSON.
    let body = serde_json::to_vec(problem).unwrap_or_default();
    response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM_JSON);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"corehold\""));
    }
    *response.body_mut() = body.into();
}
