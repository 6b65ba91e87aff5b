//! The command policy: what an agent lets its callers run. Given at its start; what is parsed and matched is the agent's
//! business, not this module's. `docs/command-policy.md` says in plain words what such a policy can't do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// What commands may run. `{}` refuses the shipped denials and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct CommandPolicy {
    /// Whether what no rule names runs. Default `deny`.
    #[serde(default)]
    #[ts(as = "Option<PolicyMode>")]
    pub mode: PolicyMode,
    /// What happens to a part that can't be decided, such as a program named by a variable. Default: `refuse` in the mode
    /// `allow`, `allow` in the mode `deny`. A line that can't be read at all is refused in both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undecided: Option<Undecided>,
    /// Whether the shipped denials count besides `deny`. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shipped_denials: Option<bool>,
    /// What may run, in the mode `allow`. At most 1,000 rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(as = "Option<Vec<CommandRule>>")]
    pub allow: Vec<CommandRule>,
    /// What may not run, in both modes; a denial beats an allowance. At most 1,000 rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[ts(as = "Option<Vec<CommandRule>>")]
    pub deny: Vec<CommandRule>,
    /// Whether a line may redirect from and to files (`/dev/null` always may). Default: only in the mode `deny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirections: Option<bool>,
    /// Patterns of the names of variables that a line or a request may set. Default: every name but those known to change
    /// which code a program runs (`PATH`, `LD_…`, `BASH_ENV`, `NODE_OPTIONS` and others), which can't be decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables: Option<Vec<String>>,
}

/// Whether what no rule names runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub enum PolicyMode {
    /// Everything runs but what is denied.
    #[default]
    Deny,
    /// Nothing runs but what is allowed.
    Allow,
}

/// What happens to a part of a command that can't be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub enum Undecided {
    /// It runs.
    Allow,
    /// It is refused.
    Refuse,
}

/// One rule. In patterns `*` stands for any characters, slashes too, `?` for one, and `\` takes the next as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct CommandRule {
    /// The program. A pattern without a slash is compared with its name, one with a slash with its absolute path.
    pub program: String,
    /// The arguments, each a pattern, in order; `**` stands for any number of them. Default: any arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Vec<String>>,
    /// The absolute path of the working directory, a pattern. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Why, for the one who is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
