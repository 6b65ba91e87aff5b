//! The life of a workspace from the command line, on a real engine and with real archives.

use corehold_e2e::{
    command_line::{done, err, out, run},
    corehold::Corehold,
    web::get,
};
use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use corehold_host::{
    CreateWorkspace, Frame,
    tools::{Ports, PortsRequest},
};
use futures_util::StreamExt as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

fn listed(corehold: &Corehold, id: &str) -> Value {
    let all: Value = serde_json::from_str(&done(corehold, &["ls", "--json"])).unwrap();
    all.as_array().unwrap().iter().find(|info| info["id"] == id).expect("it is listed").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_life_cycle() {
    let corehold = Corehold::start().await;
    let cat = ["exec", "lived", "--", "cat", "kept"];
    done(&corehold, &["up", "node-api", "--name", "lived", "--title", "A lived", "--pause-after", "1h"]);
    let lived = listed(&corehold, "lived");
    assert!(["name", "started", "address", "image"].iter().all(|field| lived[field].is_string()), "{lived}");
    assert_eq!(lived["finished"], Value::Null);
    done(&corehold, &["exec", "lived", "--", "sh", "-c", "printf mine > kept"]);
    let why = done(&corehold, &["why", "lived"]);
    assert!(why.starts_with("lived: ready") && why.contains("\nnext: paused in "), "{why}");

    let policy = done(&corehold, &["policy", "lived", "--pause-after", "never", "--archive-after", "2h"]);
    assert_eq!(policy, "lived: put to sleep after 2 h 0 min without activity\n");
    let why = done(&corehold, &["why", "lived"]);
    assert!(why.contains("\nnext: asleep in "), "{why}");
    done(&corehold, &["policy", "lived", "--reset"]);
    assert_eq!(done(&corehold, &["policy", "lived", "--json"]), "{\"policy\":null,\"workspace\":\"lived\"}\n");
    assert!(done(&corehold, &["why", "lived"]).contains("\nnext: nothing happens by itself"));

    let health = done(&corehold, &["health", "lived", "--command", "test -f kept", "--restart", "no", "--every", "1h"]);
    assert!(health.starts_with("lived: well; it has run for "), "{health}");
    assert!(health.contains("checked every 1 h 0 min") && health.contains("never restarted"), "{health}");
    done(&corehold, &["health", "lived", "--command", "test -f nothing", "--failures", "1"]);
    let health: Value = serde_json::from_str(&done(&corehold, &["health", "lived", "--json"])).unwrap();
    assert_eq!((&health["health"]["healthy"], &health["policy"]["restart"]), (&json!(false), &json!("no")), "{health}");
    assert!(health["health"]["reason"].as_str().unwrap().contains("test -f nothing"), "{health}");
    done(&corehold, &["health", "lived", "--reset"]);
    assert_eq!(
        serde_json::from_str::<Value>(&done(&corehold, &["health", "lived", "--json"])).unwrap()["policy"],
        json!(null)
    );

    assert_eq!(done(&corehold, &["stop", "lived", "--grace", "1s"]), "stopped lived\n");
    assert_eq!(listed(&corehold, "lived")["state"], "stopped");
    let stopped = run(&corehold, &cat);
    assert_eq!(stopped.status.code(), Some(125), "{}", err(&stopped));
    assert!(err(&stopped).contains("corehold start lived"), "{}", err(&stopped));
    let refused = run(&corehold, &["pause", "lived"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("pausing lived: ") && err(&refused).contains("start it first"), "{}", err(&refused));
    assert_eq!(done(&corehold, &["start", "lived"]), "started lived\n");
    assert_eq!(done(&corehold, &cat), "mine");
    assert_eq!(done(&corehold, &["restart", "lived", "--grace", "1s"]), "restarted lived\n");

    assert_eq!(done(&corehold, &["pause", "lived"]), "paused lived\n");
    assert_eq!(listed(&corehold, "lived")["state"], "paused");
    assert_eq!(done(&corehold, &["resume", "lived"]), "resumed lived\n");
    done(&corehold, &["pause", "lived"]);
    let called = run(&corehold, &cat);
    assert_eq!((out(&called).as_str(), err(&called).as_str()), ("mine", "note: lived is paused; waking it\n"));

    assert_eq!(done(&corehold, &["sleep", "lived", "--grace", "1s"]), "put lived to sleep\n");
    let asleep = listed(&corehold, "lived");
    assert_eq!((&asleep["name"], &asleep["creator"]), (&json!("A lived"), &json!("cli")));
    assert_eq!((&asleep["state"], &asleep["container"]), (&json!("asleep"), &Value::Null));
    let archive = asleep["archive"].as_str().unwrap();
    assert!(archive.starts_with("lived/") && asleep["archiveBytes"].as_u64() > Some(0), "{asleep}");
    let refused = run(&corehold, &["archives", "rm", archive]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("`corehold wake lived`"), "{}", err(&refused));
    let row = done(&corehold, &["ls"]).lines().nth(1).unwrap().to_owned();
    assert!(row.contains("asleep") && row.contains(&format!("{archive} (")) && row.ends_with("B)"), "{row}");
    let why: Value = serde_json::from_str(&done(&corehold, &["why", "lived", "--json"])).unwrap();
    assert_eq!((&why["awake"]["state"], &why["awake"]["reasons"]), (&json!("asleep"), &json!([])));
    let called = run(&corehold, &cat);
    assert_eq!((out(&called).as_str(), err(&called).as_str()), ("mine", "note: lived is asleep; waking it\n"));
    let awake = listed(&corehold, "lived");
    assert_eq!((&awake["state"], &awake["archive"]), (&json!("ready"), &Value::Null));
    assert_eq!(awake["created"], asleep["created"]);
    // Its dev server was started again, and is not waited for; its published port may have another address.
    let workspace = corehold.host.workspace("lived").await.unwrap();
    workspace.call::<Ports>(&PortsRequest { wait_for: Some(4321), ..Default::default() }).await.unwrap();
    assert_eq!(get(awake["previewUrl"].as_str().unwrap(), "/").await.0, 200);

    // A saving is a call too.
    done(&corehold, &["pause", "lived"]);
    let saved = run(&corehold, &["save", "lived"]);
    assert!(saved.status.success() && err(&saved).starts_with("note: lived is paused"), "{}", err(&saved));
}

/// B3, by a process of its own: TERM ends all workspaces at once, one that ignores TERM too, and within the time.
#[tokio::test(flavor = "multi_thread")]
async fn what_supervises_ends_all_workspaces_when_it_is_told_to_end() {
    let corehold = Corehold::start().await;
    let mut workspaces = Vec::new();
    for name in ["one", "two", "three"] {
        workspaces.push(corehold.host.create(CreateWorkspace::empty().id(name)).await.unwrap());
    }
    let line = "trap '' TERM; echo deaf; while :; do sleep 1; done";
    let mut deaf = workspaces[2].command(line).no_timeout().stream().await.unwrap();
    loop {
        if let Frame::Event(event) = deaf.next().await.unwrap().unwrap()
            && format!("{event:?}").contains("deaf")
        {
            break;
        }
    }

    let supervising =
        corehold.cli(&["supervise", "--on-end", "stop", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    // It lives from then on, and has the signal.
    let locks = || std::fs::read_dir(corehold.host.home().join("hosts")).unwrap().count();
    while locks() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let began = Instant::now();
    kill_process(Pid::from_raw(supervising.id() as i32).unwrap(), Signal::TERM).unwrap();
    let output = tokio::task::spawn_blocking(|| supervising.wait_with_output()).await.unwrap().unwrap();
    let took = began.elapsed();
    assert!(output.status.success(), "{}{}", out(&output), err(&output));
    assert!(took < Duration::from_secs(11), "{took:?}");
    let told: Vec<Value> = out(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut ended: Vec<&str> =
        told.iter().filter(|one| one["onEnd"] == "stop").map(|one| one["workspace"].as_str().unwrap()).collect();
    ended.sort_unstable();
    assert_eq!(ended, ["one", "three", "two"], "{told:?}");
    for name in ["one", "two", "three"] {
        assert_eq!(listed(&corehold, name)["state"], "stopped", "{name}");
    }
}

/// Frozen for longer than its time-out, a command has as much of it left as before.
#[tokio::test(flavor = "multi_thread")]
async fn time_outs_count_unfrozen_time() {
    let corehold = Corehold::start().await;
    let workspace = corehold.host.create(CreateWorkspace::empty().id("slow")).await.unwrap();
    let timeout = Duration::from_secs(4);
    let mut command = workspace.command("echo begun; sleep 2; echo done").timeout(timeout).stream().await.unwrap();
    loop {
        if let Frame::Event(event) = command.next().await.unwrap().unwrap()
            && format!("{event:?}").contains("begun")
        {
            break;
        }
    }
    workspace.pause().await.unwrap();
    tokio::time::sleep(timeout + Duration::from_secs(2)).await;
    workspace.resume().await.unwrap();
    let mut told = String::new();
    while let Some(frame) = command.next().await {
        told += &format!("{:?}\n", frame.unwrap());
    }
    assert!(told.contains("done") && told.contains("code: Some(0)") && told.contains("timed_out: false"), "{told}");
    // And it still ends what takes longer.
    let late = workspace.command("sleep 60").timeout(Duration::from_secs(1)).run().await.unwrap();
    assert!(late.exit.timed_out, "{late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_go_with_their_workspace_where_that_is_asked_for() {
    let corehold = Corehold::start().await;
    let folder = corehold.folder("plain", &[("file", "here")]);
    let archives = || -> Vec<Value> { serde_json::from_str(&done(&corehold, &["archives", "ls", "--json"])).unwrap() };
    for name in ["kept", "gone"] {
        done(&corehold, &["up", folder.to_str().unwrap(), "--name", name]);
        done(&corehold, &["save", name]);
    }
    done(&corehold, &["sleep", "gone", "--grace", "1s"]);
    assert_eq!(archives().len(), 3);
    done(&corehold, &["down", "kept"]);
    done(&corehold, &["down", "gone", "--archives"]);
    assert_eq!(archives().iter().map(|one| one["workspace"].as_str().unwrap()).collect::<Vec<_>>(), ["kept"]);
    // Of one that is gone already they can still go, once.
    done(&corehold, &["down", "kept", "--archives"]);
    assert_eq!(archives(), Vec::<Value>::new());
    let again = run(&corehold, &["down", "kept", "--archives"]);
    assert_eq!(again.status.code(), Some(1), "{}", err(&again));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_at_once_and_one_failure_blocks_no_other() {
    let corehold = Corehold::start().await;
    let folder = corehold.folder("plain", &[("file", "here")]);
    for name in ["one", "two"] {
        done(&corehold, &["up", folder.to_str().unwrap(), "--name", name]);
    }
    let mixed = run(&corehold, &["pause", "one", "nobody"]);
    assert_eq!((mixed.status.code(), out(&mixed).as_str()), (Some(1), "paused one\n"));
    assert!(err(&mixed).contains("pausing nobody: there is no workspace nobody"), "{}", err(&mixed));
    // Only those that it changes.
    assert_eq!(done(&corehold, &["pause", "--all"]), "paused two\n");
    let mut woken: Vec<String> = done(&corehold, &["wake", "--all"]).lines().map(str::to_owned).collect();
    woken.sort();
    assert_eq!(woken, ["woke one", "woke two"]);

    let slept = done(&corehold, &["sleep", "--all", "--grace", "1s", "--json"]);
    let mut slept: Vec<Value> = slept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    slept.sort_by_key(|one| one["workspace"].to_string());
    let asleep = |name| json!({ "workspace": name, "state": "asleep" });
    assert_eq!(slept, [asleep("one"), asleep("two")]);
    let nothing = run(&corehold, &["stop", "--all"]);
    assert_eq!((nothing.status.code(), out(&nothing).as_str()), (Some(0), ""));
    assert!(err(&nothing).contains("none that this would change"), "{}", err(&nothing));
    assert_eq!(done(&corehold, &["start", "one"]), "started one\n");
    assert_eq!(done(&corehold, &["exec", "one", "--", "cat", "file"]), "here");
    assert_eq!(done(&corehold, &["down", "two", "one"]).lines().count(), 2);
    assert_eq!(done(&corehold, &["ls", "--json"]), "[]\n");
}

/// Workspaces of all homes are found by their names, since those are unique in an engine; only their own home's has a say in them.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_another_home_removes_nothing_by_mistake() {
    let corehold = Corehold::start().await;
    let (folder, home) = (corehold.folder("plain", &[("file", "here")]), tempfile::tempdir().unwrap());
    let folder = folder.to_str().unwrap();
    done(&corehold, &["up", folder, "--name", "theirs"]);
    let other = |arguments: &[&str]| {
        let output = corehold.cli(arguments).env("COREHOLD_HOME", home.path()).output().unwrap();
        (output.status.code(), out(&output), err(&output))
    };
    let (code, _, told) = other(&["up", folder, "--name", "theirs"]);
    assert!(code == Some(1) && told.contains("take another name") && !told.contains("corehold down"), "{told}");
    for refused in [&["down", "theirs"][..], &["exec", "theirs", "--", "ls"], &["pause", "theirs"]] {
        let (code, _, told) = other(refused);
        assert_ne!(code, Some(0), "{refused:?}");
        assert!(told.contains("belongs to another state folder") && told.contains("COREHOLD_HOME"), "{told}");
    }
    assert_eq!(other(&["down", "--all"]).0, Some(0));
    assert_eq!(done(&corehold, &["exec", "theirs", "--", "cat", "file"]), "here", "nothing has happened to it");
    assert_eq!(other(&["down", "theirs", "--other-homes"]).1, "removed theirs\n");
    assert_eq!(done(&corehold, &["ls", "--json"]), "[]\n");
}
