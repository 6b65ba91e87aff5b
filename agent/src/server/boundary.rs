//! The boundary around every route: names the request, judges its origin, catches panics, logs failures once.

use std::{
    fmt::Write as _,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use corehold_types::{Code, Problem};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::{
    origin::{self, Origin},
    problem::{self, Failure},
};
use crate::{
    agent::Agent,
    audit::{Recorded, refused_request},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The name of a request, in its answer, its problem and the log. The caller's `x-request-id` if that is at most 64
/// letters, digits, `.`, `_` and `-`; else one that is made here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub Arc<str>);

impl RequestId {
    fn of(headers: &HeaderMap, agent: &Agent) -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        match given.filter(|id| is_sane(id)) {
            Some(id) => Self(id.into()),
            None => {
                // Made in one piece: to grow takes a lock that the server's threads share.
                let mut id = String::with_capacity(agent.boot_id.len() + 17);
                let _ = write!(id, "{}-{:x}", agent.boot_id, MADE.fetch_add(1, Ordering::Relaxed));
                Self(id.into())
            }
        }
    }
}

fn is_sane(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=64).contains(&id.len()) && id.bytes().all(allowed)
}

/// Handles one request.
pub(super) async fn handle(State(agent): State<Arc<Agent>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = RequestId::of(request.headers(), &agent);
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let token = request.headers().get(header::AUTHORIZATION).cloned();
    let (mut response, origin) = match origin::judge(request.headers(), &agent.config.allowed_origins) {
        Origin::Refused(problem) => (origin::refusal(problem), None),
        Origin::Allowed(origin) => match origin::preflight(&method, request.headers()) {
            Some(response) => (response, Some(origin)),
            None => {
                request.extensions_mut().insert(id.clone());
                (guarded(request, next).await, Some(origin))
            }
        },
        Origin::Absent => {
            request.extensions_mut().insert(id.clone());
            (guarded(request, next).await, None)
        }
    };
    if let Some(mut problem) = response.extensions_mut().remove::<Problem>() {
        if response.extensions().get::<Recorded>().is_none() {
            let headers = token.map(|token| (header::AUTHORIZATION, token)).into_iter().collect();
            refused_request(&agent, &id.0, (&method, uri.path(), &headers), &problem);
        }
        problem.request_id = Some(id.0.to_string());
        log(&problem, &method, uri.path(), started);
        problem::render(&mut response, &problem);
    }
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    if let Some(origin) = origin {
        origin::allow(&mut response, origin);
    }
    response
}

/// A route that panics has failed, and nothing else has.
async fn guarded(request: Request, next: Next) -> Response {
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => Failure(panicked()).into_response(),
    }
}

/// The problem of a handler that panicked. The panic hook has logged where.
pub(crate) fn panicked() -> Problem {
    Problem::new(Code::Internal, "the request's handler ended in a panic; the agent's log says where")
}

fn log(problem: &Problem, method: &Method, path: &str, started: Instant) {
    let (code, status) = (problem.code, problem.status);
    let request_id = problem.request_id.as_deref().unwrap_or_default();
    let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    let detail = problem.detail.as_str();
    if status >= 500 {
        tracing::error!(request_id, %method, path, status, ?code, detail, duration_us, "request failed");
    } else {
        tracing::info!(request_id, %method, path, status, ?code, detail, duration_us, "request refused");
    }
}

/// Logs a failure that came after the answer had begun.
pub(crate) fn log_in_stream(problem: &Problem, tool: &'static str) {
    let (code, detail) = (problem.code, problem.detail.as_str());
    let request_id = problem.request_id.as_deref().unwrap_or_default();
    tracing::info!(request_id, tool, ?code, detail, "streamed request failed");
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware, routing::get};
    use tower::ServiceExt as _;

    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn a_route_that_panics_has_failed_and_nothing_else_has() {
        let agent = testing::agent();
        let router = Router::new()
            .route("/panic", get(async || -> Response { panic!("deliberate") }))
            .route("/fine", get(async || "fine"))
            .layer(middleware::from_fn_with_state(Arc::clone(&agent), handle));
        let call = async |uri: &str| {
            router.clone().oneshot(Request::builder().uri(uri).body(Body::empty()).unwrap()).await.unwrap()
        };
        let response = call("/panic").await;
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(call("/fine").await.status(), 200);
    }

    #[test]
    fn request_ids_that_could_forge_log_lines_are_not_taken() {
        for id in ["a", "2f1c-4.b_C", &"x".repeat(64)] {
            assert!(is_sane(id), "{id}");
        }
        for id in ["", "a b", "a\nb", "ü", "{}", &"x".repeat(65)] {
            assert!(!is_sane(id), "{id}");
        }
    }
}
