//! The agent's own names in the workspace, which it lists to nobody and sweeps: no tool and no route takes one from a caller. The
//! tools' paths are found in the committed schemas, so a tool that is added is asked too.

use std::{fs, os::unix::fs::symlink};

use corehold_types::Code;
use http::Method;
use serde_json::{Value, json};

use crate::{
    schemas::{HERE, is_path, places, tools},
    support::TestAgent,
    tars::Tar,
};

/// As `RESERVED` in `agent/src/root/own.rs` has it.
const REFUSAL: &str = "has a name that the agent keeps for itself";

const OWN: [&str; 5] = [
    ".corehold-journal",
    ".corehold-stage-abcdefghijklmnop",
    ".corehold-at-abcdefghijklmnop",
    ".corehold-file-abcdefghijklmnop",
    ".corehold-edit-abcdefghijklmnop",
];

/// A workspace in which there is one of each kind: two directories, and files; and links that lead to files.
fn workspace() -> TestAgent {
    let agent = TestAgent::new();
    let root = agent.root();
    for name in OWN {
        match name {
            ".corehold-journal" | ".corehold-stage-abcdefghijklmnop" => fs::create_dir(root.join(name)).unwrap(),
            _ => fs::write(root.join(name), "work in progress").unwrap(),
        }
    }
    fs::create_dir(root.join("d")).unwrap();
    fs::write(root.join("x"), "x\n").unwrap();
    // Which the smallest request of `extract` names.
    fs::write(agent.outside().join("inbox/x"), Tar::default().file("f", "x").end()).unwrap();
    symlink(".corehold-file-abcdefghijklmnop", root.join("link")).unwrap();
    agent
}

/// The ways in which a caller can write such a name.
fn spellings(name: &str) -> [String; 5] {
    [
        name.to_owned(),
        format!("d/{name}"),
        format!("./d//../{name}/"),
        format!("{name}/f"),
        format!("/app/new/{name}/f"),
    ]
}

#[tokio::test]
async fn no_tool_takes_a_name_of_the_agents_own() {
    let agent = workspace();
    let before = agent.names();
    let mut asked = 0;
    for (tool, schema) in tools() {
        // Its path is looked for among records, and names nothing in the workspace.
        if tool == "auditRead" {
            continue;
        }
        let mut found = Vec::new();
        places(&schema, &schema, &mut found, &|value| value);
        for (place, _) in found.iter().filter(|(_, of)| is_path(of, &schema)) {
            let place = place.to_string();
            for name in OWN {
                for path in spellings(name) {
                    let path = path.replace("/app", agent.root().to_str().unwrap());
                    let request = place.replace(&json!(HERE).to_string(), &json!(path).to_string());
                    let answer = agent.tool(&tool, request.clone()).await;
                    let text = String::from_utf8_lossy(&answer.body).into_owned();
                    assert!(text.contains(REFUSAL) && text.contains("INVALID_REQUEST"), "{tool} {request}: {text}");
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 15 * OWN.len() * 5, "only {asked} were made from the schemas");
    assert_eq!(agent.names(), before, "nothing was made, and nothing has gone");
}

#[tokio::test]
async fn no_route_takes_one_and_no_link_leads_to_one() {
    let agent = workspace();
    let before = agent.names();
    for name in OWN {
        for path in spellings(name) {
            let path = path.replace("/app", agent.root().to_str().unwrap());
            for method in [Method::GET, Method::PUT, Method::DELETE] {
                let answer = agent.call(method, &format!("/v1/files/{path}"), &[], "x").await;
                let problem = answer.assert_problem(400, Code::InvalidRequest);
                assert!(problem.detail.contains(REFUSAL), "{path}: {}", problem.detail);
            }
            assert_eq!(agent.call(Method::HEAD, &format!("/v1/files/{path}"), &[], "").await.status, 400, "{path}");
            let archive = format!("/v1/archive?path={path}");
            agent.get(&archive, &[]).await.assert_problem(400, Code::InvalidRequest);
            let problem = agent.put(&archive, Tar::default().file("f", "x").end()).await;
            assert!(problem.assert_problem(400, Code::InvalidRequest).detail.contains(REFUSAL), "{path}");
        }
    }
    agent.put("/v1/files/link", "x").await.assert_problem(400, Code::InvalidRequest);
    let write: Value = agent.tool("write", r#"{"files":[{"path":"link","content":"x"}]}"#).await.json();
    assert_eq!(write["files"][0]["problem"]["code"], "INVALID_REQUEST", "{write}");
    assert_eq!(agent.names(), before);
    assert_eq!(fs::read_to_string(agent.root().join(".corehold-file-abcdefghijklmnop")).unwrap(), "work in progress");
}

#[tokio::test]
async fn names_that_only_look_like_one_are_anybodys() {
    let agent = TestAgent::new();
    for name in [".corehold", ".corehold-journals", ".corehold-file-x", ".corehold-file-abcdefghijklmnoq"] {
        agent.put(&format!("/v1/files/{name}"), "x").await.assert_ok();
        assert_eq!(agent.get(&format!("/v1/files/{name}"), &[]).await.body, "x");
    }
    assert_eq!(agent.names().len(), 4);
}
