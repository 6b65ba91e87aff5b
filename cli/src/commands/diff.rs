//! `corehold diff`: what differs between a workspace, an archive and a template.

use std::{collections::HashMap, process::ExitCode};

use corehold_host::{Change, Difference, EntryKind, ErrorKind, Host, Tree};

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
    let lines = differences.iter().map(|difference| Line {
        path: difference.path.to_string(),
        text: told(difference),
        whole: !diff.all && is_whole_directory(difference),
    });
    folded(lines).into_iter().try_for_each(output::line)?;
    Ok(ExitCode::SUCCESS)
}

fn told(difference: &Difference) -> String {
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
    format!("{letter} {}{modes}", difference.path)
}

/// Whether all that is in it was added or removed with it.
fn is_whole_directory(difference: &Difference) -> bool {
    let side = match difference.change {
        Change::Added => difference.after,
        Change::Removed => difference.before,
        _ => None,
    };
    side.is_some_and(|side| side.kind == EntryKind::Directory)
}

/// An entry that differs, as it is told.
struct Line {
    path: String,
    text: String,
    /// Whether it stands for all that is in it.
    whole: bool,
}

/// The lines, without those of what others stand for. They come in byte order of paths, so not everything in a directory comes
/// right after it (`a`, `a-b`, `a/b`), but nothing comes before it.
fn folded(all: impl Iterator<Item = Line>) -> Vec<String> {
    let mut lines: Vec<(String, usize)> = Vec::new();
    let mut wholes = HashMap::new();
    for Line { path, mut text, whole } in all {
        let above = path.match_indices('/').find_map(|(end, _)| wholes.get(&path[..end]).copied());
        if let Some(index) = above {
            let (_, within): &mut (String, usize) = &mut lines[index];
            *within += 1;
            continue;
        }
        if whole {
            text.push('/');
            wholes.insert(path, lines.len());
        }
        lines.push((text, 0));
    }
    let counted = |(text, within)| if within == 0 { text } else { format!("{text} ({within} in it)") };
    lines.into_iter().map(counted).collect()
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
    let template = host.catalog().find(&name).map_err(|error| {
        let hint = format!("it was made from {name:?}: where that was a folder, name it by --against");
        if error.kind() == ErrorKind::NotFound { error.hint(hint) } else { error }
    })?;
    Ok(Tree::from(&template))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(path: &str, whole: bool) -> Line {
        Line { path: path.to_owned(), text: format!("A {path}"), whole }
    }

    #[test]
    fn a_new_directory_stands_for_what_is_in_it_and_for_nothing_else() {
        let all = [
            ("a", true),
            ("a-b", false),
            ("a/b", true),
            ("a/b/c", false),
            ("ab", false),
            ("b/a/b", false),
            ("c", true),
        ];
        let folded = folded(all.into_iter().map(|(path, whole)| line(path, whole)));
        assert_eq!(folded, ["A a/ (2 in it)", "A a-b", "A ab", "A b/a/b", "A c/"]);
    }
}
