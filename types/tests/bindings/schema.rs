//! `types/schema`: the JSON Schemas of every tool and of the other bodies, the protocol's snapshot.
//!
//! What is here is append-only within a protocol version: a review refuses a diff that takes away or narrows.

use std::{any::TypeId, collections::BTreeMap};

use corehold_types::{NoEvent, PROTOCOL, Problem, Tool, for_each_tool, policy::CommandPolicy, rpc, tools, wire};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::committed;

/// What a client may send.
pub(crate) fn accepted<T: JsonSchema>() -> Value {
    schema::<T>(SchemaSettings::draft2020_12().for_deserialize())
}

/// What a client gets.
pub(crate) fn sent<T: JsonSchema>() -> Value {
    schema::<T>(SchemaSettings::draft2020_12().for_serialize())
}

fn schema<T: JsonSchema>(settings: SchemaSettings) -> Value {
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.remove("$schema");
    with_ranges(&schema.to_value())
}

/// With the largest and smallest number that each integer's type holds, where the type's own bounds don't say less: schemars
/// says that only in `format`, which validators don't look at.
pub(crate) fn with_ranges(schema: &Value) -> Value {
    let Value::Object(fields) = schema else {
        return match schema {
            Value::Array(items) => items.iter().map(with_ranges).collect(),
            other => other.clone(),
        };
    };
    let mut fields: serde_json::Map<_, _> =
        fields.iter().map(|(key, value)| (key.clone(), with_ranges(value))).collect();
    let range = match fields.get("format").and_then(Value::as_str) {
        Some("uint32") => Some((json!(0), json!(u32::MAX))),
        Some("uint64") => Some((json!(0), json!(u64::MAX))),
        Some("int32") => Some((json!(i32::MIN), json!(i32::MAX))),
        Some("int64") => Some((json!(i64::MIN), json!(i64::MAX))),
        _ => None,
    };
    if let Some((least, most)) = range {
        fields.entry("minimum").or_insert(least);
        fields.entry("maximum").or_insert(most);
    }
    Value::Object(fields)
}

fn tool_schema<T: Tool>() -> (String, Value) {
    let mut schema = json!({
        "tool": { "name": T::NAME, "since": T::SINCE, "scope": T::SCOPE },
        "request": accepted::<T::Request>(),
        "response": sent::<T::Response>(),
    });
    if has_events::<T>() {
        schema["event"] = sent::<T::Event>();
    }
    (format!("{}.json", T::NAME), schema)
}

/// Whether the tool has events at all.
pub(crate) fn has_events<T: Tool>() -> bool {
    TypeId::of::<T::Event>() != TypeId::of::<NoEvent>()
}

macro_rules! tool_schemas {
    ($($tool:ident),*) => { [$(tool_schema::<tools::$tool>()),*] };
}

/// Text with sorted keys (whatever features of serde_json another crate of the build has turned on), and without
/// descriptions: another wording is no other wire.
fn text(value: &Value) -> String {
    fn plain(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let is_description = |key: &str, value: &Value| key == "description" && value.is_string();
                let fields: BTreeMap<_, _> = fields
                    .iter()
                    .filter(|(key, value)| !is_description(key, value))
                    .map(|(key, value)| (key.clone(), plain(value)))
                    .collect();
                Value::Object(fields.into_iter().collect())
            }
            Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
            other => other.clone(),
        }
    }
    let mut text = serde_json::to_string_pretty(&plain(value)).unwrap();
    text.push('\n');
    text
}

/// A tool as `tools/list` of the Model Context Protocol describes it.
fn mcp_tool<T: Tool>() -> Value {
    let mut settings = SchemaSettings::draft2020_12().for_deserialize();
    // Each stands alone, and models do worse with references.
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<T::Request>();
    for superfluous in ["$schema", "title", "description", "oneOf"] {
        schema.remove(superfluous);
    }
    json!({
        "name": T::NAME,
        "description": T::SUMMARY,
        "inputSchema": for_models(&schema.to_value()),
        "title": title(T::NAME),
        "annotations": annotations::<T>(),
    })
}

/// Tools that destroy nothing that was there: they add, or set what can be set back.
const ADDING: &[&str] = &["mkdir", "commandResize", "claim"];
/// Tools of which a second call with the same request changes nothing more.
const IDEMPOTENT: &[&str] = &["claim", "mkdir", "write", "remove", "copy", "extract", "commandResize"];
/// Tools that may reach beyond the workspace: what a command does is anybody's guess.
const REACHING: &[&str] = &["command", "commandInput"];

/// What a tool may do, for clients that ask their user first. What is so by default is said too: not every client knows
/// the defaults. Two hints mean nothing for a tool that only reads.
fn annotations<T: Tool>() -> Value {
    let mut annotations = json!({ "readOnlyHint": !T::CHANGES, "openWorldHint": REACHING.contains(&T::NAME) });
    if T::CHANGES {
        annotations["destructiveHint"] = json!(!ADDING.contains(&T::NAME));
        annotations["idempotentHint"] = json!(IDEMPOTENT.contains(&T::NAME));
    }
    annotations
}

/// A tool's name for people: `commandOutput` is "Command output".
fn title(name: &str) -> String {
    let mut title = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() {
            title.push(' ');
            title.extend(letter.to_lowercase());
        } else if title.is_empty() {
            title.extend(letter.to_uppercase());
        } else {
            title.push(letter);
        }
    }
    title
}

/// Without what costs a model's context and tells it nothing: `null` for what may be left out anyway, the form of paths
/// that aren't UTF-8 (taken all the same), formats of numbers, names of limits, patterns that nobody breaks by mistake.
/// Without a choice at the top too, which APIs of models refuse.
fn for_models(schema: &Value) -> Value {
    let Value::Object(fields) = schema else {
        return match schema {
            Value::Array(items) => items.iter().map(for_models).collect(),
            other => other.clone(),
        };
    };
    let mut fields = fields.clone();
    if let Some(Value::Array(choices)) = fields.get("anyOf") {
        let choices: Vec<Value> = choices.iter().filter(|choice| choice["type"] != "null").cloned().collect();
        let is_path = choices.len() == 2 && choices[0]["description"] == "The path as text.";
        if is_path || choices.len() == 1 {
            let Value::Object(only) = choices[0].clone() else { panic!("{schema}") };
            let description = fields.remove("description");
            fields.remove("anyOf");
            fields.extend(only);
            fields.extend(description.map(|description| ("description".to_owned(), description)));
            // A choice may be one of choices itself.
            return for_models(&Value::Object(fields));
        }
    }
    if let Some(Value::Array(types)) = fields.get("type") {
        let types: Vec<&Value> = types.iter().filter(|name| **name != "null").collect();
        if let [only] = types.as_slice() {
            let only = (*only).clone();
            fields.insert("type".to_owned(), only);
        }
    }
    for superfluous in ["x-limit", "propertyNames"] {
        fields.remove(superfluous);
    }
    let pattern = fields.get("pattern").and_then(Value::as_str).unwrap_or_default();
    if pattern.contains(r"\x00") || pattern.contains("A-Za-z0-9+/") {
        fields.remove("pattern");
    }
    if fields.get("format").is_some_and(|format| format.as_str().is_some_and(|format| format.starts_with(['u', 'i']))) {
        fields.remove("format");
    }
    Value::Object(fields.into_iter().map(|(key, value)| (key, for_models(&value))).collect())
}

macro_rules! mcp_tools {
    ($($tool:ident),*) => { vec![$(mcp_tool::<tools::$tool>()),*] };
}

#[test]
fn models_are_told_what_the_types_say() {
    let tools: Vec<Value> = for_each_tool!(mcp_tools);
    for tool in &tools {
        assert!(tool["inputSchema"]["type"] == "object", "{tool}");
        assert!(!tool.to_string().contains("$ref"), "{tool}");
        for choice in ["oneOf", "anyOf", "allOf"] {
            assert!(tool["inputSchema"].get(choice).is_none(), "{choice} at the top of {}", tool["name"]);
        }
    }
    let names: Vec<&str> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    for name in [ADDING, IDEMPOTENT, REACHING].concat() {
        assert!(names.contains(&name), "there is no tool {name} to say something of");
    }
    // A line each: a review sees which one changed.
    let lines: Vec<String> = tools.iter().map(|tool| sorted(tool).to_string()).collect();
    let file = format!("[\n{}\n]\n", lines.join(",\n"));
    committed::verify("mcp", ".json", &BTreeMap::from([("tools.json".to_owned(), file)]));
}

/// With sorted keys, whatever features of serde_json another crate of the build has turned on.
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<_, _> = fields.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[test]
fn schemas_are_what_the_types_say() {
    let mut files: BTreeMap<_, _> =
        for_each_tool!(tool_schemas).into_iter().map(|(name, schema)| (name, text(&schema))).collect();
    let others = json!({
        "protocol": PROTOCOL,
        "health": sent::<wire::Health>(),
        "fileWritten": sent::<wire::FileWritten>(),
        "commandPolicy": accepted::<CommandPolicy>(),
        "problem": sent::<Problem>(),
        "rpcError": sent::<rpc::RpcError>(),
        "streamOpened": sent::<rpc::StreamOpened>(),
        "streamEvent": sent::<rpc::StreamEvent<Value>>(),
        "credit": accepted::<rpc::Credit>(),
        "cancel": accepted::<rpc::Cancel>(),
        "refresh": accepted::<rpc::Refresh>(),
        "streamEnd": sent::<wire::StreamEnd<Value>>(),
    });
    assert!(files.insert("_wire.json".to_owned(), text(&others)).is_none());
    committed::verify("schema", ".json", &files);
}
