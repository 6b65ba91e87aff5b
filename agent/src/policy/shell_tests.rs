//! The policy against real shells: a line that it lets pass, where nothing may be undecided, runs no denied program in any of
//! them. Lines are made from a grammar and then damaged, so that many are just beside what is usual.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use super::{
    place::Place,
    tests::{line, policy},
};
use crate::{
    process::{self, Program, Start},
    testing,
};

/// Lines that are tried in each shell. 6,000 were on 2026-11-21, in two runs, and none was found.
const LINES: usize = 150;

/// Lines of next to nothing that are tried in each shell.
const SMALL_LINES: usize = 1_000;

/// Numbers from a seed, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        // xorshift64*, https://en.wikipedia.org/wiki/Xorshift
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % most
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

/// What is denied, as it may be written.
const DENIED: &[&str] = &["sudo", "sudo id", "'su'do", "s\\udo id", "su\"do\"", "su\\\ndo x", "\"sudo\""];
const HARMLESS: &[&str] = &[
    "echo a",
    "true",
    "echo sudo",
    "ls x",
    "cat",
    ":",
    "printf 'sudo\\n'",
    "test -n \"$X\"",
    "[ a = a ]",
    "echo \"a b\" 'c d'",
];
const BEFORE: &[&str] = &[
    "env ",
    "nice ",
    "nice -n 5 ",
    "timeout 5 ",
    "exec ",
    "command ",
    "! ",
    "X=1 ",
    "env X=1 ",
    "nohup ",
    "xargs ",
    "time ",
    "2>&1 ",
    "</dev/null ",
    ">/dev/null ",
    "eval ",
    "builtin ",
    "setsid -w ",
    "stdbuf -o L ",
    "time -p ",
    "env -i ",
    "env -u X ",
];
/// Pieces with which a line is damaged.
const PIECES: &[&str] = &[
    "'",
    "\"",
    "`",
    "\\",
    "$(",
    ")",
    "(",
    "{",
    "}",
    " ",
    ";",
    "&",
    "|",
    "\n",
    "#",
    "$",
    "${X}",
    "<<E\n",
    "\nE\n",
    "<<-E\n",
    "<<'E'\n",
    "&&",
    "||",
    "if ",
    "then ",
    "fi",
    "for x in a; do ",
    "done",
    "do ",
    "case a in ",
    "a) ",
    ";;",
    "esac",
    "$((",
    "))",
    "[",
    "]",
    "*",
    "?",
    "~",
    "sudo",
    " sudo ",
    "\nsudo\n",
    "=",
    "X=",
    "-",
    "--",
    "-c ",
    "sh -c ",
    "<(",
    ">",
    "<",
    "&>",
    "2>",
    "!",
    "1",
    "\t",
    "\r",
    "\u{a0}",
    "E",
    "\0x",
    "<<<",
    "$'",
    "${X:-",
    "${X#",
    "time ",
    "in ",
    "{a,b}",
    "..",
    "\\\n",
    "${#X}",
    "$#",
    "$$",
    ";&",
    "|&",
];

/// Programs that have the names of keywords, and of what else a line of pieces may take for a program's.
const NAMES: &[&str] = &[
    "if", "then", "else", "elif", "fi", "while", "until", "do", "done", "for", "case", "in", "esac", "function",
    "select", "coproc", "{", "}", "!", "[[", "]]", "time", "a", "E", "x", "0", "_", "~", "=", "^", "%", "@", "+", "-",
    "--", ",", "x+=", "x+=1", "a[0]=b",
];
/// Pieces of lines that hold next to nothing. They stand beside those above.
const SMALL: &[&str] = &[
    "if",
    "then",
    "fi",
    "while",
    "do",
    "done",
    "case",
    "in",
    "esac",
    "for",
    "!",
    "{",
    "}",
    "time",
    "function",
    "[[",
    "]]",
    "a",
    "x=1",
    "x+=1",
    "x=",
    "a[0]=b",
    " ",
    " ",
    " ",
    "\n",
    ";",
    "&&",
    "|",
    "&",
    "2>",
    ">&2",
    "</dev/null",
    ">/dev/null",
    "&>/dev/null",
    "# a",
    "x=$(a)",
    "${x:-`a`}",
    "a()",
    "\u{2003}",
    "\u{b}",
    "\u{feff}",
    "0",
    "_",
    "~",
    "=",
    "^",
    "%",
    "@",
    "+",
    "-",
    "--",
    ",",
];

fn simple(numbers: &mut Numbers) -> String {
    let mut text = String::new();
    while numbers.below(4) == 0 {
        text.push_str(numbers.of(BEFORE));
    }
    text + if numbers.below(3) == 0 { numbers.of(DENIED) } else { numbers.of(HARMLESS) }
}

/// A line, right in most shells.
fn made(numbers: &mut Numbers, depth: usize) -> String {
    if depth == 0 {
        return simple(numbers);
    }
    let mut inner = || made(numbers, depth - 1);
    let (one, two) = (inner(), inner());
    let quoted = format!("'{}'", one.replace('\'', "'\\''"));
    match numbers.below(22) {
        0 => format!("{one}; {two}"),
        1 => format!("{one} && {two}"),
        2 => format!("{one} || {two}"),
        3 => format!("{one} | {two}"),
        4 => format!("{one} & {two}"),
        5 => format!("{one}\n{two}"),
        6 => format!("( {one} )"),
        7 => format!("{{ {one}; }}"),
        8 => format!("echo $({one})"),
        9 => format!("echo \"$({one})\" x"),
        10 => format!("echo `{}`", one.replace(['\\', '`'], "")),
        11 => format!("if {one}\nthen {two}\nfi"),
        12 => format!("for x in a b; do {one}\ndone"),
        13 => format!("case a in b) {one}\n;; *) {two}\n;; esac"),
        14 => format!("sh -c {quoted}"),
        15 => format!("eval {quoted}"),
        16 => format!("cat <<E\n$({one})\nE\n{two}"),
        17 => format!("cat <<'E'\n{}\nE\n{two}", one.replace('\n', " ")),
        18 => format!("bash -euo pipefail -c {quoted}"),
        19 => format!("{one} # {two}"),
        20 => format!("trap {quoted} EXIT"),
        _ => format!("echo ${{X:-$({one})}}"),
    }
}

fn damaged(numbers: &mut Numbers) -> String {
    let depth = numbers.below(4);
    let mut chars: Vec<char> = made(numbers, depth).chars().collect();
    for _ in 0..numbers.below(4) {
        let at = numbers.below(chars.len() + 1);
        match numbers.below(3) {
            0 => drop(chars.splice(at..at, numbers.of(PIECES).chars())),
            1 if at < chars.len() => drop(chars.remove(at)),
            _ => {
                let end = (at + numbers.below(8)).min(chars.len());
                let piece: Vec<char> = chars[at..end].to_vec();
                let to = numbers.below(chars.len() + 1);
                drop(chars.splice(to..to, piece));
            }
        }
    }
    chars.into_iter().collect()
}

/// Programs as they are, and a `sudo` that leaves a mark.
fn programs(bin: &Path, mark: &Path) {
    fs::create_dir(bin).unwrap();
    for name in
        ["sh", "bash", "env", "nice", "timeout", "cat", "true", "ls", "nohup", "xargs", "setsid", "stdbuf", "time"]
    {
        let found = ["/usr/bin", "/bin"]
            .map(|directory| Path::new(directory).join(name))
            .into_iter()
            .find(|path| path.exists());
        if let Some(found) = found {
            std::os::unix::fs::symlink(found, bin.join(name)).unwrap();
        }
    }
    leaves(mark, &bin.join("sudo"));
}

/// Lines that begin no program are taken where none is allowed: blanks, comments, assignments, keywords.
#[tokio::test]
async fn what_passes_where_nothing_is_allowed_runs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (bin, mark, work) = (folder.path().join("bin"), folder.path().join("mark"), folder.path().join("work"));
    fs::create_dir(&bin).unwrap();
    for name in NAMES {
        leaves(&mark, &bin.join(name));
    }
    let agent = testing::agent();
    let strict = policy(r#"{"mode":"allow"}"#);
    let place = Place { directory: work.clone(), search: vec![bin.clone()] };
    fs::create_dir(&work).unwrap();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut passed = std::collections::BTreeSet::new();
    while passed.len() < SMALL_LINES {
        let text: String = (0..=numbers.below(7))
            .map(|_| if numbers.below(4) == 0 { numbers.of(PIECES) } else { numbers.of(SMALL) })
            .collect();
        if text.contains('\0') || strict.check(&line(&text), &place).is_err() || !passed.insert(text.clone()) {
            continue;
        }
        for shell in ["/bin/sh", "/bin/bash"] {
            ran(&agent, shell, &bin, &work, &text).await;
            assert!(!mark.exists(), "{shell} runs something of {text:?}");
        }
    }
    assert!(passed.iter().any(|text| NAMES.iter().any(|name| text.contains(name))), "{passed:?}");
    // The mark is left where it is run.
    ran(&agent, "/bin/sh", &bin, &work, ">&2 done").await;
    assert!(mark.exists());
}

/// A program that leaves a mark.
fn leaves(mark: &Path, program: &Path) {
    fs::write(program, format!("#!/bin/sh\n: > {}\n", mark.display())).unwrap();
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
}

async fn ran(agent: &crate::agent::Agent, shell: &str, bin: &Path, directory: &Path, text: &str) {
    let arguments = [shell, "-c", text].map(str::to_owned).into();
    let mut start = Start::new(Program::Arguments(arguments), fs::File::open(directory).unwrap().into());
    start.environment.insert("PATH".to_owned(), bin.display().to_string());
    start.timeout = Some(Duration::from_millis(500));
    let command = agent.processes.start_command(start).await.unwrap();
    let id = Arc::clone(&command);
    process::collect(command, 0, true, 1_000).await;
    // What it left in the background may run it yet.
    agent.processes.signal(id, rustix::process::Signal::KILL).await;
}

#[tokio::test]
async fn what_passes_runs_nothing_that_is_denied() {
    let folder = tempfile::tempdir().unwrap();
    let (bin, mark, work) = (folder.path().join("bin"), folder.path().join("mark"), folder.path().join("work"));
    programs(&bin, &mark);
    let agent = testing::agent();
    let strict = policy(r#"{"undecided":"refuse"}"#);
    let place = Place { directory: work.clone(), search: vec![bin.clone()] };
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (mut passed, mut refused) = (0, 0);
    while passed < LINES {
        let text = damaged(&mut numbers);
        // What doesn't hold the word in any form can't run it.
        let letters = text.replace(['\'', '"', '\\', '\n'], "");
        if text.contains('\0') || !letters.contains("sudo") {
            continue;
        }
        if strict.check(&line(&text), &place).is_err() {
            refused += 1;
            continue;
        }
        passed += 1;
        for shell in ["/bin/sh", "/bin/bash"] {
            fs::create_dir(&work).unwrap();
            ran(&agent, shell, &bin, &work, &text).await;
            fs::remove_dir_all(&work).unwrap();
            assert!(!mark.exists(), "{shell} runs it, after {passed} that passed: {text:?}");
        }
    }
    assert!(refused > passed, "the lines are worth nothing: {refused} refused, {passed} passed");
    // The mark is left where it is run.
    fs::create_dir(&work).unwrap();
    ran(&agent, "/bin/sh", &bin, &work, "true && sudo id").await;
    assert!(mark.exists());
}
