//! A command's own limits, as a user whom they bind: root is above the limit of processes.

use serde_json::json;

use crate::support::Agent;

#[test]
fn a_command_that_forks_beyond_its_limit_fails_and_nobody_else_does() {
    // A user of whom nothing else runs: the kernel counts all of a user's processes, in whatever pid namespace.
    let agent = Agent::start_as(61_000 + std::process::id() % 4_000);
    let beside = agent.call("command", json!({"line": "mkfifo go; read word < go; echo $word", "detach": true}));
    let tasks = "ls -d /proc/[0-9]*/task/* | wc -l";
    let (_, before, stderr) = agent.run(tasks);
    // A few more than there are; the agent may start a thread or two meanwhile.
    let most = before.trim().parse::<u64>().unwrap_or_else(|_| panic!("{before}{stderr}")) + 8;
    let forks = "i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i+1)); echo $i; done; echo all";
    let answer = agent.call("command", json!({"line": forks, "limits": {"processes": most}}));
    let (stdout, stderr) = (answer["stdout"]["text"].as_str().unwrap(), answer["stderr"]["text"].as_str().unwrap());
    let forked = stdout.lines().count();
    assert!((1..=12).contains(&forked) && !stdout.contains("all"), "{forked} forks: {answer}");
    assert!(stderr.to_lowercase().contains("fork") && answer["exit"]["code"] != 0, "{answer}");

    // What was there goes on, and what comes without the limit starts, while those that were forked live.
    let id = &beside["id"];
    assert_eq!(answer["exit"]["survivors"].as_array().unwrap().len(), forked);
    assert_eq!(
        agent.run("for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do sleep 0 & done; wait; echo forked").1,
        "forked\n"
    );
    agent.run("echo on > go");
    let output = agent.call("commandOutput", json!({"id": id, "follow": true}));
    assert_eq!((&output["stdout"]["text"], &output["exit"]["code"]), (&json!("on\n"), &json!(0)));
    let signalled = agent.call("commandSignal", json!({"id": answer["id"], "signal": "SIGKILL"}));
    assert_eq!(signalled["processes"], forked);
}

#[test]
fn each_other_limit_is_the_commands_own() {
    let agent = Agent::start();
    let exit = |line: &str, limits: serde_json::Value| {
        let answer = agent.call("command", json!({"line": line, "limits": limits}));
        (answer["exit"].clone(), answer["stderr"]["text"].as_str().unwrap().to_owned())
    };
    let (ended, _) = exit("while :; do :; done", json!({"cpuMs": 1}));
    assert_eq!(ended["signal"], "SIGXCPU", "{ended}");
    assert!(ended["cpuMs"].as_u64() >= Some(500), "{ended}");
    let (ended, _) = exit("exec head -c 2000000 /dev/zero > file", json!({"fileBytes": 1_000_000}));
    assert_eq!(ended["signal"], "SIGXFSZ", "{ended}");
    assert_eq!(agent.run("wc -c < file").1, "1000000\n");
    let (ended, stderr) = exit("exec perl -e 'my $all = \"x\" x 400_000_000'", json!({"memoryBytes": 100_000_000}));
    assert!(ended["code"] != 0 && stderr.to_lowercase().contains("memory"), "{ended} {stderr}");
    let open = "exec perl -e 'for (1..100) { open(my $file, \"<\", \"/dev/null\") or die \"$!\"; push @all, $file }'";
    let (ended, stderr) = exit(open, json!({"openFiles": 20}));
    assert!(ended["code"] != 0 && stderr.contains("Too many open files"), "{ended} {stderr}");
    agent.still_works();
}
