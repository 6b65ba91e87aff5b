//! `corehold save` and `corehold archives`: workspaces as they were saved.

use std::process::ExitCode;

use corehold_host::{Archive, ArchiveRef, Host, SaveOptions, WorkspaceId};
use serde_json::json;

use crate::{
    args::{Archives, Global, Save},
    output, surroundings,
};

pub(crate) async fn save(global: &Global, save: &Save) -> anyhow::Result<ExitCode> {
    let host = surroundings::waking(global).await?;
    let workspace = super::called(&host, &save.workspace).await?;
    let mut options = SaveOptions::default().verify(!save.no_verify);
    for pattern in &save.exclude {
        options = options.exclude(pattern);
    }
    let archive = host.archives().save(&workspace, options).await?;
    if global.json {
        output::json(&archive)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::line(archive.reference())?;
    eprintln!("  {}, {}", output::files(archive.files), output::size(archive.content_bytes));
    eprintln!("  corehold load {}   makes a workspace of it", archive.reference());
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn run(global: &Global, archives: &Archives) -> anyhow::Result<ExitCode> {
    let host = surroundings::host(global).await?;
    match archives {
        Archives::Ls { workspace } => ls(global, &host, workspace.as_deref()).await,
        Archives::Verify { archive } => {
            let archive = find(&host, archive).await?;
            host.archives().verify(&archive).await?;
            told(global, &json!({ "archive": archive.reference(), "verified": true }), || {
                format!("{} is whole: {}", archive.reference(), output::files(archive.files))
            })
        }
        Archives::Rm { archives } => {
            for archive in archives {
                let reference: ArchiveRef = archive.parse()?;
                host.archives().delete(&reference).await?;
                told(global, &json!({ "archive": reference, "deleted": true }), || format!("deleted {reference}"))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Archives::Prune => {
            let pruned = host.archives().prune().await?;
            told(global, &pruned, || {
                format!("removed {} objects, {}; {} are kept", pruned.objects, output::size(pruned.bytes), pruned.kept)
            })
        }
    }
}

async fn ls(global: &Global, host: &Host, workspace: Option<&str>) -> anyhow::Result<ExitCode> {
    let workspace: Option<WorkspaceId> = workspace.map(str::parse).transpose()?;
    let archives = host.archives().list(workspace.as_ref()).await?;
    if global.json {
        output::json(&archives)?;
        return Ok(ExitCode::SUCCESS);
    }
    if archives.is_empty() {
        match workspace {
            Some(workspace) => {
                eprintln!("no archives of {workspace}; `corehold save {workspace}` makes one while it is there")
            }
            None => eprintln!("no archives; `corehold save <workspace>` makes one"),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = archives
        .iter()
        .map(|archive| {
            [
                archive.reference().to_string(),
                archive.template.clone().unwrap_or_else(|| "-".to_owned()),
                archive.created.to_string().get(..19).unwrap_or_default().replace('T', " "),
                archive.files.to_string(),
                output::size(archive.content_bytes),
            ]
        })
        .collect();
    output::table(["ARCHIVE", "TEMPLATE", "SAVED (UTC)", "FILES", "SIZE"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// An archive by `workspace/id`, or a workspace's newest by `workspace`.
pub(super) async fn find(host: &Host, name: &str) -> anyhow::Result<Archive> {
    if name.contains('/') {
        return Ok(host.archives().get(&name.parse()?).await?);
    }
    let workspace: WorkspaceId = name.parse()?;
    let newest = host.archives().list(Some(&workspace)).await?.into_iter().next();
    newest.ok_or_else(|| anyhow::anyhow!("there is no archive of {workspace}; `corehold save {workspace}` makes one"))
}

fn told(global: &Global, value: &impl serde::Serialize, line: impl FnOnce() -> String) -> anyhow::Result<ExitCode> {
    if global.json {
        output::json(value)?
    } else {
        output::line(line())?
    }
    Ok(ExitCode::SUCCESS)
}
