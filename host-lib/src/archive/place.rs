//! Where archives are kept: a folder of this machine, or a bucket that speaks S3.

use std::{
    fmt, fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use object_store::{ObjectStore, local::LocalFileSystem};
use tokio::sync::OnceCell;

use super::{prune::Pruner, store::Store};
use crate::{
    blocking::blocking,
    error::{Error, ErrorKind, Result},
};

/// Where archives are kept. From text: `s3://bucket/prefix` is a bucket, anything else a folder.
///
/// A bucket needs the feature `s3`. Its credentials, region and address come from the usual variables: `AWS_ACCESS_KEY_ID`,
/// `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`; `AWS_ALLOW_HTTP=true` allows one without TLS. Hosts that share a bucket
/// and don't share a home folder should each have a prefix: archives are named by their workspaces.
#[derive(Debug, Clone)]
pub struct ArchiveStore(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Folder(PathBuf),
    #[cfg(feature = "s3")]
    Bucket(super::s3::Bucket),
    #[cfg(test)]
    Given(Arc<dyn ObjectStore>),
}

impl ArchiveStore {
    /// A folder, which is made when the first archive is saved.
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Self(Kind::Folder(path.into()))
    }

    #[cfg(test)]
    pub(crate) fn given(objects: Arc<dyn ObjectStore>) -> Self {
        Self(Kind::Given(objects))
    }
}

impl FromStr for ArchiveStore {
    type Err = Error;

    /// # Errors
    /// `Invalid` for an address of another kind, or a bucket without a name; `Unsupported` for a bucket where the feature is missing.
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once("://") {
            None if text.is_empty() => Err(Error::new(ErrorKind::Invalid, "no archive store is named")),
            None => Ok(Self::folder(text)),
            #[cfg(feature = "s3")]
            Some(("s3", _)) => Ok(Self(Kind::Bucket(text.parse()?))),
            #[cfg(not(feature = "s3"))]
            Some(("s3", _)) => Err(Error::new(
                ErrorKind::Unsupported,
                format!("this build keeps no archives in buckets such as {text}"),
            )
            .hint("build corehold-host with the feature `s3`, or name a folder")),
            Some(_) => Err(Error::new(ErrorKind::Invalid, format!("{text:?} is no place for archives"))
                .hint("name a folder, or a bucket as s3://bucket/prefix")),
        }
    }
}

impl fmt::Display for ArchiveStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Folder(path) => write!(formatter, "{}", path.display()),
            #[cfg(feature = "s3")]
            Kind::Bucket(bucket) => write!(formatter, "{bucket}"),
            #[cfg(test)]
            Kind::Given(objects) => write!(formatter, "{objects}"),
        }
    }
}

/// A host's store, opened when it is first needed.
#[derive(Debug)]
pub(crate) struct Place {
    kept_in: ArchiveStore,
    store: OnceCell<Store>,
    pruner: Option<Pruner>,
}

impl Place {
    pub(crate) fn new(kept_in: ArchiveStore) -> Self {
        Self { kept_in, store: OnceCell::new(), pruner: None }
    }

    /// The same of a host, whose prunings others of its home are to know as its own.
    pub(crate) fn of(self, pruner: Pruner) -> Self {
        Self { pruner: Some(pruner), ..self }
    }

    pub(super) async fn store(&self) -> Result<&Store> {
        let open = || async {
            let store = Store::new(self.open().await?, self.kept_in.to_string());
            Ok(store.of(self.pruner.clone()))
        };
        self.store.get_or_try_init(open).await
    }

    /// The folder, if it is one: what a killed saver has left there is swept.
    pub(super) fn folder(&self) -> Option<&Path> {
        match &self.kept_in.0 {
            Kind::Folder(path) => Some(path),
            #[cfg(any(feature = "s3", test))]
            _ => None,
        }
    }

    async fn open(&self) -> Result<Arc<dyn ObjectStore>> {
        match &self.kept_in.0 {
            Kind::Folder(path) => {
                let path = path.clone();
                blocking("opening", move || open_folder(&path)).await?
            }
            #[cfg(feature = "s3")]
            Kind::Bucket(bucket) => bucket.open(),
            #[cfg(test)]
            Kind::Given(objects) => Ok(objects.clone()),
        }
    }
}

fn open_folder(path: &Path) -> Result<Arc<dyn ObjectStore>> {
    let failed = |why: &dyn fmt::Display| {
        Error::new(ErrorKind::Io, format!("the archive store {} can't be opened: {why}", path.display()))
            .hint("COREHOLD_ARCHIVES names another folder, or a bucket")
    };
    // It holds people's files: nobody else has any business in it.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error: io::Error| failed(&error))?;
    let objects = LocalFileSystem::new_with_prefix(path).map_err(|error| failed(&error))?;
    // An archive is what is left of a workspace when its container goes: it must outlive a power cut.
    Ok(Arc::new(objects.with_fsync(true).with_automatic_cleanup(false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_is_a_folder_or_a_bucket_and_nothing_else() {
        assert_eq!("/var/archives".parse::<ArchiveStore>().unwrap().to_string(), "/var/archives");
        for wrong in ["", "http://example.com/x", "gs://bucket"] {
            let error = wrong.parse::<ArchiveStore>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{wrong}");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Place::new(ArchiveStore::folder(file.join("archives"))).store().await.unwrap_err();
        assert!(error.to_string().contains("file/archives") && error.hint_text().is_some(), "{error}");
    }

    #[cfg(not(feature = "s3"))]
    #[test]
    fn a_bucket_that_this_build_does_not_know_is_said_so() {
        let error = "s3://bucket/prefix".parse::<ArchiveStore>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.hint_text().unwrap().contains("feature"));
    }
}
