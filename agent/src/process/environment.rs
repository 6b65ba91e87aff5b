//! The environment that every command starts from: the agent's own, without what is the agent's business.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString, NulError, OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use super::lookup::DEFAULT_PATH;
use crate::config::is_agents_own;

/// Names the command in the environment of all its processes, so that one that left its session and its parents is still
/// known as the command's.
pub const COMMAND: &str = "COREHOLD_COMMAND";

/// The variables of commands, made from the agent's: no other `COREHOLD_…` of the agent's, and defaults for what programs
/// rely on (`PATH`, `HOME`, `USER`, `LOGNAME`, `SHELL`, `LANG`) where the agent has none.
#[must_use]
pub fn of_commands(agent: impl IntoIterator<Item = (OsString, OsString)>) -> BTreeMap<OsString, OsString> {
    let user = User::current();
    let mut variables: BTreeMap<OsString, OsString> = agent
        .into_iter()
        .filter(|(name, _)| !is_agents_own(name))
        // Where the agent was started says nothing about where a command is.
        .filter(|(name, _)| name != "PWD" && name != "OLDPWD")
        .collect();
    for (name, value) in [
        ("PATH", DEFAULT_PATH),
        ("HOME", &user.home),
        ("USER", &user.name),
        ("LOGNAME", &user.name),
        ("SHELL", &user.shell),
        ("LANG", "C.UTF-8"),
    ] {
        variables.entry(name.into()).or_insert_with(|| value.into());
    }
    variables
}

/// Variables as programs are given them. What all commands have is made once.
pub(super) struct Prepared(BTreeMap<OsString, CString>);

impl Prepared {
    /// # Errors
    /// A name or a value holds a NUL byte.
    pub(super) fn new<'a>(variables: impl Iterator<Item = (&'a OsStr, &'a OsStr)>) -> Result<Self, NulError> {
        let written = variables.map(|(name, value)| {
            let bytes = [name.as_bytes(), b"=", value.as_bytes()].concat();
            Ok((name.to_owned(), CString::new(bytes)?))
        });
        written.collect::<Result<_, _>>().map(Self)
    }

    /// The value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        let written = self.0.get(OsStr::new(name))?;
        written.as_bytes().get(name.len() + 1..).map(OsStr::from_bytes)
    }

    /// All of them, but those that are among `others` too, and then those; the names are in order among each. But for
    /// [`COMMAND`], which whoever starts a command adds.
    pub(super) fn with<'a>(&'a self, others: &'a Self) -> impl Iterator<Item = &'a CStr> {
        let own = self.0.iter().filter(|(name, _)| !others.0.contains_key(*name));
        own.chain(&others.0).filter(|(name, _)| *name != COMMAND).map(|(_, written)| written.as_c_str())
    }
}

/// Who the agent runs as. Read from `/etc/passwd`, since a static glibc has no NSS.
#[derive(Debug, PartialEq, Eq)]
struct User {
    name: String,
    home: String,
    shell: String,
}

impl User {
    fn current() -> Self {
        let uid = rustix::process::getuid().as_raw();
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        Self::from_passwd(&passwd, uid).unwrap_or_else(|| Self {
            name: if uid == 0 { "root".to_owned() } else { uid.to_string() },
            home: if uid == 0 { "/root".to_owned() } else { "/".to_owned() },
            shell: "/bin/sh".to_owned(),
        })
    }

    /// `passwd(5)`: name, password, uid, gid, comment, home, shell.
    fn from_passwd(passwd: &str, uid: u32) -> Option<Self> {
        passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, number, _, _, home, shell] = fields[..] else { return None };
            // An account for a service has a shell that lets nobody in; programs that start `$SHELL` would fail.
            let usable = !shell.is_empty() && !shell.ends_with("nologin") && !shell.ends_with("/false");
            (number.parse() == Ok(uid)).then(|| Self {
                name: name.to_owned(),
                home: if home.is_empty() { "/".to_owned() } else { home.to_owned() },
                shell: if usable && Path::new(shell).is_absolute() { shell.to_owned() } else { "/bin/sh".to_owned() },
            })
        })
    }
}

/// Whether a process's environment, as `/proc/<pid>/environ` shows it, says that it belongs to a command.
pub(super) fn names_command(environ: &[u8], id: &str) -> bool {
    command_named(environ).is_some_and(|named| named == id.as_bytes())
}

/// The command that a process's environment names, if any.
pub(super) fn command_named(environ: &[u8]) -> Option<&[u8]> {
    environ.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(COMMAND.as_bytes())?.strip_prefix(b"="))
}

/// Whether a variable can have this name: not empty, no `=`, no NUL.
pub(crate) fn is_valid_name(name: &OsStr) -> bool {
    !name.is_empty() && !name.as_bytes().iter().any(|byte| matches!(byte, b'=' | 0))
}

#[cfg(test)]
mod tests {
    use corehold_types::env_vars;

    use super::*;

    #[test]
    fn commands_see_nothing_of_the_agents_business() {
        let agent = [
            (env_vars::PUBLIC_KEY, "key"),
            (env_vars::TOKEN_SHA256, "hash"),
            ("COREHOLD_LOG", "debug"),
            (env_vars::WORKSPACE_ID, "shop"),
            ("NODE_EXTRA_CA_CERTS", "/ca.pem"),
            ("HOME", "/home/me"),
        ];
        let variables = of_commands(agent.map(|(name, value)| (name.into(), value.into())));
        let get = |name: &str| variables.get(OsStr::new(name)).and_then(|value| value.to_str());
        assert_eq!(get(env_vars::PUBLIC_KEY), None);
        assert_eq!(get(env_vars::TOKEN_SHA256), None);
        assert_eq!(get("COREHOLD_LOG"), None);
        assert_eq!(get(env_vars::WORKSPACE_ID), Some("shop"));
        assert_eq!(get("NODE_EXTRA_CA_CERTS"), Some("/ca.pem"));
        assert_eq!(get("HOME"), Some("/home/me"));
        assert_eq!(get("PATH"), Some(DEFAULT_PATH));
        assert_eq!(get("LANG"), Some("C.UTF-8"));
    }

    #[test]
    fn what_one_command_has_besides_takes_precedence_and_none_names_itself() {
        let prepared = |variables: &[(&str, &str)]| {
            Prepared::new(variables.iter().map(|(name, value)| (OsStr::new(*name), OsStr::new(*value))))
        };
        let all = prepared(&[("A", "1"), ("B", "2=3"), ("C", ""), (COMMAND, "all")]).unwrap();
        let one = prepared(&[("B", "4"), ("D", "5"), (COMMAND, "one")]).unwrap();
        let written: Vec<_> = all.with(&one).map(|written| written.to_str().unwrap()).collect();
        assert_eq!(written, ["A=1", "C=", "B=4", "D=5"]);
        assert_eq!((all.get("B"), all.get("C"), all.get("D")), (Some(OsStr::new("2=3")), Some(OsStr::new("")), None));
        assert!(prepared(&[("A", "\0")]).is_err());
    }

    #[test]
    fn the_user_comes_from_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nworkspace:x:1000:1000::/home/workspace:/bin/bash\nd:x:2:2::/:/usr/sbin/nologin\nbroken\n";
        let user = User::from_passwd(passwd, 1000).unwrap();
        assert_eq!((user.name.as_str(), user.home.as_str()), ("workspace", "/home/workspace"));
        assert_eq!(User::from_passwd(passwd, 2).unwrap().shell, "/bin/sh");
        assert_eq!(User::from_passwd(passwd, 7), None);
    }

    #[test]
    fn the_cookie_is_found_whole_or_not_at_all() {
        let environ = b"A=1\0COREHOLD_COMMAND=cabc\0B=COREHOLD_COMMAND=cx\0";
        assert!(names_command(environ, "cabc"));
        assert!(!names_command(environ, "cab"));
        assert!(!names_command(environ, "cx"));
        assert!(!names_command(b"", ""));
    }
}
