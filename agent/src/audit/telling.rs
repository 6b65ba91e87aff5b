//! Names and forms that tell of a secret, for [`super::secrets`].

/// Parts of a name, without its separators and in lower case, that tell of a secret wherever they stand.
const PARTS: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "credential",
    "apikey",
    "accesskey",
    "privatekey",
    "authkey",
    "signingkey",
    "encryptionkey",
    "accountkey",
    "authtoken",
];

/// Words of a name that do.
const WORDS: [&str; 14] = [
    "token",
    "tokens",
    "pass",
    "pwd",
    "auth",
    "authorization",
    "cookie",
    "bearer",
    "jwt",
    "otp",
    "pat",
    "sig",
    "signature",
    "passcode",
];

/// Last words of names that are about a secret, and are none.
const ABOUT: [&str; 15] = [
    "stdin", "file", "path", "dir", "env", "fd", "prompt", "type", "name", "length", "policy", "url", "uri", "through",
    "method",
];

/// First words of options that turn something off.
const OFF: [&str; 4] = ["no", "without", "disable", "skip"];

/// Words that give a flag, attached or before its value, the meaning of a password.
const FLAGS: [(&str, &str); 13] = [
    ("sshpass", "-p"),
    ("mysql", "-p"),
    ("mysqldump", "-p"),
    ("mysqladmin", "-p"),
    ("mariadb", "-p"),
    ("mariadb-dump", "-p"),
    ("redis-cli", "-a"),
    ("ldapsearch", "-w"),
    ("7z", "-p"),
    ("zip", "-P"),
    ("unzip", "-P"),
    ("login", "-p"),
    ("mongosh", "-p"),
];

/// Words that run a line which they are given.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "zsh", "ksh", "eval"];

/// The bit of [`Seen`] for these.
const SHELL: u16 = 1 << 15;

/// Beginnings of tokens, and how long such a token is at least.
const TOKENS: [(&str, usize); 21] = [
    ("ghp_", 24),
    ("gho_", 24),
    ("ghu_", 24),
    ("ghs_", 24),
    ("ghr_", 24),
    ("github_pat_", 30),
    ("glpat-", 20),
    ("xoxb-", 16),
    ("xoxp-", 16),
    ("xoxa-", 16),
    ("xapp-", 16),
    ("sk-", 24),
    ("sk_live_", 20),
    ("rk_live_", 20),
    ("AKIA", 20),
    ("ASIA", 20),
    ("AIza", 35),
    ("npm_", 30),
    ("pypi-", 30),
    ("hf_", 30),
    ("eyJ", 40),
];

/// Longest name that is looked at.
const NAME: usize = 128;

/// Whether a value under this name is likely to be a secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    if !(2..=NAME).contains(&name.len()) || !name.is_ascii() {
        return false;
    }
    let words = words(name);
    let (Some(first), Some(last)) = (words.first(), words.last()) else { return false };
    if ABOUT.contains(&last.as_str()) || OFF.contains(&first.as_str()) {
        return false;
    }
    let whole = words.concat();
    // Where a shell is and was, and no password.
    if matches!(whole.as_str(), "pwd" | "oldpwd") {
        return false;
    }
    PARTS.iter().any(|part| whole.contains(part)) || words.iter().any(|word| WORDS.contains(&word.as_str()))
}

/// The words of `camelCase`, `snake_case` and `kebab-case`, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut was_small = false;
    for letter in name.chars() {
        let is_letter = letter.is_ascii_alphanumeric();
        if (!is_letter || (was_small && letter.is_ascii_uppercase())) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if is_letter {
            word.push(letter.to_ascii_lowercase());
        }
        was_small = letter.is_ascii_lowercase();
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Whether a word says how the secret after it is meant: `Bearer`.
pub(super) fn is_scheme(word: &str) -> bool {
    ["bearer", "basic", "token", "digest", "apikey", "negotiate"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
}

/// Whether an option is followed by `user:password`.
pub(super) fn takes_credentials(option: &str) -> bool {
    matches!(option, "-u" | "-U" | "--user" | "--proxy-user")
}

/// Whether an option is followed by a header.
pub(super) fn takes_header(option: &str) -> bool {
    matches!(option, "-H" | "--header" | "--proxy-header")
}

/// Whether this is a token of a well-known form.
pub(super) fn is_token(word: &str) -> bool {
    TOKENS.iter().any(|(beginning, least)| word.starts_with(beginning) && word.len() >= *least)
}

/// Which of the words that give a flag its meaning were there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen(u16);

impl Seen {
    pub(super) fn see(&mut self, word: &str) {
        let name = word.rsplit('/').next().unwrap_or(word);
        for (index, _) in FLAGS.iter().enumerate().filter(|(_, (program, _))| *program == name) {
            self.0 |= 1 << index;
        }
        if SHELLS.contains(&name) {
            self.0 |= SHELL;
        }
    }

    fn flags(self) -> impl Iterator<Item = &'static str> {
        FLAGS.iter().enumerate().filter(move |(index, _)| self.0 & (1 << index) != 0).map(|(_, (_, flag))| *flag)
    }

    /// Whether one of them runs lines.
    pub(super) fn a_shell(self) -> bool {
        self.0 & SHELL != 0
    }

    /// Whether the word is a flag, and what follows it a password.
    pub(super) fn is_secret_flag(self, word: &str) -> bool {
        self.flags().any(|flag| flag == word)
    }

    /// The password that is attached to a flag.
    pub(super) fn attached_secret(self, word: &str) -> Option<&str> {
        self.flags().find_map(|flag| word.strip_prefix(flag)).filter(|value| !value.is_empty())
    }
}
