//! A host whose totals admit so many workspaces, as a process of its own: asks for some, eight at a time, and says `ready <id>` of each
//! that it got and `full` of each that it was refused for want of room. For tests that run several of them at once, and kill one.
//!
//! Arguments: the home folder, a label's value for its containers, how many all processes may have together, what the names begin with,
//! and how many it asks for.

use std::io::Write as _;

use corehold_host::{
    CreateWorkspace, ErrorKind, Host,
    policy::{Policy, Totals},
};
use futures_util::{StreamExt as _, stream};

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [home, mark, most, prefix, count] = arguments.as_slice() else { panic!("{arguments:?}") };
    let most = most.parse().expect("a number");
    let count: usize = count.parse().expect("a number");
    let host = Host::builder()
        .home(home)
        .label(corehold_e2e::corehold::POOL_MARK, mark)
        .policy(Policy::new().host(Totals::unlimited().workspaces(most)))
        .build()
        .await
        .expect("the host starts");
    let ids = (0..count).map(|number| format!("{prefix}-{number}"));
    let creations = stream::iter(ids).map(|id| host.create(CreateWorkspace::empty().id(id)));
    let mut made = creations.buffer_unordered(8);
    while let Some(answer) = made.next().await {
        let line = match answer {
            Ok(workspace) => format!("ready {}\n", workspace.id()),
            Err(error) if error.kind() == ErrorKind::Quota => {
                let quota = error.quota().expect("it says how much");
                assert_eq!((quota.limit, quota.used), (most, most), "{error}");
                "full\n".to_owned()
            }
            Err(error) => panic!("{error}"),
        };
        // A line at once, or not at all: whoever reads it may kill us.
        std::io::stdout().lock().write_all(line.as_bytes()).expect("somebody reads");
    }
}
