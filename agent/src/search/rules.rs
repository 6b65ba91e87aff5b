//! Ignore files: which apply to an entry, and what they say together.
//!
//! The matching of each file is `ignore`'s; which file wins is told here after its `dir.rs`, whose walker can't be kept
//! beneath a root: `.rgignore` before `.ignore` before `.gitignore` before `.git/info/exclude`, whatever their depth, and
//! within each kind the deepest first. Files above the root and nobody's global excludes count: what is found depends on
//! the workspace alone. The differential test against `rg` holds it.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    os::fd::BorrowedFd,
    path::PathBuf,
    sync::Arc,
};

use ignore::{
    Match,
    gitignore::{Gitignore, GitignoreBuilder},
};
use rustix::fs::{FileType, OFlags};

use super::{
    beneath::{Beneath, CONTENT, as_path, open_directory},
    listing::Listing,
    troubles::Troubles,
};

/// Bytes of an ignore file that are read; a larger one is not meant for people.
const IGNORE_FILE_BYTES: u64 = 1 << 20;

/// Which ignore files count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleOptions {
    /// Whether any do.
    pub ignore_files: bool,
    /// Whether git's count only inside of a repository.
    pub require_git: bool,
}

/// What ignore files say about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    None,
    /// Leave it out.
    Ignore,
    /// It belongs in, also when it is hidden.
    Whitelist,
}

/// The ignore files of one directory, and of those that it is in. Directories without any share their parent's.
#[derive(Debug)]
pub(crate) struct Rules {
    parent: Option<Arc<Rules>>,
    options: RuleOptions,
    /// Length of the directory's path and the slash after it: what comes off an entry's path.
    prefix: usize,
    rgignore: Gitignore,
    ignore: Gitignore,
    gitignore: Gitignore,
    git_exclude: Gitignore,
    /// Whether the directory is a repository's, if that matters.
    is_repository: bool,
    /// Whether git's ignore files count here.
    git_counts: bool,
}

/// Where [`Rules`] come from.
pub(crate) struct Source<'a> {
    pub(crate) root: &'a dyn Beneath,
    pub(crate) troubles: &'a Troubles,
    /// The directory's path beneath the root.
    pub(crate) path: &'a [u8],
    pub(crate) listing: &'a Listing,
}

impl Rules {
    /// No rules, above the root.
    pub(crate) fn none(options: RuleOptions) -> Arc<Self> {
        Arc::new(Self {
            parent: None,
            options,
            prefix: 0,
            rgignore: Gitignore::empty(),
            ignore: Gitignore::empty(),
            gitignore: Gitignore::empty(),
            git_exclude: Gitignore::empty(),
            is_repository: false,
            git_counts: !options.require_git,
        })
    }

    /// The rules in a directory, whose parent's are these.
    pub(crate) fn enter(self: &Arc<Self>, source: &Source<'_>) -> Arc<Self> {
        if !self.options.ignore_files {
            return self.clone();
        }
        let has = |name: &[u8]| source.listing.find(name);
        let git = has(b".git").and_then(|entry| source.kind_of(b".git", entry.kind));
        let is_repository = self.options.require_git
            && (git.is_some() || has(b".jj").and_then(|entry| source.kind_of(b".jj", entry.kind)).is_some());
        let compiled = |name: &[u8]| has(name).map_or_else(Gitignore::empty, |_| source.compile(&source.child(name)));
        let rules = Self {
            rgignore: compiled(b".rgignore"),
            ignore: compiled(b".ignore"),
            gitignore: compiled(b".gitignore"),
            git_exclude: git
                .and_then(|kind| source.git_directory(kind))
                .map_or_else(Gitignore::empty, |directory| source.compile(&join(&directory, b"info/exclude"))),
            is_repository,
            prefix: if source.path.is_empty() { 0 } else { source.path.len() + 1 },
            options: self.options,
            git_counts: self.git_counts || is_repository,
            parent: Some(self.clone()),
        };
        let says_nothing =
            [&rules.rgignore, &rules.ignore, &rules.gitignore, &rules.git_exclude].into_iter().all(Gitignore::is_empty);
        if says_nothing && !is_repository { self.clone() } else { Arc::new(rules) }
    }

    /// The rules in a directory that is not listed otherwise, from the root down to it.
    pub(crate) fn down_to(
        root: &dyn Beneath,
        troubles: &Troubles,
        path: &[u8],
        options: RuleOptions,
    ) -> Result<Arc<Self>, rustix::io::Errno> {
        let mut rules = Self::none(options);
        if !options.ignore_files || path.is_empty() {
            return Ok(rules);
        }
        let mut listing = Listing::default();
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(index, _)| index);
        for end in std::iter::once(0).chain(slashes) {
            let path = &path[..end];
            let directory = open_directory(root, path, OFlags::empty())?;
            root.list(std::os::fd::AsFd::as_fd(&directory), &mut listing)?;
            rules = rules.enter(&Source { root, troubles, path, listing: &listing });
        }
        Ok(rules)
    }

    /// What the rules say about an entry of the directory, by its path beneath the root.
    pub(crate) fn verdict(&self, path: &[u8], is_directory: bool) -> Verdict {
        if !self.options.ignore_files {
            return Verdict::None;
        }
        // The verdict of each kind of file, the strongest kind first.
        let mut found = [Verdict::None; 4];
        let mut left_the_repository = false;
        let mut next = Some(self);
        while let Some(rules) = next {
            let relative = as_path(&path[rules.prefix..]);
            let git = self.git_counts && !left_the_repository;
            let files =
                [(&rules.rgignore, true), (&rules.ignore, true), (&rules.gitignore, git), (&rules.git_exclude, git)];
            for (found, (file, counts)) in found.iter_mut().zip(files) {
                if *found == Verdict::None && counts && !file.is_empty() {
                    *found = match file.matched(relative, is_directory) {
                        Match::None => Verdict::None,
                        Match::Ignore(_) => Verdict::Ignore,
                        Match::Whitelist(_) => Verdict::Whitelist,
                    };
                }
            }
            if found[0] != Verdict::None {
                break;
            }
            left_the_repository |= rules.is_repository;
            next = rules.parent.as_deref();
        }
        found.into_iter().find(|verdict| *verdict != Verdict::None).unwrap_or(Verdict::None)
    }
}

impl Source<'_> {
    fn child(&self, name: &[u8]) -> Vec<u8> {
        join(self.path, name)
    }

    /// What an entry is after its link was followed; nothing if it leads nowhere or outside.
    fn kind_of(&self, name: &[u8], kind: FileType) -> Option<FileType> {
        if kind != FileType::Symlink {
            return Some(kind);
        }
        let opened = self.root.open_beneath(as_path(&self.child(name)), OFlags::PATH | OFlags::CLOEXEC).ok()?;
        rustix::fs::fstat(opened).ok().map(|stat| FileType::from_raw_mode(stat.st_mode))
    }

    /// Reads and compiles an ignore file. One that can't be read says nothing, and a line that can't be understood is
    /// left out, as ripgrep has it; both are reported.
    fn compile(&self, path: &[u8]) -> Gitignore {
        let Some(file) = self.open(path) else { return Gitignore::empty() };
        if file.metadata().is_ok_and(|metadata| metadata.len() > IGNORE_FILE_BYTES) {
            self.troubles.add(path, || format!("only the first {IGNORE_FILE_BYTES} bytes of this ignore file count"));
        }
        // Paths are matched relative to the directory, so the matcher has no root to strip.
        let mut builder = GitignoreBuilder::new("");
        for (index, line) in BufReader::new(file.take(IGNORE_FILE_BYTES)).lines().enumerate() {
            let line = match line {
                Ok(line) => line,
                Err(error) => {
                    self.troubles.add(path, || format!("line {}: {error}", index + 1));
                    break;
                }
            };
            let line = if index == 0 { line.trim_start_matches('\u{feff}') } else { &line };
            if let Err(error) = builder.add_line(None, line) {
                self.troubles.add(path, || format!("line {}: {error}", index + 1));
            }
        }
        builder.build().unwrap_or_else(|error| {
            self.troubles.add(path, || error.to_string());
            Gitignore::empty()
        })
    }

    /// Opens a regular file beneath the root.
    fn open(&self, path: &[u8]) -> Option<File> {
        let opened = match self.root.open_beneath(as_path(path), CONTENT) {
            Ok(opened) => opened,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return None,
            Err(errno) => {
                self.troubles.add(path, || errno.to_string());
                return None;
            }
        };
        let stat = rustix::fs::fstat(&opened).ok()?;
        (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then(|| opened.into())
    }

    /// Where `info/exclude` is: in `.git`, or where a worktree's `.git` file leads, if that is beneath the root.
    fn git_directory(&self, kind: FileType) -> Option<Vec<u8>> {
        let git = self.child(b".git");
        if kind != FileType::RegularFile {
            return Some(git);
        }
        let line = self.first_line(&git)?;
        let directory = PathBuf::from(line.strip_prefix("gitdir: ")?);
        let common = self.first_line(directory.join("commondir").as_os_str().as_encoded_bytes())?;
        let common = if common.starts_with('.') { directory.join(common) } else { common.into() };
        Some(common.into_os_string().into_encoded_bytes())
    }

    fn first_line(&self, path: &[u8]) -> Option<String> {
        BufReader::new(self.open(path)?.take(IGNORE_FILE_BYTES)).lines().next()?.ok()
    }
}

/// A path and a name in it.
pub(crate) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(path.len() + 1 + name.len());
    joined.extend_from_slice(path);
    if !path.is_empty() {
        joined.push(b'/');
    }
    joined.extend_from_slice(name);
    joined
}

/// Whether a directory that was opened is the same as another one.
pub(crate) fn identity(directory: BorrowedFd<'_>) -> Result<(u64, u64), rustix::io::Errno> {
    rustix::fs::fstat(directory).map(|stat| (stat.st_dev, stat.st_ino))
}
