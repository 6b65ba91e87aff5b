//! What labels can't say of a workspace from a pool: a file for each claim, in the home folder.
//!
//! A file is written before the claim is made and goes with the container. So whoever finds a container that is claimed and
//! has no name yet, since its host died in between, learns whose it is; and a listing knows what it was made from.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use corehold_types::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, ErrorKind, Result},
    runtime::ContainerId,
    workspace::WorkspaceId,
};

/// Bytes that a file may have; what is larger is none of ours.
const BYTES: u64 = 64 << 10;

/// A claim, made or about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Which container.
    pub(crate) container: String,
    /// For which workspace.
    pub(crate) workspace: WorkspaceId,
    /// The host process that claims it.
    pub(crate) host: String,
    /// The template it is made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) template: Option<String>,
    /// When its creation began.
    pub(crate) created: Timestamp,
    /// Port inside on which its preview listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) preview_port: Option<u16>,
}

/// The folder of all claims. Processes share it: a file's name holds container and workspace, so none is written twice.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    folder: Arc<PathBuf>,
}

impl Records {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder: Arc::new(folder) }
    }

    fn path(&self, container: &str, workspace: &WorkspaceId) -> PathBuf {
        self.folder.join(format!("{container}.{workspace}.json"))
    }

    /// Writes a record, whole or not at all.
    pub(crate) async fn write(&self, record: Record) -> Result<()> {
        let (folder, path) = (self.folder.clone(), self.path(&record.container, &record.workspace));
        let write = move || {
            let content = serde_json::to_vec(&record)?;
            fs::create_dir_all(&*folder)?;
            let mut file = tempfile::NamedTempFile::new_in(&*folder)?;
            file.write_all(&content)?;
            file.persist(path)?;
            io::Result::Ok(())
        };
        blocking(write).await.map_err(|error| {
            let folder = self.folder.display();
            Error::new(ErrorKind::Io, format!("a claim can't be recorded in {folder}: {error}")).caused_by(error)
        })
    }

    /// Removes a record; one that isn't there is no error.
    pub(crate) async fn forget(&self, container: &ContainerId, workspace: &WorkspaceId) {
        let path = self.path(&container.0, workspace);
        let forget = move || match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        if let Err(error) = blocking(forget).await {
            tracing::warn!(%error, %workspace, "the record of a claim could not be removed");
        }
    }

    /// The record of one claim, if it is there and whole.
    pub(crate) async fn get(&self, container: &ContainerId, workspace: &WorkspaceId) -> Option<Record> {
        let path = self.path(&container.0, workspace);
        blocking(move || read(&path)).await.ok()
    }

    /// Removes what is of no use any more: records of containers that are not there, and what a host that was killed while it
    /// wrote has left. Only what is older than `age`: a younger one may be of a container that was made since.
    pub(crate) async fn sweep(&self, there: impl Fn(&str) -> bool + Send + 'static, age: Duration) {
        let folder = self.folder.clone();
        let sweep = move || {
            let entries = match fs::read_dir(&*folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let container = name.split('.').next().unwrap_or_default();
                // Another host may have removed it since it was listed; a clock that was set back makes it young.
                let Ok(modified) = entry.metadata().and_then(|metadata| metadata.modified()) else { continue };
                if !there(container) && modified.elapsed().is_ok_and(|elapsed| elapsed > age) {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        if let Err(error) = blocking(sweep).await {
            tracing::debug!(%error, "the records of claims could not be swept");
        }
    }

    /// All records that are whole. One that somebody damaged hides no other.
    pub(crate) async fn all(&self) -> Vec<Record> {
        let folder = self.folder.clone();
        let all = move || {
            let entries = match fs::read_dir(&*folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            let json = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
            let paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(json);
            Ok(paths.filter_map(|path| read(&path).ok()).collect())
        };
        blocking(all).await.unwrap_or_else(|error: io::Error| {
            tracing::warn!(%error, "the records of claims can't be read");
            Vec::new()
        })
    }
}

fn read(path: &std::path::Path) -> io::Result<Record> {
    if fs::metadata(path)?.len() > BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(container: &str, workspace: &str) -> Record {
        Record {
            container: container.to_owned(),
            workspace: workspace.parse().unwrap(),
            host: "h1".to_owned(),
            template: Some("web".to_owned()),
            created: Timestamp::from_unix(1_700_000_000, 0),
            preview_port: Some(4321),
        }
    }

    #[tokio::test]
    async fn two_who_claim_the_same_container_have_a_record_each() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(folder.path().join("claims"));
        assert_eq!(records.all().await, []);
        for record in [record("c1", "a"), record("c1", "b")] {
            records.write(record).await.unwrap();
        }
        let id = ContainerId("c1".to_owned());
        records.forget(&id, &"b".parse().unwrap()).await;
        records.forget(&id, &"b".parse().unwrap()).await;
        assert_eq!(records.all().await, [record("c1", "a")]);
        assert_eq!(records.get(&id, &"a".parse().unwrap()).await, Some(record("c1", "a")));
        assert_eq!(records.get(&id, &"b".parse().unwrap()).await, None);
    }

    #[tokio::test]
    async fn what_is_of_no_use_is_swept_when_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(folder.path().to_owned());
        for container in ["c1", "c2"] {
            records.write(record(container, "a")).await.unwrap();
        }
        fs::write(folder.path().join(".tmpAbC"), "{\"conta").unwrap();
        records.sweep(|container| container == "c1", Duration::from_secs(60)).await;
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "all are young");
        for entry in fs::read_dir(folder.path()).unwrap() {
            let file = fs::File::open(entry.unwrap().path()).unwrap();
            file.set_modified(std::time::SystemTime::now() - Duration::from_secs(100)).unwrap();
        }
        records.sweep(|container| container == "c1", Duration::from_secs(60)).await;
        assert_eq!(records.all().await, [record("c1", "a")]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_damaged_record_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(folder.path().to_owned());
        records.write(record("c1", "a")).await.unwrap();
        fs::write(folder.path().join("c2.b.json"), "{\"container\":").unwrap();
        fs::write(folder.path().join("c3.c.json"), vec![b' '; 100_000]).unwrap();
        fs::write(folder.path().join(".tmp"), "").unwrap();
        assert_eq!(records.all().await, [record("c1", "a")]);
    }
}
