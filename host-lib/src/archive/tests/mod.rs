//! Saving and loading against an agent and stores in memory or in a folder, whole and damaged, well and failing.

mod comparing;
mod damage;
mod faults;
mod pruning;
#[cfg(feature = "s3")]
mod s3;
mod saving;
mod version_1;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::*;
use crate::{
    CreateWorkspace, Host, WorkspaceState,
    testing::{AgentScript, EngineScript, Fixture, tar_of},
};

/// A host with a workspace `w`, and its archives in a folder.
struct Room {
    fixture: Fixture,
    workspace: Workspace,
}

impl Room {
    async fn new() -> Self {
        let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
        let workspace = fixture.host.create(CreateWorkspace::empty().id("w")).await.unwrap();
        Self { fixture, workspace }
    }

    fn host(&self) -> &Host {
        &self.fixture.host
    }

    fn archives(&self) -> Archives {
        self.host().archives()
    }

    /// Archives that are kept elsewhere.
    async fn archives_in(&self, store: ArchiveStore) -> Archives {
        self.fixture.keeping_archives_in(store).await.archives()
    }

    fn folder(&self) -> PathBuf {
        self.host().home().join("archives")
    }

    fn set_files(&self, files: &[(&str, &[u8])]) {
        self.fixture.engine.set_tar("corehold-w", tar_of(files));
    }

    fn tar(&self) -> Vec<u8> {
        self.fixture.engine.tar("corehold-w")
    }

    async fn save(&self) -> Archive {
        self.archives().save(&self.workspace, SaveOptions::default()).await.unwrap()
    }

    /// Every object there is, drafts too.
    fn objects(&self) -> Vec<PathBuf> {
        files_in(&self.folder())
    }

    fn objects_of(&self, room: &str) -> Vec<PathBuf> {
        files_in(&self.folder().join(room))
    }

    /// Makes everything in the store this much older.
    fn age(&self, by: Duration) {
        for path in self.objects() {
            age(&path, by);
        }
    }
}

fn age(path: &Path, by: Duration) {
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - by).unwrap();
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut all = Vec::new();
    for entry in entries.flatten() {
        if entry.file_type().unwrap().is_dir() {
            all.extend(files_in(&entry.path()));
        } else {
            all.push(entry.path());
        }
    }
    all.sort();
    all
}

/// Bytes that don't repeat, other ones for each seed.
fn noise(seed: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
