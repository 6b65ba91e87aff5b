//! Strange text and bodies without end to every tool, made from the committed schemas: a tool that is added is asked too; and
//! what is no request of any tool, which `hostile` sends. What a tool does with input that is right stands with the tool.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use corehold_types::Code;
use futures_util::stream;
use http::Method;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::{
    schemas::{smallest, tools, types},
    support::TestAgent,
};

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Bodies that are no request of any tool.
pub(crate) fn no_requests() -> Vec<Vec<u8>> {
    let deep = 100_000;
    vec![
        b"null".into(),
        b"1".into(),
        b"true".into(),
        b"\"x\"".into(),
        b"{".into(),
        b"{}{}".into(),
        b"{} x".into(),
        b"[{}]".into(),
        b"[1,2]".into(),
        b"{\"x\":NaN}".into(),
        b"{\"x\":Infinity}".into(),
        b"{'x':1}".into(),
        b"{\"x\":1,}".into(),
        b"{\"unknown\":1}".into(),
        b"{\"__proto__\":{}}".into(),
        b"{\"\":1}".into(),
        b"{\"\\u0000\":1}".into(),
        b"{\"\\ud800\":1}".into(),
        b"{\"x\":\"\\ud800\"}".into(),
        b"{\"\xff\":1}".into(),
        b"{\"x\":\"\xc3\x28\"}".into(),
        b"\xff\xfe{\0}\0".into(),
        b"\0".into(),
        b"\xef\xbb\xbf{}".into(),
        "[".repeat(deep).into(),
        "{\"x\":".repeat(deep).into(),
        format!("{{\"x\":{}{}}}", "[".repeat(deep), "]".repeat(deep)).into(),
        format!("{{\"{}\":1}}", "x".repeat(1 << 20)).into(),
        format!("{{\"x\":{}}}", "9".repeat(100_000)).into(),
    ]
}

/// Requests with a field that lacks, or has another type than the schema says.
pub(crate) fn malformed(schema: &Value) -> Vec<String> {
    let Value::Object(whole) = smallest(schema, schema, "x") else { panic!("no object: {schema}") };
    let mut requests = Vec::new();
    for needed in schema["required"].as_array().into_iter().flatten() {
        let mut request = whole.clone();
        request.remove(needed.as_str().unwrap());
        requests.push(Value::Object(request).to_string());
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let wanted = types(property);
        if wanted.is_empty() {
            continue;
        }
        for value in [json!(null), json!(true), json!("x"), json!(["x"]), json!({"x": 1})] {
            if !wanted.contains(&type_of(&value)) {
                requests.push(with(&whole, name, &value));
            }
        }
        if wanted.contains(&"integer") {
            for number in ["-1", "1.5", "1e400", "-0.0", "18446744073709551616", "1e30"] {
                // A signed field takes -1.
                if number != "-1" || property.get("minimum").is_some() {
                    // As text, since a `Value` can't hold some of them.
                    requests.push(with(&whole, name, &json!("NUMBER")).replace("\"NUMBER\"", number));
                }
            }
        }
    }
    requests
}

fn with(request: &Map<String, Value>, name: &str, value: &Value) -> String {
    let mut request = request.clone();
    request.insert(name.to_owned(), value.clone());
    Value::Object(request).to_string()
}

/// Text that is valid JSON and no path, pattern, id or content that anybody means: any answer but a mistake of the agent's own.
#[tokio::test]
async fn strange_text_in_any_field_is_no_mistake_of_the_agents() {
    let agent = TestAgent::new();
    let texts = ["", "\0", "a\0b", "..", "/", "../../etc/passwd", "\u{202e}\u{feff}", "%00", "[", "(((((", "\\", "*{a"];
    let long = "x".repeat(1 << 20);
    for (tool, schema) in tools() {
        let whole = strange(&smallest(&schema, &schema, "x"), "x");
        assert!(whole.is_object(), "{tool}");
        for text in texts.into_iter().chain([long.as_str(), "\u{1f600}"]) {
            let body = strange(&whole, text).to_string();
            // What is started or watched because the text happens to mean something may go on; it is let go here.
            if let Ok(answer) = timeout(Duration::from_millis(250), agent.tool(&tool, body)).await {
                assert!(answer.status.as_u16() < 500, "{tool} {text:.20}: {}", answer.text());
            }
        }
    }
    agent.tool("info", "{}").await.assert_ok();
}

/// The value with this text wherever it has text.
fn strange(value: &Value, text: &str) -> Value {
    match value {
        Value::String(_) => json!(text),
        Value::Array(items) if items.is_empty() => json!([text]),
        Value::Array(items) => items.iter().map(|item| strange(item, text)).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), strange(value, text))).collect(),
        other => other.clone(),
    }
}

#[tokio::test]
async fn a_body_of_a_gigabyte_is_refused_before_it_has_come() {
    const PIECE: usize = 64 << 10;
    let agent = TestAgent::with(&[("COREHOLD_LIMIT_BODY_BYTES", "1048576")]);
    for (tool, _) in tools() {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let piece = Bytes::from(vec![b' '; PIECE]);
        let pieces = (0..(1 << 30) / PIECE).map(move |_| {
            count.fetch_add(PIECE, Ordering::Relaxed);
            Ok::<_, Infallible>(piece.clone())
        });
        let body = Body::from_stream(stream::iter(pieces));
        let headers = [("content-type", "application/json")];
        let answer = agent.call(Method::POST, &format!("/v1/tools/{tool}"), &headers, body).await;
        answer.assert_problem(413, Code::LimitExceeded);
        let taken = taken.load(Ordering::Relaxed);
        assert!(taken <= (1 << 20) + 2 * PIECE, "{tool} took {taken} bytes");
    }
    agent.tool("info", "{}").await.assert_ok();
}
