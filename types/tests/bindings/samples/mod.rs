//! Real JSON for the TypeScript compiler: values as serde writes them, each declared to be of its generated type.
//!
//! The bindings come from one derive macro and the JSON from another; `tsc` finds where they disagree, since it refuses a
//! literal with a field too many, too few or of another type. Each value is read back too.

mod command;
mod edit;
mod files;
mod search;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Debug, Write as _},
};

use corehold_types::{Event, Tool, for_each_tool, tools};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use ts_rs::TS;

use crate::{
    committed, schema,
    typescript::{NOTE, config},
};

/// The largest integer that the wire carries: JavaScript's `Number.MAX_SAFE_INTEGER`.
const LARGEST: u64 = (1 << 53) - 1;

pub(crate) struct Sample {
    /// The type in TypeScript, with its parameters.
    pub(crate) type_name: String,
    pub(crate) json: Value,
}

/// Writes the value, reads it back and writes it again: nothing may be lost or change its form.
fn sample<T: TS + Serialize + DeserializeOwned + Debug>(value: &T) -> Sample {
    let json = serde_json::to_value(value).unwrap();
    let back: T =
        serde_json::from_value(json.clone()).unwrap_or_else(|error| panic!("{json} is not read back: {error}"));
    assert_eq!(serde_json::to_value(&back).unwrap(), json, "{value:?} changes on its way through JSON");
    Sample { type_name: T::name(&config()), json }
}

fn event<E: Event + Debug>(value: &E) -> Sample {
    let sample = sample(value);
    assert_eq!(sample.json["type"], value.kind(), "`kind` and the JSON's `type` differ in {value:?}");
    sample
}

pub(crate) fn events() -> Vec<Sample> {
    [wire::events(), files::events(), search::events(), command::events()].into_iter().flatten().collect()
}

pub(crate) fn all() -> Vec<Sample> {
    let of_tools = [search::samples(), edit::samples(), command::samples(), command::search_samples()];
    [wire::samples(), files::samples()].into_iter().chain(of_tools).chain([events()]).flatten().collect()
}

fn file(samples: &[Sample]) -> String {
    let imported: BTreeSet<&str> = samples.iter().flat_map(|sample| sample.type_name.split(['<', '>'])).collect();
    let mut file = NOTE.to_owned();
    file.push_str("// JSON as serde writes it, for the compiler to compare with the bindings.\n");
    file.push_str("import type {\n");
    for name in imported.into_iter().filter(|name| !name.is_empty()) {
        writeln!(file, "  {name},").unwrap();
    }
    file.push_str("} from \"../../bindings/index.js\";\n");
    // Numbered within each type, so that a new sample leaves the others' lines alone.
    let mut counts = BTreeMap::new();
    for Sample { type_name, json } in samples {
        let name = type_name.replace('<', "Of").replace('>', "");
        let count = counts.entry(type_name).and_modify(|count| *count += 1).or_insert(1);
        let json = serde_json::to_string_pretty(json).unwrap();
        writeln!(file, "\nexport const some{name}{count}: {type_name} = {json};").unwrap();
    }
    file
}

#[test]
fn samples_are_what_serde_writes() {
    committed::verify("tests/typescript", "samples.ts", &BTreeMap::from([("samples.ts".to_owned(), file(&all()))]));
}

#[test]
fn every_body_of_every_tool_has_a_sample() {
    fn needed<T: Tool>() -> Vec<String> {
        let mut names = vec![T::Request::name(&config()), T::Response::name(&config())];
        if schema::has_events::<T>() {
            names.push(T::Event::name(&config()));
        }
        names
    }
    macro_rules! all_needed {
        ($($tool:ident),*) => { [$(needed::<tools::$tool>()),*].concat() };
    }
    let there: BTreeSet<_> = all().into_iter().map(|sample| sample.type_name).collect();
    let missing: Vec<_> = for_each_tool!(all_needed).into_iter().filter(|name| !there.contains(name)).collect();
    assert!(missing.is_empty(), "add samples of {missing:?}");
}
