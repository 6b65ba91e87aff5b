//! Counts tests while their output streams through.

use std::{
    fmt,
    io::{self, BufRead as _, BufReader, Read, Write},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::progress;

/// How long output may go on after the tests have ended: something they left behind may hold the pipe for ever.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// How many tests passed and failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// The names of tests that failed, for whoever reads only the summary.
    pub(crate) names: Vec<String>,
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)
    }
}

impl Tally {
    /// Reads a line such as `test result: ok. 12 passed; 0 failed; 0 ignored; …`; other lines count nothing. A line
    /// such as `test name ... FAILED` gives a name.
    fn add_line(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.names.push(name.to_owned());
        }
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for count in counts.split("; ") {
            match count.split_once(' ').map(|(number, word)| (number.parse::<u64>(), word)) {
                Some((Ok(number), "passed")) => self.passed += number,
                Some((Ok(number), "failed")) => self.failed += number,
                _ => {}
            }
        }
    }
}

/// Runs a command, passing on what it writes, and counts the tests in it. Also says whether it succeeded.
pub(crate) fn count(command: &mut Command) -> Result<(Tally, bool)> {
    count_into(io::stdout(), command, DRAIN_GRACE)
}

fn count_into(
    terminal: impl Write + Send + 'static,
    command: &mut Command,
    drain_grace: Duration,
) -> Result<(Tally, bool)> {
    let shown = progress::line(command);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().with_context(|| format!("can't run `{shown}`"))?;
    let output = child.stdout.take().context("the output is piped")?;
    let (lines, received) = mpsc::sync_channel(64);
    thread::spawn(move || pass_on(output, terminal, &lines));
    let (end, ended) = mpsc::sync_channel(1);
    let waiter = thread::spawn(move || {
        let status = child.wait();
        // Nobody listens any more when the output ended first.
        let _ = end.send(());
        status
    });

    let mut tally = Tally::default();
    loop {
        match received.recv_timeout(drain_grace) {
            Ok(line) => tally.add_line(&line),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            // Silence is only suspicious once the tests have ended.
            Err(mpsc::RecvTimeoutError::Timeout) if ended.try_recv().is_ok() => {
                eprintln!("note: something that the tests started still runs and holds their output");
                break;
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
    }
    let status = waiter.join().expect("waiting does not panic").with_context(|| format!("can't wait for `{shown}`"))?;
    if !status.success() {
        eprintln!("`{shown}` failed: {status}");
    }
    Ok((tally, status.success()))
}

/// Passes on line by line, to the terminal and to the one who counts.
fn pass_on(output: impl Read, mut terminal: impl Write, lines: &mpsc::SyncSender<String>) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    // Tests may write what isn't UTF-8: it is passed on as it is.
    while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        if terminal.write_all(&line).and_then(|()| terminal.flush()).is_err() {
            return;
        }
        if lines.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
            return;
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// What these tests let programs write may not reach the real output: it would be counted there.
    fn shell(script: &str, drain_grace: Duration) -> (Tally, bool) {
        count_into(io::sink(), Command::new("sh").args(["-c", script]), drain_grace).unwrap()
    }

    #[test]
    fn results_of_several_programs_are_added() {
        let script = "echo 'running 2 tests'
            echo 'test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s'
            echo 'test a::b ... ok'
            echo 'test c::d ... FAILED'
            echo 'test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s'
            exit 101";
        let expected = Tally { passed: 15, failed: 2, names: vec!["c::d".to_owned()] };
        assert_eq!(shell(script, DRAIN_GRACE), (expected, false));
    }

    #[test]
    fn what_only_looks_like_a_result_counts_nothing() {
        let script = "echo 'a test result: ok. 1 passed'; printf '\\377\\n'";
        assert_eq!(shell(script, DRAIN_GRACE), (Tally::default(), true));
    }

    #[test]
    fn a_process_left_behind_does_not_hold_up_the_end() {
        let start = Instant::now();
        let script = "echo 'test result: ok. 1 passed; 0 failed'; sleep 10 & exit 0";
        assert_eq!(shell(script, Duration::from_millis(100)), (Tally { passed: 1, ..Tally::default() }, true));
        assert!(start.elapsed() < Duration::from_secs(9), "it waited for the process that was left behind");
    }
}
