//! What is refused unless a policy says `"shippedDenials": false` (row E10 of the requirements), and the names of variables
//! that decide what a program runs.

use corehold_types::policy::CommandRule;

/// Programs, and with them arguments; none means any.
const DENIALS: &[(&[&str], &[&str], &str)] = &[
    (&["sudo", "su", "doas", "pkexec"], &[], "commands don't change their user"),
    (
        &["docker", "podman", "nerdctl", "ctr", "crictl", "kubectl"],
        &[],
        "a workspace has nothing to do with the engine it runs in",
    ),
    (&["rm"], &["**", "/", "**"], "it would remove everything"),
    (&["rm"], &["**", "/\\*", "**"], "it would remove everything"),
    (&["rm"], &["**", "//*", "**"], "write a path with one slash in front"),
    (&["rm"], &["**", "/.*", "**"], "write a path without dots in front"),
    (&["*"], &["**", "*/etc/passwd*", "**"], "the machine's accounts are not the workspace's"),
    (&["*"], &["**", "*/etc/shadow*", "**"], "the machine's accounts are not the workspace's"),
    (&["nc", "ncat", "netcat", "nc.openbsd", "nc.traditional"], &["**", "-*l*", "**"], "it would open a back door"),
    (&["nmap"], &[], "networks are not scanned from a workspace"),
];

/// The shipped denials as rules.
pub(super) fn denials() -> impl Iterator<Item = CommandRule> {
    DENIALS.iter().flat_map(|(programs, arguments, reason)| {
        programs.iter().map(|program| CommandRule {
            program: (*program).to_owned(),
            arguments: (!arguments.is_empty()).then(|| arguments.iter().map(|&argument| argument.to_owned()).collect()),
            cwd: None,
            reason: Some((*reason).to_owned()),
        })
    })
}

/// Patterns of variables that change which code common programs run. Never complete: a strict policy names those it wants.
pub(super) const DECIDING_VARIABLES: &[&str] = &[
    "PATH",
    "IFS",
    "ENV",
    "BASH_ENV",
    "BASH_FUNC*",
    "SHELLOPTS",
    "BASHOPTS",
    "PS4",
    "PROMPT_COMMAND",
    "SHELL",
    "CDPATH",
    "HOME",
    "LD_*",
    "GCONV_PATH",
    "LOCPATH",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "*_EDITOR",
    "*_PAGER",
    "BROWSER",
    "LESSOPEN",
    "LESSCLOSE",
    "GIT_*",
    "NODE_OPTIONS",
    "NODE_PATH",
    "npm_config_*",
    "NPM_CONFIG_*",
    "PYTHON*",
    "PERL*",
    "RUBY*",
    "GEM_*",
    "BUNDLE_*",
    "JAVA_TOOL_OPTIONS",
    "_JAVA_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "MAVEN_OPTS",
    "GRADLE_OPTS",
    "PHP*",
    "CARGO_*",
    "RUSTC*",
    "GOFLAGS",
    "MAKEFLAGS",
    "CC",
    "CXX",
    "LD",
];
