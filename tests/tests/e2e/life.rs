//! The life of a workspace from the command line, on a real engine and with real archives.

use corehold_e2e::{
    command_line::{done, err, out, run},
    corehold::Corehold,
    web::get,
};
use corehold_host::tools::{Ports, PortsRequest};
use serde_json::{Value, json};

fn listed(corehold: &Corehold, id: &str) -> Value {
    let all: Value = serde_json::from_str(&done(corehold, &["ls", "--json"])).unwrap();
    all.as_array().unwrap().iter().find(|info| info["id"] == id).expect("it is listed").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_life_cycle() {
    let corehold = Corehold::start().await;
    let cat = ["exec", "lived", "--", "cat", "kept"];
    done(&corehold, &["up", "node-api", "--name", "lived", "--pause-after", "1h"]);
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
    assert_eq!((&asleep["state"], &asleep["container"]), (&json!("asleep"), &Value::Null));
    let archive = asleep["archive"].as_str().unwrap();
    assert!(archive.starts_with("lived/") && asleep["archiveBytes"].as_u64() > Some(0), "{asleep}");
    let refused = run(&corehold, &["archives", "delete", archive]);
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
