//! What stands in a word: quotes, expansions and substitutions. Which words make a command is [`line`](super::line)'s
//! business.

use super::line::{self, DEPTH, Parser, Unreadable, Word, unreadable};

/// Where text with expansions ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// With the text: a here-document.
    End,
    /// At a double quote.
    Quote,
}

impl Parser {
    /// The word that stands here, and whether any of its name (before a `=`) is quoted.
    pub(super) fn word(&mut self) -> Result<(Word, bool), Unreadable> {
        let mut word = Word::exact("");
        let mut quoted = false;
        let start = self.at;
        // An opened brace, which bash expands if a comma or two dots follow.
        let mut brace = false;
        while let Some(char) = self.peek(0) {
            match char {
                ' ' | '\t' | '\n' | ';' | '&' | '|' | ')' => break,
                '(' if self.at > start => break,
                '<' | '>' if self.peek(1) == Some('(') => {
                    self.at += 2;
                    word.exact = false;
                    word.text.push('$');
                    self.nested()?;
                    continue;
                }
                '<' | '>' => break,
                '\\' => {
                    self.at += 1;
                    match self.peek(0) {
                        Some('\n') => {}
                        Some(next) => {
                            quoted |= !word.text.contains('=');
                            word.text.push(next);
                        }
                        None => return Err(unreadable("a backslash ends the line")),
                    }
                }
                '\'' => {
                    quoted |= !word.text.contains('=');
                    self.at += 1;
                    loop {
                        match self.peek(0) {
                            Some('\'') => break,
                            Some(next) => word.text.push(next),
                            None => return Err(unreadable("a quote isn't closed")),
                        }
                        self.at += 1;
                    }
                }
                '"' => {
                    quoted |= !word.text.contains('=');
                    self.at += 1;
                    inside(self, &mut word, Stop::Quote)?;
                    continue;
                }
                '$' if self.peek(1) == Some('\'') => {
                    return Err(unreadable("`$'…'` means different things in different shells"));
                }
                '$' | '`' => {
                    expansion(self, &mut word, Stop::End)?;
                    continue;
                }
                _ => {
                    let expands = match char {
                        '*' | '?' | '[' => true,
                        // Extended patterns, and history where a shell is interactive.
                        '~' => word.text.is_empty() || word.text.ends_with(['=', ':']),
                        '{' => {
                            brace = true;
                            false
                        }
                        ',' => brace,
                        '.' => brace && self.peek(1) == Some('.'),
                        _ => false,
                    };
                    // `[` alone is a program.
                    let alone = char == '['
                        && word.text.is_empty()
                        && self.peek(1).is_none_or(|next| " \t\n;&|".contains(next));
                    word.exact &= !expands || alone;
                    word.text.push(char);
                }
            }
            self.at += 1;
        }
        Ok((word, quoted))
    }
}

/// Text in which only `$`, backquotes and some backslashes are special: between double quotes, or in a here-document.
pub(super) fn inside(parser: &mut Parser, word: &mut Word, stop: Stop) -> Result<(), Unreadable> {
    loop {
        match parser.peek(0) {
            None if stop == Stop::End => return Ok(()),
            None => return Err(unreadable("a double quote isn't closed")),
            Some('"') if stop == Stop::Quote => {
                parser.at += 1;
                return Ok(());
            }
            Some('\\') => {
                parser.at += 1;
                match parser.peek(0) {
                    Some('\n') => {}
                    Some(next @ ('$' | '`' | '\\')) => word.text.push(next),
                    Some('"') if stop == Stop::Quote => word.text.push('"'),
                    Some(next) => word.text.extend(['\\', next]),
                    None => return Err(unreadable("a backslash ends the line")),
                }
                parser.at += 1;
            }
            Some('$' | '`') => expansion(parser, word, Stop::Quote)?,
            Some(char) => {
                word.text.push(char);
                parser.at += 1;
            }
        }
    }
}

/// What a `$` or a backquote begins. `context` says whether it stands between double quotes.
fn expansion(parser: &mut Parser, word: &mut Word, context: Stop) -> Result<(), Unreadable> {
    let from = parser.at;
    if parser.eat("`") {
        word.exact = false;
        backquoted(parser, context)?;
    } else if parser.eat("$((") {
        word.exact = false;
        arithmetic(parser)?;
    } else if parser.eat("$(") {
        word.exact = false;
        parser.nested()?;
    } else if parser.eat("${") {
        word.exact = false;
        braces(parser)?;
    } else {
        parser.at += 1;
        match parser.peek(0) {
            Some(next) if next.is_ascii_alphanumeric() || "_@*#?$!-".contains(next) => {
                word.exact = false;
                parser.at += 1;
            }
            Some('"') if context == Stop::End => word.exact = false,
            Some('[') => return Err(unreadable("`$[…]` calculates in some shells")),
            _ => {}
        }
    }
    word.text.extend(&parser.chars[from..parser.at]);
    Ok(())
}

/// An old substitution: its text, without one level of backslashes, is a line of its own.
fn backquoted(parser: &mut Parser, context: Stop) -> Result<(), Unreadable> {
    let mut line = String::new();
    loop {
        match parser.peek(0) {
            Some('`') => break,
            Some('\\') => {
                parser.at += 1;
                match parser.peek(0) {
                    Some(next @ ('$' | '`' | '\\')) => line.push(next),
                    Some('"') if context == Stop::Quote => line.push('"'),
                    Some(next) => line.extend(['\\', next]),
                    None => return Err(unreadable("a backquote isn't closed")),
                }
            }
            Some(char) => line.push(char),
            None => return Err(unreadable("a backquote isn't closed")),
        }
        parser.at += 1;
    }
    parser.at += 1;
    if parser.depth >= DEPTH {
        return Err(unreadable("substitutions are nested too deeply"));
    }
    let mut inner = line::parts(&line, parser.depth + 1)?;
    parser.parts.append(&mut inner);
    Ok(())
}

/// `$((…))`, of plain numbers, names and operators. A name's value is calculated too, and in bash can run commands.
fn arithmetic(parser: &mut Parser) -> Result<(), Unreadable> {
    let mut open = 0_usize;
    let mut names = false;
    loop {
        match parser.peek(0) {
            Some('(') => open += 1,
            Some(')') if open > 0 => open -= 1,
            Some(')') if parser.peek(1) == Some(')') => {
                parser.at += 2;
                break;
            }
            Some('$') => {
                names = true;
                deeper(parser)?;
                continue;
            }
            Some(char) if char.is_ascii_alphabetic() || char == '_' => names = true,
            Some(char) if char.is_ascii_digit() || " +-*/%<>=!&|^~?:,".contains(char) => {}
            _ => return Err(unreadable("`$((` that isn't plain arithmetic")),
        }
        parser.at += 1;
    }
    if names {
        parser.undecided("calculates with variables, whose values may run commands in some shells");
    }
    Ok(())
}

/// `${…}`. Quotes in it are read differently by different shells.
fn braces(parser: &mut Parser) -> Result<(), Unreadable> {
    loop {
        match parser.peek(0) {
            Some('}') => {
                parser.at += 1;
                return Ok(());
            }
            Some('\'' | '"' | '\\') => return Err(unreadable("a quote in `${…}`")),
            Some('$' | '`') => {
                deeper(parser)?;
                continue;
            }
            Some('@' | '!' | '[') => {
                parser.undecided("expands a variable in a way that may run its value in some shells");
            }
            Some(_) => {}
            None => return Err(unreadable("a `${` isn't closed")),
        }
        parser.at += 1;
    }
}

/// An expansion inside of another one.
fn deeper(parser: &mut Parser) -> Result<(), Unreadable> {
    if parser.depth >= DEPTH {
        return Err(unreadable("expansions are nested too deeply"));
    }
    parser.depth += 1;
    let done = expansion(parser, &mut Word::exact(""), Stop::Quote);
    parser.depth -= 1;
    done
}
