//! Every route, each named once.

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    middleware,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use corehold_types::{Code, Problem, Tool, for_each_tool};

use http::header;

use super::{boundary, problem::Failure};
use crate::{
    agent::Agent,
    mcp, metrics,
    routes::{archive, audited, files, health, tools, tunnel},
    socket,
};

/// The agent's routes, with the boundary around them.
pub fn router(agent: Arc<Agent>) -> Router {
    let audited = middleware::from_fn_with_state(Arc::clone(&agent), audited::audited);
    let router = Router::new()
        .route("/v1/archive", archive::route(&agent))
        .route("/v1/files", files::route(&agent))
        .route("/v1/files/", files::route(&agent))
        .route("/v1/files/{*path}", files::route(&agent))
        .route("/v1/tunnel/{port}", get(tunnel::get))
        .route_layer(audited)
        .route("/metrics", get(metrics::get))
        .route("/openapi.json", get(openapi))
        .route("/mcp", post(mcp::post))
        .route("/v1/ws", get(socket::get))
        .route("/health", get(health::get));
    with_tools(router)
        .fallback(unknown_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&agent), boundary::handle))
        .with_state(agent)
}

/// What this surface is, for programs that make clients. It says nothing about the workspace, so it needs no token.
async fn openapi() -> Response {
    let document = include_str!("../../../types/openapi/openapi.json");
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}

/// Adds `POST /v1/tools/{name}` for every tool. A tool without a handler doesn't compile here.
fn with_tools(mut router: Router<Arc<Agent>>) -> Router<Arc<Agent>> {
    macro_rules! routes {
        ($($tool:ident),*) => {
            $(router = router.route(&path_of::<corehold_types::tools::$tool>(), tools::route::<corehold_types::tools::$tool>());)*
        };
    }
    for_each_tool!(routes);
    router
}

fn path_of<T: Tool>() -> String {
    format!("{TOOLS}{}", T::NAME)
}

const TOOLS: &str = "/v1/tools/";

async fn unknown_route(request: Request) -> Failure {
    let path = request.uri().path();
    let problem = Problem::new(Code::UnknownRoute, format!("there is no route {path}"));
    Failure(if path.starts_with(TOOLS) {
        macro_rules! names {
            ($($tool:ident),*) => { [$(corehold_types::tools::$tool::NAME),*].join(", ") };
        }
        problem.suggest(format!("this agent has the tools {}", for_each_tool!(names)))
    } else {
        problem
    })
}

async fn method_not_allowed(request: Request) -> Failure {
    let (method, path) = (request.method(), request.uri().path());
    Failure(
        Problem::new(Code::MethodNotAllowed, format!("{path} does not take {method}"))
            .suggest("the Allow header names the methods it takes"),
    )
}
