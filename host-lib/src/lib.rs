//! Isolated workspaces for a backend: a core container in milliseconds, filled with a folder, worked on through the agent inside.
//!
//! [`Host`] makes and finds workspaces, [`Workspace`] is one of them, [`Template`] is a folder they are made from. The
//! engine stays behind the [`Runtime`](runtime::Runtime) seam, the agent's operations behind the tools of
//! [`corehold_types`], which are re-exported as [`types`] and [`tools`].

mod archive;
pub mod audit;
mod blocking;
mod bounded_tar;
mod client;
pub mod config;
pub mod create;
mod disk;
mod error;
mod events;
#[cfg(any(feature = "fuzzing", test))]
pub mod fuzzing;
mod health;
mod host;
mod idle;
pub mod image;
mod key;
pub mod labels;
mod life;
pub mod logs;
mod metrics;
mod network;
mod pack;
pub mod policy;
mod pool;
pub mod runtime;
mod state;
pub mod stats;
pub mod template;
#[cfg(test)]
mod testing;
mod trust_store;
mod volume;
mod workspace;

pub use corehold_types::{self as types, tools};

pub use archive::{
    Archive, ArchiveId, ArchiveRef, ArchiveStore, Archives, Change, Difference, EntryKind, Pruned, SaveOptions, Side,
    Sleeper, Tree,
};
pub use audit::{AuditAnswer, AuditEntry, AuditQuery};
pub use client::{FileStream, Frame, ToolStream, Tunnel};
pub use create::{
    CreateEvent, CreateEventKind, CreateWorkspace, Creation, OutputStream, Step, setup_cache::SetupCacheEntry,
};
pub use disk::{DiskAction, DiskPolicy};
pub use error::{Error, ErrorKind, Result};
pub use events::{Event, EventKind, Events};
pub use health::{Health, HealthPolicy, RestartPolicy};
pub use host::{Host, HostBuilder};
pub use idle::{AwakeReason, AwakeSource, ExpiredFiles, Expiry, IdlePolicy, NextTransition, TransitionTo, WhyAwake};
pub use life::{Reconciled, RemoveOptions, Shutdown, ShutdownReport, TransitionCause, WorkspaceState};
pub use network::Subnets;
pub use pool::{Class, PoolOptions, PoolStatus};
pub use runtime::{Capability, Destination, Egress, Mount, Network, Subnet, With};
pub use template::{Catalog, ProjectType, Template};
pub use volume::{CreateVolume, VolumeInfo, Volumes};
pub use workspace::{
    CommandOutcome, Forward, ForwardOptions, Preview, PreviewStatus, PreviewUse, RunCommand, Workspace, WorkspaceId,
    WorkspaceInfo,
};
