//! What somebody inside a default workspace can see and do, held as a snapshot: a change of the image, of the engine's options or of the
//! agent that opens a door shows up here. What it says of networks is read in `SECURITY.md`.

use std::net::{IpAddr, Ipv4Addr, TcpListener};

use corehold_e2e::corehold::Corehold;
use corehold_host::{CreateWorkspace, Network, Workspace};

const PROBE: &str = include_str!("attacker/probe.js");
const SEEN: &str = include_str!("attacker/seen.txt");

async fn ask(workspace: &Workspace, line: &str) -> String {
    workspace.command(line).run().await.unwrap().stdout_text().trim().to_owned()
}

fn listener(address: IpAddr) -> (TcpListener, String) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    (listener, port)
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
    let seen = outcome.stdout_text();
    let differ: Vec<String> = seen
        .lines()
        .zip(SEEN.lines())
        .filter(|(now, known)| now != known)
        .map(|(now, known)| format!("now:   {now}\nknown: {known}\n"))
        .collect();
    assert!(
        seen == SEEN,
        "an attacker sees or does something else than is known:\n{}\nall of it:\n{seen}\n\
         If that is meant, put it into tests/tests/e2e/attacker/seen.txt, and say in SECURITY.md what it means.",
        differ.concat()
    );
    for workspace in [workspace, neighbour, stranger] {
        workspace.remove().await.unwrap();
    }
    // A network goes with its last container, beside what is done.
    corehold.host.settled().await;
}
