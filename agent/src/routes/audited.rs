//! Around the routes that are no tools: says once who asks, records each request, and takes it for activity.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use corehold_types::{Code, Problem, Scope, Standing, WorkspacePath, tools::ActivitySource};
use http::{Extensions, Method};

use super::{counted, files, query};
use crate::{
    access::Caller,
    agent::Agent,
    audit::{Notes, Pending, Recorded},
    calls,
    handler::Surface,
    server::{RequestId, problem::Failure},
};

/// Who asks: found here, and handed on with the request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) caller: Arc<Caller>,
    pub(crate) request_id: Arc<str>,
    /// What the route does is noted here.
    pub(crate) notes: Notes,
}

impl Asked {
    /// Who asks, if they may do what needs the scope.
    ///
    /// # Errors
    /// `FORBIDDEN` names the scope that is lacking.
    pub(crate) fn with(extensions: &Extensions, scope: Scope) -> Result<&Self, Problem> {
        // A route that isn't behind this room lets nobody in.
        let nobody = || Problem::new(Code::Unauthorized, "nobody has looked at the request's token");
        let asked = extensions.get::<Self>().ok_or_else(nobody)?;
        asked.caller.need(scope)?;
        Ok(asked)
    }
}

/// Around `/v1/files`, `/v1/archive` and `/v1/tunnel`: records what was asked and how it ended, and says meanwhile that somebody is at work.
pub(crate) async fn audited(State(agent): State<Arc<Agent>>, request: Request, next: Next) -> Response {
    let Some(route) = name_of(request.method(), request.uri().path()) else { return next.run(request).await };
    let mut response = record(&agent, route, request, next).await;
    if response.extensions().get::<Problem>().is_some() {
        response.extensions_mut().insert(Recorded);
    }
    response
}

async fn record(agent: &Arc<Agent>, route: &'static str, mut request: Request, next: Next) -> Response {
    let caller = agent.access.identify(request.headers(), Standing::Served);
    let request_id = request.extensions().get::<RequestId>().map_or_else(|| Arc::from(""), |id| Arc::clone(&id.0));
    let known = caller.as_ref().ok().cloned();
    let pending = Pending::new(&agent.audit, known, Surface::Http, &request_id, route);
    let is_tunnel = request.uri().path().starts_with("/v1/tunnel");
    pending.note(|touched| match path_of(&request) {
        Some(path) => touched.path(&path),
        None if is_tunnel => touched.detail(request.uri().path()),
        None => {}
    });
    let caller = match caller {
        Ok(caller) => caller,
        Err(problem) => {
            pending.refuse(problem.code);
            return Failure(problem).into_response();
        }
    };
    request.extensions_mut().insert(Asked { caller, request_id, notes: pending.notes() });
    // An open tunnel is held where it is open.
    let held = (!is_tunnel).then(|| agent.activity.request(ActivitySource::Transfer, route));
    let is_head = request.method() == Method::HEAD;
    let response = next.run(request).await;
    if response.headers().contains_key(calls::REPLAYED) {
        pending.replayed();
    }
    match response.extensions().get::<Problem>().map(|problem| problem.code) {
        Some(code @ (Code::Unauthorized | Code::Forbidden | Code::NotClaimed | Code::InvalidRequest)) => {
            pending.refuse(code);
            response
        }
        Some(code) => {
            pending.finish(Some(code));
            response
        }
        None if is_head || is_tunnel => {
            pending.finish(None);
            response
        }
        None => counted::until_sent(response, pending, held),
    }
}

/// The name of a route in the log, if it is one of these.
pub(crate) fn name_of(method: &Method, path: &str) -> Option<&'static str> {
    let room = ["/v1/files", "/v1/archive", "/v1/tunnel"].into_iter().find(|room| path.starts_with(room))?;
    Some(match (method.as_str(), room) {
        ("GET", "/v1/files") => "GET /v1/files",
        ("HEAD", "/v1/files") => "HEAD /v1/files",
        ("PUT", "/v1/files") => "PUT /v1/files",
        ("DELETE", "/v1/files") => "DELETE /v1/files",
        ("GET", "/v1/archive") => "GET /v1/archive",
        ("HEAD", "/v1/archive") => "HEAD /v1/archive",
        ("PUT", "/v1/archive") => "PUT /v1/archive",
        ("GET", "/v1/tunnel") => "GET /v1/tunnel",
        ("HEAD", "/v1/tunnel") => "HEAD /v1/tunnel",
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
