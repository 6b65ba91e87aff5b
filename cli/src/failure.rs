//! How a failure is told: what failed, what it wrote, what to do next. The one place that prints an error.

use std::{io, process::ExitCode};

use serde_json::{Value, json};

use crate::output;

/// Tells of an error on standard error and gives the exit code that goes with it.
///
/// A reader that closed our standard output (`corehold logs … | head`) is no failure.
pub(crate) fn report(error: &anyhow::Error, as_json: bool) -> ExitCode {
    if is_closed_output(error) {
        return ExitCode::SUCCESS;
    }
    if as_json {
        eprintln!("{}", json!({ "error": describe(error) }));
        return ExitCode::FAILURE;
    }
    let ours = error.downcast_ref::<corehold_host::Error>();
    let message = message(error);
    match ours.and_then(corehold_host::Error::step) {
        Some(step) => eprint!("error in step {step}: "),
        None => eprint!("error: "),
    }
    printed(&message, "");
    if let Some(output) = ours.and_then(corehold_host::Error::output) {
        eprintln!("  the end of its output:");
        printed(output, "  | ");
    }
    if let Some(hint) = ours.and_then(corehold_host::Error::hint_text) {
        eprint!("hint: ");
        printed(hint, "");
    }
    ExitCode::FAILURE
}

/// Lines, some of which a workspace may have written.
fn printed(text: &str, before: &str) {
    for line in text.lines() {
        eprintln!("{before}{}", output::printable(line));
    }
}

/// An error as scripts get it.
pub(crate) fn describe(error: &anyhow::Error) -> Value {
    let mut object = json!({ "message": message(error) });
    if let Some(ours) = error.downcast_ref::<corehold_host::Error>() {
        object["kind"] = format!("{:?}", ours.kind()).into();
        object["step"] = json!(ours.step());
        object["hint"] = ours.hint_text().into();
        object["output"] = ours.output().into();
    }
    object
}

/// The library's messages say their causes; those of others are a chain.
fn message(error: &anyhow::Error) -> String {
    error.downcast_ref::<corehold_host::Error>().map_or_else(|| format!("{error:#}"), ToString::to_string)
}

fn is_closed_output(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_output_is_no_failure_and_everything_else_is() {
        let closed = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(format!("{:?}", report(&closed, false)), format!("{:?}", ExitCode::SUCCESS));
        let other = anyhow::anyhow!("no");
        assert_eq!(format!("{:?}", report(&other, false)), format!("{:?}", ExitCode::FAILURE));
    }
}
