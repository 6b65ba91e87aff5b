//! Around the routes that are no tools: each request is recorded, and is activity.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use corehold_types::{Code, Problem, Standing, WorkspacePath, tools::ActivitySource};
use http::{Method, header};
use http_body_util::BodyExt as _;

use super::{files, query};
use crate::{agent::Agent, audit::Pending, calls, handler::Surface, server::RequestId};

/// Around `/v1/files`, `/v1/archive` and `/v1/tunnel`: records what was asked and how it ended, and says meanwhile that somebody is at work.
pub(crate) async fn audited(State(agent): State<Arc<Agent>>, request: Request, next: Next) -> Response {
    let Some(route) = name_of(request.method(), request.uri().path()) else { return next.run(request).await };
    // The route checks the token too, and for the scope; that it has been verified is remembered.
    let caller = agent.access.identify(request.headers(), Standing::Served).ok();
    let id = request.extensions().get::<RequestId>().map_or_else(|| Arc::from(""), |id| Arc::clone(&id.0));
    let mut pending = Pending::new(&agent.audit, caller, Surface::Http, &id, route);
    let path = path_of(&request);
    if let (Some(path), Some(touched)) = (&path, pending.touched()) {
        touched.path(path);
    }
    let is_tunnel = route == "GET /v1/tunnel";
    if let (true, Some(touched)) = (is_tunnel, pending.touched()) {
        touched.detail(request.uri().path());
    }
    // An open tunnel is held where it is open.
    let held = (!is_tunnel).then(|| agent.activity.request(ActivitySource::Transfer, route));
    let changes = request.method() == Method::PUT;
    let response = next.run(request).await;
    let after = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
    if let (true, Some(path), Some(after), Some(touched)) = (changes, &path, after, pending.touched()) {
        touched.changed(path, None, Some(after.trim_matches('"')));
    }
    if response.headers().contains_key(calls::REPLAYED) {
        pending.replayed();
    }
    match response.extensions().get::<Problem>().map(|problem| problem.code) {
        Some(code @ (Code::Unauthorized | Code::Forbidden | Code::NotClaimed | Code::InvalidRequest)) => {
            pending.refuse(code);
        }
        code => pending.finish(code),
    }
    if route != "GET /v1/archive" {
        return response;
    }
    // It is made while it is sent.
    response.map(|body| {
        axum::body::Body::new(body.map_frame(move |frame| {
            let _until_the_last = &held;
            frame
        }))
    })
}

fn name_of(method: &Method, path: &str) -> Option<&'static str> {
    Some(match (method.as_str(), path.starts_with("/v1/files")) {
        ("GET", true) => "GET /v1/files",
        ("HEAD", true) => "HEAD /v1/files",
        ("PUT", true) => "PUT /v1/files",
        ("DELETE", true) => "DELETE /v1/files",
        ("GET", false) if path.starts_with("/v1/tunnel") => "GET /v1/tunnel",
        ("GET", false) => "GET /v1/archive",
        ("PUT", false) => "PUT /v1/archive",
        _ => return None,
    })
}

fn path_of(request: &Request) -> Option<WorkspacePath> {
    if request.uri().path().starts_with("/v1/files") {
        return files::path_of(request.uri()).ok();
    }
    let named = query::pairs(request.uri()).ok()?.into_iter().find(|pair| pair.name == b"path")?;
    Some(WorkspacePath::from_bytes(&named.value))
}
