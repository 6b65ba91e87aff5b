//! Programs that fill a screen, seen through a terminal emulation (`vt100`), as a person would see them. `cargo xtask test` installs
//! the programs where they lack.

use std::sync::Arc;

use corehold_agent::process::{Command, Start, Viewer};
use corehold_types::tools::{CommandEvent, PtySize};

use super::support::{argv, begin, end_of};

const SIZE: PtySize = PtySize { columns: 80, rows: 24 };

/// A command and what its terminal shows.
struct Screen {
    command: Arc<Command>,
    viewer: Viewer,
    terminal: vt100::Parser,
}

impl Screen {
    async fn of(arguments: &[&str]) -> Self {
        let environment = [("TERM", "xterm"), ("PS1", "$ ")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = environment.into_iter().collect();
        let command = begin(Start { terminal: Some(SIZE), environment, ..argv(arguments) }).await;
        let viewer = Viewer::new(Arc::clone(&command), 0, true);
        Self { command, viewer, terminal: vt100::Parser::new(SIZE.rows, SIZE.columns, 0) }
    }

    async fn types(&self, keys: &str) {
        self.command.write(keys.as_bytes(), false, &mut 0).await.unwrap();
    }

    /// Looks until the screen shows it.
    async fn shows(&mut self, what: impl Fn(&vt100::Screen) -> bool) {
        while !what(self.terminal.screen()) {
            match self.viewer.next().await {
                Some(CommandEvent::Stdout { data, .. }) => self.terminal.process(&data.to_bytes().unwrap()),
                Some(_) => {}
                None => panic!("it ended, showing\n{}", self.terminal.screen().contents()),
            }
        }
    }
}

fn row(screen: &vt100::Screen, number: u16) -> String {
    screen.rows(0, screen.size().1).nth(number.into()).unwrap_or_default().trim_end().to_owned()
}

#[tokio::test]
async fn vim_edits_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "first\nsecond\n").unwrap();
    let mut screen = Screen::of(&["vi", "-u", "NONE", "-i", "NONE", "-n", file.to_str().unwrap()]).await;
    screen.shows(|screen| screen.alternate_screen() && row(screen, 0) == "first" && row(screen, 2) == "~").await;
    screen.types("jA line").await;
    screen.shows(|screen| row(screen, 1) == "second line").await;
    // By itself: with what follows it would be a function key.
    screen.types("\x1b").await;
    screen.types(":normal Oabove\r").await;
    screen.shows(|screen| row(screen, 1) == "above" && row(screen, 2) == "second line").await;
    // A larger screen has more rows of tildes.
    screen.command.resize(PtySize { columns: 100, rows: 40 }).unwrap();
    screen.terminal.screen_mut().set_size(40, 100);
    screen.shows(|screen| row(screen, 38) == "~").await;
    screen.types(":wq\r").await;
    assert_eq!(end_of(screen.command).await.exit.code, Some(0));
    assert_eq!(std::fs::read_to_string(file).unwrap(), "first\nabove\nsecond line\n");
}

/// What is typed to `cat` comes back from it, so it is known when it has the terminal; and when the shell has set that up, since it says
/// so first.
#[tokio::test]
async fn a_shell_stops_a_job_and_takes_it_to_the_front_again() {
    const LINE: &str = "sh -c 'echo up; exec cat'";
    let mut screen = Screen::of(&["/bin/bash", "--norc", "--noprofile", "-i"]).await;
    let is_prompt = |screen: &vt100::Screen, at: u16| row(screen, at) == "$" && screen.cursor_position() == (at, 2);
    let is_stopped = |screen: &vt100::Screen, at: u16| {
        row(screen, at).split_whitespace().collect::<Vec<_>>().join(" ") == format!("[1]+ Stopped {LINE}")
    };
    screen.shows(|screen| is_prompt(screen, 0)).await;
    screen.types(&format!("{LINE}\r")).await;
    screen.shows(|screen| row(screen, 1) == "up" && screen.cursor_position() == (2, 0)).await;
    screen.types("one\r").await;
    screen.shows(|screen| row(screen, 3) == "one" && screen.cursor_position() == (4, 0)).await;
    screen.types("\x1a").await;
    screen.shows(|screen| row(screen, 4) == "^Z" && is_stopped(screen, 5) && is_prompt(screen, 6)).await;
    screen.types("jobs\r").await;
    screen.shows(|screen| row(screen, 6) == "$ jobs" && is_stopped(screen, 7) && is_prompt(screen, 8)).await;
    screen.types("fg\r").await;
    screen.shows(|screen| row(screen, 8) == "$ fg" && row(screen, 9) == LINE).await;
    screen.types("two\r").await;
    screen.shows(|screen| row(screen, 11) == "two" && screen.cursor_position() == (12, 0)).await;
    screen.types("\x03").await;
    screen.shows(|screen| row(screen, 12) == "^C" && is_prompt(screen, 13)).await;
    // It would say so if a job were left.
    screen.types("exit 7\r").await;
    assert_eq!(end_of(screen.command).await.exit.code, Some(7));
}

#[tokio::test]
async fn top_draws_itself_again_and_again_until_it_is_told_to_end() {
    let mut screen = Screen::of(&["top", "-d", "0.2"]).await;
    let head = |screen: &vt100::Screen| (0..10).any(|number| row(screen, number).contains("PID USER"));
    screen.shows(head).await;
    let first = row(screen.terminal.screen(), 0);
    assert!(first.starts_with("top - "), "{first:?}");
    screen.command.resize(PtySize { columns: 60, rows: 12 }).unwrap();
    screen.terminal.screen_mut().set_size(12, 60);
    // Drawn anew, for the new width.
    screen
        .shows(|screen| {
            head(screen) && row(screen, 11).trim().split(' ').next().is_some_and(|pid| pid.parse::<u32>().is_ok())
        })
        .await;
    screen.types("q").await;
    assert_eq!(end_of(screen.command).await.exit.code, Some(0));
}
