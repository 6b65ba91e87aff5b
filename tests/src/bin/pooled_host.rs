//! A host with a pool, as a process of its own: makes workspaces four at a time, and says `ready <id>` of each. For tests that run
//! several of them at once, and kill them.
//!
//! Arguments: the home folder, a label's value for its containers, what the names begin with, and how many; 0 means until
//! it is killed.

use std::io::Write as _;

use corehold_host::{Class, CreateWorkspace, Host, PoolOptions};
use futures_util::{StreamExt as _, stream};

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [home, mark, prefix, count] = arguments.as_slice() else { panic!("{arguments:?}") };
    let count: usize = count.parse().expect("a number");
    let host = Host::builder()
        .home(home)
        .label(corehold_e2e::corehold::POOL_MARK, mark)
        .pool(Class::default(), PoolOptions::default().min(3).max(4))
        .build()
        .await
        .expect("the host starts");
    let ids = (0..if count == 0 { usize::MAX } else { count }).map(|number| format!("{prefix}-{number}"));
    let creations = stream::iter(ids).map(|id| host.create(CreateWorkspace::empty().id(id)));
    let mut made = creations.buffer_unordered(4);
    while let Some(workspace) = made.next().await {
        let workspace = workspace.expect("a workspace is made");
        // A line at once, or not at all: whoever reads it may kill us.
        let line = format!("ready {}\n", workspace.id());
        std::io::stdout().lock().write_all(line.as_bytes()).expect("somebody reads");
    }
}
