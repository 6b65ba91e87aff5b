//! The files route: raw bytes in and out.

use std::{
    os::unix::ffi::OsStrExt as _,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use corehold_types::wire::FileWritten;
use futures_util::{Stream, TryStreamExt as _, stream};
use http::{HeaderMap, Method, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::{ANSWER_BYTES, AgentClient, Repeat, TokenSource, authorized, collect, misunderstood, root_cause};
use crate::{
    error::{Error, ErrorKind, Result},
    runtime::BoxStream,
};

/// RFC 3986's unreserved characters and the slash stay as they are.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A file's bytes as they come.
pub struct FileStream {
    size: Option<u64>,
    version: Option<String>,
    bytes: BoxStream<Bytes>,
}

impl FileStream {
    /// Size of the file in bytes, if the agent knows it beforehand.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The file's version (its `ETag`).
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }
}

impl Stream for FileStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.bytes.as_mut().poll_next(context)
    }
}

impl AgentClient {
    /// A whole file, of at most [`ANSWER_BYTES`].
    pub(crate) async fn read_file(&self, tokens: &TokenSource, path: &Path) -> Result<Bytes> {
        let route = route(path)?;
        self.while_alive(async {
            let response = self.send(authorized(Method::GET, &route, tokens), Bytes::new(), Repeat::Safe).await?;
            collect(response.into_body(), ANSWER_BYTES).await
        })
        .await
    }

    /// A file of any size.
    pub(crate) async fn open_file(self: &Arc<Self>, tokens: &TokenSource, path: &Path) -> Result<FileStream> {
        let route = route(path)?;
        let response = self
            .while_alive(async { self.send(authorized(Method::GET, &route, tokens), Bytes::new(), Repeat::Safe).await })
            .await?;
        let text = |headers: &HeaderMap, name| Some(headers.get(name)?.to_str().ok()?.to_owned());
        let size = text(response.headers(), header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let version = text(response.headers(), header::ETAG).map(|tag| tag.trim_matches('"').to_owned());
        Ok(FileStream { size, version, bytes: self.bytes_of(response.into_body()) })
    }

    /// A body's bytes as they come, for as long as the agent is well.
    pub(super) fn bytes_of(self: &Arc<Self>, body: Incoming) -> BoxStream<Bytes> {
        Box::pin(stream::unfold(Some((self.clone(), body)), |state| async {
            let (client, mut body) = state?;
            match client.while_alive(next_bytes(&mut body)).await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some((client, body)))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        }))
    }

    /// Writes a file, replacing what was there.
    pub(crate) async fn write_file(&self, tokens: &TokenSource, path: &Path, content: Bytes) -> Result<FileWritten> {
        let route = route(path)?;
        self.while_alive(async {
            let response = self.send(authorized(Method::PUT, &route, tokens), content.clone(), Repeat::Safe).await?;
            written(response.into_body()).await
        })
        .await
    }

    /// Writes a file from a stream of any length.
    pub(crate) async fn upload_file(
        &self,
        tokens: &TokenSource,
        path: &Path,
        content: BoxStream<Bytes>,
    ) -> Result<FileWritten> {
        let route = route(path)?;
        let body = StreamBody::new(content.map_ok(Frame::data).map_err(Into::into)).boxed_unsync();
        self.while_alive(async {
            let response = self.send_stream(authorized(Method::PUT, &route, tokens), body).await?;
            written(response.into_body()).await
        })
        .await
    }
}

async fn written(body: Incoming) -> Result<FileWritten> {
    let answer = collect(body, ANSWER_BYTES).await?;
    serde_json::from_slice(&answer).map_err(|error| misunderstood("that it wrote a file", &error))
}

async fn next_bytes(body: &mut Incoming) -> Result<Option<Bytes>> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Error::new(ErrorKind::AgentUnavailable, format!("what the agent sent was cut off: {}", root_cause(&error)))
        })?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn route(path: &Path) -> Result<String> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(Error::new(ErrorKind::Invalid, format!("{path:?} names no file")));
    }
    Ok(format!("/v1/files/{}", percent_encode(bytes, PATH)))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn any_name_becomes_a_route() {
        assert_eq!(route(Path::new("src/a b?#%.jsx")).unwrap(), "/v1/files/src/a%20b%3F%23%25.jsx");
        assert_eq!(route(Path::new(OsStr::from_bytes(b"caf\xe9"))).unwrap(), "/v1/files/caf%E9");
        assert_eq!(route(Path::new("")).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
