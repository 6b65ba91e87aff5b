//! The committed schemas of the tools, and requests made from them: so that a tool that is added is asked too.

use std::path::Path;

use serde_json::{Map, Value, json};

/// A tool's name, and the schema of its request.
pub(crate) fn tools() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../types/schema");
    let mut tools: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('_'))
        .map(|path| {
            let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            (schema["tool"]["name"].as_str().unwrap().to_owned(), schema["request"].clone())
        })
        .collect();
    tools.sort_by(|left, right| left.0.cmp(&right.0));
    assert!(tools.len() > 15, "only {} tools have schemas", tools.len());
    tools
}

/// The schema with what its reference leads to. What stands beside the reference counts too.
pub(crate) fn resolved(schema: &Value, request: &Value) -> Value {
    let Some(name) = schema["$ref"].as_str() else { return schema.clone() };
    let mut whole = request["$defs"][name.rsplit('/').next().unwrap()].clone();
    for (key, value) in schema.as_object().unwrap().iter().filter(|(key, _)| *key != "$ref") {
        whole[key] = value.clone();
    }
    whole
}

/// The choices that a schema gives, without `null`.
pub(crate) fn choices(schema: &Value) -> Vec<Value> {
    let lists = ["oneOf", "anyOf"].map(|name| schema[name].as_array().into_iter().flatten());
    lists.into_iter().flatten().filter(|choice| choice["type"] != "null").cloned().collect()
}

/// Text that fits the pattern, and text that doesn't.
pub(crate) fn texts(pattern: &str) -> (&'static [&'static str], &'static [&'static str]) {
    const NAME: &[&str] = &["0", "a-1", "z0123456789012345678901234567890"];
    match pattern {
        r"^[^\x00]*$" => (&["x", "a\nb"], &["\0", "a\0b"]),
        r"^[^/\x00]+$" => (&["x", "..."], &["", "a/b", "\0"]),
        "^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$" => {
            (NAME, &["", "-a", "a-", "A", "a_b", "012345678901234567890123456789012"])
        }
        "^[A-Za-z0-9._-]{8,64}$" => (&["12345678", "A._-b0x1"], &["", "1234567", "1234567/", "12345678 "]),
        "^[0-9A-Fa-f]{64}$" => (
            &["af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"],
            &["", "af1349b9", "gf1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"],
        ),
        pattern if pattern.starts_with("^([A-Za-z0-9+/]{4})*") => {
            (&["eA==", "eHg=", "eHh4"], &["*", "eA", "eA=", "eB==", "eHh=", "eHh4=", "e Hh", "eHh-"])
        }
        other => panic!("{other}: say what fits it and what doesn't"),
    }
}

/// The smallest value that the schema allows. `id` is a command's.
pub(crate) fn smallest(schema: &Value, request: &Value, id: &str) -> Value {
    let schema = &resolved(schema, request);
    if let Some(value) = schema.get("const").or_else(|| schema["enum"].get(0)) {
        return value.clone();
    }
    if kind(schema) == "object" {
        return Value::Object(object(schema, request, id, None));
    }
    if let Some(first) = choices(schema).first() {
        return smallest(first, request, id);
    }
    match kind(schema) {
        "array" => match schema["minItems"].as_u64() {
            Some(count) => (0..count).map(|_| smallest(&schema["items"], request, id)).collect(),
            None => json!([]),
        },
        "integer" | "number" => schema["minimum"].as_i64().map_or(json!(1), |least| json!(least.max(1))),
        "boolean" => json!(false),
        _ => match schema["pattern"].as_str().map(texts) {
            Some((fits, _)) if !fits.contains(&"x") => json!(fits[0]),
            _ => json!("x"),
        },
    }
}

/// The smallest object in which this field may stand.
pub(crate) fn object(schema: &Value, request: &Value, id: &str, field: Option<&str>) -> Map<String, Value> {
    let needs = |schema: &Value| -> Vec<String> {
        schema["required"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let ways: Vec<Vec<String>> = choices(schema).iter().map(needs).collect();
    let way = ways.iter().find(|way| way.iter().any(|name| Some(name.as_str()) == field)).or(ways.first());
    let names = needs(schema).into_iter().chain(way.cloned().unwrap_or_default());
    let fields = names.map(|name| {
        let value = match name.as_str() {
            "id" => json!(id),
            // What runs and ends.
            "argv" => json!(["true"]),
            // Any other text is no diff.
            "diff" => json!("@@ -1 +1 @@\n-x\n+y\n"),
            _ => smallest(&schema["properties"][&name], request, id),
        };
        (name, value)
    });
    fields.collect()
}

/// Stands for what is put in its place as it is, which no [`Value`] can hold.
pub(crate) const HERE: &str = "HERE";

/// The request's fields at any depth: each in the smallest request in which it may stand.
pub(crate) fn places(schema: &Value, request: &Value, found: &mut Vec<(Value, Value)>, wrap: &dyn Fn(Value) -> Value) {
    let schema = resolved(schema, request);
    match kind(&schema) {
        "object" => {
            let none = Map::new();
            for (name, field) in schema["properties"].as_object().unwrap_or(&none) {
                let wrap = |value: Value| {
                    let mut whole = object(&schema, request, "x", Some(name));
                    whole.insert(name.clone(), value);
                    wrap(Value::Object(whole))
                };
                found.push((wrap(json!(HERE)), resolved(field, request)));
                places(field, request, found, &wrap);
            }
        }
        "array" => {
            let wrap = |value: Value| wrap(json!([value]));
            found.push((wrap(json!(HERE)), resolved(&schema["items"], request)));
            places(&schema["items"], request, found, &wrap);
        }
        _ => choices(&schema).iter().for_each(|choice| places(choice, request, found, wrap)),
    }
}

/// Whether a place of this schema is a path in the workspace.
pub(crate) fn is_path(schema: &Value, request: &Value) -> bool {
    let path = &request["$defs"]["WorkspacePath"]["anyOf"];
    let is = |schema: &Value| path.is_array() && resolved(schema, request)["anyOf"] == *path;
    is(schema) || choices(schema).iter().any(is)
}

/// The JSON type that a schema asks for, besides `null`; empty where it says it in another way.
pub(crate) fn kind(schema: &Value) -> &str {
    types(schema).into_iter().find(|name| *name != "null").unwrap_or_default()
}

/// The JSON types that a field takes; none where the schema says it in another way.
pub(crate) fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}
