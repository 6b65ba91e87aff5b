//! The archive route: a packed folder goes straight to the agent, which extracts it as it comes.

use bytes::Bytes;
use corehold_types::tools::ExtractResponse;
use futures_util::TryStreamExt as _;
use http::{Method, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;

use super::{ANSWER_BYTES, AgentClient, TokenSource, authorized, collect, misunderstood};
use crate::{error::Result, runtime::BoxStream};

impl AgentClient {
    /// Extracts an archive into the workspace's root, if its bytes have this BLAKE3 hash; else nothing is changed.
    pub(crate) async fn upload_archive(
        &self,
        tokens: &TokenSource,
        hash: &str,
        size: u64,
        archive: BoxStream<Bytes>,
    ) -> Result<ExtractResponse> {
        let body = StreamBody::new(archive.map_ok(Frame::data).map_err(Into::into)).boxed_unsync();
        let request =
            authorized(Method::PUT, &format!("/v1/archive?hash={hash}"), tokens).header(header::CONTENT_LENGTH, size);
        self.while_alive(async {
            let response = self.send_stream(request, body).await?;
            let answer = collect(response.into_body(), ANSWER_BYTES).await?;
            serde_json::from_slice(&answer).map_err(|error| misunderstood("that it extracted an archive", &error))
        })
        .await
    }
}
