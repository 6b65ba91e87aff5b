//! `corehold diff`: what differs between a workspace, an archive and a template.

use std::process::ExitCode;

use corehold_host::{Change, ErrorKind, Host, Tree};

use super::archives;
use crate::{
    args::{Diff, Global},
    output, surroundings,
};

pub(crate) async fn run(global: &Global, diff: &Diff) -> anyhow::Result<ExitCode> {
    let host = surroundings::waking(global).await?;
    let after = tree(&host, &diff.what).await?;
    let before = match &diff.against {
        Some(name) => tree(&host, name).await?,
        None => template_of(&host, &after).await?,
    };
    let differences = host.archives().diff(before, after).await?;
    if global.json {
        output::json(&differences)?;
        return Ok(ExitCode::SUCCESS);
    }
    for difference in differences {
        let letter = match difference.change {
            Change::Added => 'A',
            Change::Removed => 'D',
            Change::Kind => 'T',
            Change::Mode => 'm',
            _ => 'M',
        };
        let modes = match (difference.change, difference.before, difference.after) {
            (Change::Mode, Some(before), Some(after)) => format!(" ({:03o} was {:03o})", after.mode, before.mode),
            _ => String::new(),
        };
        output::line(format_args!("{letter} {}{modes}", difference.path))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a name means: `workspace/id` an archive, else a workspace that there is, else a template or a folder.
async fn tree(host: &Host, name: &str) -> anyhow::Result<Tree> {
    if name.parse::<corehold_host::ArchiveRef>().is_ok() {
        return Ok(Tree::from(&archives::find(host, name).await?));
    }
    match super::called(host, name).await {
        Ok(workspace) => Ok(Tree::from(&workspace)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid) => {
            match host.catalog().resolve(name) {
                Ok(template) => Ok(Tree::from(&template)),
                Err(_) if error.kind() == ErrorKind::NotFound => Err(error.into()),
                Err(other) => Err(other.into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

async fn template_of(host: &Host, tree: &Tree) -> anyhow::Result<Tree> {
    let name = match tree {
        Tree::Archive(archive) => archive.template.clone(),
        Tree::Workspace(workspace) => workspace.info().await?.template,
        _ => None,
    };
    let Some(name) = name else {
        anyhow::bail!("it was made from no template; name what to compare it with by --against");
    };
    Ok(Tree::from(&host.catalog().find(&name)?))
}
