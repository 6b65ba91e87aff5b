//! `PUT /v1/archive`: a tar, tar.gz or tar.zst in the body becomes files of the workspace.
//!
//! `?path=` is the directory to extract into (default: the root), `?hash=` the BLAKE3 that the body must have.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use corehold_types::{Code, Problem, Scope, WorkspacePath, tools::ExtractResponse};
use http::Uri;

use super::query;
use crate::{
    agent::Agent,
    archive::{Extraction, Progress},
    server::{problem::Failure, upload::with_body},
};

pub(crate) async fn put(State(agent): State<Arc<Agent>>, request: Request) -> Response {
    match answer(agent, request).await {
        Ok(response) => Json(response).into_response(),
        Err(problem) => Failure(problem).into_response(),
    }
}

async fn answer(agent: Arc<Agent>, request: Request) -> Result<ExtractResponse, Problem> {
    agent.access.authorize(request.headers(), Scope::Write)?;
    let target = Target::of(request.uri())?;
    let worker = Arc::clone(&agent);
    with_body(request.into_body(), &agent, move |upload, cancelled| {
        let extraction = Extraction {
            agent: &worker,
            destination: &target.path,
            expected_hash: target.hash.as_deref(),
            progress: &Progress::default(),
            cancelled,
        };
        extraction.run(upload)
    })
    .await
}

struct Target {
    path: WorkspacePath,
    hash: Option<String>,
}

impl Target {
    fn of(uri: &Uri) -> Result<Self, Problem> {
        let mut target = Self { path: ".".into(), hash: None };
        for query::Pair { name, value } in query::pairs(uri)? {
            match name.as_slice() {
                b"path" => target.path = WorkspacePath::from_bytes(&value),
                b"hash" => target.hash = Some(String::from_utf8_lossy(&value).into_owned()),
                other => {
                    let detail = format!(
                        "the query's {:?} is unknown; there are path and hash",
                        other.escape_ascii().to_string()
                    );
                    return Err(Problem::new(Code::InvalidRequest, detail));
                }
            }
        }
        Ok(target)
    }
}
