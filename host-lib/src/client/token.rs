//! Tokens for one agent, short-lived and renewed before they end.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use corehold_types::{Scopes, Timestamp};

use crate::key::{Grant, HostKey};

/// How long a token of this library's own lives.
pub(crate) const LIFETIME: Duration = Duration::from_secs(300);
/// A token with less time left than this is not used any more, so that none ends on its way.
const RENEW_BEFORE_SECONDS: i64 = 60;

/// Mints tokens for one agent and one subject.
pub(crate) struct TokenSource {
    key: Arc<HostKey>,
    instance: String,
    workspace: String,
    subject: String,
    cached: Mutex<Option<Minted>>,
}

struct Minted {
    token: String,
    from: i64,
    until: i64,
}

impl TokenSource {
    pub(crate) fn new(key: Arc<HostKey>, instance: String, workspace: String, subject: String) -> Self {
        Self { key, instance, workspace, subject, cached: Mutex::new(None) }
    }

    /// The same agent for another subject.
    pub(crate) fn for_subject(&self, subject: String) -> Self {
        Self::new(self.key.clone(), self.instance.clone(), self.workspace.clone(), subject)
    }

    /// A token that holds for at least another minute.
    pub(crate) fn current(&self) -> String {
        self.at(Timestamp::now().as_unix_seconds())
    }

    /// The wall clock decides, as it does at the agent: a laptop that slept, or a clock that was set, makes a new token.
    fn at(&self, now: i64) -> String {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some(minted) if (minted.from..minted.until).contains(&now) => minted.token.clone(),
            _ => {
                let token = self.mint(&self.subject, &Scopes::all(), LIFETIME);
                let until = now + i64::try_from(LIFETIME.as_secs()).unwrap_or(i64::MAX) - RENEW_BEFORE_SECONDS;
                *cached = Some(Minted { token: token.clone(), from: now, until });
                token
            }
        }
    }

    /// A token for somebody else.
    pub(crate) fn mint(&self, subject: &str, scopes: &Scopes, lifetime: Duration) -> String {
        let grant = Grant { instance: &self.instance, workspace: &self.workspace, subject, scopes };
        self.key.mint(&grant, lifetime)
    }
}

/// Never a token.
impl fmt::Debug for TokenSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TokenSource").field("instance", &self.instance).field("subject", &self.subject).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_reused_until_it_nears_its_end_or_the_clock_is_set_back() {
        let home = tempfile::tempdir().unwrap();
        let key = Arc::new(HostKey::load_or_create(home.path()).unwrap());
        let source = TokenSource::new(key, "i".into(), "w".into(), "s".into());
        let now = Timestamp::now().as_unix_seconds();
        source.at(now);
        let minted_from = |source: &TokenSource| source.cached.lock().unwrap().as_ref().unwrap().from;
        for (at, expected) in [(now + 239, now), (now + 240, now + 240), (now + 100, now + 100)] {
            source.at(at);
            assert_eq!(minted_from(&source), expected);
        }
    }
}
