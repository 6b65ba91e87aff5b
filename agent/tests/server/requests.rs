//! Requests of every kind to tools: forms of answers, malformed bodies, limits, request ids.

use axum::body::Body;
use corehold_types::{Code, Tool as _, tools::Info};
use http::{Method, Request};

use crate::support::TestAgent;

#[tokio::test]
async fn health_says_what_it_is() {
    let health = TestAgent::new().get("/health", &[]).await.assert_ok().json();
    assert_eq!((&health["status"], &health["protocol"]), (&"ok".into(), &1.into()));
    assert!(health["uptimeMs"].is_u64() && health["version"].is_string());
}

#[tokio::test]
async fn info_lists_tools_limits_and_guards() {
    let agent = TestAgent::new();
    let info = agent.tool("info", "{}").await.assert_ok().json();
    let tools: Vec<_> = info["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert!(tools.contains(&Info::NAME) && tools.contains(&"commandSignal"), "{tools:?}");
    let limits = info["limits"].as_array().unwrap();
    let body = limits.iter().find(|limit| limit["name"] == "bodyBytes").unwrap();
    assert_eq!((&body["unit"], &body["variable"]), (&"bytes".into(), &"COREHOLD_LIMIT_BODY_BYTES".into()));
    assert!(info["guards"].as_array().unwrap().contains(&"openat2".into()));
    assert_eq!(info["root"], agent.root().to_str().unwrap());
    assert!(info.get("workspace").is_none(), "absent fields are left out");
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems() {
    let agent = TestAgent::new();
    for uri in
        ["/", "/v1", "/v1/tools", "/v1/tools/", "/v1/tools/read/", "/v2/tools/read", "/health/", "/v1/tools/Read"]
    {
        agent.call(Method::POST, uri, &[], "").await.assert_problem(404, Code::UnknownRoute);
    }
    let problem = agent.tool("reed", "{}").await.assert_problem(404, Code::UnknownRoute);
    assert!(problem.suggestion.unwrap().contains("read, list"));
    for (method, uri, allow) in [
        (Method::GET, "/v1/tools/read", "POST"),
        (Method::DELETE, "/v1/tools/read", "POST"),
        (Method::POST, "/health", "GET,HEAD"),
        (Method::POST, "/v1/files/x", "GET,HEAD,PUT,DELETE"),
        (Method::POST, "/v1/archive", "GET,HEAD,PUT"),
        (Method::from_bytes(b"BREW").unwrap(), "/health", "GET,HEAD"),
    ] {
        let answer = agent.call(method, uri, &[], "").await;
        answer.assert_problem(405, Code::MethodNotAllowed);
        assert_eq!(answer.header("allow"), allow, "{uri}");
    }
}

#[tokio::test]
async fn an_empty_body_is_an_empty_object() {
    let agent = TestAgent::new();
    agent.call(Method::POST, "/v1/tools/info", &[], "").await.assert_ok();
    let problem = agent.call(Method::POST, "/v1/tools/read", &[], "").await.assert_problem(400, Code::InvalidRequest);
    assert!(problem.detail.contains("missing field `files`"), "{}", problem.detail);
}

#[tokio::test]
async fn only_json_is_taken_for_json() {
    let agent = TestAgent::new();
    for (headers, expected) in [
        (&[][..], "has no Content-Type"),
        (&[("content-type", "text/plain")], "text/plain"),
        (&[("content-type", "application/jsonp")], "application/jsonp"),
        (&[("content-type", "application/x-www-form-urlencoded")], "form"),
        (&[("content-type", "application/json"), ("content-encoding", "gzip")], "Content-Encoding"),
    ] {
        let answer = agent.call(Method::POST, "/v1/tools/info", headers, "{}").await;
        let problem = answer.assert_problem(415, Code::InvalidRequest);
        assert!(problem.detail.contains(expected), "{}", problem.detail);
    }
    for content_type in ["application/json", "Application/JSON; charset=utf-8"] {
        agent.call(Method::POST, "/v1/tools/info", &[("content-type", content_type)], "{}").await.assert_ok();
    }
}

#[tokio::test]
async fn malformed_requests_say_where() {
    let agent = TestAgent::new();
    let body = "{\n  \"files\": [\n    {\"path\": \"a\", \"lines\": {\"start\": \"one\"}}\n  ]\n}";
    let problem = agent.tool("read", body).await.assert_problem(400, Code::InvalidRequest);
    assert_eq!(problem.context["field"], "files[0].lines.start");
    assert_eq!((&problem.context["line"], &problem.context["column"]), (&3.into(), &42.into()));
    for body in [
        &b"{\"files\": [{\"path\": \"a\\u0000b\"}]}"[..],
        b"{\"files\": [{\"path\": {\"base64\": \"YQBi\"}}]}",
        b"{\"files\": [{\"path\": {\"base64\": \"***\"}}]}",
    ] {
        let answer = agent.tool("read", body).await.assert_ok().json();
        assert_eq!(answer["files"][0]["problem"]["code"], "INVALID_REQUEST", "{answer}");
    }
    for body in [
        &b"{\"files\": [{\"path\": \"\xff\"}]}"[..],
        b"{\"files\": [{\"path\": \"\\udc00\"}]}",
        b"{\"files\": []}",
        b"{\"files\": [{\"path\": \"a\"}], \"maxBytes\": -1}",
        b"[{\"files\": []}]",
    ] {
        agent.tool("read", body).await.assert_problem(400, Code::InvalidRequest);
    }
}

#[tokio::test]
async fn too_much_is_refused_by_the_limit_that_it_exceeds() {
    let agent = TestAgent::with(&[("COREHOLD_LIMIT_BODY_BYTES", "1000"), ("COREHOLD_LIMIT_READ_FILES", "3")]);
    let files = |count: usize| format!("{{\"files\": [{}]}}", vec![r#"{"path":"x"}"#; count].join(","));
    agent.tool("read", files(3)).await.assert_ok();
    for (body, variable) in [
        (" ".repeat(1001), "COREHOLD_LIMIT_BODY_BYTES"),
        (files(4), "COREHOLD_LIMIT_READ_FILES"),
        (r#"{"files":[{"path":"x"}],"maxBytes":99999999999}"#.to_owned(), "COREHOLD_LIMIT_READ_BYTES"),
    ] {
        let problem = agent.tool("read", body).await.assert_problem(413, Code::LimitExceeded);
        assert_eq!(problem.context["variable"], variable);
    }
    let pieces = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 100]));
    let endless = axum::body::Body::from_stream(pieces);
    agent.tool("read", endless).await.assert_problem(413, Code::LimitExceeded);
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_another_is_replaced() {
    let agent = TestAgent::new();
    let answer = agent.get("/v1/files/none", &[("x-request-id", "trace-1.2_3")]).await;
    assert_eq!(answer.header("x-request-id"), "trace-1.2_3");
    answer.problem();
    let forged = agent.get("/health", &[("x-request-id", "a b")]).await;
    let made = forged.header("x-request-id");
    assert!(made.starts_with(&agent.agent.boot_id) && made.len() <= 32, "{made}");
    let next = agent.get("/health", &[]).await;
    assert_ne!(next.header("x-request-id"), made);
}

#[tokio::test]
async fn an_answer_streams_in_the_form_that_is_asked_for() {
    let agent = TestAgent::new();
    let call = async |accept: &str, body: &str| {
        let headers = [("accept", accept), ("content-type", "application/json")];
        agent.call(Method::POST, "/v1/tools/command", &headers, body.to_owned()).await
    };
    let body = r#"{"line": "echo one; echo two >&2"}"#;
    let ndjson = call("application/x-ndjson", body).await;
    assert_eq!(ndjson.assert_ok().header("content-type"), "application/x-ndjson");
    let lines: Vec<serde_json::Value> = ndjson.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!((kinds.first(), kinds.last()), (Some(&"status"), Some(&"end")));
    assert!(kinds.contains(&"stdout") && kinds.contains(&"stderr") && kinds.contains(&"exit"), "{kinds:?}");
    let sse = call("text/event-stream", body).await;
    assert_eq!(sse.assert_ok().header("content-type"), "text/event-stream");
    assert_eq!(sse.header("cache-control"), "no-store");
    let events: Vec<&str> = sse.text().split_terminator("\n\n").collect();
    assert!(events[0].starts_with("event: status\nid: 0\ndata: {\"type\":\"status\""), "{}", events[0]);
    let exit = events.iter().find(|event| event.starts_with("event: exit\n")).unwrap();
    assert!(exit.contains("\nid: 8\n"), "{exit}");
    assert!(events.last().unwrap().starts_with("event: end\ndata: {\"type\":\"end\",\"response\":"), "{events:?}");
    let collected = call("application/json", body).await.assert_ok().json();
    assert_eq!((&collected["stdout"]["text"], &collected["stderr"]["text"]), (&"one\n".into(), &"two\n".into()));
}

#[tokio::test]
async fn a_stream_that_fails_at_once_is_a_problem_with_its_status() {
    let agent = TestAgent::new();
    for accept in ["text/event-stream", "application/x-ndjson"] {
        let headers = [("accept", accept), ("content-type", "application/json")];
        let answer = agent.call(Method::POST, "/v1/tools/list", &headers, r#"{"path":"none"}"#).await;
        answer.assert_problem(404, Code::NotFound);
    }
}

#[tokio::test]
async fn a_tool_without_events_streams_its_end() {
    let agent = TestAgent::new();
    let answer = agent.call(Method::POST, "/v1/tools/list", &[("accept", "text/event-stream")], "").await;
    assert_eq!(answer.assert_ok().text(), "event: end\ndata: {\"type\":\"end\",\"response\":{\"entries\":[]}}\n\n");
}

#[tokio::test]
async fn a_stopping_agent_begins_nothing_new_and_says_so() {
    let agent = TestAgent::new();
    agent.agent.begin_shutdown();
    agent.tool("info", "{}").await.assert_problem(503, Code::ShuttingDown);
    assert_eq!(agent.get("/health", &[]).await.assert_ok().json()["status"], "shuttingDown");
}

/// The routes as the router's source names them: there is no other list of them that couldn't be wrong.
fn routes_in_the_source() -> Vec<String> {
    let source = include_str!("../../src/server/router.rs");
    let named = source.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let mut routes: Vec<String> = named.map(|route| route.replace("{*path}", "{path}")).collect();
    routes.extend(crate::schemas::tools().into_iter().map(|(tool, _)| format!("/v1/tools/{tool}")));
    routes
}

#[tokio::test]
async fn the_openapi_document_names_every_route_with_its_methods_and_no_other() {
    let agent = TestAgent::new();
    let document = agent.send(Request::get("/openapi.json").body(Body::empty()).unwrap()).await.assert_ok().json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    let routes = routes_in_the_source();
    assert!(routes.len() > 30, "this test no longer understands the router: {routes:?}");
    let named: std::collections::BTreeSet<&String> = routes.iter().collect();
    assert_eq!(named, paths.keys().collect(), "routes, and paths of the document");
    for (path, item) in paths {
        // Nobody takes this one, and is told which are taken.
        let uri = path.replace("{path}", "x").replace("{port}", "1");
        let answer = agent.call(Method::PATCH, &uri, &[], "").await;
        answer.assert_problem(405, Code::MethodNotAllowed);
        let mut taken: Vec<String> = answer.header("allow").split(',').map(str::to_lowercase).collect();
        // HEAD is GET without a body, and worth naming only where it is worth asking.
        taken.retain(|method| method != "head" || path.starts_with("/v1/files"));
        taken.sort();
        assert_eq!(taken, item.as_object().unwrap().keys().cloned().collect::<Vec<_>>(), "{path}");
    }
}
