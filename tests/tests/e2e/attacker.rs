//! What somebody inside a default workspace can see and do, held as a snapshot: a change of the image, of the engine's options or of the
//! agent that opens a door shows up here. What it says of networks is read in `SECURITY.md`.

use std::net::{IpAddr, Ipv4Addr, TcpListener};

use corehold_e2e::corehold::Corehold;
use corehold_host::{
    CreateWorkspace, Frame, Network, Workspace,
    runtime::Resources,
    tools::{CommandOutput, CommandOutputRequest, CommandSignal, CommandSignalRequest, Info, Signal},
};
use futures_util::StreamExt as _;

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
    let corehold = Corehold::start().await;
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
    let probe = workspace.command("node probe.js");
    let probe =
        probe.env("PEER", peer).env("OTHER", other).env("GATEWAY", gateway).env("OPEN", open).env("CLOSED", closed);
    let outcome = probe.run().await.unwrap();
    assert!(outcome.success(), "{outcome:#?}");
    assert_known(&outcome.stdout_text(), SEEN, "seen.txt");
    for workspace in [workspace, neighbour, stranger] {
        workspace.remove().await.unwrap();
    }
    // A network goes with its last container, beside what is done.
    corehold.host.settled().await;
}

/// Within its limits it can use up all there is; its host is answered all the same. What it does to the disk: `places.rs`.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_attacker_inside_can_use_up_is_known() {
    let corehold = Corehold::start().await;
    let limits = Resources::default().memory_bytes(256 << 20).pids(256);
    let workspace = corehold.host.create(CreateWorkspace::empty().resources(limits)).await.unwrap();
    workspace.write_file("exhaust.js", EXHAUST).await.unwrap();
    let mut used = String::new();
    for what in ["processes", "memory", "files"] {
        used += &ask(&workspace, &format!("node exhaust.js {what}")).await;
        used += "\n";
    }
    for (what, known_by) in [("10,000 connections to the agent", "held"), ("300 MB of output", "xx")] {
        let mode = if known_by == "held" { "connections" } else { "output" };
        let command = workspace.command(format!("node exhaust.js {mode}")).detach().await.unwrap();
        let request =
            CommandOutputRequest { id: command.clone(), follow: Some(true), ..CommandOutputRequest::default() };
        let mut output = workspace.stream::<CommandOutput>(&request).await.unwrap();
        let begun = async {
            while let Some(frame) = output.next().await {
                if let Frame::Event(event) = frame.unwrap()
                    && format!("{event:?}").contains(known_by)
                {
                    return;
                }
            }
            panic!("{what}: it ended");
        };
        begun.await;
        // One that has no connection to the agent yet.
        let host = corehold.builder().build().await.unwrap();
        let answer = host.workspace(workspace.id().as_str()).await.unwrap().call::<Info>(&Default::default()).await;
        used += &format!(
            "{what}, and the host asks: {}\n",
            answer.map_or_else(|error| error.to_string(), |_| "answered".to_owned())
        );
        let end = CommandSignalRequest { id: command, signal: Signal::Kill };
        workspace.call::<CommandSignal>(&end).await.unwrap();
    }
    assert_known(&used, USED_UP, "used-up.txt");
    workspace.remove().await.unwrap();
}
