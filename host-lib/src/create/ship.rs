//! An archive on its way into a container: one file in a tar stream, laid into the agent's inbox by the engine.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tar::EntryType;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use crate::{
    error::{Error, ErrorKind, Result},
    pack::{PackedArchive, header},
    runtime::BoxStream,
};

/// The agent's default inbox; it belongs to user 1000, and so does what is laid into it.
pub(super) const INBOX: &str = "/tools/inbox";
const CHUNK: usize = 256 << 10;

/// What the archive is called in the inbox.
pub(super) fn name(archive: &PackedArchive) -> String {
    format!("template-{}.tar.gz", &archive.key[..16])
}

/// The archive's bytes as the one file of a tar stream.
pub(super) fn wrap(archive: PackedArchive) -> Result<BoxStream<Bytes>> {
    let mut header = header(EntryType::Regular, 0o600, archive.size);
    header.set_path(name(&archive)).map_err(|error| Error::new(ErrorKind::Io, error.to_string()))?;
    header.set_cksum();
    let head = Bytes::copy_from_slice(header.as_bytes());
    // To the next multiple of 512, and two empty blocks for the end.
    let padding = usize::try_from((512 - archive.size % 512) % 512).unwrap_or(0) + 1024;
    let begin = stream::once(async { Ok(head) });
    let end = stream::once(async move { Ok(Bytes::from(vec![0; padding])) });
    Ok(Box::pin(begin.chain(content(archive)).chain(end)))
}

/// The archive's bytes as they are.
pub(super) fn content(archive: PackedArchive) -> BoxStream<Bytes> {
    let file = tokio::fs::File::from_std(archive.file).take(archive.size);
    Box::pin(ReaderStream::with_capacity(file, CHUNK).map(|chunk| {
        chunk.map_err(|error| {
            Error::new(ErrorKind::Io, format!("the packed archive can't be read: {error}")).caused_by(error)
        })
    }))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, Write as _};

    use futures_util::TryStreamExt as _;

    use super::*;

    #[tokio::test]
    async fn the_engine_gets_one_file_of_the_agents_user() {
        for size in [0, 1, 511, 512, 513, CHUNK + 7] {
            let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&content).unwrap();
            file.rewind().unwrap();
            let archive = PackedArchive {
                key: "0123456789abcdef0123".to_owned(),
                hash: String::new(),
                size: size as u64,
                files: 1,
                content_bytes: 0,
                cached: false,
                file,
            };
            let chunks: Vec<Bytes> = wrap(archive).unwrap().try_collect().await.unwrap();
            let bytes = chunks.concat();
            assert_eq!(bytes.len() % 512, 0);
            let mut tar = tar::Archive::new(&bytes[..]);
            let mut entries = tar.entries().unwrap();
            let mut entry = entries.next().unwrap().unwrap();
            assert_eq!(entry.path().unwrap().to_str(), Some("template-0123456789abcdef.tar.gz"));
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mode().unwrap()), (1000, 1000, 0o600));
            let mut read = Vec::new();
            entry.read_to_end(&mut read).unwrap();
            assert_eq!(read, content);
            assert!(entries.next().is_none());
        }
    }
}
