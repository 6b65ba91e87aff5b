//! What an access token says. How it is signed is the host's business, how it is checked the agent's.
//!
//! A token is a JWT (RFC 7519) whose header is exactly [`HEADER`] and whose signature is Ed25519 (RFC 8037). The agent
//! accepts no other header, so there is no algorithm to confuse, and any JWT library can read one or, with the host's
//! private key, make one.

use std::{collections::BTreeSet, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use ts_rs::TS;

/// What a token lets its bearer do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// Read files, search, list, watch.
    Read,
    /// Change files.
    Write,
    /// Run commands, and read and signal those that run.
    Command,
    /// Claim the agent, read its audit log.
    Admin,
}

impl Scope {
    /// All of them, in the order in which they are written.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Command, Self::Admin];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Command => "command",
            Self::Admin => "admin",
        }
    }
}

/// Scopes as RFC 8693 writes them: words separated by one space. Unknown words are kept out, not an error, so that a
/// newer host can hand a newer scope to an older agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(BTreeSet<Scope>);

impl Scopes {
    /// Every scope there is.
    #[must_use]
    pub fn all() -> Self {
        Self(Scope::ALL.into())
    }

    /// Whether the scope is among them.
    #[must_use]
    pub fn allow(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().collect())
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(formatter, "{space}{}", scope.as_str())?;
        }
        Ok(())
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer).map_err(D::Error::custom)?;
        Ok(text.split(' ').filter_map(|word| Scope::ALL.into_iter().find(|scope| scope.as_str() == word)).collect())
    }
}

/// The only header that an agent accepts.
pub const HEADER: &str = r#"{"alg":"EdDSA","typ":"JWT"}"#;

/// The payload of a token. Names are the registered ones of RFC 7519 where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The agent instance this token is for; any other agent refuses it.
    pub aud: String,
    /// The workspace this token is for.
    pub workspace: String,
    /// Who bears it, as the host names them; written into audit records.
    pub sub: String,
    /// What it allows.
    pub scope: Scopes,
    /// When it was made, in seconds since 1970.
    pub iat: i64,
    /// When it ends, in seconds since 1970.
    pub exp: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_words_and_unknown_ones_are_left_out() {
        let scopes: Scopes = serde_json::from_str("\"command read telepathy\"").unwrap();
        assert!(scopes.allow(Scope::Read) && scopes.allow(Scope::Command) && !scopes.allow(Scope::Write));
        assert_eq!(scopes.to_string(), "read command");
    }
}
