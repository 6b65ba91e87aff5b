//! `PUT /v1/archive`: a tar, tar.gz or tar.zst in the body becomes files of the workspace.
//!
//! `?path=` is the directory to extract into (default: the root), `?hash=` the BLAKE3 that the body must have, `?replace=true`
//! makes the directory's content that of the archive: what is not in it goes.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use corehold_types::{Problem, Scope, tools::ExtractResponse};

use super::{flag, parameters, path_or_root};
use crate::{
    agent::Agent,
    archive::{Extraction, Progress},
    routes::audited::Asked,
    server::{problem::Failure, upload::with_body},
};

pub(crate) async fn put(State(agent): State<Arc<Agent>>, request: Request) -> Response {
    match answer(agent, request).await {
        Ok(response) => Json(response).into_response(),
        Err(problem) => Failure(problem).into_response(),
    }
}

async fn answer(agent: Arc<Agent>, request: Request) -> Result<ExtractResponse, Problem> {
    let notes = Asked::with(request.extensions(), Scope::Write)?.notes.clone();
    let [path, mut hash, replace] = parameters(request.uri(), ["path", "hash", "replace"])?;
    let (path, replace) = (path_or_root(path), flag("replace", replace)?);
    let hash = hash.pop().map(|hash| String::from_utf8_lossy(&hash).into_owned());
    let worker = Arc::clone(&agent);
    with_body(request.into_body(), &agent, move |upload, cancelled| {
        let extraction = Extraction {
            agent: &worker,
            destination: &path,
            expected_hash: hash.as_deref(),
            replace,
            progress: &Progress::default(),
            cancelled,
        };
        let result = extraction.run(upload);
        notes.note(|touched| {
            touched.came_in(upload.received());
            if let Ok(done) = &result {
                touched.counted(done.files + done.directories + done.symlinks, Some(done.bytes));
            }
        });
        result
    })
    .await
}
