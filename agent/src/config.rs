//! The agent's configuration, read from the environment in one place.
//!
//! Every field says its variable and default; a value that can't be used stops the agent with a message that names the
//! variable, since an agent that guesses is worse than one that doesn't start. Names that the host sets too come from
//! [`corehold_types::env_vars`].

use std::{
    ffi::{OsStr, OsString},
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use corehold_types::{env_vars, tools::LimitInfo};
use ed25519_dalek::VerifyingKey;
use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::policy::Policy;

mod limits;

pub use limits::{Limit, Limits};

/// Address to listen on. Default `0.0.0.0`, since the host comes from outside of the container.
pub const LISTEN: &str = "COREHOLD_LISTEN";
/// Browser origins that may call, separated by commas, such as `https://app.example`. Default: none.
pub const ALLOWED_ORIGINS: &str = "COREHOLD_ALLOWED_ORIGINS";
/// `plain` or `json`. Default `plain`.
pub const LOG_FORMAT: &str = "COREHOLD_LOG_FORMAT";
/// What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`, `off`), or pairs of a path of modules and a level such
/// as `info,corehold_agent::process=debug`. Default `info`.
pub const LOG: &str = "COREHOLD_LOG";
/// Threads that serve requests. Default: as many as there are cores, at most 4.
pub const WORKERS: &str = "COREHOLD_WORKERS";
/// Milliseconds that requests and then commands get to finish when the agent is told to end. Default 5,000.
pub const SHUTDOWN_GRACE_MS: &str = "COREHOLD_SHUTDOWN_GRACE_MS";
/// Absolute path of the folder for the log of commands, which is an unlinked file. Default: the first of `/tmp` and `/var/tmp`
/// that is on a disk; where none is, memory with an eighth of the bounds.
pub const COMMAND_LOG_DIRECTORY: &str = "COREHOLD_COMMAND_LOG_DIRECTORY";

/// What the environment says.
#[derive(Debug, Clone)]
pub struct Config {
    /// [`LISTEN`] and [`env_vars::PORT`]. Default `0.0.0.0:3001`. Port 0 lets the kernel choose one.
    pub listen: SocketAddr,
    /// [`env_vars::ROOT`]: absolute path of the workspace root, a directory that exists. Default `/app`.
    pub root: PathBuf,
    /// [`env_vars::INBOX`]: absolute path of the folder with archives for `extract`. Default `/tools/inbox`.
    pub inbox: PathBuf,
    /// [`env_vars::INSTANCE`]: the agent's name in tokens. Needed with a public key; default `standalone` without one.
    pub instance: String,
    /// [`env_vars::WORKSPACE_ID`]: the workspace served. Default: none until it is claimed.
    pub workspace: Option<String>,
    /// [`env_vars::PUBLIC_KEY`] or [`env_vars::TOKEN_SHA256`] or both. Without either the agent doesn't start.
    pub credentials: Credentials,
    /// [`ALLOWED_ORIGINS`].
    pub allowed_origins: Vec<String>,
    /// [`LOG_FORMAT`].
    pub log_format: LogFormat,
    /// [`LOG`].
    pub log_filter: Targets,
    /// [`WORKERS`].
    pub workers: usize,
    /// [`SHUTDOWN_GRACE_MS`].
    pub shutdown_grace: Duration,
    /// [`COMMAND_LOG_DIRECTORY`].
    pub command_log_directory: Option<PathBuf>,
    /// [`env_vars::COMMAND_POLICY`]. Default: none, every command may run.
    pub command_policy: Option<Arc<Policy>>,
    /// What the agent never exceeds.
    pub limits: Limits,
}

/// Whose tokens are accepted. At least one of the two is there.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// Tokens signed by the private half are accepted.
    pub public_key: Option<VerifyingKey>,
    /// The token with this SHA-256 is accepted, with every scope.
    pub token_sha256: Option<[u8; 32]>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Plain,
    /// One JSON object a line.
    Json,
}

/// A variable's value can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {what}")]
pub struct ConfigError {
    /// The variable.
    pub variable: &'static str,
    /// What is wrong with it and what would be right.
    pub what: String,
}

impl ConfigError {
    fn new(variable: &'static str, what: impl Into<String>) -> Self {
        Self { variable, what: what.into() }
    }
}

impl Config {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// [`ConfigError`] names the first variable that can't be used.
    pub fn from_environment() -> Result<Self, ConfigError> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// Reads variables from wherever `get` finds them.
    ///
    /// # Errors
    /// [`ConfigError`] names the first variable that can't be used.
    pub fn from_variables(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let variables = Variables(&get);
        let port = variables.parsed(env_vars::PORT, "a TCP port", 3001)?;
        let address = variables.parsed(LISTEN, "an IP address", IpAddr::V4(Ipv4Addr::UNSPECIFIED))?;
        let credentials = variables.credentials()?;
        Ok(Self {
            listen: SocketAddr::new(address, port),
            root: variables.absolute_path(env_vars::ROOT, "/app")?,
            inbox: variables.absolute_path(env_vars::INBOX, "/tools/inbox")?,
            instance: variables.instance(&credentials)?,
            workspace: variables.text(env_vars::WORKSPACE_ID)?,
            credentials,
            allowed_origins: variables.list(ALLOWED_ORIGINS)?,
            log_format: variables.log_format()?,
            log_filter: variables.parsed(
                LOG,
                "a level such as info, or part=level pairs",
                Targets::new().with_default(LevelFilter::INFO),
            )?,
            workers: variables.workers()?,
            shutdown_grace: Duration::from_millis(variables.parsed(
                SHUTDOWN_GRACE_MS,
                "a whole number of milliseconds",
                5_000,
            )?),
            command_log_directory: variables.text(COMMAND_LOG_DIRECTORY)?.map(PathBuf::from),
            command_policy: variables.command_policy()?,
            limits: Limits::read(|limit| variables.parsed(limit.variable, limit.unit_in_words(), limit.value))?,
        })
    }

    /// The limits in force, for `info`.
    #[must_use]
    pub fn limit_infos(&self) -> Vec<LimitInfo> {
        self.limits.all().into_iter().map(Limit::to_info).collect()
    }
}

/// The port that `health` asks, read without the rest: a health check must not fail for a key it doesn't need.
///
/// # Errors
/// [`ConfigError`] when the variable isn't a port.
pub fn port_from_environment() -> Result<u16, ConfigError> {
    Variables(&|name: &str| std::env::var_os(name)).parsed(env_vars::PORT, "a TCP port", 3001)
}

struct Variables<'a, G>(&'a G);

impl<G: Fn(&str) -> Option<OsString>> Variables<'_, G> {
    /// A variable's text; an empty one counts as absent, as compose files and Dockerfiles leave them.
    fn text(&self, variable: &'static str) -> Result<Option<String>, ConfigError> {
        match (self.0)(variable) {
            Some(value) if value.is_empty() => Ok(None),
            Some(value) => {
                value.into_string().map(Some).map_err(|_| ConfigError::new(variable, "is not UTF-8; text was expected"))
            }
            None => Ok(None),
        }
    }

    fn parsed<T: std::str::FromStr>(
        &self,
        variable: &'static str,
        expected: impl fmt::Display,
        default: T,
    ) -> Result<T, ConfigError> {
        match self.text(variable)? {
            Some(text) => {
                text.parse().map_err(|_| ConfigError::new(variable, format!("is {text:?}; {expected} was expected")))
            }
            None => Ok(default),
        }
    }

    fn list(&self, variable: &'static str) -> Result<Vec<String>, ConfigError> {
        let text = self.text(variable)?.unwrap_or_default();
        Ok(text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect())
    }

    fn absolute_path(&self, variable: &'static str, default: &str) -> Result<PathBuf, ConfigError> {
        let path = (self.0)(variable).filter(|value| !value.is_empty()).unwrap_or_else(|| default.into());
        if Path::new(&path).is_absolute() {
            Ok(path.into())
        } else {
            Err(ConfigError::new(variable, format!("is {path:?}; an absolute path was expected")))
        }
    }

    fn credentials(&self) -> Result<Credentials, ConfigError> {
        let public_key = match self.text(env_vars::PUBLIC_KEY)? {
            Some(text) => Some(public_key(&text).ok_or_else(|| {
                ConfigError::new(env_vars::PUBLIC_KEY, "is not an Ed25519 public key: 32 bytes in base64 were expected")
            })?),
            None => None,
        };
        let token_sha256 = match self.text(env_vars::TOKEN_SHA256)? {
            Some(text) => Some(sha256(&text).ok_or_else(|| {
                ConfigError::new(env_vars::TOKEN_SHA256, "is not a SHA-256: 64 hexadecimal digits were expected")
            })?),
            None => None,
        };
        if public_key.is_none() && token_sha256.is_none() {
            return Err(ConfigError::new(
                env_vars::PUBLIC_KEY,
                format!(
                    "and {} are both absent, so nobody could be let in; set the host's public key, or the SHA-256 of a \
                     token of your own (printf %s \"$TOKEN\" | sha256sum)",
                    env_vars::TOKEN_SHA256
                ),
            ));
        }
        Ok(Credentials { public_key, token_sha256 })
    }

    fn instance(&self, credentials: &Credentials) -> Result<String, ConfigError> {
        match self.text(env_vars::INSTANCE)? {
            Some(instance) => Ok(instance),
            None if credentials.public_key.is_some() => Err(ConfigError::new(
                env_vars::INSTANCE,
                format!("is absent, but {} is set: signed tokens are for one instance", env_vars::PUBLIC_KEY),
            )),
            None => Ok("standalone".to_owned()),
        }
    }

    /// A policy that can't be read stops the agent: without it, everything would run.
    fn command_policy(&self) -> Result<Option<Arc<Policy>>, ConfigError> {
        let Some(text) = self.text(env_vars::COMMAND_POLICY)? else { return Ok(None) };
        let text = match text.trim_start() {
            path if path.starts_with('/') => std::fs::read_to_string(path).map_err(|error| {
                ConfigError::new(env_vars::COMMAND_POLICY, format!("names {path:?}, which can't be read: {error}"))
            })?,
            _ => text,
        };
        let policy = Policy::parse(&text).map_err(|what| ConfigError::new(env_vars::COMMAND_POLICY, what))?;
        Ok(Some(Arc::new(policy)))
    }

    fn log_format(&self) -> Result<LogFormat, ConfigError> {
        match self.text(LOG_FORMAT)?.as_deref() {
            None | Some("plain") => Ok(LogFormat::Plain),
            Some("json") => Ok(LogFormat::Json),
            Some(other) => Err(ConfigError::new(LOG_FORMAT, format!("is {other:?}; plain or json was expected"))),
        }
    }

    fn workers(&self) -> Result<usize, ConfigError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        match self.parsed(WORKERS, "a whole number from 1 to 64", cores.min(4))? {
            workers @ 1..=64 => Ok(workers),
            other => Err(ConfigError::new(WORKERS, format!("is {other}; a whole number from 1 to 64 was expected"))),
        }
    }
}

fn public_key(text: &str) -> Option<VerifyingKey> {
    let bytes: [u8; 32] = STANDARD.decode(text.trim()).ok()?.try_into().ok()?;
    let key = VerifyingKey::from_bytes(&bytes).ok()?;
    // A weak key verifies signatures that nobody made.
    (!key.is_weak()).then_some(key)
}

fn sha256(text: &str) -> Option<[u8; 32]> {
    let text = text.trim();
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(digest)
}

/// Whether a variable belongs to the agent and not to the commands it runs.
///
/// Those of [`env_vars::FOR_COMMANDS`] are for commands too.
#[must_use]
pub fn is_agents_own(variable: &OsStr) -> bool {
    variable.as_encoded_bytes().starts_with(b"COREHOLD_")
        && !env_vars::FOR_COMMANDS.iter().any(|shared| variable == OsStr::new(shared))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    fn read(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_variables(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    fn refused(variables: &[(&str, &str)]) -> String {
        let with_token: Vec<_> =
            [(env_vars::TOKEN_SHA256, &*"00".repeat(32))].iter().chain(variables).copied().map(owned).collect();
        let borrowed: Vec<_> = with_token.iter().map(|(key, value)| (key.as_str(), value.as_str())).rev().collect();
        read(&borrowed).unwrap_err().to_string()
    }

    fn owned((key, value): (&str, &str)) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn refuses_to_start_when_nobody_could_be_let_in() {
        let error = read(&[]).unwrap_err().to_string();
        assert!(error.contains("COREHOLD_PUBLIC_KEY and COREHOLD_TOKEN_SHA256 are both absent"), "{error}");
        let empty = read(&[(env_vars::PUBLIC_KEY, ""), (env_vars::TOKEN_SHA256, "")]);
        assert!(empty.is_err(), "empty variables are absent ones");
    }

    #[test]
    fn defaults_are_those_of_the_core_image() {
        let config = read(&[(env_vars::PUBLIC_KEY, KEY), (env_vars::INSTANCE, "i")]).unwrap();
        assert_eq!(config.listen.to_string(), "0.0.0.0:3001");
        assert_eq!(config.root, Path::new("/app"));
        assert_eq!(config.inbox, Path::new("/tools/inbox"));
        assert_eq!((config.workspace, config.log_format), (None, LogFormat::Plain));
        assert!(config.allowed_origins.is_empty());
    }

    #[test]
    fn each_bad_value_is_named_with_what_was_expected() {
        for (variable, value, expected) in [
            (env_vars::PORT, "70000", "a TCP port was expected"),
            (env_vars::ROOT, "app", "an absolute path was expected"),
            (env_vars::PUBLIC_KEY, "AAAA", "32 bytes in base64 were expected"),
            (env_vars::PUBLIC_KEY, &STANDARD.encode([0; 32]), "32 bytes in base64 were expected"),
            (env_vars::PUBLIC_KEY, KEY, "signed tokens are for one instance"),
            (env_vars::TOKEN_SHA256, "beef", "64 hexadecimal digits were expected"),
            (env_vars::TOKEN_SHA256, &"+f".repeat(32), "64 hexadecimal digits were expected"),
            (LISTEN, "localhost", "an IP address was expected"),
            (LOG, "agent=loud", "a level such as info"),
            (LOG_FORMAT, "xml", "plain or json was expected"),
            (WORKERS, "0", "a whole number from 1 to 64 was expected"),
            (env_vars::COMMAND_POLICY, "{\"alow\":[]}", "at line 1 column 7: unknown field `alow`"),
            (env_vars::COMMAND_POLICY, "/no/such/file", "can't be read"),
            (SHUTDOWN_GRACE_MS, "-1", "a whole number of milliseconds was expected"),
            ("COREHOLD_LIMIT_BODY_BYTES", "4M", "a whole number of bytes was expected"),
        ] {
            let error = refused(&[(variable, value)]);
            assert!(error.contains(expected), "{variable}={value}: {error}");
        }
    }

    #[test]
    fn commands_do_not_see_the_agents_own_variables() {
        assert!(is_agents_own(OsStr::new(env_vars::TOKEN_SHA256)));
        assert!(!is_agents_own(OsStr::new(env_vars::WORKSPACE_ID)));
        assert!(!is_agents_own(OsStr::new("PATH")));
    }
}
