//! Access: who calls, and what he may do.
//!
//! A caller shows a token in `Authorization: Bearer`: one that the host signed for this instance and workspace, or the
//! static token of an agent that stands alone. The agent holds the host's public key and a hash, so nothing inside the
//! container can mint or read a token.

mod cache;
mod token;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use corehold_types::{Claims, Code, Problem, Scope, Scopes, Standing};
use http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{config::Config, ownership::Ownership};
use cache::Cache;

/// Longest token that is looked at, in bytes. The host's have about 300.
const TOKEN_BYTES: usize = 4096;

/// Seconds by which the host's clock may be ahead of ours when it says when a token was made.
const CLOCK_SKEW: i64 = 60;

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// As the host names them: the token's `sub`; `standalone` for the static token.
    pub subject: String,
    /// What they may do.
    pub scopes: Scopes,
    /// The workspace that their token is for; none for the static token, which isn't for any.
    pub workspace: Option<String>,
    /// When the token ends, in seconds since 1970.
    expires: i64,
}

impl Caller {
    /// Somebody who may do everything, for ever.
    #[must_use]
    pub fn with_every_scope(subject: &str) -> Self {
        Self { subject: subject.to_owned(), scopes: Scopes::all(), workspace: None, expires: i64::MAX }
    }

    /// Whether they may do what needs this scope.
    ///
    /// # Errors
    /// `FORBIDDEN` names the scope that is lacking.
    pub fn need(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.allow(scope) {
            return Ok(());
        }
        let (needed, held) = (scope.as_str(), self.scopes.to_string());
        Err(Problem::new(Code::Forbidden, format!("the scope {needed:?} is needed, the token has {held:?}"))
            .with("scope", needed)
            .with("scopes", held)
            .suggest(format!("ask the host for a token with the scope {needed:?}")))
    }

    /// How long the token is still good for; nothing when it never ends.
    #[must_use]
    pub fn lasts(&self) -> Option<Duration> {
        let left = u64::try_from(self.expires.saturating_sub(now())).unwrap_or(0);
        (self.expires != i64::MAX).then(|| Duration::from_secs(left))
    }
}

/// Checks tokens.
#[derive(Debug)]
pub struct Access {
    verifier: Option<token::Verifier>,
    static_token: Option<[u8; 32]>,
    instance: String,
    ownership: Arc<Ownership>,
    verified: Cache,
}

impl Access {
    /// Access as the configuration says, to the workspace that the agent serves.
    #[must_use]
    pub fn new(config: &Config, ownership: Arc<Ownership>) -> Self {
        Self {
            verifier: config.credentials.public_key.map(token::Verifier::new),
            static_token: config.credentials.token_sha256,
            instance: config.instance.clone(),
            ownership,
            verified: Cache::default(),
        }
    }

    /// Who sends a request with these headers, if a token among them allows the scope.
    ///
    /// # Errors
    /// `UNAUTHORIZED` without a valid token, `FORBIDDEN` naming the scope it lacks, `NOT_CLAIMED` when the agent doesn't
    /// serve the token's workspace.
    pub fn authorize(&self, headers: &HeaderMap, scope: Scope) -> Result<Arc<Caller>, Problem> {
        let caller = self.identify(headers, Standing::Served)?;
        caller.need(scope)?;
        Ok(caller)
    }

    /// Who bears the token in the headers.
    ///
    /// # Errors
    /// As [`authenticate_for`](Self::authenticate_for).
    pub fn identify(&self, headers: &HeaderMap, standing: Standing) -> Result<Arc<Caller>, Problem> {
        self.authenticate_for(bearer(headers)?, standing)
    }

    /// Who bears the token.
    ///
    /// # Errors
    /// `UNAUTHORIZED` when it isn't valid, `NOT_CLAIMED` when the agent doesn't serve its workspace.
    pub fn authenticate(&self, token: &str) -> Result<Arc<Caller>, Problem> {
        self.authenticate_for(token, Standing::Served)
    }

    /// The same, for what an agent may answer that doesn't serve the token's workspace.
    ///
    /// # Errors
    /// As [`authenticate`](Self::authenticate).
    pub fn authenticate_for(&self, token: &str, standing: Standing) -> Result<Arc<Caller>, Problem> {
        self.authenticate_at(token, standing, now())
    }

    fn authenticate_at(&self, token: &str, standing: Standing, now: i64) -> Result<Arc<Caller>, Problem> {
        let caller = self.genuine(token, now)?;
        self.serves(&caller, standing)?;
        Ok(caller)
    }

    /// Whether the agent serves the caller's workspace. Judged anew at each call, since a claim decides it.
    fn serves(&self, caller: &Caller, standing: Standing) -> Result<(), Problem> {
        let Some(workspace) = &caller.workspace else { return Ok(()) };
        match (self.ownership.owner(), standing) {
            (_, Standing::Any) | (None, Standing::Unclaimed) => Ok(()),
            (Some(owner), _) if owner.workspace == *workspace => Ok(()),
            (Some(_), _) => Err(Problem::new(Code::NotClaimed, "the agent serves another workspace than the token's")),
            (None, Standing::Served) => Err(Problem::new(Code::NotClaimed, "the agent has no workspace yet")),
        }
    }

    /// Whose token it is, if it is one for this instance, whatever the workspace.
    fn genuine(&self, token: &str, now: i64) -> Result<Arc<Caller>, Problem> {
        if token.len() > TOKEN_BYTES {
            return Err(unauthorized(&format!("the token is longer than {TOKEN_BYTES} bytes")));
        }
        let key = blake3::hash(token.as_bytes());
        if let Some(caller) = self.verified.get(&key, now) {
            return Ok(caller);
        }
        let caller = Arc::new(self.verify(token, now)?);
        self.verified.insert(key, Arc::clone(&caller), now);
        Ok(caller)
    }

    fn verify(&self, token: &str, now: i64) -> Result<Caller, Problem> {
        if let Some(expected) = &self.static_token {
            let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
            if bool::from(digest.ct_eq(expected)) {
                return Ok(Caller::with_every_scope("standalone"));
            }
        }
        let Some(verifier) = &self.verifier else {
            return Err(unauthorized("the token is not the one this agent was given"));
        };
        let claims = verifier.verify(token).map_err(|error| unauthorized(&error.to_string()))?;
        self.check(claims, now)
    }

    /// Checks what a genuine token says.
    fn check(&self, claims: Claims, now: i64) -> Result<Caller, Problem> {
        if claims.aud != self.instance {
            return Err(unauthorized("the token is for another instance"));
        }
        if claims.exp <= now {
            return Err(unauthorized(&format!("the token expired {} s ago", now.saturating_sub(claims.exp))));
        }
        if claims.iat > now.saturating_add(CLOCK_SKEW) {
            return Err(unauthorized("the token was made in the future: the clocks of host and agent differ"));
        }
        Ok(Caller { subject: claims.sub, scopes: claims.scope, workspace: Some(claims.workspace), expires: claims.exp })
    }
}

/// The problem of a request without a valid token.
fn unauthorized(detail: &str) -> Problem {
    Problem::new(Code::Unauthorized, detail)
        .suggest("send a valid token as `Authorization: Bearer <token>`; the host makes one")
}

/// The token among the headers.
///
/// # Errors
/// `UNAUTHORIZED` when there is none, or more than one.
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(|| unauthorized("the request has no token"))?;
    if values.next().is_some() {
        return Err(unauthorized("the request has more than one Authorization header"));
    }
    let value = value.to_str().map_err(|_| unauthorized("the Authorization header is not ASCII"))?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim_matches(' ')),
        _ => Err(unauthorized("the Authorization header is not of the form `Bearer <token>`")),
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
