//! Killing Corehold at any step leaves nothing that `ls` and `down --all` don't find.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use corehold_e2e::corehold::Corehold;

/// Starts `corehold up` and kills it with SIGKILL as soon as it says that a step has begun.
fn killed_in(corehold: &Corehold, folder: &str, step: &str) {
    let mut child = corehold
        .cli(&["up", folder, "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command line starts");
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
    let mut seen = Vec::new();
    let began = lines.into_iter().any(|line| {
        let event: serde_json::Value = serde_json::from_str(&line).expect("each line is JSON");
        seen.push(line);
        event["step"] == step && event["type"] == "started"
    });
    child.kill().expect("it can be killed");
    child.wait().expect("it has ended");
    assert!(began, "step {step} never began: {seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_step_down_all_finds_it_all() {
    let corehold = Corehold::start().await;
    let server = "require('http').createServer((_, answer) => answer.end('hi')).listen(4321, '0.0.0.0')";
    let folder = corehold.folder(
        "slow",
        &[("server.js", server), ("template.json", r#"{"setup": ["sleep 1000"], "dev": "node server.js"}"#)],
    );
    let quick = corehold.folder("quick", &[("server.js", server), ("template.json", r#"{"dev": "node server.js"}"#)]);
    let path = folder.to_str().unwrap();
    for (path, step) in [
        (path, "pack"),
        (path, "create"),
        (path, "start"),
        (path, "agent"),
        (path, "ship"),
        (path, "setup"),
        (quick.to_str().unwrap(), "dev"),
        (quick.to_str().unwrap(), "ready"),
    ] {
        killed_in(&corehold, path, step);
        let listed = corehold.cli(&["ls", "--json"]).output().unwrap();
        assert!(listed.status.success(), "{listed:?}");
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();

        // A call that was under way may still be carried out by the engine: what is listed later counts too.
        let down = corehold.cli(&["down", "--all"]).output().unwrap();
        assert!(down.status.success(), "step {step}: {down:?}");
        let left = remaining(&corehold).await;
        if !left.is_empty() {
            let again = corehold.cli(&["down", "--all"]).output().unwrap();
            assert!(again.status.success(), "step {step}: {again:?}");
        }
        assert_eq!(remaining(&corehold).await, Vec::<String>::new(), "step {step}; ls had said {listed}");
    }
}

/// Names of all workspaces of this home, in whatever state, with or without a container.
async fn remaining(corehold: &Corehold) -> Vec<String> {
    corehold.host.list().await.unwrap().into_iter().map(|info| info.id.to_string()).collect()
}
