//! `types/schema`: the JSON Schemas of every tool and of the other bodies, the protocol's snapshot.
//!
//! What is here is append-only within a protocol version: a review refuses a diff that takes away or narrows.

use std::{any::TypeId, collections::BTreeMap};

use corehold_types::{NoEvent, PROTOCOL, Problem, Tool, for_each_tool, policy::CommandPolicy, rpc, tools, wire};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::committed;

/// What a client may send.
fn accepted<T: JsonSchema>() -> Value {
    schema::<T>(SchemaSettings::draft2020_12().for_deserialize())
}

/// What a client gets.
pub(crate) fn sent<T: JsonSchema>() -> Value {
    schema::<T>(SchemaSettings::draft2020_12().for_serialize())
}

fn schema<T: JsonSchema>(settings: SchemaSettings) -> Value {
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.remove("$schema");
    schema.to_value()
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
