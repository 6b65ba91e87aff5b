//! What is turned away leaves records, in bounds; and whoever claims an agent isn't told who else tried.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use corehold_types::{
    Code, Scope, env_vars,
    rpc::SUBPROTOCOL,
    tools::{AuditOutcome, AuditReadResponse, AuditRecord, AuditSurface},
};
use http::{Method, Request};
use serde_json::json;

use crate::{
    access::{claims, key, sign},
    audit::{read, records},
    claim::{call, claim, pooled, token},
    served::serve,
    sockets::{open, try_open},
    support::TestAgent,
};

/// A request, and how it is recorded.
type Case = (Method, &'static str, Vec<(&'static str, &'static str)>, Shown);

type Shown = (AuditSurface, String, Option<Code>, Option<String>, Option<String>);

fn shown(record: &AuditRecord) -> Shown {
    assert_eq!(record.outcome, AuditOutcome::Refused, "{record:?}");
    (record.surface, record.tool.clone(), record.code, record.subject.clone(), record.detail.clone())
}

fn refusal(surface: AuditSurface, tool: &str, code: Code, subject: Option<&str>, detail: Option<&str>) -> Shown {
    (surface, tool.to_owned(), Some(code), subject.map(str::to_owned), detail.map(str::to_owned))
}

#[tokio::test]
async fn whatever_is_turned_away_over_http_leaves_one_record() {
    use AuditSurface::{Http, Mcp, WebSocket};
    let agent = TestAgent::new();
    let foreign = "pages of the origin \"https://evil.example\" may not call this agent";
    let cases: Vec<Case> = vec![
        (
            Method::GET,
            "/nowhere?token=x",
            vec![("authorization", "Bearer token")],
            refusal(Http, "other", Code::UnknownRoute, Some("standalone"), Some("GET /nowhere")),
        ),
        (
            Method::POST,
            "/v1/tools/telepathy",
            vec![],
            refusal(Http, "other", Code::UnknownRoute, None, Some("POST /v1/tools/telepathy")),
        ),
        (
            Method::GET,
            "/v1/tools/read",
            vec![],
            refusal(Http, "other", Code::MethodNotAllowed, None, Some("GET /v1/tools/read")),
        ),
        (
            Method::POST,
            "/v1/files/a",
            vec![],
            refusal(Http, "other", Code::MethodNotAllowed, None, Some("POST /v1/files/a")),
        ),
        (
            Method::PUT,
            "/v1/tunnel/1",
            vec![],
            refusal(Http, "other", Code::MethodNotAllowed, None, Some("PUT /v1/tunnel/1")),
        ),
        (
            Method::POST,
            "/v1/tools/read",
            vec![("authorization", "Bearer token"), ("origin", "https://evil.example")],
            refusal(Http, "read", Code::Forbidden, Some("standalone"), Some(foreign)),
        ),
        (
            Method::GET,
            "/v1/files/a",
            vec![("origin", "https://evil.example")],
            refusal(Http, "GET /v1/files", Code::Forbidden, None, Some(foreign)),
        ),
        (Method::POST, "/v1/tools/read", vec![], refusal(Http, "read", Code::Unauthorized, None, None)),
        (Method::GET, "/v1/files/a", vec![], refusal(Http, "GET /v1/files", Code::Unauthorized, None, None)),
        (
            Method::GET,
            "/v1/tunnel/1",
            vec![],
            refusal(Http, "GET /v1/tunnel", Code::Unauthorized, None, Some("/v1/tunnel/1")),
        ),
        (Method::GET, "/metrics", vec![], refusal(Http, "GET /metrics", Code::Unauthorized, None, None)),
        (
            Method::POST,
            "/mcp",
            vec![("authorization", "Bearer guess")],
            refusal(Mcp, "POST /mcp", Code::Unauthorized, None, None),
        ),
        (
            Method::POST,
            "/mcp",
            vec![("authorization", "Bearer token")],
            refusal(Mcp, "POST /mcp", Code::InvalidRequest, Some("standalone"), None),
        ),
        (Method::GET, "/v1/ws", vec![], refusal(WebSocket, "GET /v1/ws", Code::Unauthorized, None, None)),
        (
            Method::GET,
            "/v1/ws",
            vec![("authorization", "Bearer token")],
            refusal(WebSocket, "GET /v1/ws", Code::InvalidRequest, Some("standalone"), None),
        ),
    ];
    for (number, (method, uri, headers, expected)) in cases.into_iter().enumerate() {
        let mut request = Request::builder().method(method).uri(uri).header("x-request-id", format!("r{number}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = agent.send(request.body("".into()).unwrap()).await;
        assert!(answer.status.is_client_error(), "{uri}: {answer:?}");
        let ours: Vec<_> = records(&agent).await.into_iter().filter(|record| record.tool != "auditRead").collect();
        assert_eq!(ours.len(), number + 1, "one record each: {uri}");
        let record = &ours[number];
        assert_eq!((shown(record), record.request_id.as_str()), (expected, format!("r{number}").as_str()));
    }
    // What nobody is turned away from leaves none.
    agent.get("/health", &[]).await.assert_ok();
    agent.get("/openapi.json", &[]).await.assert_ok();
    assert!(read(&agent, r#"{"tool": "GET /health"}"#).await.records.is_empty());
}

#[tokio::test]
async fn tools_that_are_not_there_and_tokens_of_others_are_recorded_on_sockets_and_mcp_too() {
    let served = serve(&[]).await;
    let mut client = open(&served).await;
    client.ask(1, "telepathy", json!({})).await;
    client.answer(1).await;
    client.ask(2, "$/refresh", json!({"token": "guess"})).await;
    client.answer(2).await;
    let params = json!({"name": "clairvoyance", "arguments": {}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
    served.agent.call(Method::POST, "/mcp", &[("content-type", "application/json")], body).await.assert_ok();
    assert!(try_open(&served, &[("sec-websocket-protocol", SUBPROTOCOL)]).await.is_err());
    let found: Vec<_> = records(&served.agent).await.iter().map(shown).collect();
    let me = Some("standalone");
    assert_eq!(
        found,
        [
            refusal(AuditSurface::WebSocket, "other", Code::UnknownRoute, me, Some("telepathy")),
            refusal(AuditSurface::WebSocket, "GET /v1/ws", Code::Unauthorized, me, None),
            refusal(AuditSurface::Mcp, "other", Code::UnknownRoute, me, Some("clairvoyance")),
            refusal(AuditSurface::WebSocket, "GET /v1/ws", Code::Unauthorized, None, None),
        ]
    );
}

#[tokio::test]
async fn a_flood_of_guesses_drives_out_nothing_and_is_counted() {
    let agent = TestAgent::with(&[("COREHOLD_LIMIT_AUDIT_BYTES", "40000")]);
    agent.tool("mkdir", r#"{"path": "d"}"#).await.assert_ok();
    agent.get("/nowhere", &[]).await.assert_problem(404, Code::UnknownRoute);
    for number in 0..1_000 {
        let request = Request::get(format!("/guess/{number}")).body("".into()).unwrap();
        agent.send(request).await.assert_problem(404, Code::UnknownRoute);
    }
    let all = read(&agent, "{}").await;
    assert_eq!((all.gap, all.records[0].tool.as_str()), (None, "mkdir"));
    assert_eq!(all.records[1].detail.as_deref(), Some("GET /nowhere"), "another's refusals stay too");
    let times: u64 = all.records[2..].iter().map(|record| record.times.unwrap_or(1)).sum();
    assert_eq!((all.records.len(), times), (10, 1_000));
    assert_eq!(all.records[9].detail.as_deref(), Some("GET /guess/999"));
    assert!(all.records[9].since.unwrap() < all.records[9].time);
}

#[tokio::test]
async fn one_subject_can_not_drive_out_what_another_did() {
    let agent = TestAgent::with(&[
        (env_vars::PUBLIC_KEY, &STANDARD.encode(key().verifying_key())),
        (env_vars::INSTANCE, "this-one"),
        (env_vars::WORKSPACE_ID, "workspace"),
        ("COREHOLD_LIMIT_AUDIT_BYTES", "40000"),
    ]);
    let as_somebody = sign(&claims(&[Scope::Read]));
    agent.tool("mkdir", r#"{"path": "d"}"#).await.assert_ok();
    for _ in 0..500 {
        call(&agent, "stat", &as_somebody, &json!({"paths": ["."]})).await.assert_ok();
    }
    let all = read(&agent, "{}").await;
    assert!(all.gap.is_some() && all.records.len() < 100, "{}", all.records.len());
    assert_eq!(all.records[0].tool, "mkdir");
}

#[tokio::test]
async fn whoever_claims_an_agent_is_not_told_who_else_tried_or_came_before() {
    let agent = pooled();
    let as_of = |subject: &str, workspace: &str| {
        sign(&corehold_types::Claims {
            sub: subject.to_owned(),
            workspace: workspace.to_owned(),
            ..claims(&Scope::ALL)
        })
    };
    let (ada, bob, eve) = (as_of("ada", "shop"), as_of("bob", "bakery"), as_of("eve", "cellar"));
    // Before: somebody looks at it, somebody asks for a file too early.
    call(&agent, "info", &bob, &json!({})).await.assert_ok();
    let early = Request::get("/v1/files/recipe").header("authorization", format!("Bearer {bob}"));
    agent.send(early.body("".into()).unwrap()).await.assert_problem(409, Code::NotClaimed);
    call(&agent, "info", &ada, &json!({})).await.assert_ok();
    call(&agent, "claim", &ada, &claim("shop")).await.assert_ok();
    // After: one comes too late, another asks for a file of their own.
    call(&agent, "claim", &eve, &claim("cellar")).await.assert_problem(409, Code::AlreadyClaimed);
    for uri in ["/v1/files/wine", "/wine"] {
        let late = Request::get(uri).header("authorization", format!("Bearer {eve}")).header("x-request-id", "eves");
        assert!(agent.send(late.body("".into()).unwrap()).await.status.is_client_error());
    }
    let answer = call(&agent, "auditRead", &ada, &json!({})).await;
    for word in ["bob", "bakery", "recipe", "eve", "cellar", "wine"] {
        assert!(!answer.assert_ok().text().contains(word), "{word}: {}", answer.text());
    }
    let all: AuditReadResponse = serde_json::from_slice(&answer.body).unwrap();
    let found: Vec<_> = all
        .records
        .iter()
        .map(|record| (record.tool.as_str(), record.subject.as_deref(), record.code, record.request_id.is_empty()))
        .collect();
    assert_eq!(
        found,
        [
            ("info", Some("ada"), None, false),
            ("claim", Some("ada"), None, false),
            ("claim", None, Some(Code::AlreadyClaimed), true),
            ("GET /v1/files", None, Some(Code::NotClaimed), true),
            ("other", None, Some(Code::UnknownRoute), true),
        ]
    );
    let of_eve = call(&agent, "auditRead", &ada, &json!({"subject": "eve"})).await.assert_ok().json();
    assert_eq!(of_eve["records"], json!([]), "nor can it be guessed");
    call(&agent, "auditRead", &token("cellar", &Scope::ALL), &json!({})).await.assert_problem(409, Code::NotClaimed);
}
