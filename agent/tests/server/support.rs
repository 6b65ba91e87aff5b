//! An agent on a temporary directory, and short words for requests and answers.

use std::{
    fs,
    path::Path,
    sync::{Arc, LazyLock},
};

use axum::{Router, body::Body};
use bytes::Bytes;
use corehold_agent::{
    agent::Agent,
    config::Config,
    process::{ProcessConfig, Processes},
    server,
};
use corehold_types::{Code, Problem, env_vars};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

/// SHA-256 of `token`.
const TOKEN_SHA256: &str = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0";

/// An agent whose workspace is `app` in a directory of its own.
pub(crate) struct TestAgent {
    pub(crate) agent: Arc<Agent>,
    pub(crate) router: Router,
    directory: tempfile::TempDir,
}

impl TestAgent {
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    /// An agent with these variables besides root and static token.
    pub(crate) fn with(variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("app")).unwrap();
        fs::create_dir(directory.path().join("inbox")).unwrap();
        Self::in_directory(directory, variables)
    }

    /// An agent whose workspace is there already, as `app` in this directory.
    pub(crate) fn in_directory(directory: tempfile::TempDir, variables: &[(&str, &str)]) -> Self {
        let config = Config::from_variables(|name| {
            if let Some((_, value)) = variables.iter().find(|(key, _)| *key == name) {
                return Some(value.into());
            }
            match name {
                env_vars::ROOT => Some(directory.path().join("app").into()),
                env_vars::INBOX => Some(directory.path().join("inbox").into()),
                env_vars::TOKEN_SHA256 => Some(TOKEN_SHA256.into()),
                _ => None,
            }
        })
        .unwrap();
        let processes = Processes::start(ProcessConfig::from_config(&config)).unwrap();
        let agent = Arc::new(Agent::new(config, processes).unwrap());
        Self { router: server::router(Arc::clone(&agent)), agent, directory }
    }

    /// The agent as it is after it has ended and was started again, with the same configuration on the same files.
    pub(crate) fn restarted(self) -> Self {
        let config = self.agent.config.clone();
        let processes = Processes::start(ProcessConfig::from_config(&config)).unwrap();
        let agent = Arc::new(Agent::new(config, processes).unwrap());
        Self { router: server::router(Arc::clone(&agent)), agent, directory: self.directory }
    }

    /// The workspace root.
    pub(crate) fn root(&self) -> &Path {
        self.agent.root.path()
    }

    /// The directory that holds the workspace: what is in it besides `app` is outside.
    pub(crate) fn outside(&self) -> &Path {
        self.directory.path()
    }

    /// Every name in the workspace, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        collect(self.root(), self.root(), &mut names);
        names.sort();
        names
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let asked = (request.method().as_str().to_lowercase(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, mut body) = response.into_parts();
        assert_documented(&asked.0, &asked.1, head.status);
        // As a connection does: what was taken is given up before more is asked for.
        let mut taken = Vec::new();
        while let Some(frame) = body.frame().await {
            taken.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        Answer { status: head.status, headers: head.headers, body: taken.into() }
    }

    /// Sends a request with the static token and these headers.
    pub(crate) async fn call(
        &self,
        method: Method,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(uri).header("authorization", "Bearer token");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    pub(crate) async fn get(&self, uri: &str, headers: &[(&str, &str)]) -> Answer {
        self.call(Method::GET, uri, headers, "").await
    }

    pub(crate) async fn put(&self, uri: &str, body: impl Into<Body>) -> Answer {
        self.call(Method::PUT, uri, &[], body).await
    }

    /// Calls a tool with JSON.
    pub(crate) async fn tool(&self, name: &str, request: impl Into<Body>) -> Answer {
        let uri = format!("/v1/tools/{name}");
        self.call(Method::POST, &uri, &[("content-type", "application/json")], request).await
    }
}

/// Every answer's status is one that the OpenAPI document gives for its route.
#[track_caller]
fn assert_documented(method: &str, path: &str, status: StatusCode) {
    static DOCUMENT: LazyLock<Value> =
        LazyLock::new(|| serde_json::from_str(include_str!("../../../types/openapi/openapi.json")).unwrap());
    let template = match path {
        path if path.len() > "/v1/files/".len() && path.starts_with("/v1/files/") => "/v1/files/{path}",
        path if path.starts_with("/v1/tunnel/") => "/v1/tunnel/{port}",
        path => path,
    };
    let operation = &DOCUMENT["paths"][template][method];
    // A route or a method that isn't there is refused as such.
    if operation.is_object() {
        let documented = operation["responses"].get(status.as_str()).is_some();
        assert!(documented, "{method} {path} answers {status}, which isn't in types/openapi");
    }
}

/// What goes while it is looked for isn't there.
fn collect(root: &Path, directory: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        names.push(entry.path().strip_prefix(root).unwrap().to_string_lossy().into_owned());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(root, &entry.path(), names);
        }
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().unwrap()
    }

    /// The problem, checked for what every problem has.
    #[track_caller]
    pub(crate) fn problem(&self) -> Problem {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status.as_u16());
        assert_eq!(problem.request_id.as_deref(), Some(self.header("x-request-id")));
        assert!(!problem.detail.is_empty());
        problem
    }

    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: Code) -> Problem {
        let problem = self.problem();
        assert_eq!((problem.status, problem.code), (status, code), "{}", problem.detail);
        problem
    }

    #[track_caller]
    pub(crate) fn assert_ok(&self) -> &Self {
        assert!(self.status.is_success(), "{}: {}", self.status, String::from_utf8_lossy(&self.body));
        self
    }
}
