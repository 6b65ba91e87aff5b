//! Each bound that the committed schemas give (a least and a most, a length, a pattern, the name of a limit) is what the
//! agent checks: the bound itself is taken, and what lies beyond it is refused.

use std::time::Duration;

use corehold_types::Code;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::{
    schemas::{choices, kind, object, resolved, smallest, texts, tools},
    support::{Answer, TestAgent},
};

/// A value at a bound, or beyond it.
struct Probe {
    /// Where, and which bound.
    at: String,
    value: Value,
    expected: Expected,
}

#[derive(Debug)]
enum Expected {
    /// It is taken, whatever comes of it.
    Taken,
    /// Not a mistake of the agent's own: the type's own bound, which may mean nothing here.
    Answered,
    /// It is malformed.
    Malformed,
    /// It exceeds this limit.
    Exceeds(String),
}

/// What the probes are made with: the request's whole schema, a command's id, the limits' values.
struct Maker<'a> {
    request: &'a Value,
    id: &'a str,
    limits: &'a dyn Fn(&str) -> u64,
}

impl Maker<'_> {
    /// The probes of a schema, each a value of it.
    fn probes(&self, schema: &Value, at: &str) -> Vec<Probe> {
        let schema = &resolved(schema, self.request);
        let mut probes = self.own(schema, at);
        match kind(schema) {
            "object" => probes.extend(self.fields(schema, at)),
            "array" => {
                let of_items = self.probes(&schema["items"], &format!("{at}[]"));
                probes.extend(of_items.into_iter().map(|probe| Probe { value: json!([probe.value]), ..probe }));
            }
            _ => probes.extend(choices(schema).iter().flat_map(|choice| self.probes(choice, at))),
        }
        probes
    }

    fn fields(&self, schema: &Value, at: &str) -> Vec<Probe> {
        let mut probes = Vec::new();
        let none = Map::new();
        for (name, field) in schema["properties"].as_object().unwrap_or(&none) {
            let of_field = self.probes(field, &format!("{at}.{name}"));
            probes.extend(of_field.into_iter().map(|probe| {
                let mut whole = object(schema, self.request, self.id, Some(name));
                whole.insert(name.clone(), probe.value);
                Probe { value: Value::Object(whole), ..probe }
            }));
        }
        if schema["additionalProperties"].is_object() {
            let values = self.probes(&schema["additionalProperties"], &format!("{at}.*"));
            probes.extend(values.into_iter().map(|probe| Probe { value: json!({"NAME": probe.value}), ..probe }));
        }
        if let Some(pattern) = schema["propertyNames"]["pattern"].as_str() {
            assert_eq!(pattern, r"^[^=\x00]+$");
            for (name, expected) in [("N", Expected::Taken), ("", Expected::Malformed), ("a=b", Expected::Malformed)] {
                probes.push(Probe { at: format!("{at} name {name:?}"), value: json!({name: "x"}), expected });
            }
        }
        probes
    }

    /// What the schema itself says about its values.
    fn own(&self, schema: &Value, at: &str) -> Vec<Probe> {
        use Expected::{Answered, Exceeds, Malformed, Taken};

        let mut probes = Vec::new();
        let mut push = |word: &str, value: Value, expected: Expected| {
            probes.push(Probe { at: format!("{at} {word}"), value, expected });
        };
        let of_type = [u64::from(u32::MAX), u64::MAX];
        if let Some(least) = schema["minimum"].as_u64() {
            push("minimum", json!(least), Taken);
            // Below zero is another test's: no number of this type.
            if let Some(beyond) = least.checked_sub(1) {
                push("minimum", json!(beyond), Malformed);
            }
        }
        if let Some(most) = schema["maximum"].as_u64() {
            push("maximum", json!(most), if of_type.contains(&most) { Answered } else { Taken });
            if let Some(beyond) = most.checked_add(1) {
                push("maximum", json!(beyond), Malformed);
            }
        }
        if let Some(least) = schema["minLength"].as_u64() {
            push("minLength", json!("x".repeat(least as usize)), Taken);
            push("minLength", json!("x".repeat(least as usize - 1)), Malformed);
        }
        if let Some(most) = schema["maxLength"].as_u64() {
            push("maxLength", json!("x".repeat(most as usize)), Taken);
            push("maxLength", json!("x".repeat(most as usize + 1)), Malformed);
        }
        if let Some(pattern) = schema["pattern"].as_str() {
            let (fits, misfits) = texts(pattern);
            let least = schema["minLength"].as_u64().unwrap_or(0) as usize;
            fits.iter().filter(|text| text.len() >= least).for_each(|text| push("pattern", json!(text), Taken));
            misfits.iter().for_each(|text| push("pattern", json!(text), Malformed));
        }
        let items = |count: u64| (0..count).map(|number| self.item(schema, number)).collect::<Value>();
        if let Some(least) = schema["minItems"].as_u64() {
            push("minItems", items(least), Taken);
            push("minItems", items(least - 1), Malformed);
        }
        if let Some(most) = schema["maxItems"].as_u64() {
            push("maxItems", items(most), Taken);
            push("maxItems", items(most + 1), Malformed);
        }
        if let Some(name) = schema["x-limit"].as_str() {
            let most = (self.limits)(name);
            let value = |most| if kind(schema) == "array" { items(most) } else { json!(most) };
            push("x-limit", value(most), Taken);
            push("x-limit", value(most + 1), Exceeds(name.to_owned()));
        }
        probes
    }

    /// An item unlike the others, since a file may be named once only.
    fn item(&self, schema: &Value, number: u64) -> Value {
        let mut item = smallest(&schema["items"], self.request, self.id);
        if item.get("path").is_some() {
            item["path"] = json!(format!("x{number}"));
        }
        item
    }
}

/// What a tool says of its request, or of the one thing that the request names.
fn said(answer: &Answer) -> Option<(Code, Value)> {
    if !answer.status.is_success() {
        let problem = answer.problem();
        return Some((problem.code, json!(problem.context)));
    }
    let body = answer.json();
    let results = body["files"].as_array().or(body["entries"].as_array()).into_iter().flatten();
    let problem = results.map(|result| &result["problem"]).find(|problem| problem.is_object())?;
    Some((serde_json::from_value(problem["code"].clone()).unwrap(), problem["context"].clone()))
}

#[tokio::test]
async fn what_the_schemas_bound_is_what_the_agent_checks() {
    let agent = TestAgent::with(&[
        ("COREHOLD_LIMIT_READ_FILES", "3"),
        ("COREHOLD_LIMIT_WRITE_FILES", "3"),
        ("COREHOLD_LIMIT_EDIT_FILES", "3"),
        ("COREHOLD_LIMIT_STAT_PATHS", "3"),
        // What is started because of a probe ends soon.
        ("COREHOLD_LIMIT_COMMAND_MS", "1000"),
    ]);
    std::fs::write(agent.outside().join("inbox/x"), "").unwrap();
    let terminal = json!({"argv": ["sleep", "600"], "pty": {"columns": 80, "rows": 24}, "detach": true}).to_string();
    let id = agent.tool("command", terminal).await.json()["id"].as_str().unwrap().to_owned();
    let all = agent.agent.config.limits.all();
    let limits = |name: &str| all.iter().find(|limit| limit.name == name).unwrap_or_else(|| panic!("{name}")).value;
    let mut complaints = Vec::new();
    let mut bounds = std::collections::BTreeMap::<String, usize>::new();
    for (tool, schema) in tools() {
        let maker = Maker { request: &schema, id: &id, limits: &limits };
        for Probe { at, value, expected } in maker.probes(&schema, "") {
            let body = value.to_string();
            // As it was, whatever the probe before has done to it; what is to be made isn't there.
            std::fs::write(agent.root().join("x"), "x\n").unwrap();
            if body.contains(r#""type":"create""#) {
                std::fs::remove_file(agent.root().join("x")).unwrap();
            }
            // What goes on is taken.
            let answer = timeout(Duration::from_millis(500), agent.tool(&tool, body.clone())).await.ok();
            let status = answer.as_ref().map_or(200, |answer| answer.status.as_u16());
            let said = answer.as_ref().and_then(said);
            let code = said.as_ref().map(|(code, _)| *code);
            let malformed = code == Some(Code::InvalidRequest);
            let fits = status < 500
                && match &expected {
                    Expected::Taken => !malformed && code != Some(Code::LimitExceeded),
                    Expected::Answered => true,
                    Expected::Malformed => malformed,
                    Expected::Exceeds(limit) => {
                        let name = said.as_ref().map(|(_, context)| &context["name"]);
                        (code, name) == (Some(Code::LimitExceeded), Some(&json!(limit)))
                    }
                };
            if !fits {
                let said = answer.as_ref().map_or("", Answer::text);
                complaints.push(format!("{tool} {at}: {body:.200}\n    {expected:?}, and not {said:.400}"));
            }
            *bounds.entry(at.rsplit(' ').next().unwrap().to_owned()).or_default() += 1;
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    for (word, least) in [("minimum", 60), ("maximum", 60), ("pattern", 100), ("x-limit", 20), ("minItems", 10)] {
        assert!(bounds[word] >= least, "this test no longer understands the schemas: {bounds:?}");
    }
}
