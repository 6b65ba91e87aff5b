//! From a container that is there to a workspace as its user knows it.

use std::collections::BTreeMap;

use corehold_types::{
    Code,
    tools::{Claim, ClaimRequest, Info, InfoRequest},
};

use super::{transition::container, turn::Turn};
use crate::{
    client::AgentClient,
    create::{
        AGENT_TIMEOUT, DEV,
        agent::{self, DeathWatch},
        plan::own_env,
        serve,
    },
    error::{Error, ErrorKind, Result},
    state::Recipe,
    workspace::{Labelled, Place, Workspace, random_word},
};

/// Starts the container and waits until its agent serves the workspace. What runs already is no error.
///
/// One whose agent doesn't answer is stopped again, so that the next start finds it as this one did.
pub(super) async fn bring_up(turn: &Turn) -> Result<Workspace> {
    let (host, entry) = (&turn.host, &turn.entry);
    let container = container(entry)?;
    // A client of its own: those that are there know the address before.
    let place = Place::new(host, &entry.id, container.clone(), entry.instance.clone());
    let answering = async {
        if entry.recipe.limits_pending {
            host.runtime.update_limits(&container, &entry.recipe.resources()).await?;
        }
        let mut watch = DeathWatch::new(host.runtime.as_ref(), &entry.instance);
        watch.during(host.runtime.start(&container)).await?;
        agent::wait(&place.client, &mut watch, AGENT_TIMEOUT, host.runtime.as_ref()).await?;
        own(&place.client, &place, entry.id.as_str(), own_env(host, &entry.recipe)).await
    };
    if let Err(error) = answering.await {
        if error.kind() != ErrorKind::NotFound
            && let Err(stopping) = host.runtime.stop(&container, std::time::Duration::ZERO).await
        {
            tracing::debug!(workspace = %entry.id, error = %stopping, "what could not be started could not be stopped");
        }
        return Err(error.context(format_args!("starting workspace {}", entry.id)));
    }
    Ok(Workspace::at(host, Labelled::of_entry(host, entry), Some(place)))
}

/// A container that came from a pool knows whose it is only until it ends, and then is told again.
async fn own(client: &AgentClient, place: &Place, workspace: &str, env: BTreeMap<String, String>) -> Result<()> {
    match client.call::<Info>(&place.tokens, &InfoRequest {}).await {
        Ok(info) if info.workspace.as_deref() == Some(workspace) => return Ok(()),
        Ok(_) => {}
        Err(error) if error.problem().is_some_and(|problem| problem.code == Code::NotClaimed) => {}
        Err(error) => return Err(error),
    }
    let request = ClaimRequest { workspace: workspace.to_owned(), claim_id: random_word(24)?, env };
    client.call::<Claim>(&place.tokens, &request).await.map(|_| ())
}

/// Starts the template's dev server, unless it runs. That it can't be started is for its log: what was asked for is the workspace, in
/// which it may be mended.
pub(super) async fn start_dev(workspace: &Workspace, recipe: &Recipe) {
    let Some(dev) = &recipe.dev else { return };
    let started = async {
        let latest = workspace.latest_command(DEV).await?;
        if latest.is_some_and(|command| command.exit.is_none()) {
            return Ok::<_, Error>(());
        }
        serve::start_dev(workspace, dev).await.map(|_| ())
    };
    if let Err(error) = started.await {
        tracing::warn!(workspace = %workspace.id(), %error, "the dev server could not be started");
    }
}
