//! What looks like a secret in a line is masked before the line is kept: values of options, variables, headers and query parameters
//! with telling names, passwords in URLs, and tokens of well-known forms.
//!
//! These are guesses by form. A secret without a telling name or form stays, and a value that is none may be masked. What a
//! shell would run is never masked: a value with a command substitution stays as it is, so nobody hides a command as a secret.
//! The tables of names are in [`super::telling`].

use super::telling::{self, is_secret_name};

/// What stands for a secret.
const MASK: &str = "***";

/// Bytes of a line that are looked at; more than are kept of it.
const BYTES: usize = 4_096;

/// How deep quoted lines in lines are looked into: `sh -c "ssh host 'curl -H …'"`.
const DEPTH: u8 = 3;

/// A shell's line, or any text, with what looks like a secret masked; its beginning, if it is long.
pub(super) fn mask(line: &str) -> String {
    let (line, is_cut) = beginning(line);
    let line = without_cut_word(line, is_cut);
    let mut masker = Masker::new(DEPTH);
    masker.line(line);
    masker.out
}

/// The same for a program and its arguments, joined by spaces.
pub(super) fn mask_arguments(arguments: &[String]) -> String {
    let mut masker = Masker::new(DEPTH);
    for argument in arguments {
        if masker.out.len() >= BYTES {
            break;
        }
        if !masker.out.is_empty() {
            masker.out.push(' ');
        }
        let (argument, is_cut) = beginning(argument);
        masker.argument(without_cut_word(argument, is_cut));
    }
    masker.out
}

fn beginning(text: &str) -> (&str, bool) {
    match text.char_indices().take_while(|(index, _)| *index < BYTES).last() {
        Some((index, last)) if index + last.len_utf8() < text.len() => (&text[..index + last.len_utf8()], true),
        _ => (text, false),
    }
}

/// A word that was cut may not be known for what it is.
fn without_cut_word(text: &str, is_cut: bool) -> &str {
    if is_cut { text.rfind(char::is_whitespace).map_or("", |end| &text[..end]) } else { text }
}

/// What the next word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Anything,
    /// The value of an option or a header with a telling name.
    Secret,
    /// `user:password`.
    Credentials,
    /// `Name: value`.
    Header,
}

struct Masker {
    out: String,
    depth: u8,
    next: Next,
    /// Words since the last command began that say what its flags mean.
    seen: telling::Seen,
}

impl Masker {
    fn new(depth: u8) -> Self {
        Self { out: String::new(), depth, next: Next::Anything, seen: telling::Seen::default() }
    }

    fn line(&mut self, line: &str) {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            if is_separator(first) {
                if !first.is_whitespace() || first == '\n' {
                    (self.next, self.seen) = (Next::Anything, telling::Seen::default());
                }
                self.out.push(first);
                rest = &rest[first.len_utf8()..];
            } else {
                let (word, after) = rest.split_at(end_of_word(rest));
                self.word(word);
                rest = after;
            }
        }
    }

    /// A word that a shell has not seen: its blanks and quotes are its own.
    fn argument(&mut self, argument: &str) {
        let next = std::mem::replace(&mut self.next, Next::Anything);
        if self.expected(next, "", argument, "") {
            return;
        }
        if argument.contains(char::is_whitespace) {
            return self.nested(argument);
        }
        self.plain(argument);
    }

    fn word(&mut self, word: &str) {
        let next = std::mem::replace(&mut self.next, Next::Anything);
        let quoted = Quoted::in_word(word);
        let (before, quote, inner, after) = match &quoted {
            Some(Quoted { before, quote, inner, after }) => (*before, *quote, *inner, *after),
            None => ("", "", word, ""),
        };
        if before.is_empty() && self.expected(next, quote, inner, quote) {
            if !after.is_empty() {
                self.word(after);
            }
            return;
        }
        if quoted.is_none() || !inner.contains(char::is_whitespace) {
            return self.plain(word);
        }
        // Part of the word is quoted, and has blanks.
        let name = before.strip_suffix(['=', ':']).map(trailing_name);
        if name.is_some_and(is_secret_name) && !is_run(inner) {
            self.out.push_str(before);
            return self.hide(quote);
        }
        if !before.is_empty() {
            self.plain(before);
        }
        self.out.push_str(quote);
        let is_header = before.strip_suffix('=').is_some_and(telling::takes_header);
        if !(is_header && self.header(inner)) {
            self.nested(inner);
        }
        self.out.push_str(quote);
        self.next = Next::Anything;
        if !after.is_empty() {
            self.word(after);
        }
    }

    /// Writes a word as what it was expected to be; false if it isn't that.
    fn expected(&mut self, next: Next, open: &str, inner: &str, close: &str) -> bool {
        let before = self.out.len();
        self.out.push_str(open);
        let done = match next {
            Next::Anything => false,
            Next::Secret if telling::is_scheme(inner) => {
                self.out.push_str(inner);
                self.next = Next::Secret;
                true
            }
            Next::Secret if !is_run(inner) && !is_reference(inner) => {
                self.out.push_str(MASK);
                true
            }
            Next::Secret => false,
            Next::Credentials => match inner.split_once(':') {
                Some((user, password)) if !is_run(inner) && !is_reference(password) => {
                    self.out.push_str(user);
                    self.out.push(':');
                    self.out.push_str(MASK);
                    true
                }
                _ => false,
            },
            Next::Header => self.header(inner),
        };
        if done {
            self.out.push_str(close);
        } else {
            self.out.truncate(before);
        }
        done
    }

    /// A header with a telling name, without its value. False for another.
    fn header(&mut self, text: &str) -> bool {
        let Some((name, value)) = text.split_once(':') else { return false };
        // A shell takes the option for another, and the text for a line.
        if self.seen.a_shell() || !is_secret_name(name.trim()) || is_run(value) || is_reference(value.trim()) {
            return false;
        }
        self.out.push_str(name);
        self.out.push_str(": ");
        self.out.push_str(MASK);
        true
    }

    /// A line that is a part of this one.
    fn nested(&mut self, text: &str) {
        if self.depth == 0 {
            // Deeper than anybody writes by hand.
            self.out.push_str(MASK);
            return;
        }
        let mut inner = Self::new(self.depth - 1);
        inner.line(text);
        self.out.push_str(&inner.out);
    }

    /// A word without blanks.
    fn plain(&mut self, word: &str) {
        if let Some(value) = self.seen.attached_secret(word) {
            self.out.push_str(&word[..word.len() - value.len()]);
            self.out.push_str(MASK);
            return;
        }
        self.next = match word {
            _ if self.seen.is_secret_flag(word) => Next::Secret,
            _ if telling::takes_header(word) => Next::Header,
            _ if telling::takes_credentials(word) => Next::Credentials,
            option if option.starts_with('-') && !option.contains(['=', ':']) && is_secret_name(option) => Next::Secret,
            // As in `Authorization: Bearer …`, when it is words of a text.
            name if name.strip_suffix(':').is_some_and(|name| is_secret_name(trailing_name(name))) => Next::Secret,
            _ => Next::Anything,
        };
        self.seen.see(word);
        let word = without_values(word);
        let word = without_password(&word);
        self.out.push_str(&without_tokens(&word));
    }

    fn hide(&mut self, quote: &str) {
        for part in [quote, MASK, quote] {
            self.out.push_str(part);
        }
    }
}

/// A word with a quoted part.
struct Quoted<'a> {
    before: &'a str,
    quote: &'a str,
    inner: &'a str,
    after: &'a str,
}

impl<'a> Quoted<'a> {
    fn in_word(word: &'a str) -> Option<Self> {
        let start = word.find(['"', '\''])?;
        let (quote, rest) = word[start..].split_at(1);
        let end = rest.find(quote)?;
        Some(Self { before: &word[..start], quote, inner: &rest[..end], after: &rest[end + 1..] })
    }
}

fn is_separator(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, ';' | '|' | '&' | '(' | ')' | '<' | '>' | '`')
}

fn end_of_word(text: &str) -> usize {
    let (mut quote, mut escaped) = (None, false);
    for (index, letter) in text.char_indices() {
        match quote {
            _ if escaped => escaped = false,
            _ if letter == '\\' => escaped = true,
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if matches!(letter, '"' | '\'') => quote = Some(letter),
            // `&` also stands between the parameters of a URL that nobody has quoted; only a shell takes it for its own.
            None if is_separator(letter) => return index,
            None => {}
        }
    }
    text.len()
}

/// Whether a shell would run a part of it.
fn is_run(value: &str) -> bool {
    value.contains("$(") || value.contains('`') || value.contains("<(") || value.contains(">(")
}

/// Whether it only says where the value stands: `$NAME`, `${NAME}`, or what is left of `$(`.
fn is_reference(value: &str) -> bool {
    let inner = value.trim_matches(['"', '\'']);
    inner
        .strip_prefix('$')
        .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'{' | b'}')))
}

fn is_of_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.')
}

/// The name at the end of a text, without the quotes that JSON puts around it.
fn trailing_name(text: &str) -> &str {
    let text = text.trim_end_matches(['"', '\'', '\\']);
    text.char_indices()
        .rev()
        .take_while(|(_, letter)| is_of_name(*letter))
        .last()
        .map_or("", |(start, _)| &text[start..])
}

/// `NAME=value`, `?name=value&…`, `"name":"value"`.
fn without_values(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(at) = rest.find(['=', ':']) {
        let (before, value) = (&rest[..at], &rest[at + 1..]);
        out.push_str(&rest[..=at]);
        rest = value;
        let name = trailing_name(before);
        if value.starts_with("//") || !is_secret_name(name) {
            continue;
        }
        let quotes = value.len() - value.trim_start_matches(['"', '\'', '\\']).len();
        let (open, value) = value.split_at(quotes);
        // A parameter's value ends before the next one, a quoted one with its quote, any other with the word.
        let is_parameter = before[..before.len() - name.len()].ends_with(['?', '&']);
        let end = match (is_parameter, quotes > 0) {
            (true, _) => value.find(['&', '#', '"', '\'']),
            (_, true) => value.find(['"', '\'', '\\']),
            _ => None,
        };
        let (value, after) = value.split_at(end.unwrap_or(value.len()));
        out.push_str(open);
        out.push_str(if value.is_empty() || is_run(value) || is_reference(value) { value } else { MASK });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// `scheme://user:password@host`.
fn without_password(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(at) = rest.find("://") {
        let (before, authority) = rest.split_at(at + 3);
        out.push_str(before);
        let end = authority.find(['/', '?', '#', '"', '\'']).unwrap_or(authority.len());
        match authority[..end].rfind('@') {
            Some(host) if !is_run(&authority[..host]) => {
                // A user alone may be a token.
                out.push_str(MASK);
                rest = &authority[host..];
            }
            _ => rest = authority,
        }
    }
    out.push_str(rest);
    out
}

/// Tokens that are known by their form.
fn without_tokens(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(first) = rest.chars().next() {
        // Where a word begins within the word.
        let run = rest.find(|letter| !is_of_name(letter)).unwrap_or(rest.len());
        if run == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (token, after) = rest.split_at(run);
        out.push_str(if telling::is_token(token) { MASK } else { token });
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests;
