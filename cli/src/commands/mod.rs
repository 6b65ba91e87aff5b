//! One module a command, each with what its name says.

pub(crate) mod archives;
pub(crate) mod cache;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod forward;
pub(crate) mod health;
pub(crate) mod image;
pub(crate) mod life;
pub(crate) mod limits;
pub(crate) mod load;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod policy;
pub(crate) mod stats;
pub(crate) mod template;
pub(crate) mod up;
pub(crate) mod volume;
pub(crate) mod why;

use corehold_host::{Host, Result, Workspace, WorkspaceState};

/// A workspace that is about to be called. The call wakes it, which may take a while: it is said.
pub(crate) async fn called(host: &Host, name: &str) -> Result<Workspace> {
    let workspace = host.workspace(name).await?;
    match workspace.state().await? {
        state @ (WorkspaceState::Paused | WorkspaceState::Asleep) => eprintln!("note: {name} is {state}; waking it"),
        // Who stopped it meant it, unless its policy says otherwise.
        WorkspaceState::Stopped => eprintln!("note: {name} is stopped; `corehold start {name}` has it run again"),
        _ => {}
    }
    Ok(workspace)
}
