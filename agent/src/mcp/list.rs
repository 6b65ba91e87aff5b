//! `tools/list`: what a model is told about each tool that its token may call.

use std::sync::LazyLock;

use corehold_types::Scopes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{era::Era, message::TTL_MS};
use crate::calls;

/// Made from the types by `cargo xtask gen`: name, description, input schema and hints of every tool.
const GENERATED: &str = include_str!("../../../types/mcp/tools.json");

/// Tools that are no business of a model's: a container gets its workspace from the host.
const LEFT_OUT: &[&str] = &["claim"];

static TOOLS: LazyLock<Vec<Listed>> = LazyLock::new(|| serde_json::from_str(GENERATED).unwrap_or_default());

struct Listed {
    name: String,
    json: Box<RawValue>,
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Named {
            name: String,
        }
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let Named { name } = serde_json::from_str(json.get()).map_err(serde::de::Error::custom)?;
        Ok(Self { name, json })
    }
}

/// The tool, if models may know of it.
pub(super) fn entry(name: &str) -> Option<&'static calls::Entry> {
    calls::entry(name).filter(|entry| !LEFT_OUT.contains(&entry.name))
}

/// The result of `tools/list` for who has these scopes, in the same order each time.
pub(super) fn for_scopes(scopes: &Scopes, era: Era) -> String {
    let may = |tool: &&Listed| entry(&tool.name).is_some_and(|entry| scopes.allow(entry.scope));
    let tools: Vec<&str> = TOOLS.iter().filter(may).map(|tool| tool.json.get()).collect();
    let tools = tools.join(",");
    match era {
        Era::Handshake => format!(r#"{{"tools":[{tools}]}}"#),
        Era::Stateless => format!(r#"{{"tools":[{tools}],"ttlMs":{TTL_MS},"cacheScope":"private"}}"#),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_is_described() {
        let described: Vec<&str> = TOOLS.iter().map(|tool| tool.name.as_str()).collect();
        let all: Vec<&str> = calls::entries().iter().map(|entry| entry.name).collect();
        assert_eq!(described, all);
        assert!(entry("claim").is_none() && entry("read").is_some());
    }
}
