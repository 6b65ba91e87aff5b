//! Decides over each part of a command: denied, allowed, or not to be decided.

use std::cell::Cell;

use corehold_types::{
    Data,
    policy::{CommandRule, PolicyMode, Undecided},
};

use super::{
    Policy,
    line::{self, Part, Simple, Word},
    pattern::{self, Match},
    place::{Place, Program},
    shipped::DECIDING_VARIABLES,
    wrapper::{self, Runs},
};

/// Commands inside of commands: `env sh -c 'nice …'`.
const NESTING: usize = 16;
/// Commands in one line. Each is looked up on disk, and the caller waits.
const COMMANDS: usize = 1_000;
/// Guesses in one line.
const GUESSES: usize = 10_000;
/// Words behind a wrapper that are taken for programs, and words that each of these is given.
const GUESSED_WORDS: usize = 64;
/// Characters of a part in a refusal.
const SHOWN: usize = 200;

/// Why a command may not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The part of it.
    pub(super) part: String,
    /// The rule: `deny[2]`, `allow` where none allows it, `undecided`, `redirections`, `variables`.
    pub(super) rule: String,
    /// For people.
    pub(super) why: String,
}

/// One check of one command.
pub(super) struct Checker<'a> {
    policy: &'a Policy,
    place: &'a Place,
    /// Commands seen.
    seen: Cell<usize>,
    /// Commands of which it isn't known that they are any.
    guessed: Cell<usize>,
}

/// Where a command stands.
#[derive(Clone, Copy, Default)]
struct At {
    /// How deep.
    depth: usize,
    /// Whether a `cd` before leaves the directory unknown.
    moved: bool,
    /// Whether it is only a guess that this is a command: then nothing but a denial counts.
    guess: bool,
}

impl<'a> Checker<'a> {
    pub(super) fn new(policy: &'a Policy, place: &'a Place) -> Self {
        Self { policy, place, seen: Cell::default(), guessed: Cell::default() }
    }

    /// A command given as program and arguments.
    pub(super) fn arguments(&self, words: Vec<Word>, reads: Option<&Data>) -> Result<(), Refusal> {
        // What a shell reads is as good as its line.
        let documents = match reads {
            Some(Data::Text(text)) => vec![Word::exact(text)],
            Some(_) => vec![Word { text: "stdin".to_owned(), exact: false }],
            None => Vec::new(),
        };
        self.command(&Simple { words, documents, ..Simple::default() }, At::default())
    }

    /// A shell line.
    pub(super) fn line(&self, line: &str) -> Result<(), Refusal> {
        // `/bin/sh` itself isn't asked for by the caller and needs no rule.
        self.parts(line, At::default())
    }

    /// Variables that are set for a command.
    pub(super) fn variables<'n>(&self, names: impl Iterator<Item = &'n str>) -> Result<(), Refusal> {
        for name in names {
            match &self.policy.variables {
                Some(allowed) if !allowed.iter().any(|pattern| pattern::matches(pattern, name)) => {
                    return Err(refusal(name, "variables", "the policy doesn't let this variable be set".to_owned()));
                }
                Some(_) => {}
                None if DECIDING_VARIABLES.iter().any(|pattern| pattern::matches(pattern, name)) => {
                    self.undecided(name, "this variable may change what a program runs", At::default())?;
                }
                None => {}
            }
        }
        Ok(())
    }

    fn undecided(&self, part: &str, why: &str, at: At) -> Result<(), Refusal> {
        match self.policy.undecided {
            _ if at.guess => Ok(()),
            Undecided::Allow => Ok(()),
            Undecided::Refuse => Err(refusal(part, "undecided", format!("it can't be decided: {why}"))),
        }
    }

    fn parts(&self, line: &str, at: At) -> Result<(), Refusal> {
        let parts = match line::parts(line, at.depth) {
            Err(_) if at.guess => return Ok(()),
            parts => {
                parts.map_err(|error| refusal(line, "unreadable", format!("the line can't be read: {}", error.0)))?
            }
        };
        // Order and subshells don't matter: after any of these, a relative path may mean another file.
        let moves = |part: &Part| match part {
            Part::Command(command) => command
                .words
                .first()
                .is_some_and(|word| ["cd", "pushd", "popd", "builtin", "command", "eval"].contains(&&*word.text)),
            Part::Undecided(_) => false,
        };
        let at = At { moved: at.moved || parts.iter().any(moves), ..at };
        for part in &parts {
            match part {
                Part::Command(command) => self.command(command, at)?,
                Part::Undecided(what) => self.undecided(line, what, at)?,
            }
        }
        Ok(())
    }

    fn command(&self, command: &Simple, at: At) -> Result<(), Refusal> {
        if at.depth >= NESTING {
            return Err(refusal(&shown(command), "unreadable", "commands are nested too deeply".to_owned()));
        }
        let (count, most) = if at.guess { (&self.guessed, GUESSES) } else { (&self.seen, COMMANDS) };
        count.set(count.get() + 1);
        if count.get() > most {
            return Err(refusal(
                &shown(command),
                "unreadable",
                format!("the line holds more than {COMMANDS} commands"),
            ));
        }
        let at = At { moved: at.moved || command.elsewhere, ..at };
        if !at.guess {
            self.variables(command.variables.iter().map(String::as_str))?;
        }
        let files: Vec<_> = command.files.iter().filter(|file| !file.exact || file.text != "/dev/null").collect();
        if let (false, false, Some(file)) = (self.policy.redirections, at.guess, files.first()) {
            let why = "the policy doesn't let a line redirect from or to files".to_owned();
            return Err(refusal(&file.text, "redirections", why));
        }
        let Some(first) = command.words.first() else {
            return files.iter().try_for_each(|file| self.denied(":", std::slice::from_ref(*file), command, at));
        };
        if !first.exact {
            return self.undecided(&shown(command), "the program's name is not written out", at);
        }
        let arguments = &command.words[1..];
        self.denied(&first.text, arguments, command, at)?;
        for file in files {
            self.denied(&first.text, std::slice::from_ref(file), command, at)?;
        }
        if self.policy.mode == PolicyMode::Allow && !at.guess {
            self.allowed(&first.text, arguments, command, at)?;
        }
        self.inner(&first.text, command, At { depth: at.depth + 1, ..at })
    }

    /// What the command runs besides itself.
    fn inner(&self, written: &str, command: &Simple, at: At) -> Result<(), Refusal> {
        let program = self.place.program(written);
        let runs = match wrapper::runs(&program.name, command) {
            // A link to a shell is a shell; one to a program of many names goes by its own.
            Runs::Nothing => program.real_name().map_or(Runs::Nothing, |name| match name {
                "busybox" | "toybox" if program.known => Runs::Nothing,
                name => wrapper::runs(name, command),
            }),
            runs => runs,
        };
        match runs {
            Runs::Nothing => Ok(()),
            Runs::Commands(commands) => commands.iter().try_for_each(|inner| self.command(inner, at)),
            Runs::Line(line) => self.parts(&line, at),
            Runs::Unseen(why) => self.undecided(&shown(command), why, at),
            Runs::Somewhere(why) => {
                self.undecided(&shown(command), why, at)?;
                self.guess(command, at)
            }
        }
    }

    /// Where it isn't known which of its words begin a command, each may: if that one is denied, all of it is.
    fn guess(&self, command: &Simple, at: At) -> Result<(), Refusal> {
        if at.guess {
            return Ok(());
        }
        let at = At { guess: true, ..at };
        for from in 1..command.words.len().min(GUESSED_WORDS) {
            let behind = &command.words[from..];
            let mut words: Vec<Word> = behind.iter().take(GUESSED_WORDS).cloned().collect();
            let text = &words[0].text;
            if let Some(option) = text.strip_prefix('-') {
                // `--exec=PROGRAM`, `-cPROGRAM`.
                let value = match option.split_once('=') {
                    Some((_, value)) => Some(value),
                    None if option.starts_with('-') => None,
                    None => option.get(1..),
                };
                words[0].text = value.unwrap_or_default().to_owned();
            }
            if words[0].exact && words[0].text.contains([' ', '\t', '\n', ';', '|', '&', '`', '(', '<', '>']) {
                self.parts(&words[0].text, at)?;
            } else if !words[0].text.is_empty() {
                self.command(&Simple { words, ..Simple::default() }, at)?;
            }
        }
        Ok(())
    }

    fn denied(&self, written: &str, arguments: &[Word], command: &Simple, at: At) -> Result<(), Refusal> {
        let program = self.place.program(written);
        for (name, rule) in &self.policy.deny {
            // A rule for every program was asked about these words already.
            if at.guess && rule.program == "*" {
                continue;
            }
            if !denies_program(&rule.program, &program) || !(at.moved || self.in_directory(rule)) {
                continue;
            }
            let matched = match &rule.arguments {
                None => Match::Yes,
                Some(patterns) => pattern::denied_arguments(patterns, arguments),
            };
            match matched {
                Match::No => {}
                Match::Yes => {
                    let why = rule.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
                    return Err(refusal(&shown(command), name, format!("the policy denies it ({name}){why}")));
                }
                // A denial for every program would make each `$X` undecided; it counts for what is written out.
                Match::Perhaps if rule.program == "*" => {}
                Match::Perhaps => {
                    self.undecided(&shown(command), &format!("its arguments may be denied by {name}"), at)?;
                }
            }
        }
        Ok(())
    }

    fn allowed(&self, written: &str, arguments: &[Word], command: &Simple, at: At) -> Result<(), Refusal> {
        let program = self.place.program(written);
        // After a `cd`, a relative path is another file.
        let elsewhere = at.moved && written.contains('/') && !written.starts_with('/');
        let allowed = !elsewhere
            && self.policy.allow.iter().any(|rule| {
                self.allows_program(&rule.program, &program)
                    && (rule.cwd.is_none() || !at.moved && self.in_directory(rule))
                    && rule
                        .arguments
                        .as_ref()
                        .is_none_or(|patterns| pattern::arguments(patterns, arguments) == Match::Yes)
            });
        if allowed {
            return Ok(());
        }
        Err(refusal(&shown(command), "allow", "no rule of the policy allows it".to_owned()))
    }

    fn in_directory(&self, rule: &CommandRule) -> bool {
        let directory = self.place.directory.to_string_lossy();
        rule.cwd.as_ref().is_none_or(|pattern| pattern::matches(pattern, &directory))
    }

    /// A name is good where it is looked up; a path, where it leads to a file in a directory of programs.
    fn allows_program(&self, rule: &str, program: &Program) -> bool {
        if rule.contains('/') {
            return program.path.iter().any(|path| pattern::matches(rule, &path.to_string_lossy()))
                && program.real.is_some();
        }
        let real = program.real.as_ref().filter(|real| real.parent().is_some_and(|at| self.place.is_searched(at)));
        program.known && pattern::matches(rule, &program.name)
            || real.is_some() && program.real_name().is_some_and(|name| pattern::matches(rule, name))
    }
}

/// A denial counts for every name the program has, in any case: some mounts don't tell cases apart.
fn denies_program(rule: &str, program: &Program) -> bool {
    let rule = rule.to_lowercase();
    if rule.contains('/') {
        let paths = program.path.iter().chain(&program.real);
        return paths.into_iter().any(|path| pattern::matches(&rule, &path.to_string_lossy().to_lowercase()));
    }
    let names = [Some(program.name.as_str()), program.real_name()];
    names.into_iter().flatten().any(|name| pattern::matches(&rule, &name.to_lowercase()))
}

impl Program {
    /// The name of the file behind all links.
    fn real_name(&self) -> Option<&str> {
        self.real.as_ref()?.file_name()?.to_str()
    }
}

fn shown(command: &Simple) -> String {
    let files = command.files.iter();
    command.words.iter().chain(files).map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
}

fn refusal(part: &str, rule: &str, why: String) -> Refusal {
    let mut short: String = part.chars().take(SHOWN).collect();
    if short.len() < part.len() {
        short.push('…');
    }
    Refusal { part: short, rule: rule.to_owned(), why }
}
