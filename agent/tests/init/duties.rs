//! What the agent does as init, and for callers who go away.

use std::io::{BufRead as _, BufReader, Read as _};

use rustix::process::Signal;
use serde_json::json;

use crate::support::Agent;

#[test]
fn a_thousand_orphans_are_reaped() {
    let agent = Agent::start();
    let made = agent.run("i=0; while [ $i -lt 1000 ]; do (sleep 0.01 &); i=$((i+1)); done; echo made");
    assert_eq!((made.0, made.1.as_str()), (0, "made\n"));
    // Those that were made last may still sleep for a hundredth of a second: wait for them by their own ends.
    let left = "ls -d /proc/[0-9]*/stat | xargs cat 2>/dev/null | grep -E '\\((sleep|sh)\\) (Z|S)' | grep -v ' S 1 ' ";
    let wait = "while grep -qs '(sleep)' /proc/[0-9]*/stat; do :; done";
    let (_, zombies, stderr) = agent.run(&format!("{wait}; {left}"));
    assert_eq!(zombies.lines().filter(|line| line.contains(") Z ")).count(), 0, "{zombies}{stderr}");
    agent.still_works();
}

#[test]
fn a_caller_who_goes_away_does_not_end_the_command() {
    let agent = Agent::start();
    let body = json!({"line": "echo begun; read line < go; echo \"$line\"", "label": "left"});
    agent.run("mkfifo go");
    let mut stream = BufReader::new(agent.send("command", "text/event-stream", &body));
    let mut line = String::new();
    while !line.contains("begun") {
        line.clear();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0, "{}", agent.evidence());
    }
    drop(stream);
    let listed = agent.call("commandList", json!({"label": "left"}));
    let id = listed["commands"][0]["id"].as_str().unwrap().to_owned();
    assert!(listed["commands"][0].get("exit").is_none(), "{listed}");
    agent.run("echo gone on > go");
    let output = agent.call("commandOutput", json!({"id": id, "follow": true}));
    assert_eq!(output["stdout"]["text"], "begun\ngone on\n");
    assert_eq!(output["exit"]["code"], 0);
}

#[test]
fn term_from_outside_ends_the_agent_and_its_commands() {
    let mut agent = Agent::start();
    let body = json!({"line": "trap 'echo saw TERM; exit 0' TERM; echo up; while :; do sleep 0.02; done"});
    let mut stream = BufReader::new(agent.send("command", "application/x-ndjson", &body));
    let mut line = String::new();
    while !line.contains("up") {
        line.clear();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0, "{}", agent.evidence());
    }
    rustix::process::kill_process(agent.pid().unwrap(), Signal::TERM).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("saw TERM") && rest.contains(r#""type":"end""#), "{rest}\n{}", agent.evidence());
    assert!(agent.unshare.wait().unwrap().success(), "{}", agent.evidence());
}
