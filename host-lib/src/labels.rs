//! Every label that this library puts on a container, in one place.
//!
//! Labels hold what never changes, since an engine can't change them after creation. The engine's list of labelled
//! containers is the truth about what runs; what changes is in the state store, which follows it (`crate::life`).

use std::collections::BTreeMap;

/// What a container is to us: [`KIND_WORKSPACE`] or [`KIND_POOL`]; also what a listing filters by.
pub const KIND: &str = "dev.corehold.kind";
/// Value of [`KIND`] for a container that is somebody's workspace.
pub const KIND_WORKSPACE: &str = "workspace";
/// Value of [`KIND`] for a container that was started ahead. Labels can't change, so it keeps this one when it becomes
/// somebody's workspace; from then on its name says whose.
pub const KIND_POOL: &str = "pool";
/// Which pool it was started for: what all of them have in common, hashed.
pub const CLASS: &str = "dev.corehold.class";
/// Until when it may wait in its pool, RFC 3339 in UTC. Later any host of its home removes it, if it is nobody's: that it waits
/// still says that nobody keeps its pool any more.
pub const EXPIRES: &str = "dev.corehold.expires";
/// The workspace's id.
pub const WORKSPACE: &str = "dev.corehold.workspace";
/// Name of the template it was made from; absent for an empty workspace.
pub const TEMPLATE: &str = "dev.corehold.template";
/// When its creation began, RFC 3339 in UTC.
pub const CREATED: &str = "dev.corehold.created";
/// Port inside on which its preview listens, published on 127.0.0.1.
pub const PREVIEW_PORT: &str = "dev.corehold.preview-port";
/// Version of the library that made it.
pub const VERSION: &str = "dev.corehold.version";
/// The agent's name in tokens (`aud`), new for each container, so that no token outlives what it was made for.
pub const INSTANCE: &str = "dev.corehold.instance";
/// Fingerprint of the host key that its agent trusts: which home folder it belongs to.
pub const HOME: &str = "dev.corehold.home";

/// Name of the host process that had it made. While that lives, a container that isn't started yet is its business; absent from those that
/// were started for a pool.
pub const MAKER: &str = "dev.corehold.maker";
/// Name of a volume, as its user knows it.
pub const VOLUME: &str = "dev.corehold.volume";
/// Whose workspaces may mount a volume.
pub const OWNER: &str = "dev.corehold.owner";
/// Which team's workspaces may mount a volume.
pub const TEAM: &str = "dev.corehold.team";

/// Labels that begin so are ours; a caller's own may not.
pub const PREFIX: &str = "dev.corehold.";

/// What the name of a workspace's container begins with; the workspace's id follows.
pub const NAME_PREFIX: &str = "corehold-";
/// What the name of a volume begins with in the engine; its home's fingerprint and its own name follow.
pub const VOLUME_NAME_PREFIX: &str = "corehold-volume-";
/// What the name of a container begins with that waits in a pool; its class and its place there follow, after dots. No
/// workspace's name has a dot.
pub const POOL_NAME_PREFIX: &str = "corehold-pool.";

/// By which everything of a home is listed.
pub(crate) fn of_home(fingerprint: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(HOME.to_owned(), fingerprint.to_owned())])
}

/// By which containers of a kind are listed, whosever they are.
pub(crate) fn of_kind(kind: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(KIND.to_owned(), kind.to_owned())])
}

/// By which a home's containers of a kind are listed.
pub(crate) fn of_kind_at_home(kind: &str, fingerprint: &str) -> BTreeMap<String, String> {
    of_kind(kind).into_iter().chain(of_home(fingerprint)).collect()
}
