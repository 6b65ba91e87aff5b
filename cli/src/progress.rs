//! How a creation is shown: a line that moves on a terminal, one plain line a step elsewhere, JSON for scripts.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use corehold_host::{CreateEvent, CreateEventKind, Step};
use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// Shows the events of one creation on standard error; with JSON, on standard output.
pub(crate) enum Progress {
    /// Somebody looks: steps that are under way move.
    Terminal(Terminal),
    /// A file or a pipe: whole lines.
    Plain,
    /// A script.
    Json,
}

/// The steps under way; packing goes on beside others.
pub(crate) struct Terminal {
    bars: indicatif::MultiProgress,
    running: Vec<(Step, ProgressBar)>,
}

impl Progress {
    pub(crate) fn start(as_json: bool) -> Self {
        match (as_json, io::stderr().is_terminal()) {
            (true, _) => Self::Json,
            (false, true) => Self::Terminal(Terminal { bars: indicatif::MultiProgress::new(), running: Vec::new() }),
            (false, false) => Self::Plain,
        }
    }

    /// Shows an event.
    ///
    /// # Errors
    /// Standard output was closed by its reader.
    pub(crate) fn show(&mut self, event: &CreateEvent) -> io::Result<()> {
        match self {
            Self::Json => output::json(event)?,
            Self::Plain => {
                if let Some(line) = plain(event) {
                    eprintln!("{line}");
                }
            }
            Self::Terminal(terminal) => terminal.show(event),
        }
        Ok(())
    }

    /// Takes what moves off the terminal.
    pub(crate) fn end(&mut self) {
        if let Self::Terminal(terminal) = self {
            for (_, bar) in terminal.running.drain(..) {
                bar.finish_and_clear();
            }
        }
    }
}

impl Terminal {
    fn show(&mut self, event: &CreateEvent) {
        match &event.kind {
            CreateEventKind::Started { detail } => {
                let style = ProgressStyle::with_template("{spinner} {prefix:8} {elapsed:>5} {wide_msg:.dim}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner());
                let bar = self.bars.add(ProgressBar::new_spinner().with_style(style));
                bar.set_prefix(event.step.to_string());
                bar.set_message(detail.clone().unwrap_or_default());
                bar.enable_steady_tick(Duration::from_millis(120));
                self.running.push((event.step, bar));
            }
            CreateEventKind::Output { line, .. } => {
                if let Some((_, bar)) = self.running.iter().find(|(step, _)| *step == event.step) {
                    bar.set_message(output::printable(line).into_owned());
                }
            }
            CreateEventKind::Received { received_bytes, total_bytes } => {
                if let Some((_, bar)) = self.running.iter().find(|(step, _)| *step == event.step) {
                    bar.set_message(format!("{} of {}", output::size(*received_bytes), output::size(*total_bytes)));
                }
            }
            _ => {
                if let Some(at) = self.running.iter().position(|(step, _)| *step == event.step) {
                    let (_, bar) = self.running.swap_remove(at);
                    bar.finish_and_clear();
                }
                if let Some(line) = plain(event) {
                    // A lost line of progress is no reason to fail.
                    let _ = self.bars.println(line);
                }
            }
        }
    }
}

/// One line for an event, as it stands in a file; nothing for what only moves.
fn plain(event: &CreateEvent) -> Option<String> {
    let step = event.step;
    match &event.kind {
        CreateEventKind::Finished { duration, detail } => {
            let detail = detail.as_deref().unwrap_or_default();
            Some(
                format!("{step:8} {:>9}  {}", output::duration(*duration), output::printable(detail))
                    .trim_end()
                    .to_owned(),
            )
        }
        CreateEventKind::Failed { duration } => Some(format!("{step:8} {:>9}  failed", output::duration(*duration))),
        CreateEventKind::Output { line, .. } => Some(format!("  | {}", output::printable(line))),
        _ => None,
    }
}
