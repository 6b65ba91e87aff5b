//! `corehold start`, `stop`, `restart`, `pause`, `resume`, `sleep`, `wake`: workspaces from one state to another, all at once, one
//! failure blocking no other.

use std::{process::ExitCode, time::Duration};

use corehold_host::{Result, Workspace, WorkspaceState};
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use crate::{
    args::{Chosen, Global, Graced},
    failure, output, surroundings,
};

/// Workspaces that are changed at once.
const AT_ONCE: usize = 32;

/// What to do with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Start,
    Stop,
    Restart,
    Pause,
    Resume,
    Sleep,
    Wake,
}

impl Verb {
    async fn perform(self, workspace: &Workspace, grace: Duration) -> Result<()> {
        match self {
            Self::Start => workspace.start().await,
            Self::Stop => workspace.stop(grace).await,
            Self::Restart => workspace.restart(grace).await,
            Self::Pause => workspace.pause().await,
            Self::Resume => workspace.resume().await,
            Self::Sleep => workspace.sleep(grace).await,
            Self::Wake => workspace.wake().await,
        }
    }

    /// What it does, what it has done.
    fn words(self, name: &str) -> (String, String) {
        let (doing, done) = match self {
            Self::Start => ("starting", "started"),
            Self::Stop => ("stopping", "stopped"),
            Self::Restart => ("restarting", "restarted"),
            Self::Pause => ("pausing", "paused"),
            Self::Resume => ("resuming", "resumed"),
            Self::Sleep => return (format!("putting {name} to sleep"), format!("put {name} to sleep")),
            Self::Wake => ("waking", "woke"),
        };
        (format!("{doing} {name}"), format!("{done} {name}"))
    }

    /// The state in which it leaves them.
    const fn leads_to(self) -> WorkspaceState {
        match self {
            Self::Start | Self::Restart | Self::Resume | Self::Wake => WorkspaceState::Ready,
            Self::Stop => WorkspaceState::Stopped,
            Self::Pause => WorkspaceState::Paused,
            Self::Sleep => WorkspaceState::Asleep,
        }
    }

    /// Whether `--all` means a workspace that is in a state, or soon will be.
    fn means(self, state: WorkspaceState) -> bool {
        use WorkspaceState as S;
        let soon = match state {
            S::Starting | S::Resuming | S::Waking => S::Ready,
            S::Pausing => S::Paused,
            S::Stopping => S::Stopped,
            S::Archiving => S::Asleep,
            stays => stays,
        };
        match self {
            Self::Start => matches!(soon, S::Stopped | S::Paused | S::Asleep),
            Self::Stop => matches!(soon, S::Ready | S::Paused),
            Self::Restart | Self::Pause => soon == S::Ready,
            Self::Resume => soon == S::Paused,
            Self::Sleep => matches!(soon, S::Ready | S::Paused | S::Stopped),
            Self::Wake => matches!(soon, S::Paused | S::Asleep),
        }
    }
}

pub(crate) async fn graced(global: &Global, verb: Verb, graced: &Graced) -> anyhow::Result<ExitCode> {
    change(global, verb, &graced.chosen, graced.grace).await
}

pub(crate) async fn at_once(global: &Global, verb: Verb, chosen: &Chosen) -> anyhow::Result<ExitCode> {
    change(global, verb, chosen, Duration::ZERO).await
}

async fn change(global: &Global, verb: Verb, chosen: &Chosen, grace: Duration) -> anyhow::Result<ExitCode> {
    let host = surroundings::waking(global).await?;
    let mut names = chosen.workspaces.clone();
    if chosen.all {
        let meant = host.list().await?.into_iter().filter(|info| verb.means(info.state));
        names = meant.map(|info| info.id.to_string()).collect();
        if names.is_empty() && !global.json {
            eprintln!("there is none that this would change; `corehold ls` says what each is doing");
        }
    }
    each(global, &names, async |name| {
        let changed = async { verb.perform(&host.workspace(name).await?, grace).await };
        let (doing, done) = verb.words(name);
        changed.await.map_err(|error| error.context(doing))?;
        match global.json {
            true => output::json(&json!({ "workspace": name, "state": verb.leads_to() }))?,
            false => output::line(done)?,
        }
        Ok(())
    })
    .await
}

/// Does something to each of them, all at once, and tells what fails as it does. The exit code says whether all went well.
pub(super) async fn each(
    global: &Global,
    names: &[String],
    act: impl AsyncFn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let mut acts = stream::iter(names).map(|name| act(name)).buffer_unordered(AT_ONCE);
    let mut code = ExitCode::SUCCESS;
    while let Some(done) = acts.next().await {
        if let Err(error) = done {
            code = failure::report(&error, global.json);
        }
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_those_that_are_not_so_yet() {
        for verb in [Verb::Start, Verb::Stop, Verb::Pause, Verb::Resume, Verb::Sleep, Verb::Wake] {
            assert!(!verb.means(verb.leads_to()), "{verb:?}");
            for never in [WorkspaceState::Creating, WorkspaceState::Removing, WorkspaceState::Removed] {
                assert!(!verb.means(never), "{verb:?} {never}");
            }
        }
        assert!(Verb::Restart.means(WorkspaceState::Ready) && !Verb::Restart.means(WorkspaceState::Stopped));
        assert!(Verb::Stop.means(WorkspaceState::Waking) && !Verb::Stop.means(WorkspaceState::Stopping));
        assert!(!Verb::Wake.means(WorkspaceState::Stopped), "who stopped it meant it");
    }
}
