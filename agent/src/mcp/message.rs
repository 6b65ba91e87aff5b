//! Messages of the Model Context Protocol: JSON-RPC 2.0, as far as a server of tools needs it.

use corehold_types::rpc::{RpcId, codes};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json, value::RawValue};

use super::era::{self, HANDSHAKES};

const NAME: &str = "corehold-agent";

/// Milliseconds for which a client may keep what it was told of tools and versions: they are the agent's for all its life,
/// and its token's.
pub(super) const TTL_MS: u64 = 3_600_000;

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
    // Who asks for another one gets the newest that begins like this.
    let version = wanted.and_then(|wanted| HANDSHAKES.iter().find(|version| **version == wanted));
    let info = json!({ "name": NAME, "title": "Corehold workspace", "version": env!("CARGO_PKG_VERSION") });
    json!({
        "protocolVersion": version.unwrap_or(&HANDSHAKES[0]),
        "capabilities": { "tools": {} },
        "serverInfo": info,
        "instructions": INSTRUCTIONS,
    })
    .to_string()
}

/// The result of `server/discover`.
pub(super) fn discovered() -> String {
    let versions = era::supported();
    json!({
        "supportedVersions": versions,
        "capabilities": { "tools": {} },
        "instructions": INSTRUCTIONS,
        "ttlMs": TTL_MS,
        "cacheScope": "private",
    })
    .to_string()
}

/// A word of progress. The number only says that there is progress: it grows with each.
pub(super) fn progress(token: &RpcId, seconds: f64, word: &str) -> String {
    let params = json!({ "progressToken": token, "progress": seconds, "message": word });
    json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params }).to_string()
}

/// The first word of a stream of changes: which kinds of them it will tell, of those that were asked for. None.
pub(super) fn acknowledged(id: &RpcId) -> String {
    let meta = json!({ "io.modelcontextprotocol/subscriptionId": id });
    let params = json!({ "_meta": meta, "notifications": {} });
    json!({ "jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params }).to_string()
}

/// What a client gets for a request.
#[derive(Debug)]
pub(super) struct Answer {
    id: Option<RpcId>,
    body: Result<String, Refusal>,
    /// What stands beside the result, as `_meta`.
    beside: Map<String, Value>,
    /// Whether the result says that it is all there is.
    complete: bool,
}

/// An error of the protocol.
#[derive(Debug)]
struct Refusal {
    code: i32,
    message: String,
    data: Option<Value>,
}

impl Answer {
    /// A result that is a JSON object already.
    pub(super) fn result(id: RpcId, json: String) -> Self {
        Self { id: Some(id), body: Ok(json), beside: Map::new(), complete: false }
    }

    pub(super) fn error(id: Option<RpcId>, code: i32, message: String) -> Self {
        let body = Err(Refusal { code, message, data: None });
        Self { id, body, beside: Map::new(), complete: false }
    }

    /// An error with what programs may want to know.
    pub(super) fn with(mut self, data: Value) -> Self {
        if let Err(refusal) = &mut self.body {
            refusal.data = Some(data);
        }
        self
    }

    pub(super) fn invalid_request(id: Option<RpcId>, detail: &str) -> Self {
        Self::error(id, codes::INVALID_REQUEST, detail.to_owned())
    }

    pub(super) fn invalid_params(id: RpcId, detail: String) -> Self {
        Self::error(Some(id), codes::INVALID_PARAMS, detail)
    }

    pub(super) fn method_not_found(id: RpcId, method: &str) -> Self {
        let method: String = method.chars().take(64).collect();
        Self::error(Some(id), codes::METHOD_NOT_FOUND, format!("there is no method {method:?}"))
    }

    /// For who cancelled the call, where something must be answered: the specification wants it to be overheard.
    pub(super) fn cancelled(id: RpcId) -> Self {
        Self::error(Some(id), codes::CANCELLED, "the call was cancelled".to_owned())
    }

    fn parse_error(detail: &str) -> Self {
        Self::error(None, codes::PARSE_ERROR, detail.to_owned())
    }

    fn unreadable(error: &serde_json::Error) -> Self {
        let detail: String = error.to_string().chars().take(400).collect();
        if error.is_data() { Self::invalid_request(None, &detail) } else { Self::parse_error(&detail) }
    }

    /// Whether there is no such method.
    pub(super) fn is_unknown_method(&self) -> bool {
        matches!(&self.body, Err(refusal) if refusal.code == codes::METHOD_NOT_FOUND)
    }

    /// Whether it is for who doesn't want it any more.
    pub(super) fn is_cancelled(&self) -> bool {
        matches!(&self.body, Err(refusal) if refusal.code == codes::CANCELLED)
    }

    /// With something beside the result.
    pub(super) fn beside(mut self, name: &str, value: Value) -> Self {
        self.beside.insert(name.to_owned(), value);
        self
    }

    /// A result as one that stands alone has it: it says that it is complete, and whose it is.
    pub(super) fn alone(mut self) -> Self {
        self.complete = true;
        let info = json!({ "name": NAME, "version": env!("CARGO_PKG_VERSION") });
        self.beside("io.modelcontextprotocol/serverInfo", info)
    }

    pub(super) fn to_json(&self) -> String {
        let id = serde_json::to_string(&self.id).unwrap_or_else(|_| "null".to_owned());
        match &self.body {
            Ok(result) => {
                let mut result = result.clone();
                for (wanted, field) in [
                    (!self.beside.is_empty(), format!(r#""_meta":{}"#, json!(self.beside))),
                    (self.complete, r#""resultType":"complete""#.to_owned()),
                ] {
                    if wanted {
                        let comma = if result.starts_with("{}") { "" } else { "," };
                        result.insert_str(1, &(field + comma));
                    }
                }
                format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
            }
            Err(Refusal { code, message, data }) => {
                let mut error = json!({ "code": code, "message": message });
                if let Some(data) = data {
                    error["data"] = data.clone();
                }
                format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
            }
        }
    }
}
