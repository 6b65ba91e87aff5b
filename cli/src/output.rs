//! Standard output for people and for scripts. A closed pipe is an error here, not a panic, so that `| head` works.
//!
//! What people read may have been named or written in a workspace, which isn't trusted with our terminal: a name could begin
//! a line of its own, or tell the terminal to do something. JSON has it exactly, and [`bytes`] is for what a terminal is meant to obey.

use std::{
    borrow::Cow,
    io::{self, Write as _},
};

use serde::Serialize;

/// Text with its control characters shown and not obeyed, tabs excepted.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let obeyed = |character: char| character.is_control() && character != '\t';
    if text.contains(obeyed) { text.replace(obeyed, "\u{fffd}").into() } else { text.into() }
}

/// Prints one line.
///
/// # Errors
/// The reader closed our output, or the disk it goes to is full.
pub(crate) fn line(text: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", printable(&text.to_string()))
}

/// Prints a value as one line of JSON.
///
/// # Errors
/// As [`line`].
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    writeln!(out)
}

/// Prints bytes as they are and flushes them.
///
/// # Errors
/// As [`line`].
pub(crate) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Prints rows in columns as wide as they need to be; the last column is not padded.
///
/// # Errors
/// As [`line`].
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
    let rows: Vec<_> = rows.iter().map(|row| row.each_ref().map(|cell| printable(cell))).collect();
    let mut widths = head.map(|title| title.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = io::stdout().lock();
    for row in std::iter::once(&head.map(Cow::from)).chain(&rows) {
        for (column, cell) in row.iter().enumerate() {
            if column + 1 < N {
                write!(out, "{cell:<width$}   ", width = widths[column])?;
            } else {
                writeln!(out, "{cell}")?;
            }
        }
    }
    Ok(())
}

/// A size for people: `118.2 MB`, in powers of ten as registries count.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    // Precision of a float is plenty for three digits.
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A limit for people, in the powers of two in which limits are given where it is a whole number of those: `1536 MiB`, `2 GiB`.
pub(crate) fn limit(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = UNITS.iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| size(bytes), |(unit, name)| format!("{} {name}", bytes / unit))
}

/// A number of files for people: `1 file`, `2 files`.
pub(crate) fn files(number: u64) -> String {
    format!("{number} file{}", if number == 1 { "" } else { "s" })
}

/// A duration for people: `187 ms`, `12.3 s`, `2 min 5 s`, `26 h 5 min`.
pub(crate) fn duration(duration: std::time::Duration) -> String {
    let milliseconds = duration.as_millis();
    match milliseconds {
        0..1000 => format!("{milliseconds} ms"),
        1000..60_000 => format!("{:.1} s", duration.as_secs_f64()),
        60_000..3_600_000 => format!("{} min {} s", duration.as_secs() / 60, duration.as_secs() % 60),
        _ => format!("{} h {} min", duration.as_secs() / 3600, duration.as_secs() / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_workspace_cannot_write_to_our_terminal() {
        assert_eq!(printable("a\u{1b}]0;title\u{7}b\tc"), "a\u{fffd}]0;title\u{fffd}b\tc");
        assert_eq!(printable("name\nA forged"), "name\u{fffd}A forged");
    }

    #[test]
    fn sizes_and_durations_read_well() {
        assert_eq!(
            [0, 999, 1000, 118_200_000, 999_990_000].map(size),
            ["0 B", "999 B", "1.0 kB", "118.2 MB", "1.0 GB"]
        );
        assert_eq!([0, 1000, 1 << 10, 3 << 29, 1 << 31].map(limit), ["0 B", "1.0 kB", "1 KiB", "1536 MiB", "2 GiB"]);
        assert_eq!([0, 1, 2].map(files), ["0 files", "1 file", "2 files"]);
        let durations = [0, 999, 1_000, 59_900, 125_000, 93_900_000].map(|ms| duration(Duration::from_millis(ms)));
        assert_eq!(durations, ["0 ms", "999 ms", "1.0 s", "59.9 s", "2 min 5 s", "26 h 5 min"]);
    }
}
