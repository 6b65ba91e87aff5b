//! A host as a process of its own that saves a workspace's files as an archive, changes them, and loads them again. Says `before`,
//! `saved` and `loaded`, each with the most memory in bytes that the process has had by then. For a test of what a large archive costs.
//!
//! Arguments: the home folder, and the workspace.

use corehold_host::{Host, SaveOptions};

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [home, id] = arguments.as_slice() else { panic!("{arguments:?}") };
    let host = Host::builder().home(home).reconciles(false).build().await.expect("the host starts");
    let workspace = host.workspace(id).await.expect("it is there");
    let archives = host.archives();
    println!("before {}", peak());
    // Read back too, as before a sleep.
    let archive = archives.save(&workspace, SaveOptions::default().verify(true)).await.expect("it is saved");
    println!("saved {}", peak());
    let outcome = workspace.command("rm large").run().await.expect("it runs");
    assert!(outcome.success(), "{}", outcome.stderr_text());
    archives.load(&archive, &workspace).await.expect("it is loaded");
    println!("loaded {}", peak());
}

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it is told");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}
