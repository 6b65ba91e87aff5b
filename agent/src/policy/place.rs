//! Where a command would run: its directory, and the files that program names stand for. Looks, and opens nothing; what is
//! there may be another file by the time the command starts.

use std::path::{Component, Path, PathBuf};

use corehold_types::tools::CommandRequest;

use crate::agent::Agent;

/// Where a command would run.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Absolute path of its working directory.
    pub(super) directory: PathBuf,
    /// The directories in which programs are looked for.
    pub(super) search: Vec<PathBuf>,
}

/// A program, as rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// Its name as the caller wrote it, without directories.
    pub(super) name: String,
    /// Whether that name is looked up, or names a file in a directory of programs: only then is it a known program's.
    pub(super) known: bool,
    /// The absolute path as written, where there is one.
    pub(super) path: Option<PathBuf>,
    /// The file behind all links, where there is one.
    pub(super) real: Option<PathBuf>,
}

impl Place {
    pub(super) fn of(agent: &Agent, request: &CommandRequest) -> Self {
        let cwd = request.cwd.as_ref().and_then(|cwd| cwd.to_path_buf().ok()).unwrap_or_default();
        let directory = agent.root.path().join(cwd);
        let environment = &agent.processes.config().environment;
        let search = environment.get(std::ffi::OsStr::new("PATH")).map(std::env::split_paths);
        Self {
            directory: directory.canonicalize().unwrap_or(directory),
            search: search.into_iter().flatten().filter(|path| path.is_absolute()).collect(),
        }
    }

    /// What a program's name stands for.
    pub(super) fn program(&self, written: &str) -> Program {
        let name = written.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
        if !written.contains('/') {
            let found = self.search.iter().map(|directory| directory.join(written)).find(|path| path.is_file());
            let real = found.as_ref().and_then(|path| path.canonicalize().ok());
            return Program { name, known: true, path: found, real };
        }
        let path: PathBuf = self.directory.join(written).components().collect();
        let plain = !path.components().any(|part| matches!(part, Component::ParentDir));
        let known = plain && path.parent().is_some_and(|parent| self.is_searched(parent));
        let real = path.canonicalize().ok();
        Program { name, known, path: plain.then_some(path), real }
    }

    pub(super) fn is_searched(&self, directory: &Path) -> bool {
        self.search.iter().any(|searched| searched == directory)
    }
}
