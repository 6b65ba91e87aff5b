//! An archive on its way to an agent.

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use crate::{
    error::{Error, ErrorKind},
    runtime::BoxStream,
};

const CHUNK: usize = 256 << 10;

/// An archive's bytes as they are.
pub(super) fn content(file: std::fs::File, size: u64) -> BoxStream<Bytes> {
    let file = tokio::fs::File::from_std(file).take(size);
    Box::pin(ReaderStream::with_capacity(file, CHUNK).map(|chunk| {
        chunk.map_err(|error| {
            Error::new(ErrorKind::Io, format!("the packed archive can't be read: {error}")).caused_by(error)
        })
    }))
}
