//! Tokens, scopes and origins, on every route that needs them.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use corehold_types::{Claims, Code, Scope, TOKEN_HEADER, env_vars};
use ed25519_dalek::{Signer as _, SigningKey};
use http::{Method, Request};

use crate::support::{Answer, TestAgent};

pub(crate) fn key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

/// An agent that takes the host's tokens, and no static one.
fn agent() -> TestAgent {
    TestAgent::with(&[
        (env_vars::TOKEN_SHA256, ""),
        (env_vars::PUBLIC_KEY, &STANDARD.encode(key().verifying_key())),
        (env_vars::INSTANCE, "this-one"),
        (env_vars::WORKSPACE_ID, "workspace"),
    ])
}

pub(crate) fn claims(scopes: &[Scope]) -> Claims {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
    Claims {
        aud: "this-one".to_owned(),
        workspace: "workspace".to_owned(),
        sub: "somebody".to_owned(),
        scope: scopes.iter().copied().collect(),
        iat: now,
        exp: now + 60,
    }
}

pub(crate) fn sign(claims: &Claims) -> String {
    let payload = serde_json::to_string(claims).unwrap();
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(TOKEN_HEADER), URL_SAFE_NO_PAD.encode(payload));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(key().sign(signed.as_bytes()).to_bytes()))
}

/// A request for a route that is answered at once: `watch` would wait for a change.
pub(crate) fn body_for(uri: &str) -> &'static str {
    if uri.ends_with("/watch") { r#"{"timeoutMs":1}"# } else { "" }
}

async fn call(agent: &TestAgent, method: &Method, uri: &str, token: Option<&str>) -> Answer {
    let mut request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    agent.send(request.body(Body::from(body_for(uri))).unwrap()).await
}

/// Every route that is not `/health`, and the scope it needs.
pub(crate) fn routes() -> Vec<(Method, String, Scope)> {
    let mut routes = vec![
        (Method::GET, "/v1/files/x".to_owned(), Scope::Read),
        (Method::HEAD, "/v1/files/x".to_owned(), Scope::Read),
        (Method::PUT, "/v1/files/x".to_owned(), Scope::Write),
        (Method::DELETE, "/v1/files/x".to_owned(), Scope::Write),
        (Method::GET, "/v1/archive".to_owned(), Scope::Read),
        (Method::PUT, "/v1/archive".to_owned(), Scope::Write),
        (Method::GET, "/v1/tunnel/1".to_owned(), Scope::Command),
        (Method::GET, "/metrics".to_owned(), Scope::Read),
    ];
    macro_rules! tools {
        ($($tool:ident),*) => {
            $({
                use corehold_types::{Tool as _, tools::$tool};
                routes.push((Method::POST, format!("/v1/tools/{}", $tool::NAME), $tool::SCOPE));
            })*
        };
    }
    corehold_types::for_each_tool!(tools);
    routes
}

#[tokio::test]
async fn no_route_but_health_answers_without_a_token() {
    let agent = agent();
    for (method, uri, _) in routes() {
        let answer = call(&agent, &method, &uri, None).await;
        assert_eq!(answer.status, 401, "{method} {uri}");
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"corehold\"");
    }
    call(&agent, &Method::GET, "/health", None).await.assert_ok();
    call(&agent, &Method::GET, "/health", Some("nonsense")).await.assert_ok();
}

#[tokio::test]
async fn each_route_needs_its_own_scope_and_no_other() {
    let agent = agent();
    for (method, uri, scope) in routes() {
        let others: Vec<Scope> = Scope::ALL.into_iter().filter(|other| *other != scope).collect();
        let answer = call(&agent, &method, &uri, Some(&sign(&claims(&others)))).await;
        assert_eq!(answer.status, 403, "{method} {uri}");
        // The answer to HEAD has no body to say it in.
        if method != Method::HEAD {
            assert_eq!(answer.assert_problem(403, Code::Forbidden).context["scope"], scope.as_str(), "{method} {uri}");
        }
        let answer = call(&agent, &method, &uri, Some(&sign(&claims(&[scope])))).await;
        assert!(!matches!(answer.status.as_u16(), 401 | 403), "{method} {uri}: {answer:?}");
    }
}

#[tokio::test]
async fn tokens_that_are_not_for_this_agent_now_are_refused() {
    let agent = agent();
    let good = claims(&Scope::ALL);
    for (token, status, code, reason) in [
        (sign(&Claims { exp: good.iat - 1, ..good.clone() }), 401, Code::Unauthorized, "expired 1 s ago"),
        (sign(&Claims { iat: good.iat + 90, ..good.clone() }), 401, Code::Unauthorized, "clocks"),
        (sign(&Claims { aud: "another".to_owned(), ..good.clone() }), 401, Code::Unauthorized, "another instance"),
        (sign(&Claims { workspace: "another".to_owned(), ..good.clone() }), 409, Code::NotClaimed, "another workspace"),
        ("token".to_owned(), 401, Code::Unauthorized, "header.payload.signature"),
    ] {
        let problem = call(&agent, &Method::POST, "/v1/tools/info", Some(&token)).await.assert_problem(status, code);
        assert!(problem.detail.contains(reason), "{}", problem.detail);
    }
    call(&agent, &Method::POST, "/v1/tools/info", Some(&sign(&good))).await.assert_ok();
}

#[tokio::test]
async fn a_static_token_stands_alone_or_beside_a_key() {
    let alone = TestAgent::new();
    call(&alone, &Method::POST, "/v1/tools/info", Some("token")).await.assert_ok();
    call(&alone, &Method::POST, "/v1/tools/info", Some("Token")).await.assert_problem(401, Code::Unauthorized);
    let both = TestAgent::with(&[
        (env_vars::PUBLIC_KEY, &STANDARD.encode(key().verifying_key())),
        (env_vars::INSTANCE, "this-one"),
        (env_vars::WORKSPACE_ID, "workspace"),
    ]);
    for token in ["token", &sign(&claims(&[Scope::Read]))] {
        call(&both, &Method::POST, "/v1/tools/info", Some(token)).await.assert_ok();
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_not_call() {
    let agent = TestAgent::with(&[("COREHOLD_ALLOWED_ORIGINS", "https://app.example, http://localhost:5173")]);
    for origin in ["https://evil.example", "https://app.example.evil", "HTTPS://APP.EXAMPLE", "null", ""] {
        for uri in ["/health", "/v1/files/x", "/nowhere"] {
            agent.get(uri, &[("origin", origin)]).await.assert_problem(403, Code::Forbidden);
        }
    }
    let answer = agent.get("/health", &[("origin", "http://localhost:5173")]).await;
    answer.assert_ok();
    assert_eq!(answer.header("access-control-allow-origin"), "http://localhost:5173");
    assert_eq!(answer.header("vary"), "origin");
    let refused = agent.get("/v1/files/none", &[("origin", "https://app.example")]).await;
    refused.assert_problem(404, Code::NotFound);
    assert_eq!(refused.header("access-control-allow-origin"), "https://app.example", "the page may read the problem");
}

#[tokio::test]
async fn browsers_may_ask_before_they_call() {
    let agent = TestAgent::with(&[("COREHOLD_ALLOWED_ORIGINS", "https://app.example")]);
    let ask = [("origin", "https://app.example"), ("access-control-request-method", "PUT")];
    let answer = agent.call(Method::OPTIONS, "/v1/files/x", &ask, "").await;
    assert_eq!(answer.status, 204);
    assert!(answer.header("access-control-allow-methods").contains("PUT"));
    assert!(answer.header("access-control-allow-headers").contains("authorization"));
    let other = [("origin", "https://evil.example"), ("access-control-request-method", "PUT")];
    agent.call(Method::OPTIONS, "/v1/files/x", &other, "").await.assert_problem(403, Code::Forbidden);
    agent.call(Method::OPTIONS, "/v1/files/x", &[], "").await.assert_problem(405, Code::MethodNotAllowed);
}
