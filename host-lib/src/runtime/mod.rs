//! The runtime seam: a place where workspaces live.
//!
//! Files, search and commands go through the agent, so a runtime only makes a place, says how to reach the agent in it,
//! and removes it. Nothing here assumes one machine or names an engine.

pub mod docker;
mod hardening;
mod mount;
mod network;
mod observed;
mod resources;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    pin::Pin,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use corehold_types::Timestamp;
use futures_util::Stream;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::network::{Destination, Egress, Network, NetworkMade, NetworkSpec, Subnet, With};
pub(crate) use self::network::{PRIVATE, PRIVATE6};
pub(crate) use self::observed::{AuditorSlot, Observed};
pub use self::{
    hardening::{Capability, Hardening},
    mount::{Mount, MountSource},
    resources::Resources,
};
use crate::error::{Error, ErrorKind, Result};

/// A stream of results, boxed so that the trait stays object-safe.
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T>> + Send>>;

/// Bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

/// A connection to a port inside, boxed so that the trait stays object-safe. Shutting down its writing side is carried on as the end of
/// that direction; the other one stays open. Dropped before both have ended, it is reset, and what was written last may not arrive.
pub type BoxConnection = Box<dyn Duplex>;

/// Names a core container within its runtime; opaque to everybody else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContainerId(pub String);

/// A place where workspaces live. Every method may be called concurrently and is safe to cancel: what it began is either
/// found again by [`list`](Runtime::list) through its labels, or was never made.
//
// What is added here is added to `observed.rs` too, through which hosts call it.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Who this is and what it can do, for people and for `doctor`.
    async fn describe(&self) -> Result<RuntimeInfo>;

    /// What tells it from every other runtime that may be reached at the same address: it stays over restarts and upgrades. What
    /// isn't listed here may be there in another one.
    async fn identity(&self) -> Result<String>;

    /// Makes a place without starting it. Its labels and its name are there from the first moment. Cancelled, it leaves
    /// nothing, though an engine may take a moment to give the name back.
    ///
    /// # Errors
    /// `NotFound` when the image isn't there, `AlreadyExists` when the name is taken, `Unsupported` when ports are to be published
    /// and its network publishes none, or none on this machine, and when it has no such sandbox.
    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId>;

    /// Starts it. Starting what runs is no error.
    ///
    /// # Errors
    /// `Conflict` when no port of this machine is left for one that is to be published, `Forbidden` when a folder that is mounted isn't
    /// the one at its path any more.
    async fn start(&self, id: &ContainerId) -> Result<()>;

    /// Ends it: TERM, then KILL after the grace. What is paused is resumed for that. Stopping what doesn't run is no error.
    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<()>;

    /// Removes it and all it held, running or not. Removing what isn't there is no error.
    async fn remove(&self, id: &ContainerId) -> Result<()>;

    /// All places that carry these labels, running or not.
    async fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<ContainerState>>;

    /// One place.
    ///
    /// # Errors
    /// `NotFound` when it is gone.
    async fn inspect(&self, id: &ContainerId) -> Result<ContainerState>;

    /// How the host reaches a port inside a running place.
    ///
    /// # Errors
    /// `NotFound` when it is gone or doesn't run.
    async fn endpoint(&self, id: &ContainerId, port: u16) -> Result<Endpoint>;

    /// Opens a connection to a port on the loopback inside a running place, where this host has no address to connect to
    /// ([`Endpoint::ThroughRuntime`]). Only places whose first process is the agent have it. It costs more than a connection: with Docker a
    /// tenth of a second and a process inside for as long as it is open. Optional.
    ///
    /// # Errors
    /// `NotFound` when it is gone or doesn't run, `Conflict` when it is paused, `AgentUnavailable` when nothing listens on the port.
    async fn connect(&self, _id: &ContainerId, _port: u16) -> Result<BoxConnection> {
        Err(unsupported("connections to a port inside"))
    }

    /// Whether ports that are [published](ContainerSpec::publish) are reached on this machine. Asked beforehand by who would do otherwise
    /// without; creation refuses them where they aren't.
    async fn publishes_here(&self) -> Result<bool> {
        Ok(true)
    }

    /// What its first process (the agent) writes, from the beginning, then on while `follow`.
    fn logs(&self, id: &ContainerId, follow: bool) -> BoxStream<Bytes>;

    /// What it uses, once. It may take a second: an engine measures at moments of its own.
    ///
    /// # Errors
    /// `NotFound` when it is gone or doesn't run.
    async fn stats(&self, id: &ContainerId) -> Result<Stats>;

    /// What happens to places with these labels, from now on.
    fn events(&self, labels: &BTreeMap<String, String>) -> BoxStream<ContainerEvent>;

    /// Makes sure that a network is there and holds what it is to hold. Where it must be made it takes the start of some containers. Optional; a
    /// runtime that can't refuses to create what is to be in one.
    ///
    /// # Errors
    /// `Unsupported` when it can't be as closed as it is to be, with why.
    async fn ensure_network(&self, _network: &NetworkSpec) -> Result<NetworkMade> {
        Err(unsupported("networks of one's own"))
    }

    /// Removes a network that nothing is in any more, and says whether it did. What is made anew has the same addresses if its
    /// specification says so. Optional.
    async fn release_network(&self, _name: &str) -> Result<bool> {
        Ok(false)
    }

    /// What a reference to an image stands for now: the same name may mean another image later.
    ///
    /// # Errors
    /// `NotFound` when the image isn't there.
    async fn image_id(&self, reference: &str) -> Result<String> {
        Ok(reference.to_owned())
    }

    /// The images that it has. Optional.
    async fn images(&self) -> Result<Vec<ImageSummary>> {
        Err(unsupported("listing images"))
    }

    /// Gets an image from its registry, saying how far that has come. Optional. Cancelled, it ends, and what has come by then may stay.
    ///
    /// # Errors
    /// `NotFound` when the registry hasn't got it, `Unsupported` when it has none for this machine, `Engine` when no registry answers.
    async fn pull_image(&self, _reference: &str, _progress: &(dyn Fn(PullProgress) + Send + Sync)) -> Result<()> {
        Err(unsupported("pulling images"))
    }

    /// Takes a name away from an image, and removes the image with its last one. One that isn't there is no error. Optional.
    ///
    /// # Errors
    /// `Conflict` while a place is made of it.
    async fn remove_image(&self, _reference: &str) -> Result<()> {
        Err(unsupported("removing images"))
    }

    /// Gives a place another name; giving it the one that it has is no error. Optional. Names are unique, but this is no lock:
    /// of several callers who rename one place at once, all may be told that it worked (Docker 20.10 does so).
    ///
    /// # Errors
    /// `NotFound` when it is gone, `AlreadyExists` when another place has the name.
    async fn rename(&self, _id: &ContainerId, _name: &str) -> Result<()> {
        Err(unsupported("renaming a container"))
    }

    /// Freezes all that runs in it; memory is kept. Pausing what is paused is no error. Optional.
    ///
    /// A connection to a paused place succeeds and stays silent, so whether it is paused only [`inspect`](Runtime::inspect) tells.
    ///
    /// # Errors
    /// `NotFound` when it is gone, `Conflict` when it doesn't run.
    async fn pause(&self, _id: &ContainerId) -> Result<()> {
        Err(unsupported("pausing a container"))
    }

    /// Lets what is paused go on where it was. Resuming what runs is no error. Optional.
    ///
    /// # Errors
    /// `NotFound` when it is gone, `Conflict` when it has ended.
    async fn resume(&self, _id: &ContainerId) -> Result<()> {
        Err(unsupported("resuming a container"))
    }

    /// Looks whether what closes the networks still stands in which places with these labels run, and closes those again where it
    /// doesn't. Returns their names. What can't be seen without making something is passed over. Optional; the default sees nothing.
    ///
    /// # Errors
    /// `Unsupported` where one can't be closed again.
    async fn close_networks_again(&self, _labels: &BTreeMap<String, String>) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Whether [`update_limits`](Runtime::update_limits) is supported. Asked beforehand by who would do otherwise without.
    fn updates_limits(&self) -> bool {
        false
    }

    /// Whether it holds a limit of disk itself, by a quota that a place keeps for good. Where it doesn't, which is the default, the host looks
    /// ([`DiskPolicy`](crate::DiskPolicy)), and any place can get any limit. What isn't known yet is taken for yes.
    async fn limits_disk(&self) -> Result<bool> {
        Ok(false)
    }

    /// Changes the limits of a place, running or not, but for that of disk: each that is given; those that are absent stay as they are. Optional.
    ///
    /// # Errors
    /// `NotFound` when it is gone, `Invalid` for a limit that is out of range, `Conflict` when more memory is in use than is to be
    /// allowed.
    async fn update_limits(&self, _id: &ContainerId, _limits: &Resources) -> Result<()> {
        Err(unsupported("changing the limits of a container"))
    }

    /// Makes a volume, in which the user of workspaces may write. Optional.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one of that name, `NotFound` when its image isn't there.
    async fn create_volume(&self, _volume: &VolumeSpec) -> Result<()> {
        Err(unsupported("volumes"))
    }

    /// The volumes with these labels. Optional.
    async fn volumes(&self, _labels: &BTreeMap<String, String>) -> Result<Vec<VolumeState>> {
        Err(unsupported("volumes"))
    }

    /// Removes a volume. Removing what isn't there is no error. Optional.
    ///
    /// # Errors
    /// `Conflict` while a place has it, running or not.
    async fn remove_volume(&self, _name: &str) -> Result<()> {
        Err(unsupported("volumes"))
    }

    /// What a place has on disk besides its image, once. It may be as slow as a walk through all of its files. Optional.
    ///
    /// # Errors
    /// `NotFound` when it is gone.
    async fn disk_use(&self, _id: &ContainerId) -> Result<DiskUse> {
        Err(unsupported("measuring what a container has on disk"))
    }

    /// The same of a volume. Optional: `Unsupported` too where it isn't seen from here.
    ///
    /// # Errors
    /// `NotFound` when it is gone.
    async fn volume_use(&self, _name: &str) -> Result<DiskUse> {
        Err(unsupported("measuring what a volume holds"))
    }

    /// What is left on the disk that places write to. Optional: `Unsupported` too where it isn't seen from here.
    async fn disk_space(&self) -> Result<DiskSpace> {
        Err(unsupported("looking at the engine's disk"))
    }

    /// Lays a tar stream into a folder of a place. Optional.
    async fn put_archive(&self, _id: &ContainerId, _folder: &str, _tar: BoxStream<Bytes>) -> Result<()> {
        Err(unsupported("laying an archive into a container"))
    }
}

fn unsupported(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("this runtime does not support {what}"))
}

/// Who a runtime is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RuntimeInfo {
    /// `docker`, `podman`.
    pub name: String,
    /// The engine's own version.
    pub version: String,
    /// The API version that was negotiated.
    pub api_version: String,
    /// Where it was found: a socket's path or an address.
    pub address: String,
    /// Where it keeps its data, if it says.
    pub data_root: Option<String>,
    /// What it can't do, each in a few words for people; the calls that need it answer `Unsupported`.
    pub lacks: Vec<String>,
}

/// What a place should be. Defaults are in `Host`, not here.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerSpec {
    /// Its name: `corehold-<workspaceId>`.
    pub name: String,
    /// Reference or id of the image.
    pub image: String,
    /// What never changes about it.
    pub labels: BTreeMap<String, String>,
    /// Environment of the agent, and so of its commands.
    pub env: BTreeMap<String, String>,
    /// TCP ports that are reached on 127.0.0.1 of this machine while it runs, besides the agent's. Each costs a proxy process
    /// of 3.3 MB with Docker; tunnels through the agent need none.
    pub publish: Vec<u16>,
    /// Ports of this machine for those, of which the runtime takes one that is free at each start. Absent: any.
    pub publish_on: Option<RangeInclusive<u16>>,
    /// The agent's port, reached in whichever way the runtime finds best.
    pub agent_port: u16,
    /// Limits.
    pub resources: Resources,
    /// A read-only folder inside that holds the host's CA bundle, when one is handed in.
    pub ca_bundle: Option<CaBundle>,
    /// How it gets the agent if its image has none. Absent: what the image starts is the agent.
    pub agent: Option<Injection>,
    /// What else is visible inside, in the order of its paths.
    pub mounts: Vec<Mount>,
    /// How it is held, beyond what holds every place.
    pub hardening: Hardening,
    /// The network that it is in; absent: the runtime's own, in which all are kept apart. Made, where it isn't there.
    pub network: Option<NetworkSpec>,
}

/// How a place whose image has no agent gets one: on a read-only volume over `/tools`, started in place of what the image would
/// start, with `/app`, a home and `/tmp` that its user may write. Nothing else of the image is needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Injection {
    /// References of core images, of which the first that is there lends its agent.
    pub from: Vec<String>,
    /// Whether everything runs as the image's own user, which must not be root, instead of user 1000.
    pub own_user: bool,
}

/// An image, in a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ImageSummary {
    /// What it is, whatever its names come to mean.
    pub id: String,
    /// Its names; none, if others have them by now.
    pub references: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
    /// What its layers take on the disk, in bytes; those that it shares with others count in each.
    pub size_bytes: u64,
    /// Whether it is a core image, or made from one.
    pub core: bool,
}

/// What a pull has received so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PullProgress {
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes of the layers whose size is known by now.
    pub total_bytes: u64,
}

/// What a volume should be.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeSpec {
    /// Its name in the runtime.
    pub name: String,
    /// What never changes about it.
    pub labels: BTreeMap<String, String>,
    /// An image that is there, where the runtime needs one to make a volume.
    pub image: String,
}

/// A volume that there is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct VolumeState {
    /// Its name in the runtime.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made, in RFC 3339, where the runtime says so.
    pub created: Option<String>,
}

/// What a place has on disk, besides its image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskUse {
    /// Bytes.
    pub bytes: u64,
    /// Files, folders and links, where they are counted.
    pub files: Option<u64>,
}

/// What is left on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskSpace {
    /// Bytes that can be written.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Files that can be made, where its file system has a number of them.
    pub free_files: Option<u64>,
}

/// A CA bundle on its way into a place.
#[derive(Debug, Clone, PartialEq)]
pub struct CaBundle {
    /// PEM.
    pub pem: Bytes,
    /// Where it lies inside: an absolute path.
    pub path: String,
    /// The same certificates as a key store of Java's (JKS), laid beside it at [`java_path`](Self::java_path); absent: none.
    pub java: Option<Bytes>,
}

impl CaBundle {
    /// Where the key store lies inside, if there is one.
    #[must_use]
    pub fn java_path(&self) -> String {
        format!("{}.jks", self.path)
    }
}

/// How the host reaches a port inside.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Endpoint {
    /// A TCP address that this host can connect to.
    Tcp(SocketAddr),
    /// None: the runtime itself opens connections ([`Runtime::connect`]), as to a container of an engine on another machine.
    ThroughRuntime,
}

/// What a place is doing.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ContainerState {
    /// Names it.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it is doing.
    pub status: ContainerStatus,
    /// When it was made, in RFC 3339.
    pub created: String,
    /// When it was started last. Only [`Runtime::inspect`] says so of one that runs; a listing need not look.
    pub started: Option<Timestamp>,
    /// When it ended last. As of [`started`](Self::started).
    pub finished: Option<Timestamp>,
    /// Its own address in its network, while it has one. As of [`started`](Self::started).
    pub address: Option<IpAddr>,
    /// The image that it was made of, as whoever made it said, or its id where that name is another one's by now.
    pub image: Option<String>,
    /// Exit code of its first process, once that has ended.
    pub exit_code: Option<i64>,
    /// Whether the kernel killed it for want of memory; false where the engine doesn't tell ([`RuntimeInfo::lacks`]).
    pub oom_killed: bool,
    /// The ports inside that are published on this machine while it runs, and where.
    pub published: BTreeMap<u16, SocketAddr>,
    /// Whether it runs, and has ended before. Only [`Runtime::inspect`] says so; a listing need not look.
    pub restarted: bool,
}

impl ContainerState {
    /// Without what only [`Runtime::inspect`] is sure to say: as any listing has it.
    #[must_use]
    pub fn as_listed(self) -> Self {
        Self { started: None, finished: None, address: None, image: None, restarted: false, ..self }
    }
}

/// What a place is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContainerStatus {
    /// Made, not started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Ended.
    Exited,
    /// Being removed, or damaged.
    Dead,
}

/// What a place uses. All that is counted is counted since its start, and begins anew with the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// When it was measured, by the clock of the place's machine; absent where the runtime doesn't say.
    pub at: Option<Timestamp>,
    /// Memory in use, in bytes, without the page cache that the kernel can drop.
    pub memory_bytes: u64,
    /// Memory that it may use, in bytes: its limit, or what its machine has.
    pub memory_limit_bytes: Option<u64>,
    /// CPU time used, in nanoseconds.
    pub cpu_ns: u64,
    /// Bytes that came in over its networks.
    pub network_received_bytes: u64,
    /// Bytes that went out over its networks.
    pub network_sent_bytes: u64,
    /// Bytes read from disks, not from the page cache.
    pub disk_read_bytes: u64,
    /// Bytes written to disks.
    pub disk_written_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// Something happened to a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEvent {
    /// To which.
    pub id: ContainerId,
    /// What: `create`, `start`, `die`, `destroy`, `oom`, …, as the engine names it.
    pub action: String,
    /// The place's name, after the event.
    pub name: String,
    /// Exit code of its first process, where the event is its end.
    pub exit_code: Option<i64>,
}
