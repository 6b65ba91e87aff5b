//! A shell line, taken apart into the commands it may run. Not a shell: it knows words, quotes, separators and what can
//! stand inside them, and says so where it doesn't know, since `/bin/sh` is dash, bash or busybox, which read some lines
//! differently.

use super::text::{self, Stop};

/// Substitutions inside of each other, and blocks inside of blocks.
pub(super) const DEPTH: usize = 32;

/// What is no program where a command may begin.
const KEYWORDS: &[&str] =
    &["!", "{", "if", "for", "while", "until", "case", "function", "select", "coproc", "[[", "time"];

/// One word of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// Without its quotes; what the shell will expand stands as it was written.
    pub(super) text: String,
    /// Whether the command gets exactly this text.
    pub(super) exact: bool,
}

impl Word {
    pub(super) fn exact(text: impl Into<String>) -> Self {
        Self { text: text.into(), exact: true }
    }
}

/// One thing that a line may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Runs a command.
    Command(Simple),
    /// Does something that isn't to be seen in the line.
    Undecided(String),
}

/// A simple command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Simple {
    /// Names of the variables set before it.
    pub(super) variables: Vec<String>,
    /// Program and arguments; none where it only sets variables or redirects.
    pub(super) words: Vec<Word>,
    /// The files it redirects from or to.
    pub(super) files: Vec<Word>,
    /// What its here-documents hold.
    pub(super) documents: Vec<Word>,
    /// Whether it runs in another directory than the line.
    pub(super) elsewhere: bool,
}

/// The line can't be read with certainty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) String);

/// Takes a line apart.
pub(super) fn parts(line: &str, depth: usize) -> Result<Vec<Part>, Unreadable> {
    let mut parser = Parser { chars: line.chars().collect(), at: 0, depth, parts: Vec::new(), waiting: Vec::new() };
    parser.commands(Closing::End)?;
    Ok(parser.parts)
}

/// Where a list of commands ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    /// With the line.
    End,
    /// At the `)` of a substitution.
    Parenthesis,
}

/// A here-document whose text comes after the line's end.
struct Waiting {
    part: usize,
    delimiter: String,
    quoted: bool,
    strip_tabs: bool,
}

/// What a `case` waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Pattern,
    Commands,
}

pub(super) struct Parser {
    pub(super) chars: Vec<char>,
    pub(super) at: usize,
    pub(super) depth: usize,
    pub(super) parts: Vec<Part>,
    waiting: Vec<Waiting>,
}

impl Parser {
    pub(super) fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    pub(super) fn eat(&mut self, text: &str) -> bool {
        let found = text.chars().enumerate().all(|(index, char)| self.peek(index) == Some(char));
        if found {
            self.at += text.chars().count();
        }
        found
    }

    pub(super) fn undecided(&mut self, what: impl Into<String>) {
        self.parts.push(Part::Undecided(what.into()));
    }

    /// Commands inside of a substitution, whose opening was just eaten, up to its `)`.
    pub(super) fn nested(&mut self) -> Result<(), Unreadable> {
        if !self.waiting.is_empty() {
            return Err(unreadable("a substitution follows a here-document on its line"));
        }
        if self.depth >= DEPTH {
            return Err(unreadable("substitutions are nested too deeply"));
        }
        self.depth += 1;
        let done = self.commands(Closing::Parenthesis);
        self.depth -= 1;
        if !self.waiting.is_empty() {
            return Err(unreadable("a here-document in a substitution has no text"));
        }
        done
    }

    fn commands(&mut self, closing: Closing) -> Result<(), Unreadable> {
        let mut open = 0_usize;
        let mut cases: Vec<Case> = Vec::new();
        loop {
            self.blanks();
            if cases.last() == Some(&Case::Pattern) {
                self.case_pattern(&mut cases)?;
                continue;
            }
            match self.peek(0) {
                None if closing == Closing::End && open == 0 && cases.is_empty() => return Ok(()),
                None => return Err(unreadable("something that was opened isn't closed")),
                Some('\n') => self.end_of_line()?,
                Some(';') => {
                    self.at += 1;
                    if matches!(self.peek(0), Some(';' | '&')) {
                        self.at += 1;
                        self.eat("&");
                        match cases.last_mut() {
                            Some(case) => *case = Case::Pattern,
                            None => return Err(unreadable("`;;` stands outside of a `case`")),
                        }
                    }
                }
                Some('&' | '|') => self.at += 1,
                Some('(') => {
                    if self.peek(1) == Some('(') {
                        self.undecided("`((` calculates, or opens two subshells");
                    }
                    self.at += 1;
                    open += 1;
                    if open > DEPTH {
                        return Err(unreadable("subshells are nested too deeply"));
                    }
                }
                Some(')') => {
                    self.at += 1;
                    match (open, closing) {
                        (0, Closing::Parenthesis) if cases.is_empty() => return Ok(()),
                        (0, _) => return Err(unreadable("a `)` closes nothing")),
                        _ => open -= 1,
                    }
                }
                Some(_) => self.simple(&mut cases)?,
            }
        }
    }

    /// Blanks, continued lines and comments.
    fn blanks(&mut self) {
        loop {
            match self.peek(0) {
                Some(' ' | '\t') => self.at += 1,
                Some('\\') if self.peek(1) == Some('\n') => self.at += 2,
                Some('#') => {
                    while self.peek(0).is_some_and(|char| char != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    /// A simple command, or a keyword with what belongs to it.
    fn simple(&mut self, cases: &mut Vec<Case>) -> Result<(), Unreadable> {
        let index = self.parts.len();
        // Substitutions inside come after it; a here-document finds it by its place.
        self.parts.push(Part::Command(Simple::default()));
        let mut command = Simple::default();
        let (mut both_ways, mut redirected) = (false, false);
        loop {
            self.blanks();
            let Some(char) = self.peek(0) else { break };
            if both_ways && !matches!(char, ';' | '\n' | '|' | ')') {
                return Err(unreadable("what follows `&>` is a command in some shells"));
            }
            if char == '&' && self.peek(1) == Some('>') {
                self.at += 2;
                self.eat(">");
                self.blanks();
                command.files.push(self.needed_word("a redirection")?);
                (both_ways, redirected) = (true, true);
                continue;
            }
            if matches!(char, ';' | '&' | '|' | '\n' | ')') {
                break;
            }
            if char == '(' {
                if command.words.is_empty() && command.variables.is_empty() {
                    break;
                }
                self.at += 1;
                self.blanks();
                if command.words.len() == 1 && command.variables.is_empty() && self.eat(")") {
                    self.undecided(format!("defines the function `{}`", command.words[0].text));
                    command.words.clear();
                    break;
                }
                return Err(unreadable("a `(` stands inside of a command"));
            }
            if self.redirection(&mut command, index)? {
                redirected = true;
                continue;
            }
            let (word, quoted) = self.word()?;
            if command.words.is_empty() {
                if let (Some(name), false) = (assigned(&word.text), quoted) {
                    if word.text[name.len()..].starts_with('+') {
                        self.undecided(format!(
                            "`{name}+=` sets a variable, or begins a program's name in some shells"
                        ));
                    }
                    command.variables.push(name.to_owned());
                    continue;
                }
                if command.variables.is_empty()
                    && (word.exact || word.text == "[[")
                    && !quoted
                    && self.keyword(&word.text, cases)?
                {
                    if redirected {
                        let keyword = &word.text;
                        self.undecided(format!("`{keyword}` behind a redirection is a program's name in most shells"));
                    }
                    // What follows a keyword is a command again.
                    break;
                }
            }
            let timed = command.words.first().is_some_and(|first| first.text == "time")
                && command.words[1..].iter().all(|option| option.text.starts_with('-'));
            if timed && !quoted && KEYWORDS.contains(&&*word.text) {
                return Err(unreadable("`time` before a keyword is a keyword in some shells"));
            }
            command.words.push(word);
        }
        match &mut self.parts[index] {
            Part::Command(place) => {
                command.documents.append(&mut place.documents);
                *place = command;
            }
            Part::Undecided(_) => unreachable!("the place holds a command"),
        }
        Ok(())
    }

    /// Whether the word is a keyword; eats what belongs to it.
    fn keyword(&mut self, word: &str, cases: &mut Vec<Case>) -> Result<bool, Unreadable> {
        match word {
            "if" | "then" | "else" | "elif" | "fi" | "while" | "until" | "do" | "done" | "!" | "{" | "}" => {}
            "for" => {
                self.blanks();
                let name = self.needed_word("`for`")?;
                if !name.exact || !is_name(&name.text) {
                    return Err(unreadable("`for` without a plain name"));
                }
                // It sets a variable, as an assignment does.
                self.parts.push(Part::Command(Simple { variables: vec![name.text], ..Simple::default() }));
                self.spaces_and_lines()?;
                if self.at_word("in") {
                    self.at += 2;
                    loop {
                        self.blanks();
                        match self.peek(0) {
                            None | Some(';' | '\n') => break,
                            Some('&' | '|' | '(' | ')' | '<' | '>') => {
                                return Err(unreadable("`for` with an operator"));
                            }
                            Some(_) => {
                                self.word()?;
                            }
                        }
                    }
                }
            }
            "case" => {
                self.blanks();
                self.needed_word("`case`")?;
                self.spaces_and_lines()?;
                if !self.at_word("in") {
                    return Err(unreadable("`case` without `in`"));
                }
                self.at += 2;
                cases.push(Case::Pattern);
                if cases.len() > DEPTH {
                    return Err(unreadable("`case` is nested too deeply"));
                }
            }
            "esac" => {
                cases.pop().ok_or_else(|| unreadable("`esac` without `case`"))?;
            }
            "function" | "select" | "coproc" | "[[" => {
                return Err(unreadable(&format!("`{word}` is not known to every shell")));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// One `pattern | pattern )`, or `esac`.
    fn case_pattern(&mut self, cases: &mut Vec<Case>) -> Result<(), Unreadable> {
        self.spaces_and_lines()?;
        if self.at_word("esac") {
            self.at += 4;
            cases.pop();
            return Ok(());
        }
        self.eat("(");
        loop {
            self.blanks();
            self.needed_word("`case`")?;
            self.blanks();
            if self.eat(")") {
                break;
            }
            if !self.eat("|") {
                return Err(unreadable("a pattern of `case` isn't closed"));
            }
        }
        if let Some(case) = cases.last_mut() {
            *case = Case::Commands;
        }
        Ok(())
    }

    fn spaces_and_lines(&mut self) -> Result<(), Unreadable> {
        loop {
            self.blanks();
            if self.peek(0) != Some('\n') {
                return Ok(());
            }
            self.end_of_line()?;
        }
    }

    fn at_word(&self, word: &str) -> bool {
        let length = word.chars().count();
        word.chars().enumerate().all(|(index, char)| self.peek(index) == Some(char))
            && self.peek(length).is_none_or(|char| " \t\n;&|)(".contains(char))
    }

    fn needed_word(&mut self, what: &str) -> Result<Word, Unreadable> {
        match self.peek(0) {
            None | Some(';' | '&' | '|' | '\n' | '(' | ')') => Err(unreadable(&format!("{what} lacks a word"))),
            Some('<' | '>') if self.peek(1) != Some('(') => Err(unreadable(&format!("{what} lacks a word"))),
            Some(_) => Ok(self.word()?.0),
        }
    }

    /// A redirection, if one stands here.
    fn redirection(&mut self, command: &mut Simple, index: usize) -> Result<bool, Unreadable> {
        let digits = (0..).take_while(|ahead| self.peek(*ahead).is_some_and(|char| char.is_ascii_digit())).count();
        match (self.peek(digits), self.peek(digits + 1)) {
            (Some('<' | '>'), Some('(')) if digits == 0 => return Ok(false),
            (Some('<' | '>'), _) => self.at += digits,
            _ => return Ok(false),
        }
        if self.eat("<<<") {
            self.blanks();
            let word = self.needed_word("`<<<`")?;
            command.documents.push(word);
        } else if self.eat("<<") {
            let strip_tabs = self.eat("-");
            self.blanks();
            let from = self.at;
            let delimiter = self.needed_word("`<<`")?;
            let written: String = self.chars[from..self.at].iter().collect();
            if !delimiter.exact {
                return Err(unreadable("the word that ends a here-document is not plain"));
            }
            let quoted = written.contains(['\'', '"', '\\']);
            self.waiting.push(Waiting { part: index, delimiter: delimiter.text, quoted, strip_tabs });
        } else {
            let duplicates = self.eat("<&") || self.eat(">&");
            if !duplicates {
                let _ = self.eat("<>") || self.eat(">>") || self.eat(">|") || self.eat("<") || self.eat(">");
            }
            self.blanks();
            let word = self.needed_word("a redirection")?;
            let number = word.text.trim_end_matches('-').chars().all(|char| char.is_ascii_digit());
            if !(duplicates && word.exact && number) {
                command.files.push(word);
            }
        }
        Ok(true)
    }

    /// A newline, and the here-documents that waited for it.
    fn end_of_line(&mut self) -> Result<(), Unreadable> {
        self.at += 1;
        for waiting in std::mem::take(&mut self.waiting) {
            let mut text = String::new();
            loop {
                if self.at >= self.chars.len() {
                    return Err(unreadable("a here-document isn't closed"));
                }
                let rest = &self.chars[self.at..];
                let length = rest.iter().position(|char| *char == '\n').unwrap_or(rest.len());
                let line: String = rest[..length].iter().collect();
                self.at = (self.at + length + 1).min(self.chars.len());
                let line = if waiting.strip_tabs { line.trim_start_matches('\t') } else { &line };
                if line == waiting.delimiter {
                    break;
                }
                if !waiting.quoted && line.ends_with('\\') {
                    return Err(unreadable("a here-document continues its lines"));
                }
                text.push_str(line);
                text.push('\n');
            }
            let exact = waiting.quoted || !self.expands(&text)?;
            if let Some(Part::Command(command)) = self.parts.get_mut(waiting.part) {
                command.documents.push(Word { text, exact });
            }
        }
        Ok(())
    }

    /// Looks for substitutions in the text of a here-document; whether there is anything to expand.
    fn expands(&mut self, text: &str) -> Result<bool, Unreadable> {
        if !text.contains(['$', '`', '\\']) {
            return Ok(false);
        }
        let mut inner = Self {
            chars: text.chars().collect(),
            at: 0,
            depth: self.depth + 1,
            parts: Vec::new(),
            waiting: Vec::new(),
        };
        if inner.depth > DEPTH {
            return Err(unreadable("here-documents are nested too deeply"));
        }
        text::inside(&mut inner, &mut Word::exact(""), Stop::End)?;
        self.parts.append(&mut inner.parts);
        Ok(true)
    }
}

pub(super) fn unreadable(what: &str) -> Unreadable {
    Unreadable(what.to_owned())
}

/// The name of the variable that a word sets, if it sets one.
pub(super) fn assigned(word: &str) -> Option<&str> {
    let (name, _) = word.split_once('=')?;
    let name = name.strip_suffix('+').unwrap_or(name);
    is_name(name).then_some(name)
}

fn is_name(text: &str) -> bool {
    text.chars().all(|char| char.is_ascii_alphanumeric() || char == '_')
        && text.chars().next().is_some_and(|char| !char.is_ascii_digit())
}
