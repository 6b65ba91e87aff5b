//! Rules that hold for all of the wire (`DESIGN.md`, "Fixed now"), checked over the schemas and samples of everything.

use std::collections::BTreeSet;

use corehold_types::{Tool, for_each_tool, tools};
use schemars::JsonSchema;
use serde_json::Value;

use crate::{
    samples,
    schema::{has_events, sent},
};

macro_rules! names {
    ($($tool:ident),*) => { [$(<tools::$tool as Tool>::NAME),*] };
}

#[test]
fn tool_names_are_unique_and_camel_case() {
    let names = for_each_tool!(names);
    assert_eq!(BTreeSet::from(names).len(), names.len(), "a name occurs twice in {names:?}");
    for name in names {
        let camel_case = name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.chars().all(|letter| letter.is_ascii_alphanumeric());
        assert!(camel_case, "{name} is not camelCase");
    }
}

/// The words of a tool's events, by its schema.
fn event_words<T: Tool>() -> Vec<(&'static str, String)> {
    if !has_events::<T>() {
        return Vec::new();
    }
    let schema = sent::<T::Event>();
    let Some(variants) = schema["oneOf"].as_array() else {
        panic!("the events of {} are not told apart by one field", T::NAME);
    };
    variants
        .iter()
        .map(|variant| match variant["properties"]["type"]["const"].as_str() {
            Some(word) => (T::NAME, word.to_owned()),
            None => panic!("an event of {} has no `type`: {variant}", T::NAME),
        })
        .collect()
}

macro_rules! all_event_words {
    ($($tool:ident),*) => { [$(event_words::<tools::$tool>()),*].concat() };
}

#[test]
fn no_event_takes_the_words_that_end_a_stream() {
    let words = for_each_tool!(all_event_words);
    assert!(
        words.contains(&("command", "stdout".to_owned())),
        "this test no longer understands the schemas: {words:?}"
    );
    for (tool, word) in words {
        assert!(!["end", "error"].contains(&word.as_str()), "an event of {tool} is called {word}");
    }
}

#[test]
fn every_event_has_a_sample() {
    let sampled: BTreeSet<_> =
        samples::events().iter().map(|sample| sample.json["type"].as_str().unwrap().to_owned()).collect();
    for (tool, word) in for_each_tool!(all_event_words) {
        assert!(sampled.contains(&word), "the event {word} of {tool} has no sample");
    }
}

/// Where a schema of what is sent says that a field is always there and may be null.
fn nulls(schema: &Value, found: &mut Vec<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        let required = schema["required"].as_array().into_iter().flatten();
        for name in required.filter_map(Value::as_str) {
            let property = &properties[name];
            let kinds = property["type"].as_array().into_iter().flatten();
            let choices = property["anyOf"].as_array().into_iter().flatten().map(|choice| &choice["type"]);
            if kinds.chain(choices).any(|kind| kind == "null") {
                found.push(name.to_owned());
            }
        }
    }
    match schema {
        Value::Object(fields) => fields.values().for_each(|value| nulls(value, found)),
        Value::Array(items) => items.iter().for_each(|value| nulls(value, found)),
        _ => {}
    }
}

fn always_null<T: JsonSchema>() -> Vec<String> {
    let mut found = Vec::new();
    nulls(&sent::<T>(), &mut found);
    found
}

macro_rules! all_always_null {
    ($($tool:ident),*) => { [$(
        always_null::<<tools::$tool as Tool>::Request>(),
        always_null::<<tools::$tool as Tool>::Response>(),
        always_null::<<tools::$tool as Tool>::Event>(),
    )*].concat() };
}

#[test]
fn absent_fields_are_left_out_and_never_null() {
    let null = for_each_tool!(all_always_null);
    assert!(null.is_empty(), "these need `skip_serializing_if`: {null:?}");

    #[derive(serde::Serialize, JsonSchema)]
    struct Wrong {
        written_as_null: Option<u32>,
        also: Option<std::collections::BTreeMap<String, Wrong>>,
    }
    assert_eq!(always_null::<Wrong>(), ["written_as_null", "also"], "this test would not see a null");
}

/// Every number in the samples survives JavaScript, whose only number is an IEEE 754 double.
#[test]
fn numbers_survive_javascript() {
    fn check(value: &Value) -> usize {
        match value {
            Value::Number(number) => {
                let exact = number.as_i64().expect("an integer that fits");
                assert!(exact.unsigned_abs() < 1 << 53, "{exact} does not survive JavaScript");
                usize::from(exact == (1 << 53) - 1)
            }
            Value::Array(items) => items.iter().map(check).sum(),
            Value::Object(fields) => fields.values().map(check).sum(),
            Value::Null => panic!("null on the wire"),
            Value::Bool(_) | Value::String(_) => 0,
        }
    }
    let largest: usize = samples::all().iter().map(|sample| check(&sample.json)).sum();
    assert!(largest > 10, "only {largest} samples hold the largest integer");
}
