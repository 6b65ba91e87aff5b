//! The archive route: a packed folder goes straight to the agent, which extracts it as it comes; and the workspace comes back the same way.

use std::sync::Arc;

use bytes::Bytes;
use corehold_types::{Code, tools::ExtractResponse};
use futures_util::TryStreamExt as _;
use http::{Method, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{ANSWER_BYTES, AgentClient, Repeat, TokenSource, authorized, collect, misunderstood};
use crate::{
    error::{Error, Result},
    runtime::BoxStream,
};

/// What an archive comes as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArchiveFormat {
    /// As it is, with times to the nanosecond.
    Tar,
    /// Compressed by the agent, on all cores.
    TarZst,
}

impl ArchiveFormat {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Tar => "tar&exactTimes=true",
            Self::TarZst => "tar.zst",
        }
    }
}

/// Where an extracted archive goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArchiveInto {
    /// Beside what is there; files of the same name are replaced.
    Merged,
    /// In the place of what is there, which goes.
    Replaced,
}

impl AgentClient {
    /// The whole workspace, as it comes: what ignore rules leave out elsewhere too, but not what these patterns, as in .gitignore,
    /// match. An archive that is cut off ends with an error.
    pub(crate) async fn download_archive(
        self: &Arc<Self>,
        tokens: &TokenSource,
        format: ArchiveFormat,
        exclude: &[String],
    ) -> Result<BoxStream<Bytes>> {
        let mut route = format!("/v1/archive?format={}", format.as_str());
        for pattern in exclude {
            route.push_str("&exclude=");
            route.extend(utf8_percent_encode(pattern, NON_ALPHANUMERIC));
        }
        let sending = self.send(authorized(Method::GET, &route, tokens), Bytes::new(), Repeat::Safe);
        let response = self.while_alive(sending).await.map_err(too_old)?;
        Ok(self.bytes_of(response.into_body()))
    }

    /// Extracts an archive into the workspace's root, if its bytes have this BLAKE3 hash; else nothing is changed.
    pub(crate) async fn upload_archive(
        &self,
        tokens: &TokenSource,
        hash: &str,
        size: u64,
        into: ArchiveInto,
        archive: BoxStream<Bytes>,
    ) -> Result<ExtractResponse> {
        let body = StreamBody::new(archive.map_ok(Frame::data).map_err(Into::into)).boxed_unsync();
        let replace = if into == ArchiveInto::Replaced { "&replace=true" } else { "" };
        let request = authorized(Method::PUT, &format!("/v1/archive?hash={hash}{replace}"), tokens)
            .header(header::CONTENT_LENGTH, size);
        self.while_alive(async {
            let response = self.send_stream(request, body).await.map_err(too_old)?;
            let answer = collect(response.into_body(), ANSWER_BYTES).await?;
            serde_json::from_slice(&answer).map_err(|error| misunderstood("that it extracted an archive", &error))
        })
        .await
    }
}

/// An agent that doesn't know a parameter of the query refuses it.
fn too_old(error: Error) -> Error {
    if error.problem().is_some_and(|problem| problem.code == Code::InvalidRequest) {
        return error.also_hint("an agent of an earlier version doesn't know this: build the image anew");
    }
    error
}
