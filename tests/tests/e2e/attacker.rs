//! What somebody inside a default workspace can see and do, held as a snapshot: a change of the image, of the engine's options or of the
//! agent that opens a door shows up here. What it says of networks is read in `SECURITY.md`.

use std::{
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::Path,
    time::Duration,
};

use corehold_e2e::{
    corehold::Corehold,
    engine::{Engine, OUTSIDE},
};
use corehold_host::{
    CreateWorkspace, DiskPolicy, EventKind, Frame, Host, Network, Workspace, WorkspaceState,
    runtime::Resources,
    tools::{CommandEvent, CommandOutput, CommandOutputRequest, CommandSignal, CommandSignalRequest, Info, Signal},
    types::Data,
};
use futures_util::StreamExt as _;
use serde_json::json;

const PROBE: &str = include_str!("attacker/probe.js");
const SEEN: &str = include_str!("attacker/seen.txt");
const EXHAUST: &str = include_str!("attacker/exhaust.js");
const USED_UP: &str = include_str!("attacker/used-up.txt");

async fn ask(workspace: &Workspace, line: &str) -> String {
    workspace.command(line).run().await.unwrap().stdout_text().trim().to_owned()
}

fn listener(address: IpAddr) -> (TcpListener, String) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    (listener, port)
}

fn assert_known(now: &str, known: &str, file: &str) {
    let pairs = now.lines().zip(known.lines()).filter(|(now, known)| now != known);
    let differ: Vec<String> = pairs.map(|(now, known)| format!("now:   {now}\nknown: {known}\n")).collect();
    assert!(
        now == known,
        "an attacker sees or does something else than is known:\n{}\nall of it:\n{now}\n\
         If that is meant, put it into tests/tests/e2e/attacker/{file}, and say in SECURITY.md what it means.",
        differ.concat()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_attacker_inside_can_see_and_do_is_known() {
    let (corehold, engine) = tokio::join!(Corehold::start(), Engine::start());
    // No packet to a cloud's addresses shall leave this machine.
    engine.answer_for_outside().await;
    let template = corehold.host.catalog().find("node-api").unwrap();
    let neighbour = corehold.host.create(CreateWorkspace::from_template(&template)).await.unwrap();
    let workspace = corehold.host.create(CreateWorkspace::empty()).await.unwrap();
    let theirs = CreateWorkspace::empty().owner("somebody else").network(Network::owner());
    let stranger = corehold.host.create(theirs).await.unwrap();
    let (_open, open) = listener(Ipv4Addr::UNSPECIFIED.into());
    let (_closed, closed) = listener(Ipv4Addr::LOCALHOST.into());
    // Of the last line that has no name: the container's own.
    let address = "awk '/32 host/ { print last } { last = $2 }' /proc/net/fib_trie | grep -v '^127' | head -n 1";
    let (peer, other) = (ask(&neighbour, address).await, ask(&stranger, address).await);
    let gateway = "node -e \"const h=require('fs').readFileSync('/proc/net/route','utf8').split('\\n').map(l=>l.split('\\t')).find(f=>f[1]==='00000000')[2];\
                   console.log(h.match(/../g).reverse().map(x=>parseInt(x,16)).join('.'))\"";
    let gateway = ask(&workspace, gateway).await;
    assert!(peer.parse::<Ipv4Addr>().is_ok() && gateway.parse::<Ipv4Addr>().is_ok(), "{peer:?} {gateway:?}");

    workspace.write_file("probe.js", PROBE).await.unwrap();
    let outside = OUTSIDE.ip().to_string();
    let mut probe = workspace.command("node probe.js");
    for (name, value) in [
        ("PEER", &peer),
        ("OTHER", &other),
        ("OUTSIDE", &outside),
        ("GATEWAY", &gateway),
        ("OPEN", &open),
        ("CLOSED", &closed),
    ] {
        probe = probe.env(name, value);
    }
    let outcome = probe.run().await.unwrap();
    assert!(outcome.success(), "{outcome:#?}");
    assert_known(&outcome.stdout_text(), SEEN, "seen.txt");
    for workspace in [workspace, neighbour, stranger] {
        workspace.remove().await.unwrap();
    }
    // A network goes with its last container, beside what is done.
    corehold.host.settled().await;
}

/// What is open in any workspace, so that it is open here too.
const OPEN_ANYWAY: [&str; 6] = [
    "processors",
    "there /.dockerenv",
    "set-uid and set-gid programs",
    "system call socket, ICMP echo",
    "somebody outside",
    "its own agent",
];

/// What is closed here for another reason than that something closes it.
fn closed_anyway(question: &str) -> bool {
    let lacks = |file: &str| !Path::new(file).exists();
    match question {
        "read /proc/kcore" => lacks("/proc/kcore"),
        "read /proc/keys" => lacks("/proc/keys"),
        "list /sys/firmware" => std::fs::read_dir("/sys/firmware").is_ok_and(|mut entries| entries.next().is_none()),
        "write /proc/sysrq-trigger" => lacks("/proc/sysrq-trigger"),
        // It takes SYS_RESOURCE.
        "system call setrlimit, 2,000,000 open files" => true,
        // A network without IPv6, as all of ours are: `by_ipv6_nothing_is_reached_either` has one with it.
        "a cloud's metadata at fd00:ec2::254" => true,
        _ => false,
    }
}

/// An attacker's questions are worth nothing where the answer is no in any case. So they are asked of a container that nothing holds but its
/// namespaces: root with capabilities, no filter, in the engine's own network, with what must not be there laid into it.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_questions_have_other_answers_where_nothing_holds_who_asks() {
    let engine = Engine::start().await;
    engine.answer_for_outside().await;
    let peer = engine.start_script("sleep 600", json!({})).await;
    let described = engine.request("GET", &format!("/containers/{peer}/json"), "").await.1;
    let described: serde_json::Value = serde_json::from_str(&described).unwrap();
    let network = &described["NetworkSettings"]["Networks"]["bridge"];
    let (peer, gateway) = (network["IPAddress"].as_str().unwrap(), network["Gateway"].as_str().unwrap());
    let (_open, open) = listener(Ipv4Addr::UNSPECIFIED.into());
    let (_closed, closed) = listener(Ipv4Addr::LOCALHOST.into());
    let outside = OUTSIDE.ip();
    let script = format!(
        "for folder in /sys/fs/cgroup /sys/fs/cgroup/memory; do mount -o remount,bind,rw $folder 2>/dev/null; done
        mkdir -p /run/podman /run/containerd /home/other /mnt/other /media/other
        touch /var/run/docker.sock /run/podman/podman.sock
        cat >/probe.js <<'END'\n{PROBE}\nEND
        export PEER={peer} OTHER={peer} OUTSIDE={outside} GATEWAY={gateway} OPEN={open} CLOSED={closed}
        # Who is root already becomes nobody by su.
        setpriv --reuid 1000 --regid 1000 --clear-groups node /probe.js | grep ' ids of ' && node /probe.js | grep -v ' ids of '"
    );
    let held_by_nothing = json!({
        // All but SYS_RESOURCE, which machines in a sandbox of their own lack.
        "CapAdd": ["ALL"], "CapDrop": ["SYS_RESOURCE"], "SecurityOpt": ["seccomp=unconfined"],
        "MaskedPaths": [], "ReadonlyPaths": [],
    });
    let (id, code) = engine.run_script(&script, held_by_nothing).await;
    let said = engine.request("GET", &format!("/containers/{id}/logs?stdout=1&stderr=1"), "").await.1;
    assert_eq!(code, 0, "{said}");
    let answers: Vec<(&str, &str)> = said.lines().filter_map(|line| line.trim_end().split_once(": ")).collect();
    let answer = |question: &str| {
        let found = answers.iter().find(|(asked, _)| *asked == question);
        found.unwrap_or_else(|| panic!("{question} was not asked: {said}")).1
    };
    let mut same = Vec::new();
    for (question, inside) in SEEN.lines().map(|line| line.split_once(": ").unwrap()) {
        let outside = answer(question);
        let is_open = OPEN_ANYWAY.contains(&question);
        if (inside == outside) != is_open && !closed_anyway(question) {
            same.push(format!("{question}: {inside} inside, {outside} where nothing holds it"));
        }
    }
    assert!(same.is_empty(), "these would be answered so in any case:\n{}\nall of it:\n{said}", same.join("\n"));
}

/// Starts something that goes on, until it says a line with this in it. Returns the line, and the command.
async fn begin(workspace: &Workspace, line: &str, known_by: &str) -> (String, String) {
    let id = workspace.command(line).detach().await.unwrap();
    let request = CommandOutputRequest { id: id.clone(), follow: Some(true), ..CommandOutputRequest::default() };
    let mut output = workspace.stream::<CommandOutput>(&request).await.unwrap();
    let mut text = String::new();
    while let Some(frame) = output.next().await {
        if let Frame::Event(CommandEvent::Stdout { data: Data::Text(more), .. }) = frame.unwrap() {
            text += &more;
        }
        if text.contains(known_by) {
            let end = text.find('\n').unwrap_or(text.len());
            return (text[..end].to_owned(), id);
        }
    }
    panic!("{line}: it ended: {text}");
}

/// Whether a host that has no connection to the agent yet is answered.
async fn asked_anew(corehold: &Corehold, workspace: &Workspace) -> String {
    let host = corehold.builder().build().await.unwrap();
    let answer = host.workspace(workspace.id().as_str()).await.unwrap().call::<Info>(&Default::default()).await;
    answer.map_or_else(|error| error.to_string(), |_| "answered".to_owned())
}

/// Within its limits it can use up all there is; its host is answered all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_attacker_inside_can_use_up_is_known() {
    let corehold = Corehold::start().await;
    let limits = Resources::default().memory_bytes(256 << 20).pids(256);
    let workspace = corehold.host.create(CreateWorkspace::empty().resources(limits)).await.unwrap();
    workspace.write_file("exhaust.js", EXHAUST).await.unwrap();
    let mut used = String::new();
    for what in ["processes", "memory"] {
        used += &ask(&workspace, &format!("node exhaust.js {what}")).await;
        used += "\n";
    }
    for (line, known_by) in [
        ("node exhaust.js files", "files: "),
        ("ulimit -n 5000 && node exhaust.js files 5000", "files: "),
        ("node exhaust.js connections", "held"),
        ("node exhaust.js output", "xx"),
    ] {
        let (said, command) = begin(&workspace, line, known_by).await;
        let said = if known_by == "xx" { "300 MB of output: written" } else { &said };
        used += &format!("{said}; the host asks: {}\n", asked_anew(&corehold, &workspace).await);
        let end = CommandSignalRequest { id: command, signal: Signal::Kill };
        workspace.call::<CommandSignal>(&end).await.unwrap();
    }
    workspace.remove().await.unwrap();

    let policy = DiskPolicy::default().every(Duration::from_millis(200)).bytes(30 << 20).files(3_000);
    let host = corehold.builder().disk(policy).build().await.unwrap();
    for (what, line) in [
        ("60 MB of disk", "head -c 60m /dev/zero >large; sync; sleep 30"),
        ("4,000 files", "for i in $(seq 4000); do : >file$i; done; sleep 30"),
    ] {
        let workspace = host.create(CreateWorkspace::empty()).await.unwrap();
        used += &format!("{what}: {}\n", stopped_by(&host, &workspace, line).await);
        workspace.remove().await.unwrap();
    }
    assert_known(&used, USED_UP, "used-up.txt");
}

/// What the host says of who fills its disk, and does.
async fn stopped_by(host: &Host, workspace: &Workspace, line: &str) -> String {
    let mut events = host.events();
    let mut writing = tokio::spawn({
        let (workspace, line) = (workspace.clone(), line.to_owned());
        async move { workspace.command(line).run().await.map(|_| ()) }
    });
    let mut said = String::new();
    loop {
        let event = tokio::select! {
            event = events.next() => event.unwrap(),
            _ = &mut writing => return "NOT STOPPED".to_owned(),
        };
        if event.workspace.as_ref() != Some(workspace.id()) {
            continue;
        }
        match event.kind {
            EventKind::DiskExceeded { bytes, limit_bytes, files, limit_files, .. } => {
                let bytes = limit_bytes.filter(|limit| bytes > *limit);
                let files = limit_files.filter(|limit| files.is_some_and(|files| files > *limit));
                let (limit, what) = match (bytes, files) {
                    (Some(limit), None) => (limit, "bytes"),
                    (None, Some(limit)) => (limit, "files"),
                    both => panic!("{both:?} is less than it may have, or more of both"),
                };
                said = format!("more than its {limit} {what}");
            }
            EventKind::Transition { to: WorkspaceState::Paused, .. } => break,
            _ => {}
        }
    }
    writing.abort();
    format!("{said}; paused")
}
