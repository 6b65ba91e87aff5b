//! The answer to a transaction.

use corehold_types::{
    Problem, WorkspacePath,
    tools::{EditResponse, EditedFile, FileChange},
};

use super::{Entry, Plan, creation_of, rename_of};
use crate::{
    edit::{
        commit::Directory,
        diff::{Difference, Names, difference},
        disk,
        operations::Text,
    },
    root::{Root, Version},
};

/// Lines of context in a diff, as `diff -u` has them.
const CONTEXT: u32 = 3;

impl Plan<'_> {
    /// What will have happened, without versions.
    pub(super) fn answer(&self, root: &Root) -> Result<EditResponse, Problem> {
        let mut budget = self.request.max_diff_bytes.unwrap_or(self.limits.edit_diff_bytes.value) as usize;
        let mut files = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let file = self.edited(root, entry, budget)?;
            budget -= file.diff.as_ref().map_or(0, String::len).min(budget);
            files.push(file);
        }
        Ok(EditResponse { files, dry_run: self.request.dry_run.unwrap_or(false) })
    }

    fn edited(&self, root: &Root, entry: &Entry<'_>, most_diff_bytes: usize) -> Result<EditedFile, Problem> {
        let renamed = entry.end.is_some_and(|end| end != entry.path);
        let replaces_old = self.changes[entry.path].initial.is_some()
            && self.claimed[entry.path].is_some_and(|claimant| std::ptr::eq(&self.entries[claimant], entry));
        let change = match (&entry.text, entry.end) {
            (_, None) => FileChange::Deleted,
            _ if creation_of(entry.file).is_some() && !replaces_old => FileChange::Created,
            _ if renamed => FileChange::Renamed,
            (Some(_), _) => FileChange::Modified,
            (None, _) => FileChange::Unchanged,
        };
        let path_in_diff = |path: &WorkspacePath| -> Result<String, Problem> {
            Ok(String::from_utf8_lossy(root.relative(path)?.as_prefix()).into_owned())
        };
        let old_name = if replaces_old { Some(path_in_diff(&entry.file.path)?) } else { None };
        let renamed_to = if renamed { rename_of(entry.file).map(|(to, _)| to.clone()) } else { None };
        let new_name = match (entry.end, &renamed_to) {
            (None, _) => None,
            (_, Some(to)) => Some(path_in_diff(to)?),
            (_, None) => Some(path_in_diff(&entry.file.path)?),
        };
        let names = Names { old: old_name.as_deref(), new: new_name.as_deref() };
        let context = self.request.context_lines.unwrap_or(CONTEXT);
        let old = if replaces_old { self.old_bytes(entry) } else { Some(&b""[..]) };
        let difference = match (old, &entry.text, entry.end) {
            (Some(old), Some(text), _) => difference(old, &text.bytes, names, context, most_diff_bytes),
            (Some(old), None, None) => difference(old, b"", names, context, most_diff_bytes),
            _ => Difference::default(),
        };
        let text: Option<&Text> = entry.text.as_ref();
        let known = text
            .map(|text| text.bytes.as_slice())
            .or_else(|| (change == FileChange::Unchanged).then(|| self.old_bytes(entry)).flatten());
        let other_names = match (&self.changes[entry.path].initial, text) {
            (Some(initial), Some(_)) if replaces_old => disk::links(&initial.stat) - 1,
            _ => 0,
        };
        Ok(EditedFile {
            path: entry.file.path.clone(),
            renamed_to,
            change,
            version: None,
            previous_hash: replaces_old
                .then(|| self.old_bytes(entry))
                .flatten()
                .map(|bytes| blake3::hash(bytes).to_hex().to_string()),
            hash: known.map(|bytes| blake3::hash(bytes).to_hex().to_string()),
            size: match (entry.end, text) {
                (None, _) => 0,
                (_, Some(text)) => text.bytes.len() as u64,
                (_, None) => self.old_size(entry),
            },
            lines_added: difference.added,
            lines_removed: difference.removed,
            diff: difference.unified,
            diff_truncated: difference.truncated,
            displaced_hunks: text.map(|text| text.displaced.clone()).unwrap_or_default(),
            other_names: (other_names > 0).then_some(other_names),
        })
    }

    /// Adds the versions of what is there now. Called while the locks are held, so that they belong to the hashes.
    pub(super) fn add_versions(&self, response: &mut EditResponse, directories: &[Directory]) {
        use std::os::fd::AsFd as _;
        for (entry, file) in self.entries.iter().zip(&mut response.files) {
            let Some(end) = entry.end else { continue };
            // A link has no version; a file that somebody removed just now has none any more.
            let opened = directories
                .get(end)
                .and_then(|directory| disk::open(directory.as_fd(), &self.changes[end].location.name).ok());
            file.version = opened.and_then(|opened| Version::of(&opened).ok()).map(Version::into_string);
        }
    }
}
