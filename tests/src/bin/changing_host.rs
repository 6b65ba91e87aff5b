//! A host that changes one workspace, as a process of its own: says `begun`, does what it is to do, and ends. For tests that kill it
//! meanwhile.
//!
//! Arguments: the home folder, the workspace, and what to do.

use std::{io::Write as _, time::Duration};

use corehold_host::Host;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [home, id, verb] = arguments.as_slice() else { panic!("{arguments:?}") };
    let host = Host::builder().home(home).reconciles(false).build().await.expect("the host starts");
    let workspace = host.workspace(id).await.expect("it is there");
    std::io::stdout().lock().write_all(b"begun\n").expect("somebody reads");
    let done = match verb.as_str() {
        "sleep" => workspace.sleep(Duration::ZERO).await,
        "wake" => workspace.wake().await,
        "restart" => workspace.restart(Duration::ZERO).await,
        "remove" => workspace.remove().await,
        other => panic!("{other:?}"),
    };
    done.expect("it is done");
}
