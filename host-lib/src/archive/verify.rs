//! Reading an archive back: all of it, as if it were loaded.

use futures_util::TryStreamExt as _;

use super::{content, entry::Kind, manifest::Archive, store::Store};
use crate::error::{Error, ErrorKind, Result};

/// Reads every chunk, compares every hash, and counts the entries.
///
/// # Errors
/// `Damaged` with what is wrong first.
pub(super) async fn read_back(store: &Store, archive: &Archive) -> Result<()> {
    let damaged = |why: String| Error::new(ErrorKind::Damaged, why);
    let index = content::index(store, archive).await?;
    let mut hasher = blake3::Hasher::new();
    let mut tar = content::bytes(store, index.content.clone());
    while let Some(bytes) = tar.try_next().await? {
        // Four megabytes take a millisecond.
        hasher.update(&bytes);
    }
    let hash = hasher.finalize().to_hex();
    if hash.as_str() != archive.hash {
        return Err(damaged(format!("its content hashes to {hash}, and the manifest says {}", archive.hash)));
    }
    let (mut files, mut directories, mut symlinks, mut content_bytes) = (0_u64, 0_u64, 0_u64, 0_u64);
    content::entries(store, &index, |entry| {
        match entry.kind {
            Kind::File { size, .. } => {
                files += 1;
                content_bytes = content_bytes.saturating_add(size);
            }
            Kind::HardLink { .. } => files += 1,
            Kind::Directory => directories += 1,
            Kind::Symlink { .. } => symlinks += 1,
        }
        Ok(())
    })
    .await?;
    let said = (archive.files, archive.directories, archive.symlinks, archive.content_bytes);
    if (files, directories, symlinks, content_bytes) != said {
        return Err(damaged("its list of entries is not the one that the manifest counts".to_owned()));
    }
    Ok(())
}
