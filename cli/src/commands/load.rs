//! `corehold load`: an archive becomes a workspace, or takes the place of one's files; and `corehold fork`: copies.

use std::process::ExitCode;

use corehold_host::CreateWorkspace;
use serde_json::json;

use super::{archives, up};
use crate::{
    args::{Fork, Global, Load},
    output, surroundings,
};

pub(crate) async fn run(global: &Global, load: &Load) -> anyhow::Result<ExitCode> {
    let host = surroundings::waking(global).await?;
    let archive = archives::find(&host, &load.archive).await?;
    if let Some(into) = &load.into {
        let workspace = super::called(&host, into).await?;
        let done = host.archives().load(&archive, &workspace).await?;
        if global.json {
            output::json(&json!({ "archive": archive.reference(), "workspace": workspace.id(), "files": done.files }))?;
        } else {
            output::line(format_args!("{} has the {} files of {}", workspace.id(), done.files, archive.reference()))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let template = archive.template.as_deref().and_then(|name| host.catalog().find(name).ok());
    let mut request = template.as_ref().map_or_else(CreateWorkspace::empty, CreateWorkspace::from_template);
    // As `up` does: the address that is printed outlives this command.
    if let Some(template) = &template {
        request = request.publish(template.port);
    }
    if let Some(name) = &load.name {
        request = request.id(name);
    }
    let creation = host.archives().create_from(&archive, request);
    let Some(workspace) = up::watched(global, &host, creation).await? else { return Ok(ExitCode::from(130)) };
    up::announce(global, &workspace, &workspace.info().await?)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn fork(global: &Global, fork: &Fork) -> anyhow::Result<ExitCode> {
    let host = surroundings::waking(global).await?;
    let workspace = super::called(&host, &fork.workspace).await?;
    let copies = tokio::select! {
        copies = workspace.fork(fork.copies) => copies?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            eprintln!("interrupted; copies that are ready by now stay, `corehold ls` lists them");
            host.settled().await;
            return Ok(ExitCode::from(130));
        }
    };
    for copy in copies {
        let info = copy.info().await?;
        match &info.preview_url {
            _ if global.json => output::json(&info)?,
            Some(url) => output::line(format_args!("{}   {url}", info.id))?,
            None => output::line(&info.id)?,
        }
    }
    Ok(ExitCode::SUCCESS)
}
