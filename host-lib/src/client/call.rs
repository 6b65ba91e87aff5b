//! One request, one answer.

use bytes::Bytes;
use corehold_types::{Scope, Tool};
use http::{HeaderValue, Method, header};

use super::{ANSWER_BYTES, AgentClient, Repeat, TokenSource, authorized, collect, misunderstood};
use crate::error::{Error, ErrorKind, Result};

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl AgentClient {
    /// Calls a tool and waits for its whole answer.
    pub(crate) async fn call<T: Tool>(&self, tokens: &TokenSource, request: &T::Request) -> Result<T::Response> {
        let (path, body) = prepare::<T>(request)?;
        self.while_alive(async {
            let request =
                authorized(Method::POST, &path, tokens).header(header::CONTENT_TYPE, JSON).header(header::ACCEPT, JSON);
            let response = self.send(request, body.clone(), repeat::<T>()).await?;
            let answer = collect(response.into_body(), ANSWER_BYTES).await?;
            serde_json::from_slice(&answer).map_err(|error| misunderstood(T::NAME, &error))
        })
        .await
    }
}

pub(super) fn prepare<T: Tool>(request: &T::Request) -> Result<(String, Bytes)> {
    let body = serde_json::to_vec(request).map_err(|error| {
        Error::new(ErrorKind::Invalid, format!("the request of {} can't be written: {error}", T::NAME))
    })?;
    Ok((format!("/v1/tools/{}", T::NAME), body.into()))
}

/// A tool that needs no more than the right to read changes nothing.
pub(super) fn repeat<T: Tool>() -> Repeat {
    match T::SCOPE {
        Scope::Read => Repeat::Safe,
        Scope::Write | Scope::Command | Scope::Admin => Repeat::Never,
    }
}
