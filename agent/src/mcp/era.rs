//! Which revision of the protocol a request speaks. Until 2025-11-25 a client opened with `initialize`; since 2026-07-28 each
//! request says all about itself, in `_meta` and once more in headers, for those in between who don't read bodies. Both are
//! served, side by side (`basic/versioning` of the specification calls that a dual-era server).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::message::{Answer, Incoming};

/// Revisions whose clients open with `initialize`, newest first.
pub(super) const HANDSHAKES: &[&str] = &["2025-11-25", "2025-06-18", "2025-03-26"];

/// The revision without a handshake.
pub(super) const STATELESS: &str = "2026-07-28";

/// The one version that has batches. Who names no version may send them too: that one didn't name it.
pub(super) const WITH_BATCHES: &str = "2025-03-26";

const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// Numbers of errors that the specification has reserved.
const HEADER_MISMATCH: i32 = -32_020;
const UNSUPPORTED_VERSION: i32 = -32_022;

/// How a request is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Era {
    /// As part of a session that began with `initialize`.
    Handshake,
    /// By itself.
    Stateless,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(default)]
    name: Option<String>,
    #[serde(default, rename = "_meta", borrow)]
    meta: Option<Meta<'a>>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(default, rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<String>,
    #[serde(default, rename = "io.modelcontextprotocol/clientCapabilities", borrow)]
    capabilities: Option<&'a RawValue>,
}

/// The versions that are spoken here, newest first.
pub(super) fn supported() -> Vec<&'static str> {
    [&[STATELESS], HANDSHAKES].concat()
}

/// The version that the headers name.
pub(super) fn version(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(&VERSION)
}

/// Finds out how to answer.
///
/// # Errors
/// The answer to a version that isn't spoken here, and to headers that say something else than the body.
pub(super) fn of(headers: &HeaderMap, incoming: &Incoming) -> Result<Era, Answer> {
    let id = &incoming.id;
    let named = version(headers).map(|version| version.to_str().unwrap_or_default());
    let params = incoming.params.as_ref().map_or("{}", |params| params.get());
    // Params of another form are the method's to refuse.
    let params = serde_json::from_str::<Params<'_>>(params).unwrap_or(Params { name: None, meta: None });
    let (said, capabilities) = params.meta.map_or((None, None), |meta| (meta.version, meta.capabilities));
    let version = said.as_deref().or(named).unwrap_or(WITH_BATCHES);
    if !supported().contains(&version) {
        let data = json!({ "supported": supported(), "requested": version.chars().take(64).collect::<String>() });
        let message = "this version of the protocol is not spoken here".to_owned();
        return Err(Answer::error(id.clone(), UNSUPPORTED_VERSION, message).with(data));
    }
    // Nothing is said about the headers of notifications.
    let (Some(method), Some(id)) = (&incoming.method, id) else { return Ok(Era::Handshake) };
    if said.is_none() && named != Some(STATELESS) {
        return Ok(Era::Handshake);
    }
    let mismatch = |what: &str| Err(Answer::error(Some(id.clone()), HEADER_MISMATCH, what.to_owned()));
    if named.is_some() && said.is_none() {
        let detail = "_meta: io.modelcontextprotocol/protocolVersion is missing".to_owned();
        return Err(Answer::invalid_params(id.clone(), detail));
    }
    if named != said.as_deref() {
        return mismatch("the header MCP-Protocol-Version is missing, or isn't the version in _meta");
    }
    if version != STATELESS {
        return Ok(Era::Handshake);
    }
    if capabilities.is_none_or(|capabilities| !capabilities.get().starts_with('{')) {
        let detail = "_meta: io.modelcontextprotocol/clientCapabilities is missing".to_owned();
        return Err(Answer::invalid_params(id.clone(), detail));
    }
    if headers.get(&METHOD).is_none_or(|header| header != method.as_str()) {
        return mismatch("the header Mcp-Method is missing, or isn't the body's method");
    }
    if method == "tools/call" && name(headers) != params.name {
        return mismatch("the header Mcp-Name is missing, or isn't the tool in params");
    }
    Ok(Era::Stateless)
}

/// The name in the headers: as it is, or as `=?base64?…?=` where it isn't fit for a header.
fn name(headers: &HeaderMap) -> Option<String> {
    let name = headers.get(&NAME)?.to_str().ok()?;
    let Some(encoded) = name.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Some(name.to_owned());
    };
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// How a `tools/call` of `list` with these headers and this `_meta` is answered: an error's number if it is refused.
    fn judged(headers: &[(&'static str, &'static str)], meta: &Value) -> Result<Era, i64> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let incoming =
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list", "_meta": meta}});
        let incoming: Incoming = serde_json::from_value(incoming).unwrap();
        of(&headers, &incoming).map_err(|answer| {
            let answer: Value = serde_json::from_str(&answer.to_json()).unwrap();
            assert_eq!(answer["id"], 1);
            answer["error"]["code"].as_i64().unwrap()
        })
    }

    fn meta(version: &str) -> Value {
        json!({"io.modelcontextprotocol/protocolVersion": version, "io.modelcontextprotocol/clientCapabilities": {}})
    }

    #[test]
    fn what_says_nothing_about_itself_belongs_to_a_session() {
        let none = json!({});
        assert_eq!(judged(&[], &none), Ok(Era::Handshake));
        for version in HANDSHAKES {
            assert_eq!(judged(&[("mcp-protocol-version", version)], &none), Ok(Era::Handshake));
            assert_eq!(judged(&[("mcp-protocol-version", version)], &meta(version)), Ok(Era::Handshake));
        }
        assert_eq!(judged(&[("mcp-protocol-version", "2031-01-01")], &none), Err(-32_022));
        assert_eq!(judged(&[], &meta("1900-01-01")), Err(-32_022));
    }

    #[test]
    fn headers_and_body_must_say_the_same() {
        const VERSION: (&str, &str) = ("mcp-protocol-version", STATELESS);
        const METHOD: (&str, &str) = ("mcp-method", "tools/call");
        let now = meta(STATELESS);
        assert_eq!(judged(&[VERSION, METHOD, ("mcp-name", "list")], &now), Ok(Era::Stateless));
        assert_eq!(judged(&[VERSION, METHOD, ("mcp-name", "=?base64?bGlzdA==?=")], &now), Ok(Era::Stateless));
        for headers in [
            &[][..],
            &[VERSION],
            &[VERSION, METHOD],
            &[VERSION, ("mcp-name", "list")],
            &[VERSION, METHOD, ("mcp-name", "edit")],
            &[VERSION, METHOD, ("mcp-name", "=?base64?bGlzdA?=")],
            &[VERSION, ("mcp-method", "tools/list"), ("mcp-name", "list")],
            &[("mcp-protocol-version", "2025-11-25"), METHOD, ("mcp-name", "list")],
        ] {
            assert_eq!(judged(headers, &now), Err(-32_020), "{headers:?}");
        }
        let whole = [VERSION, METHOD, ("mcp-name", "list")];
        assert_eq!(judged(&whole, &json!({})), Err(-32_602));
        let mut without = now.clone();
        without["io.modelcontextprotocol/clientCapabilities"].take();
        assert_eq!(judged(&whole, &without), Err(-32_602));
    }
}
