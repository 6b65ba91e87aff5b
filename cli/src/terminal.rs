//! The terminal that we were started on, handed over to a command inside: every key goes there, none is acted on here.

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use corehold_host::tools::PtySize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// What the agent takes as columns and rows.
const SIZES: std::ops::RangeInclusive<u16> = 1..=4096;
/// Where the terminal doesn't know its size, as one over a serial line.
const USUAL: PtySize = PtySize { columns: 80, rows: 24 };

/// A terminal in raw mode. However it goes out of scope, it is put back as it was.
pub(crate) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Whether there is a terminal to hand over.
    ///
    /// # Errors
    /// Standard input or output is none; says what to do.
    pub(crate) fn check() -> anyhow::Result<()> {
        let what = match (io::stdin().is_terminal(), io::stdout().is_terminal()) {
            (true, true) => return Ok(()),
            (false, _) => "input",
            (true, false) => "output",
        };
        anyhow::bail!(
            "standard {what} is not a terminal, so --tty has none to pass on; for a pipe or a file use --stdin alone"
        )
    }

    /// Takes the terminal over.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(crate) fn take() -> anyhow::Result<Self> {
        let before = tcgetattr(io::stdin()).context("asking for the terminal's mode")?;
        let terminal = Self { before };
        terminal.set_raw()?;
        Ok(terminal)
    }

    /// Takes it over again: a shell that continued us may have set it its own way.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(crate) fn set_raw(&self) -> anyhow::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).context("setting the terminal's mode")
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Of a terminal that is gone nothing has to be put back.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// The terminal's size now.
pub(crate) fn size() -> PtySize {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if SIZES.contains(&size.ws_col) && SIZES.contains(&size.ws_row) => {
            PtySize { columns: size.ws_col, rows: size.ws_row }
        }
        _ => USUAL,
    }
}
