//! What lies in a place beside its image: folders of the engine's machine, volumes, memory. Values; what may be mounted is the host's to
//! say (`policy/mounts.rs`), and how it is done the runtime's.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Something that is visible at a path inside.
///
/// ```
/// use corehold_host::Mount;
///
/// let models = Mount::folder("/srv/models").at("/models").read_only(true);
/// let cache = Mount::volume("cargo-cache").at("/cache");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
#[must_use = "it is given to a request"]
pub struct Mount {
    /// What it is.
    pub source: MountSource,
    /// Where it lies inside: an absolute path.
    pub target: String,
    /// Whether it can't be written through this mount.
    #[serde(default)]
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum MountSource {
    /// A folder of the engine's machine, without what is mounted beneath it there. It is the folder that lies at this path, reached
    /// through no link.
    Folder(PathBuf),
    /// A named volume of the runtime's.
    Volume(String),
    /// Room on the engine's disk, filled with what the image has there; it goes with the container.
    Scratch,
    /// Memory, of at most so many bytes. They count as the container's.
    Memory(u64),
}

impl Mount {
    /// A folder of this machine, which the engine runs on too. Only below folders that the host's policy
    /// [allows](crate::policy::Policy::mount_root).
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Self::of(MountSource::Folder(path.into()))
    }

    /// A named volume: see [`Host::volumes`](crate::Host::volumes).
    pub fn volume(name: impl Into<String>) -> Self {
        Self::of(MountSource::Volume(name.into()))
    }

    /// Room on the engine's disk, filled with what the image has there; it goes with the container.
    pub fn scratch() -> Self {
        Self::of(MountSource::Scratch)
    }

    /// Memory, of at most so many bytes, which count as the workspace's.
    pub fn memory(bytes: u64) -> Self {
        Self::of(MountSource::Memory(bytes))
    }

    fn of(source: MountSource) -> Self {
        Self { source, target: String::new(), read_only: false }
    }

    /// Where it lies inside: an absolute path, and not one of the agent's (`/app`, `/tools`) or of the kernel's.
    pub fn at(mut self, target: impl Into<String>) -> Self {
        self.target = target.into();
        self
    }

    /// Whether it can't be written through this mount. Default: it can, by whom its files let.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }
}
