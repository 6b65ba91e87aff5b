//! The command line, run to its end, and what it said.

use std::process::{Command, Output};

use crate::corehold::Corehold;

/// Runs it, whatever comes of it.
///
/// # Panics
/// When it can't be started.
#[must_use]
pub fn run(corehold: &Corehold, arguments: &[&str]) -> Output {
    corehold.cli(arguments).output().expect("the command line starts")
}

/// Runs what has to work, and gives its standard output.
///
/// # Panics
/// When it fails, with all that it said.
pub fn done(corehold: &Corehold, arguments: &[&str]) -> String {
    let output = run(corehold, arguments);
    assert!(output.status.success(), "{arguments:?}: {}{}", out(&output), err(&output));
    out(&output)
}

/// Runs the docker command, which has to work, and gives its standard output without the last line's end.
///
/// # Panics
/// When it fails, with what it said.
pub fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().expect("the docker command is there");
    assert!(output.status.success(), "docker {arguments:?}: {}", err(&output));
    out(&output).trim_end().to_owned()
}

/// Its standard output.
#[must_use]
pub fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Its standard error.
#[must_use]
pub fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
