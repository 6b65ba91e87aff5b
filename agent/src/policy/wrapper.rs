//! Programs that run other programs: what they run, as far as their arguments say it.

use super::{
    known::{Alone, INFORMING, OPAQUE, SHELL_OPTIONS, SHELLS, WRAPPERS, Wrapper},
    line::{Simple, Word, assigned},
};

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
    /// A command that stands somewhere in its arguments.
    Somewhere(&'static str),
}

const HIDDEN: Runs = Runs::Somewhere("it runs another command, behind options that aren't known here");

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
        "hash" | "enable" | "bind" | "complete" | "compgen" | "fc" | "mapfile" | "readarray"
            if !arguments.is_empty() =>
        {
            Runs::Unseen("it changes what a name stands for, or runs what it is given")
        }
        "let" if !arguments.is_empty() => Runs::Unseen("it calculates, which may run commands in some shells"),
        "export" | "declare" | "typeset" | "readonly" | "local" => Runs::Commands(vec![Simple {
            variables: arguments.iter().filter_map(|word| assigned(&word.text)).map(str::to_owned).collect(),
            ..Simple::default()
        }]),
        "command" if arguments.first().is_some_and(|word| ["-v", "-V"].contains(&word.text.as_str())) => Runs::Nothing,
        "ssh" | "tmux" | "screen" | "at" | "batch" | "crontab" => {
            Runs::Unseen("it runs other commands, elsewhere or later")
        }
        "su" | "runuser" => as_user(arguments),
        "find" | "fd" | "fdfind" => found(arguments),
        name if SHELLS.contains(&name) => shell(arguments, command),
        name if OPAQUE.contains(&name) || is_loader(name) => Runs::Somewhere("it runs other commands"),
        name => match WRAPPERS.iter().find(|wrapper| wrapper.names.contains(&name)) {
            Some(wrapper) => wrapped(wrapper, name, arguments, command),
            None => Runs::Nothing,
        },
    }
}

/// The loader of dynamic programs (`ld.so(8)`), which runs the one that it is given.
fn is_loader(name: &str) -> bool {
    name == "ld.so" || name.starts_with("ld-") && name.contains(".so")
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
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        if !word.exact {
            return Runs::Somewhere("the shell's arguments are not written out");
        }
        match word.text.strip_prefix(['-', '+']) {
            Some(options) if options.starts_with('-') => match &options[1..] {
                "version" | "help" => return Runs::Nothing,
                known if SHELL_OPTIONS.contains(&known) => {}
                _ => return Runs::Somewhere("the shell has an option that isn't known here"),
            },
            Some(options) if !options.is_empty() => {
                reads_line |= options.contains('c');
                // `-euo pipefail`: their names follow in turn.
                for _ in options.chars().filter(|option| ['o', 'O'].contains(option)) {
                    rest.next();
                }
            }
            _ if reads_line => return Runs::Line(word.text.clone()),
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

/// `su`, whose options may stand anywhere: `su USER -c LINE`, `runuser -u USER COMMAND`.
fn as_user(arguments: &[Word]) -> Runs {
    let is_line = |word: &Word| ["-c", "--command", "--session-command"].contains(&&*word.text);
    let lines: Vec<_> = arguments.windows(2).filter(|pair| is_line(&pair[0])).map(|pair| &pair[1]).collect();
    match lines[..] {
        // With more words they are the line's, or options of whatever kind.
        [line] if arguments.len() <= 4 && arguments.iter().all(|word| word.exact) => Runs::Line(line.text.clone()),
        _ => Runs::Somewhere("it runs a shell or another command"),
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
            let elsewhere = word.text.ends_with("dir");
            let mut words: Vec<Word> = rest.by_ref().take_while(|word| word.text != ";").cloned().collect();
            for word in &mut words {
                // A file's name stands here later.
                word.exact &= !word.text.contains("{}");
            }
            commands.push(Simple { words, elsewhere, ..Simple::default() });
        } else if word.text.starts_with("--exec") {
            return Runs::Somewhere("it runs other commands");
        }
    }
    Runs::Commands(commands)
}

fn wrapped(wrapper: &Wrapper, name: &str, arguments: &[Word], command: &Simple) -> Runs {
    // Named first, before the options, or not at all.
    let names_machine = |word: &Word| wrapper.names.contains(&&*word.text);
    let skipped = usize::from(name == "setarch" && arguments.first().is_some_and(names_machine));
    let Some(Read { options, rest }) = read(wrapper, name, &arguments[skipped..]) else { return HIDDEN };
    let has = |short: char, long: &str| options.iter().any(|(option, _)| option.is(short, long));
    let operands = match rest.first() {
        // A number for some of its policies, and none for others.
        Some(word) if name == "chrt" && !word.text.starts_with(|char: char| char.is_ascii_digit()) => 0,
        _ => rest.len().min(wrapper.operands),
    };
    if rest[..operands].iter().any(|word| !word.exact) {
        return HIDDEN;
    }
    let mut rest = &rest[operands..];
    let mut variables = Vec::new();
    while matches!(name, "env" | "sudo" | "doas") && rest.first().is_some_and(|word| word.text.contains('=')) {
        variables.extend(rest[0].text.split('=').next().map(str::to_owned));
        rest = &rest[1..];
    }
    let documents = command.documents.clone();
    let is_alone = rest.is_empty();
    match (name, rest) {
        (_, [])
            if wrapper.alone == Alone::Shell && !options.iter().any(|(option, _)| INFORMING.contains(&option.0)) =>
        {
            return Runs::Unseen("it starts a shell");
        }
        ("watch", rest) if !is_alone && !has('x', "exec") => return joined(rest),
        ("flock", [word, line]) if ["-c", "--command"].contains(&&*word.text) => {
            return joined(std::slice::from_ref(line));
        }
        // The shell that the line is for may be any; `/_` in it becomes a file's name.
        ("entr", [line, ..]) if has('s', "") => return joined(std::slice::from_ref(line)),
        _ => {}
    }
    let mut words = rest.to_vec();
    if name == "entr" {
        words.iter_mut().for_each(|word| word.exact &= word.text != "/_");
    }
    if name == "xargs" && !is_alone {
        // More arguments come, which nobody sees, behind these or in the place of a word.
        words.push(Word { text: "…".to_owned(), exact: false });
        for (option, value) in &options {
            if option.is('I', "replace") || option.is('i', "replace") {
                let place = value.filter(|value| !value.is_empty()).unwrap_or("{}");
                words.iter_mut().for_each(|word| word.exact &= !word.text.contains(place));
            }
        }
    }
    let elsewhere = name == "env" && has('C', "chdir") || name == "sudo" && has('D', "chdir");
    Runs::Commands(vec![Simple { variables, words, files: Vec::new(), documents, elsewhere }])
}

/// What stands before a wrapper's operands, and these with all behind them.
struct Read<'a> {
    options: Vec<(Named<'a>, Option<&'a str>)>,
    rest: &'a [Word],
}

/// An option as it was written, without its dashes.
struct Named<'a>(&'a str);

impl Named<'_> {
    fn is(&self, short: char, long: &str) -> bool {
        self.0.strip_prefix(short) == Some("") || self.0 == long
    }
}

/// Reads a wrapper's options as `getopt_long(3)` does when it stops at the first operand. `None` where one isn't known.
fn read<'a>(wrapper: &Wrapper, name: &str, arguments: &'a [Word]) -> Option<Read<'a>> {
    let mut options = Vec::new();
    let mut rest = arguments;
    while let Some((word, after)) = rest.split_first() {
        // `env -` is `env -i`.
        if !word.text.starts_with('-') || word.text == "-" && name != "env" {
            break;
        }
        if !word.exact {
            return None;
        }
        rest = after;
        if word.text == "--" {
            break;
        }
        let mut next = || {
            let (value, after) = rest.split_first().filter(|(value, _)| value.exact)?;
            rest = after;
            Some(value.text.as_str())
        };
        if let Some(long) = word.text.strip_prefix("--") {
            let (long, given) = long.split_once('=').map_or((long, None), |(long, value)| (long, Some(value)));
            let known = wrapper.long.iter().chain(INFORMING).find(|known| known.trim_end_matches(':') == long)?;
            let value = match given {
                None if known.ends_with(':') && !known.ends_with("::") => Some(next()?),
                given => given,
            };
            options.push((Named(long), value));
            continue;
        }
        let letters = &word.text[1..];
        // `nice -5` is an old way to say `nice -n 5`.
        if name == "nice" && letters.chars().all(|char| char.is_ascii_digit() || char == '-') {
            continue;
        }
        for (index, letter) in letters.char_indices() {
            let behind = wrapper.short.split_once(letter).filter(|_| letter != ':')?.1;
            let option = Named(&letters[index..index + letter.len_utf8()]);
            let given = &letters[index + letter.len_utf8()..];
            if !behind.starts_with(':') {
                options.push((option, None));
                continue;
            }
            let value = match given {
                "" if !behind.starts_with("::") => Some(next()?),
                given => Some(given),
            };
            options.push((option, value));
            break;
        }
    }
    Some(Read { options, rest })
}
