//! The command policy: whether a command may run, decided before it does. A guard rail, not a sandbox (`docs/command-policy.md`):
//! what the kernel holds is [`process`](crate::process)'s business.

mod decide;
mod known;
mod line;
mod pattern;
mod place;
#[cfg(test)]
mod shell_tests;
mod shipped;
#[cfg(test)]
mod tests;
mod text;
mod wrapper;
#[cfg(test)]
mod wrapper_tests;

use corehold_types::{
    Code, Problem,
    policy::{CommandPolicy, CommandRule, PolicyMode, Undecided},
    tools::CommandRequest,
};

use self::{
    decide::{Checker, Refusal},
    line::Word,
    place::Place,
};
use crate::agent::Agent;

/// Rules of one kind.
const RULES: usize = 1_000;
/// Characters of a pattern, and patterns of a rule.
const PATTERN: usize = 1_024;

/// A policy in force.
#[derive(Debug, Clone)]
pub struct Policy {
    mode: PolicyMode,
    undecided: Undecided,
    redirections: bool,
    variables: Option<Vec<String>>,
    allow: Vec<CommandRule>,
    /// Each with how a refusal calls it.
    deny: Vec<(String, CommandRule)>,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// What is wrong with it: the field, the line and the column.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let policy: CommandPolicy = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let (path, inner) = (error.path().to_string(), error.inner());
            let (line, column) = (inner.line(), inner.column());
            let what = inner.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            format!("is not a command policy: `{path}` at line {line} column {column}: {what}")
        })?;
        reader.end().map_err(|error| format!("is not a command policy: {error}"))?;
        Self::new(policy)
    }

    /// Puts a policy in force.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(policy: CommandPolicy) -> Result<Self, String> {
        for (list, rules) in [("allow", &policy.allow), ("deny", &policy.deny)] {
            if rules.len() > RULES {
                return Err(format!("is not a command policy: `{list}` has more than {RULES} rules"));
            }
            for (index, rule) in rules.iter().enumerate() {
                check_rule(rule).map_err(|what| format!("is not a command policy: `{list}[{index}]` {what}"))?;
            }
        }
        if policy.mode == PolicyMode::Deny && !policy.allow.is_empty() {
            return Err("is not a command policy: `allow` has rules, but `mode` is not `allow`".to_owned());
        }
        let strict = policy.mode == PolicyMode::Allow;
        let shipped = shipped::denials().filter(|_| policy.shipped_denials.unwrap_or(true));
        let own = policy.deny.into_iter().enumerate().map(|(index, rule)| (format!("deny[{index}]"), rule));
        let deny = own.chain(shipped.map(|rule| (format!("shipped denial of `{}`", rule.program), rule))).collect();
        Ok(Self {
            mode: policy.mode,
            undecided: policy.undecided.unwrap_or(if strict { Undecided::Refuse } else { Undecided::Allow }),
            redirections: policy.redirections.unwrap_or(!strict),
            variables: policy.variables,
            allow: policy.allow,
            deny,
        })
    }

    /// Its name among the guards of `info`.
    #[must_use]
    pub fn guard(&self) -> &'static str {
        match self.mode {
            PolicyMode::Allow => "command-policy-allow",
            PolicyMode::Deny => "command-policy-deny",
        }
    }

    fn check(&self, request: &CommandRequest, place: &Place) -> Result<(), Refusal> {
        let checker = Checker::new(self, place);
        checker.variables(request.env.keys().map(String::as_str))?;
        let reads = request.stdin.as_ref();
        match (&request.argv, &request.line) {
            (Some(arguments), None) => checker.arguments(arguments.iter().map(Word::exact).collect(), reads),
            (None, Some(line)) => checker.line(line),
            // The handler refuses both and neither.
            _ => Ok(()),
        }
    }
}

fn check_rule(rule: &CommandRule) -> Result<(), String> {
    let patterns = [Some(&rule.program), rule.cwd.as_ref()];
    let arguments = rule.arguments.iter().flatten();
    if patterns.into_iter().flatten().chain(arguments).any(|pattern| pattern.chars().count() > PATTERN) {
        return Err(format!("has a pattern of more than {PATTERN} characters"));
    }
    if rule.arguments.as_ref().is_some_and(|patterns| patterns.len() > PATTERN) {
        return Err(format!("has more than {PATTERN} arguments"));
    }
    if rule.program.is_empty() {
        return Err("has an empty `program`".to_owned());
    }
    if rule.program.contains('/') && !rule.program.starts_with(['/', '*']) {
        return Err(format!("has the program {:?}: a path is absolute", rule.program));
    }
    if rule.program.contains(char::is_whitespace) && rule.arguments.is_none() {
        return Err(format!("has the program {:?}: what follows it belongs into `arguments`", rule.program));
    }
    if rule.cwd.as_ref().is_some_and(|cwd| !cwd.starts_with(['/', '*'])) {
        return Err("has a `cwd` that isn't an absolute path".to_owned());
    }
    Ok(())
}

/// Checks a line against a policy where no program is found, for fuzzing.
#[cfg(any(feature = "fuzzing", test))]
pub(crate) fn fuzz(policy: &Policy, line: &str) -> bool {
    let place = Place { directory: "/app".into(), search: Vec::new() };
    let request = CommandRequest { line: Some(line.to_owned()), ..CommandRequest::default() };
    policy.check(&request, &place).is_ok()
}

/// Refuses what the agent's policy doesn't let run.
///
/// # Errors
/// `COMMAND_DENIED` with the part of the command and the rule.
pub fn check(agent: &Agent, request: &CommandRequest) -> Result<(), Problem> {
    let Some(policy) = &agent.config.command_policy else { return Ok(()) };
    let place = Place::of(agent, request);
    policy.check(request, &place).map_err(|refusal| {
        tracing::warn!(part = refusal.part, rule = refusal.rule, "command refused by the policy");
        Problem::new(Code::CommandDenied, format!("`{}` may not run here: {}", refusal.part, refusal.why))
            .with("part", refusal.part)
            .with("rule", refusal.rule)
            .suggest("the command policy was given to the agent by its host; a caller can't change it")
    })
}
