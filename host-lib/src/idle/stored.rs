//! What is stored beside a workspace's state: its policies, and what was counted for them.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{IdlePolicy, tracker::Kept};
use crate::{health::HealthPolicy, state::Entry};

/// What is stored. Each is written by itself, so that no host overwrites what another one changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Stored {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle: Option<IdlePolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<HealthPolicy>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "if_understood")]
    pub(crate) kept: Option<Kept>,
    /// Whether somebody stopped it who meant it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) stopped: bool,
}

/// The name of each field in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Idle,
    Health,
    Kept,
    Stopped,
}

impl Field {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Health => "health",
            Self::Kept => "kept",
            Self::Stopped => "stopped",
        }
    }
}

impl Stored {
    /// What is stored of a workspace. What a newer host wrote in another form holds nothing up.
    pub(crate) fn of(entry: &Entry) -> Self {
        let Some(value) = &entry.policy else { return Self::default() };
        serde_json::from_value(value.clone()).unwrap_or_else(|error| {
            tracing::warn!(workspace = %entry.id, %error, "the stored policies can't be read; the host's hold");
            Self::default()
        })
    }

    /// What a creation stores; none when nothing was asked for.
    pub(crate) fn of_request(idle: Option<IdlePolicy>, health: Option<HealthPolicy>) -> Option<serde_json::Value> {
        if idle.is_none() && health.is_none() {
            return None;
        }
        serde_json::to_value(Self { idle, health, ..Self::default() }).ok()
    }
}

/// What was counted is no policy: where it can't be read, it is counted anew.
fn if_understood<'de, D: serde::Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let value = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(value.and_then(|value| serde_json::from_value(value).ok()))
}
