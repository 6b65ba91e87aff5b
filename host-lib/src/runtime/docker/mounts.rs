//! What is mounted into a container, as the engine wants it said, and a look at what it has mounted.
//!
//! An engine looks a folder up by its path when the container starts, as root, and follows every link on the way. Whoever may write
//! somewhere along the path can put a link there at that moment. So it is looked at afterwards what lies in the container, through the
//! kernel, before anything runs in it but the agent: it must be the folder that lies at the path without any link.

use std::{
    collections::HashMap,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use bollard::models::{
    ContainerInspectResponse, Mount as EngineMount, MountBindOptions, MountBindOptionsPropagationEnum, MountType,
    MountVolumeOptions,
};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat2},
    io::Errno,
};

use crate::{
    error::{Error, ErrorKind, Result},
    runtime::{Mount, MountSource},
};

/// What a container's mounts are to the engine: those that it lists, and those in memory with their options.
pub(super) fn of(mounts: &[Mount]) -> (Vec<EngineMount>, HashMap<String, String>) {
    let (mut listed, mut memory) = (Vec::new(), HashMap::new());
    for mount in mounts {
        let mut engines = EngineMount {
            target: Some(mount.target.clone()),
            read_only: Some(mount.read_only),
            ..EngineMount::default()
        };
        match &mount.source {
            MountSource::Folder(path) => {
                engines.typ = Some(MountType::BIND);
                engines.source = Some(path.display().to_string());
                engines.bind_options = Some(MountBindOptions {
                    propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
                    // Engines make what is mounted beneath it visible too, and read-only only since the version 25.
                    non_recursive: Some(true),
                    ..MountBindOptions::default()
                });
            }
            MountSource::Volume(name) => {
                engines.typ = Some(MountType::VOLUME);
                engines.source = Some(name.clone());
                engines.volume_options =
                    Some(MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() });
            }
            MountSource::Scratch => engines.typ = Some(MountType::VOLUME),
            MountSource::Memory(bytes) => {
                // Programs may run there, as they may wherever a workspace can write: builds do it.
                let write = if mount.read_only { "ro" } else { "rw" };
                memory.insert(mount.target.clone(), format!("{write},exec,nosuid,nodev,size={bytes},mode=1777"));
                continue;
            }
        }
        listed.push(engines);
    }
    (listed, memory)
}

/// A folder, by what the kernel knows it by.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

fn identity(folder: &OwnedFd) -> Result<Identity, Errno> {
    let stat = fstat(folder)?;
    Ok(Identity { device: stat.st_dev, inode: stat.st_ino })
}

fn open(at: impl std::os::fd::AsFd, path: &Path, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    loop {
        match openat2(&at, path, flags, Mode::empty(), resolve) {
            // Something was renamed meanwhile.
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened,
        }
    }
}

/// The folders of the engine's machine that a container has, and where inside.
pub(super) fn folders(container: &ContainerInspectResponse) -> Vec<(PathBuf, String)> {
    let mounts = container.host_config.iter().flat_map(|config| config.mounts.iter().flatten());
    let binds = mounts.filter(|mount| mount.typ == Some(MountType::BIND));
    binds.filter_map(|mount| Some((PathBuf::from(mount.source.as_ref()?), mount.target.clone()?))).collect()
}

/// Makes sure that the folders of a container that was just started are those that lie at their paths. `process` is its first one.
///
/// # Errors
/// `Forbidden` when one isn't, `Unsupported` when this process can't see it. Blocks.
pub(super) fn verify(process: i64, folders: &[(PathBuf, String)]) -> Result<()> {
    let root = open(CWD, Path::new(&format!("/proc/{process}/root")), ResolveFlags::empty()).map_err(unseen)?;
    let ours = open(CWD, Path::new("/"), ResolveFlags::empty()).map_err(unseen)?;
    if identity(&root).map_err(unseen)? == identity(&ours).map_err(unseen)? {
        // No container's: the engine counts the processes of another machine.
        return Err(unseen(Errno::SRCH));
    }
    compare(&root, folders)
}

fn unseen(error: Errno) -> Error {
    let message = format!("what the engine has mounted can't be seen from here, so no folder is mounted: {error}");
    Error::new(ErrorKind::Unsupported, message)
        .hint(
            "the engine must run on this machine, and this process as root or as the engine's own user; or mount a volume, or say that \
             folders are mounted unseen (`DockerOptions::folders_unseen`)",
        )
        .caused_by(error)
}

fn compare(root: &OwnedFd, folders: &[(PathBuf, String)]) -> Result<()> {
    for (path, target) in folders {
        let changed = |what: String| {
            Error::new(
                ErrorKind::Forbidden,
                format!("the folder {} was changed while it was mounted: {what}", path.display()),
            )
            .hint("somebody may write where it lies; mount a folder that only its owner can move")
        };
        let inside = open(root.as_fd(), Path::new(target.trim_start_matches('/')), ResolveFlags::IN_ROOT);
        let inside = inside.and_then(|folder| identity(&folder)).map_err(unseen)?;
        let outside = open(CWD, path, ResolveFlags::NO_SYMLINKS).and_then(|folder| identity(&folder));
        let outside = outside.map_err(|error| changed(error.to_string()))?;
        if inside != outside {
            return Err(changed(format!("another one lies at {target} inside")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_said_as_the_engine_reads_them() {
        let (listed, memory) = of(&[
            Mount::folder("/srv/data").at("/data").read_only(true),
            Mount::volume("corehold-volume-x").at("/cache"),
            Mount::scratch().at("/home/workspace"),
            Mount::memory(1 << 20).at("/tmp"),
        ]);
        let types: Vec<_> = listed.iter().map(|mount| (mount.typ.unwrap(), mount.source.as_deref())).collect();
        assert_eq!(
            types,
            [
                (MountType::BIND, Some("/srv/data")),
                (MountType::VOLUME, Some("corehold-volume-x")),
                (MountType::VOLUME, None)
            ]
        );
        assert_eq!((listed[0].read_only, listed[1].read_only), (Some(true), Some(false)));
        let bind = listed[0].bind_options.as_ref().unwrap();
        assert_eq!(
            (bind.non_recursive, bind.propagation),
            (Some(true), Some(MountBindOptionsPropagationEnum::RPRIVATE))
        );
        assert_eq!(memory["/tmp"], "rw,exec,nosuid,nodev,size=1048576,mode=1777");
    }

    /// The machine's root stands for a container's.
    #[test]
    fn what_lies_inside_must_be_the_folder_at_the_path() {
        let scratch = tempfile::tempdir().unwrap();
        let scratch = scratch.path().canonicalize().unwrap();
        let (own, other, link) = (scratch.join("own"), scratch.join("other"), scratch.join("link"));
        std::fs::create_dir(&own).unwrap();
        std::fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&other, &link).unwrap();
        let root = open(CWD, Path::new("/"), ResolveFlags::empty()).unwrap();
        let check = |path: &Path, inside: &Path| compare(&root, &[(path.to_owned(), inside.display().to_string())]);
        check(&own, &own).unwrap();
        for (path, inside) in [(&own, &other), (&link, &other), (&scratch.join("gone"), &own)] {
            let error = check(path, inside).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
        }
        assert_eq!(check(&own, &scratch.join("gone")).unwrap_err().kind(), ErrorKind::Unsupported);
        // A path on the way of which a link was put.
        let through = scratch.join("link/deep");
        std::fs::create_dir(other.join("deep")).unwrap();
        assert_eq!(check(&through, &other.join("deep")).unwrap_err().kind(), ErrorKind::Forbidden);
        // A process that is no container's, as where the engine runs on another machine.
        let error = verify(i64::from(std::process::id()), &[(own.clone(), own.display().to_string())]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
