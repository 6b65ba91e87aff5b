//! What a claim brings: the owner's commands see it, and nobody finds it at the agent.

use std::fs;

use serde_json::json;

use crate::support::Agent;

#[test]
fn what_a_claim_brings_is_not_to_be_found_at_the_agent() {
    let agent = Agent::start();
    // Of one that was started before the claim, and so has it not in its own environment.
    let before = "while ! test -e go; do sleep 0.01; done; cat /proc/1/environ /proc/1/mem /proc/1/auxv; ls /proc/1/fd; \
                  grep -rs 'hunter[2]' /proc/1/ && exit 9; env | grep 'hunter[2]' && exit 8; exit 7";
    let before = agent.call("command", json!({"line": before, "detach": true}));
    let claim = json!({ "workspace": "shop", "claimId": "claim-of-shop", "env": { "SECRET": "hunter2" } });
    assert_eq!(agent.call("claim", claim)["workspace"], "shop");
    assert_eq!(agent.run("echo $SECRET; touch go").1, "hunter2\n");
    let ended = agent.call("commandOutput", json!({"id": before["id"], "follow": true}));
    assert_eq!(ended["exit"]["code"], 7, "{ended}");
    assert!(!ended.to_string().contains("hunter2"), "{ended}");
    assert!(ended["stderr"]["text"].as_str().unwrap().contains("/proc/1/environ: Permission denied"), "{ended}");
    // An own environment is its own; the agent's files stay closed to the owner's commands too.
    for look in ["environ", "mem", "auxv", "fd/", "task/1/environ"] {
        let (code, stdout, stderr) = agent.run(&format!("ls /proc/1/{look} >/dev/null && cat /proc/1/{look}*"));
        assert!(code != 0 && stderr.contains("ermission denied"), "{look}: {stdout} {stderr}");
    }
    let token = agent.run("grep -rsl 'Bearer' /proc/1/ /tools 2>/dev/null; env | grep -c COREHOLD_TOKEN");
    assert_eq!(token.1, "0\n", "nor is a token: {token:?}");
    // From outside, as root, who may look.
    let pid = agent.pid().unwrap().as_raw_nonzero();
    for file in ["environ", "cmdline"] {
        let content = fs::read(format!("/proc/{pid}/{file}")).unwrap();
        assert!(!content.windows(7).any(|window| window == b"hunter2"), "{file}");
    }
    assert!(!agent.evidence().contains("hunter2"), "nor does it stand in the log");
    agent.still_works();
}
