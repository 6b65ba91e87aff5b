//! What an archive consists of, read from the store: each chunk checked against its name before anybody sees it.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    chunk::{decompress, most_compressed},
    entry::{Decoder, Entry},
    index::{ChunkRef, Index},
    manifest::Archive,
    store::{Store, chunk_path, index_path},
};
use crate::{
    blocking::blocking,
    error::{Error, ErrorKind, Result},
    runtime::BoxStream,
};

/// Chunks fetched ahead. With what they are unpacked from they take 50 MB at most, and about a fifth of it usually.
const AHEAD: usize = 6;

/// The index of an archive.
///
/// # Errors
/// `Damaged` when it is missing, or isn't the one that the manifest speaks of.
pub(super) async fn index(store: &Store, archive: &Archive) -> Result<Index> {
    let id = archive.index_id()?;
    let damaged = |why: String| Error::new(ErrorKind::Damaged, format!("its index {id} {why}"));
    let bytes =
        store.read(&index_path(id), archive.index_bytes).await?.ok_or_else(|| damaged("is missing".to_owned()))?;
    if super::chunk::ChunkId::of(&bytes) != id {
        return Err(damaged("holds other bytes than those it is named after".to_owned()));
    }
    let index = Index::decode(&bytes)?;
    if index.content_bytes() != archive.bytes {
        return Err(damaged(format!("is of {} bytes, and the manifest of {}", index.content_bytes(), archive.bytes)));
    }
    Ok(index)
}

/// The bytes of these chunks, one after the other.
pub(super) fn bytes(store: &Store, chunks: Vec<ChunkRef>) -> BoxStream<Bytes> {
    let store = store.clone();
    Box::pin(
        stream::iter(chunks)
            .map(move |chunk| {
                let store = store.clone();
                async move { fetch(&store, chunk).await }
            })
            .buffered(AHEAD),
    )
}

async fn fetch(store: &Store, chunk: ChunkRef) -> Result<Bytes> {
    let length = chunk.length as usize;
    let kept = store.read(&chunk_path(chunk.id), most_compressed(length)).await?;
    let kept = kept.ok_or_else(|| Error::new(ErrorKind::Damaged, format!("its chunk {} is missing", chunk.id)))?;
    let bytes = blocking("unpacking", move || decompress(chunk.id, length, &kept)).await?;
    Ok(bytes?.into())
}

/// The entries of an archive, in its order.
///
/// # Errors
/// `Damaged`; those of `each`.
pub(super) async fn entries(store: &Store, index: &Index, mut each: impl FnMut(Entry) -> Result<()>) -> Result<()> {
    let mut list = bytes(store, index.entries.clone());
    let mut decoder = Decoder::default();
    while let Some(piece) = list.try_next().await? {
        decoder.push(&piece, &mut each)?;
    }
    decoder.finish()
}
