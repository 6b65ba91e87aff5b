//! `GET, HEAD, PUT, DELETE /v1/files/{path}`: the bytes of one file, streamed both ways.
//!
//! The path is percent-decoded to raw bytes, so a name that isn't UTF-8 can be named. `ETag` is the file's version.

mod conditions;
mod content;
mod read;
mod remove;
mod span;
mod write;

use std::sync::Arc;

use axum::{
    middleware,
    response::Response,
    routing::{MethodRouter, get, put},
};
use corehold_types::{Code, Problem, WorkspacePath};
use http::{HeaderValue, Uri, header};

use super::{query::percent_decode, repeated};
use crate::{agent::Agent, root::Version};

/// The route; HEAD is GET without a body.
pub(crate) fn route(agent: &Arc<Agent>) -> MethodRouter<Arc<Agent>> {
    let once = middleware::from_fn_with_state(Arc::clone(agent), repeated::once);
    get(read::get).merge(put(write::put).delete(remove::delete).route_layer(once))
}

/// The path in a URI of this route.
pub(super) fn path_of(uri: &Uri) -> Result<WorkspacePath, Problem> {
    let encoded = uri.path().strip_prefix("/v1/files").unwrap_or_default();
    let bytes = percent_decode(encoded.strip_prefix('/').unwrap_or(encoded).as_bytes()).ok_or_else(|| {
        Problem::new(Code::InvalidRequest, "the path has a % that isn't followed by two hexadecimal digits")
    })?;
    Ok(WorkspacePath::from_bytes(&bytes))
}

fn set_version(response: &mut Response, version: &Version) {
    // A version is hexadecimal digits and dashes.
    if let Ok(value) = HeaderValue::from_str(&format!("\"{}\"", version.as_str())) {
        response.headers_mut().insert(header::ETAG, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_bytes() {
        let path = |uri: &'static str| path_of(&Uri::from_static(uri)).map(|path| path.to_string());
        assert_eq!(path("/v1/files/a/b%20c").unwrap(), "a/b c");
        assert_eq!(path("/v1/files/caf%E9").unwrap(), "caf\\xe9");
        assert_eq!(path("/v1/files/%2E%2e%2fx").unwrap(), "../x");
        assert_eq!(path("/v1/files//app/x").unwrap(), "/app/x");
        assert_eq!(path("/v1/files/a?b=c").unwrap(), "a");
        for root in ["/v1/files", "/v1/files/"] {
            assert_eq!(path(root).unwrap(), "");
        }
        for broken in ["/v1/files/%", "/v1/files/%4", "/v1/files/%zz", "/v1/files/%+1"] {
            assert_eq!(path(broken).unwrap_err().code, Code::InvalidRequest, "{broken}");
        }
    }
}
