//! Programs that run other programs: what they run, as far as their arguments say it.

use super::line::{Simple, Word, assigned};

/// What a command runs besides itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Runs {
    /// Nothing that is named in its arguments.
    Nothing,
    /// Each of these.
    Commands(Vec<Simple>),
    /// This shell line.
    Line(String),
    /// Something that can't be seen.
    Unseen(&'static str),
}

/// A program that takes options and operands, and then a command.
struct Wrapper {
    names: &'static [&'static str],
    /// One-letter options that take a value, and those that don't.
    valued: &'static str,
    plain: &'static str,
    /// Long options without a value; one with a value is written with `=`.
    long: &'static [&'static str],
    /// Operands before the command.
    operands: usize,
}

const WRAPPERS: &[Wrapper] = &[
    wrapper(&["env"], "uC", "i0v", &["ignore-environment", "debug", "null"], 0),
    wrapper(&["nohup", "builtin", "setsid", "unbuffer"], "", "cfw", &["ctty", "fork", "wait"], 0),
    wrapper(&["time"], "fo", "pvaq", &["portability", "verbose", "append", "quiet"], 0),
    wrapper(&["timeout"], "ks", "v", &["foreground", "preserve-status", "verbose"], 1),
    wrapper(&["nice"], "n", "", &[], 0),
    wrapper(&["ionice"], "cn", "t", &["ignore"], 0),
    wrapper(&["stdbuf"], "ioe", "", &[], 0),
    wrapper(&["exec"], "a", "cl", &[], 0),
    wrapper(&["command"], "", "p", &[], 0),
    wrapper(&["sudo"], "ugCpDRTrtUh", "nEHkKSbPABi", &["non-interactive", "preserve-env", "login"], 0),
    wrapper(&["doas"], "uC", "nsL", &[], 0),
    wrapper(&["chroot"], "", "", &[], 1),
    wrapper(&["busybox", "toybox"], "", "", &[], 0),
    wrapper(&["flock"], "wE", "sxneuoF", &["shared", "exclusive", "nonblock", "close"], 1),
    wrapper(&["xargs"], "aEIdLnPs", "0prtxo", &["null", "no-run-if-empty", "verbose", "interactive", "exit"], 0),
    wrapper(&["watch"], "n", "bcdetgpx", &["color", "differences", "errexit", "exec", "no-title"], 0),
];

const fn wrapper(
    names: &'static [&'static str],
    valued: &'static str,
    plain: &'static str,
    long: &'static [&'static str],
    operands: usize,
) -> Wrapper {
    Wrapper { names, valued, plain, long, operands }
}

const SHELLS: &[&str] = &["sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "yash", "rbash", "fish"];

/// What the program called `name` runs.
pub(super) fn runs(name: &str, command: &Simple) -> Runs {
    let arguments = command.words.get(1..).unwrap_or_default();
    match name {
        "eval" => joined(arguments),
        "trap" => match arguments.iter().find(|word| word.text != "--") {
            Some(word) if word.exact => Runs::Line(word.text.clone()),
            Some(_) => Runs::Unseen("the command of `trap` is not written out"),
            None => Runs::Nothing,
        },
        "." | "source" => Runs::Unseen("it runs what a file says"),
        "alias" if !arguments.is_empty() => Runs::Unseen("it gives a command another name"),
        "hash" | "enable" | "bind" | "complete" if !arguments.is_empty() => {
            Runs::Unseen("it changes what a name stands for")
        }
        "export" | "declare" | "typeset" | "readonly" | "local" => Runs::Commands(vec![Simple {
            variables: arguments.iter().filter_map(|word| assigned(&word.text)).map(str::to_owned).collect(),
            ..Simple::default()
        }]),
        "command" if arguments.first().is_some_and(|word| ["-v", "-V"].contains(&word.text.as_str())) => Runs::Nothing,
        "su" | "parallel" | "script" | "unshare" | "nsenter" | "setpriv" | "ssh" => {
            Runs::Unseen("it runs other commands")
        }
        "find" | "fd" | "fdfind" => found(arguments),
        name if SHELLS.contains(&name) => shell(arguments, command),
        name => match WRAPPERS.iter().find(|wrapper| wrapper.names.contains(&name)) {
            Some(wrapper) => wrapped(wrapper, name, arguments, command),
            None => Runs::Nothing,
        },
    }
}

fn joined(words: &[Word]) -> Runs {
    if words.iter().all(|word| word.exact) {
        Runs::Line(words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" "))
    } else {
        Runs::Unseen("what it evaluates is not written out")
    }
}

/// `sh -c LINE`, a here-document, or something unseen.
fn shell(arguments: &[Word], command: &Simple) -> Runs {
    let mut reads_line = false;
    for (index, word) in arguments.iter().enumerate() {
        if !word.exact {
            return Runs::Unseen("the shell's arguments are not written out");
        }
        match word.text.strip_prefix(['-', '+']) {
            Some("o" | "O") => return Runs::Unseen("the shell has options that take a value"),
            Some(options) if options.starts_with('-') => match options {
                "-norc" | "-noprofile" | "-posix" | "-login" => {}
                "-version" | "-help" => return Runs::Nothing,
                _ => return Runs::Unseen("the shell has an option that isn't known here"),
            },
            Some(options) if !options.is_empty() => {
                if options.contains(['o', 'O']) {
                    return Runs::Unseen("the shell has options that take a value");
                }
                reads_line |= options.contains('c');
            }
            _ if reads_line => return Runs::Line(arguments[index].text.clone()),
            _ => return Runs::Unseen("it runs what a file says"),
        }
    }
    match command.documents.last() {
        Some(document) if document.exact && !reads_line && command.files.is_empty() => {
            Runs::Line(document.text.clone())
        }
        _ => Runs::Unseen("the shell runs what it reads"),
    }
}

/// `find … -exec COMMAND ;` and its kin.
fn found(arguments: &[Word]) -> Runs {
    let mut commands = Vec::new();
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        if !word.exact && (word.text.starts_with('$') || word.text.starts_with('-')) {
            return Runs::Unseen("the options of `find` are not written out");
        }
        if ["-exec", "-execdir", "-ok", "-okdir", "-x", "-X", "--exec", "--exec-batch"].contains(&word.text.as_str()) {
            let mut words: Vec<Word> = rest.by_ref().take_while(|word| word.text != ";").cloned().collect();
            for word in &mut words {
                // A file's name stands here later.
                word.exact &= !word.text.contains("{}");
            }
            commands.push(Simple { words, ..Simple::default() });
        } else if word.text.starts_with("--exec") {
            return Runs::Unseen("it runs other commands");
        }
    }
    Runs::Commands(commands)
}

fn wrapped(wrapper: &Wrapper, name: &str, arguments: &[Word], command: &Simple) -> Runs {
    let unknown = Runs::Unseen("it runs another command, behind options that aren't known here");
    let mut rest = arguments;
    while let Some((word, after)) = rest.split_first() {
        if !word.text.starts_with('-') || word.text == "-" && name != "env" {
            break;
        }
        if !word.exact {
            return unknown;
        }
        rest = after;
        if word.text == "--" {
            break;
        }
        if let Some(long) = word.text.strip_prefix("--") {
            let valued = long.contains('=') && !long.starts_with("split-string");
            if valued || wrapper.long.contains(&long) {
                continue;
            }
            return unknown;
        }
        let letters = &word.text[1..];
        // `nice -5` is an old way to say `nice -n 5`.
        if name == "nice" && letters.chars().all(|char| char.is_ascii_digit() || char == '-') {
            continue;
        }
        for (index, letter) in letters.char_indices() {
            if wrapper.valued.contains(letter) {
                if index + letter.len_utf8() == letters.len() {
                    let Some((_, after)) = rest.split_first() else { return Runs::Nothing };
                    rest = after;
                }
                break;
            }
            if !wrapper.plain.contains(letter) {
                return unknown;
            }
        }
    }
    let operands = rest.len().min(wrapper.operands);
    if rest[..operands].iter().any(|word| !word.exact) {
        return unknown;
    }
    rest = &rest[operands..];
    let mut variables = Vec::new();
    while matches!(name, "env" | "sudo" | "doas") && rest.first().is_some_and(|word| word.text.contains('=')) {
        variables.extend(rest[0].text.split('=').next().map(str::to_owned));
        rest = &rest[1..];
    }
    if matches!(name, "watch" | "flock") && !rest.is_empty() && !arguments.iter().any(|word| word.text == "-x") {
        return if name == "watch" { joined(rest) } else { Runs::Unseen("it may run a shell line") };
    }
    let mut words = rest.to_vec();
    if name == "xargs" && !words.is_empty() {
        // More arguments come, which nobody sees.
        words.push(Word { text: "…".to_owned(), exact: false });
        // `-I` puts them anywhere.
        if arguments.iter().any(|word| word.text.starts_with("-I") || word.text.starts_with("--replace")) {
            words.iter_mut().for_each(|word| word.exact = false);
        }
    }
    let documents = command.documents.clone();
    Runs::Commands(vec![Simple { variables, words, files: Vec::new(), documents }])
}
