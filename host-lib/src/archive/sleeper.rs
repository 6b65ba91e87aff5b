//! What an archive says of the workspace that sleeps in it, so that it is found again where the host's store is lost, and so that the
//! archives that putting workspaces to sleep made are told from those that somebody asked for.

use corehold_types::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    host::HostInner,
    idle::Stored,
    state::{Entry, Recipe},
};

/// The workspace that sleeps in an archive: what a new container for it needs, but for its variables, which may be secrets and are not
/// to lie with the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Sleeper {
    /// Fingerprint of the key of the home folder whose workspace it is.
    pub home: String,
    /// The key by which [`Host::get_or_create`](crate::Host::get_or_create) finds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// When its creation began.
    pub created: Timestamp,
    pub(crate) recipe: Recipe,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<serde_json::Value>,
}

impl Sleeper {
    pub(crate) fn of(host: &HostInner, entry: &Entry) -> Self {
        let stored = Stored::of(entry);
        Self {
            home: host.fingerprint.clone(),
            owner: entry.owner.clone(),
            created: entry.created,
            recipe: Recipe { env: Default::default(), ..entry.recipe.clone() },
            policy: Stored::of_request(stored.idle, stored.health),
        }
    }
}
