//! One heading line before each step, its duration after it, and how commands are run in between.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// Does a step between a heading and its duration.
pub(crate) fn step<T>(heading: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {heading}");
    let start = Instant::now();
    let result = work();
    match &result {
        Ok(_) => eprintln!("    {}", seconds(start.elapsed())),
        Err(_) => eprintln!("    failed after {}", seconds(start.elapsed())),
    }
    result
}

/// A duration for people: `0.2 s`, `75.0 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// The command as one could type it.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs a command whose output the user sees; it gets no input.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("can't run `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}
