//! `tools/call`: from a model's arguments to a tool and back.

use std::{collections::HashMap, sync::Arc};

use corehold_types::{Problem, rpc::RpcId};
use futures_util::FutureExt as _;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json, value::RawValue};

use super::{
    Client, list,
    message::{Answer, Meta},
    shape,
};
use crate::{
    audit::{self, Notes},
    calls::SMALL,
    handler::{Call, Progress, Surface},
    server::panicked,
};

#[derive(Deserialize)]
struct Params<'a> {
    name: String,
    #[serde(default, borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(default, rename = "_meta")]
    meta: Option<Meta>,
}

/// Calls a tool.
pub(super) async fn call(client: &Client, id: RpcId, given: Option<Box<RawValue>>, progress: Progress) -> Answer {
    let params: Params<'_> = match serde_json::from_str(given.as_ref().map_or("{}", |params| params.get())) {
        Ok(params) => params,
        Err(error) => return Answer::invalid_params(id, error.to_string().chars().take(400).collect()),
    };
    let Some(entry) = list::entry(&params.name) else {
        audit::unknown_tool(&client.agent, &client.caller, Surface::Mcp, &client.request_id, &params.name);
        let name: String = params.name.chars().take(64).collect();
        return Answer::invalid_params(id, format!("there is no tool {name:?}; `tools/list` names those there are"));
    };
    let cap = client.agent.config.limits.mcp_text_bytes.as_usize();
    let arguments = with_defaults(entry.name, params.arguments.map_or("{}", RawValue::get), cap);
    let key = params.meta.and_then(|meta| meta.idempotency_key).map(Arc::from);
    // A large one isn't kept beside the arguments that were made of it.
    drop(given);
    let name = (client.caller.subject.clone(), client.session.clone(), id.clone());
    let under_way = client.agent.mcp.begin(name);
    let call = Call {
        agent: Arc::clone(&client.agent),
        caller: Arc::clone(&client.caller),
        surface: Surface::Mcp,
        idempotency_key: key,
        request_id: client.request_id.to_string(),
        notes: Notes::default(),
        progress,
        share: client.share.clone(),
    };
    let notes = call.notes.clone();
    let work = std::panic::AssertUnwindSafe(entry.call(call, arguments.into(), None)).catch_unwind();
    let result = tokio::select! {
        result = work => result.unwrap_or_else(|_| Err(panicked())),
        () = under_way.cancel.cancelled() => return Answer::cancelled(id),
    };
    drop(under_way);
    let result = match result {
        Ok(response) => {
            // One at a time, where it takes memory besides the answer's own.
            let _turn = if response.length() > SMALL { Some(client.agent.mcp.shaping.lock().await) } else { None };
            shape::answer(entry.name, &response.into_contiguous(), cap)
        }
        Err(problem) => {
            crate::server::log_in_stream(&problem, entry.name);
            failed(&problem, cap)
        }
    };
    let answer = Answer::result(id, result);
    // What the header says over HTTP.
    if notes.is_replayed() { answer.beside("corehold/idempotencyReplayed", json!(true)) } else { answer }
}

/// What a model would hardly think of asking for: answers that fit into its context. What it asks for itself, it gets.
fn with_defaults(tool: &str, arguments: &str, cap: usize) -> Vec<u8> {
    let half = cap / 2;
    let defaults: &[(&str, Value)] = match tool {
        "read" => &[("maxBytes", json!(cap))],
        "search" | "commandSearch" => &[("maxMatches", json!(200)), ("maxLineBytes", json!(300))],
        "find" => &[("limit", json!(200))],
        "list" | "ports" | "commandList" => &[("limit", json!(500))],
        "auditRead" => &[("limit", json!(100))],
        "command" | "commandOutput" => &[("maxOutputBytes", json!(half))],
        _ => &[],
    };
    let fields = serde_json::from_str::<HashMap<String, IgnoredAny>>(arguments);
    let (Ok(fields), Some(rest)) = (fields, arguments.trim_start().strip_prefix('{')) else {
        // The tool says what is wrong with it.
        return arguments.as_bytes().to_vec();
    };
    // Put before what was sent, not made anew from it: a field that stands there twice is the tool's to refuse.
    let missing = defaults.iter().filter(|(name, _)| !fields.contains_key(*name));
    let mut added: Vec<String> = missing.map(|(name, value)| format!("\"{name}\":{value}")).collect();
    if !fields.is_empty() {
        added.push(rest.to_owned());
        return format!("{{{}", added.join(",")).into_bytes();
    }
    format!("{{{}{rest}", added.join(",")).into_bytes()
}

/// A failure that a model reads and may mend, so it is no error of the protocol. It is as short as an answer: what a caller
/// sent may be in it.
fn failed(problem: &Problem, cap: usize) -> String {
    let code = serde_json::to_value(problem.code).unwrap_or_default();
    let mut text = format!("{}: {}", code.as_str().unwrap_or_default(), problem.detail);
    if let Some(suggestion) = &problem.suggestion {
        text += "\nNext: ";
        text += suggestion;
    } else if problem.retryable {
        text += "\nNext: the same call may succeed in a moment";
    }
    let text = shape::cut(text, cap);
    let mut answer = json!({ "content": [{ "type": "text", "text": text }], "isError": true });
    if serde_json::to_vec(problem).is_ok_and(|whole| whole.len() <= cap) {
        answer["structuredContent"] = json!(problem);
    }
    answer.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_stand_behind_what_is_asked_for() {
        let with = |arguments| String::from_utf8(with_defaults("search", arguments, 100)).unwrap();
        let some: Value = serde_json::from_str(&with(r#"{"pattern":"x","maxMatches":9007199254740993}"#)).unwrap();
        assert_eq!(some, json!({"pattern": "x", "maxMatches": 9_007_199_254_740_993_u64, "maxLineBytes": 300}));
        assert_eq!(
            with(r#" {"maxMatches":1,"maxMatches":2}"#),
            r#"{"maxLineBytes":300,"maxMatches":1,"maxMatches":2}"#
        );
        assert_eq!(with("{ }"), r#"{"maxMatches":200,"maxLineBytes":300 }"#);
        assert_eq!(with("[1]"), "[1]");
        assert_eq!(with("null"), "null");
    }

    #[test]
    fn a_failure_is_as_short_as_an_answer() {
        use corehold_types::Code;

        let long = Problem::new(Code::NoMatch, "x".repeat(50_000)).with("nearest", "y".repeat(50_000)).suggest("look");
        let answer: Value = serde_json::from_str(&failed(&long, 1000)).unwrap();
        let text = answer["content"][0]["text"].as_str().unwrap();
        assert!(text.len() < 1100 && text.starts_with("NO_MATCH: ") && text.ends_with("Next: look"), "{text}");
        assert!(answer.get("structuredContent").is_none());
        let short = Problem::new(Code::NotFound, "there is no a");
        let answer: Value = serde_json::from_str(&failed(&short, 1000)).unwrap();
        assert_eq!(answer["structuredContent"]["code"], "NOT_FOUND");
    }
}
