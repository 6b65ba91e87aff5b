//! Messages of the Model Context Protocol: JSON-RPC 2.0, as far as a server of tools needs it.

use corehold_types::rpc::{RpcId, codes};
use serde::{Deserialize, Deserializer};
use serde_json::{json, value::RawValue};

/// The version that we answer who asks for one that we don't speak.
pub(super) const NEWEST: &str = SUPPORTED[0];

/// Versions of the protocol, newest first. What differs between them is none of a tool server's business, but for batches.
pub(super) const SUPPORTED: &[&str] = &["2025-11-25", "2025-06-18", "2025-03-26"];

/// The one version that has batches. Who names no version may send them too: that one didn't name it.
pub(super) const WITH_BATCHES: &str = "2025-03-26";

/// What a model is told about the agent as a whole.
const INSTRUCTIONS: &str = "\
Tools of one isolated workspace. Paths are relative to its root. Look before you change: `find` and `search` are fast and \
follow ignore files, `read` takes many files and line ranges in one call. `edit` changes several files as one transaction: all \
of them or none. `command` runs anything; for servers and long work use `detach: true`, then `commandOutput`. Long answers are \
cut in the middle and say how to get the rest.";

/// What came in one request.
#[derive(Debug)]
pub(super) enum Messages {
    One(Incoming),
    Batch(Vec<Incoming>),
}

/// A request, a notification (no id), or a client's answer to something we never ask (no method).
#[derive(Debug, Deserialize)]
pub(super) struct Incoming {
    jsonrpc: String,
    #[serde(default, deserialize_with = "not_null")]
    pub(super) id: Option<RpcId>,
    #[serde(default)]
    pub(super) method: Option<String>,
    #[serde(default)]
    pub(super) params: Option<Box<RawValue>>,
}

/// An id of `null` would make a request look like a notification, and its caller wait for ever.
fn not_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RpcId>, D::Error> {
    RpcId::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WithVersion {
    protocol_version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WithRequest {
    request_id: RpcId,
}

#[derive(Deserialize)]
struct WithMeta {
    #[serde(rename = "_meta")]
    meta: Meta,
}

/// What stands beside the arguments of a request.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Meta {
    #[serde(default, rename = "progressToken")]
    progress_token: Option<RpcId>,
    #[serde(default, rename = "corehold/idempotencyKey")]
    pub(super) idempotency_key: Option<String>,
}

impl Incoming {
    fn params<'a, T: Deserialize<'a>>(&'a self) -> Option<T> {
        serde_json::from_str(self.params.as_ref()?.get()).ok()
    }

    /// The version that the client would like.
    pub(super) fn protocol_version(&self) -> Option<String> {
        self.params::<WithVersion>().map(|params| params.protocol_version)
    }

    /// The request that a notification cancels.
    pub(super) fn cancelled(&self) -> Option<RpcId> {
        self.params::<WithRequest>().map(|params| params.request_id)
    }

    /// Names the request in words of progress, if the client wants them.
    pub(super) fn progress_token(&self) -> Option<RpcId> {
        self.params::<WithMeta>().and_then(|params| params.meta.progress_token)
    }
}

/// Reads what came.
///
/// # Errors
/// The answer that says what is wrong with it.
pub(super) fn parse(body: &[u8]) -> Result<Messages, Answer> {
    let text = std::str::from_utf8(body).map_err(|error| Answer::parse_error(&error.to_string()))?;
    let messages = if text.trim_start().starts_with('[') {
        let batch: Vec<Incoming> = serde_json::from_str(text).map_err(|error| Answer::unreadable(&error))?;
        if batch.is_empty() {
            return Err(Answer::invalid_request(None, "the batch is empty"));
        }
        Messages::Batch(batch)
    } else {
        Messages::One(serde_json::from_str(text).map_err(|error| Answer::unreadable(&error))?)
    };
    let all = match &messages {
        Messages::One(one) => std::slice::from_ref(one),
        Messages::Batch(batch) => batch,
    };
    match all.iter().find(|incoming| incoming.jsonrpc != "2.0") {
        Some(other) => Err(Answer::invalid_request(other.id.clone(), "jsonrpc: \"2.0\" was expected")),
        None => Ok(messages),
    }
}

/// The result of `initialize`.
pub(super) fn initialized(wanted: Option<&str>) -> String {
    let version = wanted.and_then(|wanted| SUPPORTED.iter().find(|version| **version == wanted)).unwrap_or(&NEWEST);
    json!({
        "protocolVersion": version,
        "capabilities": { "tools": {} },
        "serverInfo": { "name": "corehold-agent", "title": "Corehold workspace", "version": env!("CARGO_PKG_VERSION") },
        "instructions": INSTRUCTIONS,
    })
    .to_string()
}

/// A word of progress.
pub(super) fn progress(token: &RpcId, seconds: u64) -> String {
    let params = json!({ "progressToken": token, "progress": seconds, "message": format!("running for {seconds} s") });
    json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params }).to_string()
}

/// What a client gets for a request.
#[derive(Debug)]
pub(super) struct Answer {
    id: Option<RpcId>,
    body: Result<String, (i32, String)>,
}

impl Answer {
    /// A result that is JSON already.
    pub(super) fn result(id: RpcId, json: String) -> Self {
        Self { id: Some(id), body: Ok(json) }
    }

    pub(super) fn invalid_request(id: Option<RpcId>, detail: &str) -> Self {
        Self { id, body: Err((codes::INVALID_REQUEST, detail.to_owned())) }
    }

    pub(super) fn invalid_params(id: RpcId, detail: String) -> Self {
        Self { id: Some(id), body: Err((codes::INVALID_PARAMS, detail)) }
    }

    pub(super) fn method_not_found(id: RpcId, method: &str) -> Self {
        let method: String = method.chars().take(64).collect();
        Self { id: Some(id), body: Err((codes::METHOD_NOT_FOUND, format!("there is no method {method:?}"))) }
    }

    fn parse_error(detail: &str) -> Self {
        Self { id: None, body: Err((codes::PARSE_ERROR, detail.to_owned())) }
    }

    fn unreadable(error: &serde_json::Error) -> Self {
        let detail: String = error.to_string().chars().take(400).collect();
        if error.is_data() { Self::invalid_request(None, &detail) } else { Self::parse_error(&detail) }
    }

    pub(super) fn to_json(&self) -> String {
        let id = serde_json::to_string(&self.id).unwrap_or_else(|_| "null".to_owned());
        match &self.body {
            Ok(result) => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#),
            Err((code, message)) => {
                let error = json!({ "code": code, "message": message });
                format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
            }
        }
    }
}
