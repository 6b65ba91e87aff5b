//! Every label that this library puts on a container, in one place.
//!
//! Labels hold what never changes, since an engine can't change them after creation. The engine's list of labelled
//! containers is the only truth about what runs; there is no second book that could disagree with it.

/// What a container is to us. Always [`KIND_WORKSPACE`] so far; also what a listing filters by.
pub const KIND: &str = "dev.corehold.kind";
/// Value of [`KIND`] for a container that is somebody's workspace.
pub const KIND_WORKSPACE: &str = "workspace";
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

/// Labels that begin so are ours; a caller's own may not.
pub const PREFIX: &str = "dev.corehold.";

/// What the name of a workspace's container begins with; the workspace's id follows.
pub const NAME_PREFIX: &str = "corehold-";
