//! `corehold up`: a template or a folder becomes a running workspace.

use std::process::ExitCode;

use corehold_host::{
    CreateWorkspace, Creation, Host, IdlePolicy, Network, Workspace, WorkspaceInfo, runtime::Runtime as _,
};
use serde_json::json;

use super::logs;
use crate::{
    args::{Global, Up},
    output,
    progress::Progress,
    surroundings,
};

pub(crate) async fn run(global: &Global, up: &Up) -> anyhow::Result<ExitCode> {
    let engine = surroundings::engine(global).await?;
    let publishes_here = engine.publishes_here().await?;
    let mut builder = surroundings::builder(global, engine);
    if let Some(bundle) = ca_bundle(up) {
        builder = builder.ca_bundle(bundle);
    }
    if up.for_strangers {
        builder = builder.for_strangers();
    }
    let idle = idle(up, builder.idle_policy());
    let host = builder.build().await?;
    let template = host.catalog().resolve(&up.source)?;
    for reason in &template.inferred {
        eprintln!("note: {reason}");
    }

    let mut request =
        CreateWorkspace::from_template(&template).resources(up.asked.resources()?).keep_on_failure(up.keep);
    // The address that is printed outlives this command, so it can't be one that this process listens on.
    // What the engine publishes on another machine isn't printed as one of this one's.
    for port in up.publish.iter().chain(publishes_here.then_some(&template.port)) {
        request = request.publish(*port);
    }
    if let Some(name) = &up.name {
        request = request.id(name);
    }
    if let Some(title) = &up.title {
        request = request.name(title);
    }
    if let Some(image) = &up.image {
        request = request.image(image);
    }
    if let Some(egress) = &up.network {
        request = request.network(Network::shared().egress(egress.clone()));
    }
    for (name, value) in &up.env {
        request = request.env(name, value);
    }

    for mount in &up.place.mounts {
        request = request.mount(mount.clone());
    }
    for capability in &up.place.capabilities {
        request = request.capability(*capability);
    }
    if up.place.read_only_root {
        request = request.read_only_root(true);
    }
    if let Some(sandbox) = &up.place.sandbox {
        request = request.sandbox(sandbox);
    }

    let goes_by_itself = idle.is_some();
    if let Some(policy) = idle {
        request = request.idle(policy);
    }

    let Some(workspace) = watched(global, &host, host.create(request)).await? else { return Ok(ExitCode::from(130)) };
    let info = workspace.info().await?;
    announce(global, &workspace, &info)?;
    if goes_by_itself && !global.json {
        eprintln!("note: nothing happens by itself but while a host runs: a backend, or `corehold supervise`");
    }
    if up.attach {
        return logs::dev_server(global, &workspace, true).await;
    }
    Ok(ExitCode::SUCCESS)
}

/// What the workspace is to have as its own, since this host ends with the command.
fn idle(up: &Up, strangers: &IdlePolicy) -> Option<IdlePolicy> {
    let asked = up.idle.policy();
    if !up.for_strangers {
        return asked;
    }
    let mut policy = asked.unwrap_or_default();
    policy.pause_after = policy.pause_after.or(strangers.pause_after);
    policy.max_lifetime = policy.max_lifetime.or(strangers.max_lifetime);
    Some(policy)
}

/// Shows how a creation goes; nothing comes of it when it is interrupted.
pub(super) async fn watched(global: &Global, host: &Host, mut creation: Creation) -> anyhow::Result<Option<Workspace>> {
    let mut progress = Progress::start(global.json);
    let workspace = loop {
        tokio::select! {
            event = creation.next_event() => match event {
                Some(event) => progress.show(&event)?,
                None => break creation.await,
            },
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                progress.end();
                eprintln!("interrupted; removing what was made");
                drop(creation);
                // A process that ends before the removal would leave the container behind.
                host.settled().await;
                return Ok(None);
            }
        }
    };
    progress.end();
    Ok(Some(workspace?))
}

pub(super) fn announce(global: &Global, workspace: &Workspace, info: &WorkspaceInfo) -> anyhow::Result<()> {
    if global.json {
        output::json(&json!({ "type": "workspace", "workspace": info }))?;
        return Ok(());
    }
    let id = workspace.id();
    output::line("")?;
    match &info.preview_url {
        Some(url) => output::line(format_args!("{id} is ready: {url}"))?,
        None => output::line(format_args!("{id} is ready"))?,
    }
    if let (None, Some(port)) = (&info.preview_url, info.preview_port) {
        eprintln!("  corehold forward {id} {port}  what listens there, on this machine");
    }
    eprintln!("  corehold exec {id} -- ls      run a command inside");
    eprintln!("  corehold logs {id} --follow   see what the dev server writes");
    eprintln!("  corehold down {id}            remove it");
    Ok(())
}

/// The bundle that was named, else the machine's own: what this machine trusts, its workspaces need too.
fn ca_bundle(up: &Up) -> Option<std::path::PathBuf> {
    if up.no_ca {
        return None;
    }
    up.ca.clone().or_else(surroundings::machine_ca_bundle)
}
