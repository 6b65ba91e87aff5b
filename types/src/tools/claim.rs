//! `claim`: takes an agent that serves no workspace yet.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::{
    NoEvent, Scope, Standing, Timestamp, Tool,
    patterns::{VARIABLE_NAME, WITHOUT_NUL, without_doubles},
};

/// Takes an agent that serves no workspace yet.
pub struct Claim;

impl Tool for Claim {
    const NAME: &'static str = "claim";
    const SINCE: &'static str = "0.1";
    const SUMMARY: &'static str =
        "Takes an agent that serves no workspace yet, with variables for its commands; the first claim wins.";
    const SCOPE: Scope = Scope::Admin;
    const STANDING: Standing = Standing::Any;
    type Request = ClaimRequest;
    type Response = ClaimResponse;
    type Event = NoEvent;
}

/// Request of `claim`.
///
/// The first one wins, whoever sends it; all others are `ALREADY_CLAIMED`. The winner may repeat it, the same in every
/// field, and gets the first answer again: so a host whose answer was lost learns whether it has won.
#[derive(Clone, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[ts(optional_fields)]
pub struct ClaimRequest {
    /// The workspace that the agent is to serve, the token's own: lower-case letters, digits and inner hyphens, at most 32.
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$"))]
    pub workspace: String,
    /// Names this claim, so that a repeated one is told from another's for the same workspace: 8 to 64 letters, digits, `.`,
    /// `_` and `-`, chosen at random.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{8,64}$"))]
    pub claim_id: String,
    /// Variables that every command sees which is started from now on, besides `COREHOLD_WORKSPACE_ID`. They stand in no
    /// environment but the commands' own. Of the names that begin with `COREHOLD_` only `COREHOLD_OWNER_ID`,
    /// `COREHOLD_TEAM_ID` and `COREHOLD_API_URL` may be given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "without_doubles")]
    #[ts(optional, as = "Option<BTreeMap<String, String>>")]
    #[schemars(extend("propertyNames" = { "pattern": VARIABLE_NAME }, "additionalProperties" = { "type": "string", "pattern": WITHOUT_NUL }))]
    pub env: BTreeMap<String, String>,
}

/// Names only: the values may be secrets.
impl fmt::Debug for ClaimRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ClaimRequest")
            .field("workspace", &self.workspace)
            .field("claim_id", &self.claim_id)
            .field("env", &self.env.keys())
            .finish()
    }
}

/// Response of `claim`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub struct ClaimResponse {
    /// The workspace that the agent serves from now on.
    pub workspace: String,
    /// When it was claimed: the same for each repetition.
    pub claimed: Timestamp,
    /// The agent's name in tokens.
    pub instance: String,
    /// The agent's `bootId`: a claim doesn't outlive it.
    pub boot_id: String,
}
