//! `claim`: one of many wins, tokens of the others are refused, and commands see what came with it.

use std::{fs, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use corehold_types::{
    Claims, Code, Scope, env_vars,
    rpc::{BEARER_PREFIX, SUBPROTOCOL},
};
use serde_json::{Value, json};
use tokio::{sync::Barrier, task::JoinSet};

use crate::{
    access::{claims, key, sign},
    served::serve_agent,
    sockets::try_open,
    support::{Answer, TestAgent},
};

/// An agent of a pool: it takes the host's tokens, and has no workspace.
pub(crate) fn pooled() -> TestAgent {
    TestAgent::with(&[
        (env_vars::TOKEN_SHA256, ""),
        (env_vars::PUBLIC_KEY, &STANDARD.encode(key().verifying_key())),
        (env_vars::INSTANCE, "this-one"),
    ])
}

pub(crate) fn token(workspace: &str, scopes: &[Scope]) -> String {
    sign(&Claims { workspace: workspace.to_owned(), ..claims(scopes) })
}

pub(crate) async fn call(agent: &TestAgent, tool: &str, token: &str, request: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let mut sent = http::Request::builder().method("POST").uri(format!("/v1/tools/{tool}"));
    for (name, value) in headers {
        sent = sent.header(name, value);
    }
    agent.send(sent.body(request.to_string().into()).unwrap()).await
}

pub(crate) fn claim(workspace: &str) -> Value {
    json!({ "workspace": workspace, "claimId": format!("claim-of-{workspace}") })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_hundred_claimants_at_once_exactly_one_wins() {
    let served = Arc::new(serve_agent(pooled()).await);
    let barrier = Arc::new(Barrier::new(100));
    let mut claimants = JoinSet::new();
    for number in 0..100 {
        let (served, barrier) = (Arc::clone(&served), Arc::clone(&barrier));
        claimants.spawn(async move {
            let workspace = format!("w{number}");
            let body = json!({ "workspace": workspace, "claimId": format!("claim-{number:04}"), "env": { "WINNER": workspace } });
            let body = body.to_string();
            let request = format!(
                "POST /v1/tools/claim HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                token(&workspace, &Scope::ALL),
                body.len()
            );
            barrier.wait().await;
            let answer = served.exchange(&request).await;
            if answer.starts_with("HTTP/1.1 200 ") {
                let again = served.exchange(request).await;
                assert_eq!(answer.split_once("\r\n\r\n").unwrap().1, again.split_once("\r\n\r\n").unwrap().1);
                return Ok(workspace);
            }
            assert!(answer.starts_with("HTTP/1.1 409 ") && answer.contains("\"ALREADY_CLAIMED\""), "{answer}");
            Err((workspace, answer))
        });
    }
    let (mut winners, mut losers) = (Vec::new(), Vec::new());
    for result in claimants.join_all().await {
        match result {
            Ok(winner) => winners.push(winner),
            Err(loser) => losers.push(loser),
        }
    }
    assert_eq!((winners.len(), losers.len()), (1, 99));
    let winner = winners.remove(0);
    for (_, answer) in &losers {
        assert!(!answer.contains(&format!("\"{winner}\"")), "a loser is not told who won: {answer}");
    }
    // What commands see is the winner's, and nothing of any other.
    let agent = &served.agent;
    let request = json!({ "line": "echo $WINNER $COREHOLD_WORKSPACE_ID" });
    let answer = call(agent, "command", &token(&winner, &Scope::ALL), &request).await;
    assert_eq!(answer.assert_ok().json()["stdout"]["text"], format!("{winner} {winner}\n"));
    for (loser, _) in losers {
        let token = token(&loser, &Scope::ALL);
        call(agent, "info", &token, &json!({})).await.assert_problem(409, Code::NotClaimed);
        call(agent, "command", &token, &request).await.assert_problem(409, Code::NotClaimed);
    }
}

#[tokio::test]
async fn an_agent_nobody_has_claimed_answers_claim_and_info_and_nothing_else() {
    let agent = pooled();
    let all = token("shop", &Scope::ALL);
    macro_rules! names {
        ($($tool:ident),*) => { [$(<corehold_types::tools::$tool as corehold_types::Tool>::NAME),*] };
    }
    for name in corehold_types::for_each_tool!(names) {
        if !matches!(name, "claim" | "info") {
            call(&agent, name, &all, &json!({})).await.assert_problem(409, Code::NotClaimed);
        }
    }
    for (uri, method) in
        [("/v1/files/x", "GET"), ("/v1/files/x", "PUT"), ("/v1/archive", "GET"), ("/v1/tunnel/1", "GET")]
    {
        let request = http::Request::builder().method(method).uri(uri).header("authorization", format!("Bearer {all}"));
        agent.send(request.body("".into()).unwrap()).await.assert_problem(409, Code::NotClaimed);
    }
    let info = call(&agent, "info", &all, &json!({})).await.assert_ok().json();
    assert!(info.get("workspace").is_none() && info.get("claimed").is_none());

    let without = token("shop", &[Scope::Read, Scope::Write, Scope::Command]);
    call(&agent, "claim", &without, &claim("shop")).await.assert_problem(403, Code::Forbidden);
    call(&agent, "claim", &token("other", &Scope::ALL), &claim("shop")).await.assert_problem(403, Code::Forbidden);
    let elsewhere = sign(&Claims { aud: "another".to_owned(), ..claims(&Scope::ALL) });
    call(&agent, "claim", &elsewhere, &claim("workspace")).await.assert_problem(401, Code::Unauthorized);
    for bad in [
        json!({}),
        json!({ "workspace": "shop" }),
        json!({ "workspace": "shop", "claimId": "x" }),
        json!({ "workspace": "Shop!", "claimId": "claim-of-shop" }),
        json!({ "workspace": "shop", "claimId": "claim-of-shop", "limits": {} }),
        json!({ "workspace": "shop", "claimId": "claim-of-shop", "env": { "COREHOLD_WORKSPACE_ID": "x" } }),
        json!({ "workspace": "shop", "claimId": "claim-of-shop", "env": { "A": 1 } }),
        json!({ "workspace": "shop", "claimId": "claim-of-shop", "env": { "A": "\u{0}" } }),
    ] {
        call(&agent, "claim", &all, &bad).await.assert_problem(400, Code::InvalidRequest);
    }
    let large = json!({ "workspace": "shop", "claimId": "claim-of-shop", "env": { "A": "x".repeat(70_000) } });
    let problem = call(&agent, "claim", &all, &large).await.assert_problem(413, Code::LimitExceeded);
    assert_eq!(problem.context["variable"], "COREHOLD_LIMIT_CLAIM_ENVIRONMENT_BYTES");
    assert!(agent.agent.ownership.owner().is_none(), "none of them has claimed it");

    let answer = call(&agent, "claim", &all, &claim("shop")).await.assert_ok().json();
    assert_eq!(answer["instance"], "this-one");
    let info = call(&agent, "info", &all, &json!({})).await.assert_ok().json();
    assert_eq!((&info["workspace"], &info["claimed"]), (&json!("shop"), &answer["claimed"]));
    assert_eq!(info["bootId"], answer["bootId"]);
}

#[tokio::test]
async fn a_claim_may_be_repeated_but_not_changed() {
    let agent = pooled();
    let token = token("shop", &Scope::ALL);
    let first = call(&agent, "claim", &token, &claim("shop")).await.assert_ok().json();
    assert_eq!(call(&agent, "claim", &token, &claim("shop")).await.assert_ok().json(), first);
    for other in [
        json!({ "workspace": "shop", "claimId": "another-claim" }),
        json!({ "workspace": "shop", "claimId": "claim-of-shop", "env": { "A": "b" } }),
    ] {
        call(&agent, "claim", &token, &other).await.assert_problem(409, Code::AlreadyClaimed);
    }
}

#[tokio::test]
async fn an_agent_that_begins_with_a_workspace_is_claimed() {
    let agent = TestAgent::with(&[(env_vars::WORKSPACE_ID, "shop")]);
    let answer = agent.tool("claim", claim("shop").to_string()).await;
    answer.assert_problem(409, Code::AlreadyClaimed);
    let info = agent.tool("info", "{}").await.assert_ok().json();
    assert!(info["workspace"] == "shop" && info["claimed"].is_string(), "{info}");
}

#[tokio::test]
async fn commands_see_the_environment_that_came_with_the_claim() {
    let agent = TestAgent::new();
    let line = "while ! test -e go; do sleep 0.01; done; echo ${SECRET-unset}, ${COREHOLD_WORKSPACE_ID-unset}";
    let before = json!({ "line": line, "detach": true });
    let before = agent.tool("command", before.to_string()).await.assert_ok().json();
    let request = json!({
        "workspace": "shop", "claimId": "claim-of-shop",
        "env": { "SECRET": "hunter2", "PATH": "/usr/bin:/bin", "COREHOLD_OWNER_ID": "ada", "COREHOLD_TEAM_ID": "engines" }
    });
    agent.tool("claim", request.to_string()).await.assert_ok();
    fs::write(agent.root().join("go"), "").unwrap();
    let output = json!({ "id": before["id"], "follow": true });
    let output = agent.tool("commandOutput", output.to_string()).await.assert_ok().json();
    assert_eq!(output["stdout"]["text"], "unset, unset\n", "it was started before the claim");

    let line = json!({ "line": "echo $SECRET $COREHOLD_WORKSPACE_ID $COREHOLD_OWNER_ID $COREHOLD_TEAM_ID $PATH" });
    let answer = agent.tool("command", line.to_string()).await.assert_ok().json();
    assert_eq!(answer["stdout"]["text"], "hunter2 shop ada engines /usr/bin:/bin\n");
    // What a command's caller says goes before what the claim said.
    let own = json!({ "line": "echo $SECRET", "env": { "SECRET": "own" } });
    assert_eq!(agent.tool("command", own.to_string()).await.assert_ok().json()["stdout"]["text"], "own\n");

    let own = fs::read("/proc/self/environ").unwrap();
    assert!(!own.windows(7).any(|window| window == b"hunter2"), "it is not in the agent's own environment");
    assert!(std::env::var_os("SECRET").is_none());
    let shown = format!("{:?}", agent.agent);
    assert!(!shown.contains("hunter2"), "nor in what could be logged");
}

#[tokio::test]
async fn the_name_of_a_command_stands_before_any_variable_of_its_environment() {
    let agent = TestAgent::new();
    let request = json!({ "workspace": "shop", "claimId": "claim-of-shop", "env": { "A": "claimed" } });
    agent.tool("claim", request.to_string()).await.assert_ok();
    let line = "tr '\\0' '\\n' < /proc/$$/environ | head -n 1 | cut -d = -f 1";
    let request = json!({ "line": line, "env": { "B": "own" } });
    let answer = agent.tool("command", request.to_string()).await.assert_ok().json();
    assert_eq!(answer["stdout"]["text"], "COREHOLD_COMMAND\n");
}

/// What each surface answers before there is a workspace.
#[tokio::test]
async fn no_surface_lets_anybody_into_an_agent_that_nobody_has_claimed() {
    let served = serve_agent(pooled()).await;
    let all = token("shop", &Scope::ALL);
    let bearer = format!("Bearer {all}");
    let ask = async |method: &str, uri: &str| {
        let request = http::Request::builder().method(method).uri(uri).header("authorization", &bearer);
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"info","arguments":{}}}"#;
        served.agent.send(request.header("content-type", "application/json").body(body.into()).unwrap()).await
    };
    let socket = |protocol: String, headers: Vec<(&'static str, String)>| {
        let served = &served;
        async move {
            let mut all = vec![("sec-websocket-protocol", protocol)];
            all.extend(headers);
            let all: Vec<_> = all.iter().map(|(name, value)| (*name, value.as_str())).collect();
            try_open(served, &all).await.map(drop)
        }
    };
    let by_header = || socket(SUBPROTOCOL.to_owned(), vec![("authorization", bearer.clone())]);
    let by_protocol = || socket(format!("{SUBPROTOCOL}, {BEARER_PREFIX}{all}"), Vec::new());
    for (method, uri) in [("POST", "/mcp"), ("GET", "/metrics"), ("GET", "/v1/ws"), ("POST", "/v1/tools/auditRead")] {
        ask(method, uri).await.assert_problem(409, Code::NotClaimed);
    }
    assert_eq!(by_header().await.unwrap_err().1.code, Code::NotClaimed);
    assert_eq!(by_protocol().await.unwrap_err().1.code, Code::NotClaimed);
    served.agent.get("/health", &[]).await.assert_ok();
    // From the claim on all of them are the owner's, and nobody else's.
    call(&served.agent, "claim", &all, &claim("shop")).await.assert_ok();
    ask("POST", "/mcp").await.assert_ok();
    ask("GET", "/metrics").await.assert_ok();
    by_header().await.unwrap();
    by_protocol().await.unwrap();
    let other = format!("{SUBPROTOCOL}, {BEARER_PREFIX}{}", token("other", &Scope::ALL));
    assert_eq!(socket(other, Vec::new()).await.unwrap_err().1.code, Code::NotClaimed);
}

#[tokio::test]
async fn a_claim_under_a_key_is_repeated_to_its_own_workspace_only() {
    let agent = pooled();
    let ask = async |workspace: &str, key: &str, claim: &Value| {
        let request = http::Request::post("/v1/tools/claim")
            .header("authorization", format!("Bearer {}", token(workspace, &Scope::ALL)))
            .header("content-type", "application/json")
            .header("idempotency-key", key);
        agent.send(request.body(claim.to_string().into()).unwrap()).await
    };
    let replayed = |answer: &Answer| answer.headers.contains_key("idempotency-replayed");
    let first = ask("shop", "k", &claim("shop")).await;
    let second = ask("shop", "k", &claim("shop")).await;
    assert_eq!(first.assert_ok().json(), second.assert_ok().json());
    assert!(replayed(&second) && !replayed(&first));
    // The same subject, key and request with another workspace's token: neither a mismatch nor the owner's answer.
    let late = ask("other", "k", &claim("shop")).await;
    assert!(!replayed(&late));
    late.assert_problem(403, Code::Forbidden);
    ask("other", "l", &claim("other")).await.assert_problem(409, Code::AlreadyClaimed);
    let changed = json!({ "workspace": "shop", "claimId": "another-claim" });
    ask("shop", "k", &changed).await.assert_problem(422, Code::IdempotencyMismatch);
}

#[tokio::test]
async fn a_claim_ends_with_the_agent() {
    let agent = pooled();
    let owner = token("shop", &Scope::ALL);
    let first = call(&agent, "claim", &owner, &claim("shop")).await.assert_ok().json();
    call(&agent, "write", &owner, &json!({ "files": [{ "path": "a", "content": "x" }] })).await.assert_ok();
    let again = agent.restarted();
    call(&again, "read", &owner, &json!({ "files": [{ "path": "a" }] })).await.assert_problem(409, Code::NotClaimed);
    let info = call(&again, "info", &owner, &json!({})).await.assert_ok().json();
    assert!(
        info.get("workspace").is_none() && info["bootId"] != first["bootId"],
        "the host sees that it was restarted"
    );
    // It could be claimed by anybody: that is why a host destroys it.
    call(&again, "claim", &token("other", &Scope::ALL), &claim("other")).await.assert_ok();
    call(&again, "info", &owner, &json!({})).await.assert_problem(409, Code::NotClaimed);
}

#[tokio::test]
async fn an_environment_that_no_command_could_be_started_with_is_refused() {
    let agent = TestAgent::with(&[("COREHOLD_LIMIT_CLAIM_ENVIRONMENT_BYTES", "100000000")]);
    let with = |env: Value| json!({ "workspace": "shop", "claimId": "claim-of-shop", "env": env }).to_string();
    let large = with(json!({ "A": "x".repeat(131_072 - 2) }));
    let problem = agent.tool("claim", large).await.assert_problem(400, Code::InvalidRequest);
    assert!(problem.detail.contains("131072"), "{}", problem.detail);
    let many: serde_json::Map<_, _> =
        (0..64).map(|number| (format!("V{number}"), "x".repeat(120_000).into())).collect();
    let problem = agent.tool("claim", with(many.into())).await.assert_problem(400, Code::InvalidRequest);
    assert!(problem.detail.contains("may use half") && problem.context["field"] == "env", "{}", problem.detail);
    assert!(agent.agent.ownership.owner().is_none());
    // The largest variable that is taken lets commands start.
    agent.tool("claim", with(json!({ "A": "x".repeat(131_072 - 3) }))).await.assert_ok();
    let answer = agent.tool("command", r#"{"argv": ["sh", "-c", "echo ${#A}"]}"#).await.assert_ok().json();
    assert_eq!(answer["stdout"]["text"], "131069\n");
}
