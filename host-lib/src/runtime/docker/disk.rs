//! What a container has on the engine's disk: what differs from its image, and the volumes that go with it.
//!
//! Where the engine keeps its data on this machine and this process may look there, it is counted here, bytes and files in one go.
//! Elsewhere the engine is asked, which counts bytes only. What is counted is written to at the same time by whom it is counted for:
//! no link is followed, and no path is walked that somebody could lead elsewhere.

use std::{
    collections::HashSet,
    ffi::CStr,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use bollard::{
    models::{ContainerInspectResponse, SystemInfo},
    query_parameters::InspectContainerOptions,
};
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, statat, statvfs},
    io::Errno,
};

use super::{connection::Connection, specification::checked_name};
use crate::{
    blocking::blocking,
    error::{Error, ErrorKind, Result},
    runtime::{ContainerId, DiskSpace, DiskUse},
};

/// Bytes of a block, as `stat(2)` counts them.
const BLOCK: u64 = 512;

pub(super) async fn of_container(connection: &Connection, id: &ContainerId) -> Result<DiskUse> {
    let name = checked_name(&id.0)?;
    let call = connection.client.inspect_container(name, None::<InspectContainerOptions>);
    let folders = folders(&connection.call("looking at the container", call).await?);
    if let Some(folders) = folders {
        let walked = blocking("measuring", move || walk(&folders)).await?;
        if let Some(walked) = walked? {
            return Ok(walked);
        }
    }
    let call = connection.client.inspect_container(name, Some(InspectContainerOptions { size: true }));
    let measured = connection.call("measuring the container's disk", call).await?;
    let bytes = measured.size_rw.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
    Ok(DiskUse { bytes, files: None })
}

/// What lies in a volume's folder of the engine's machine.
pub(super) async fn of_volume(folder: PathBuf) -> Result<DiskUse> {
    let walked = blocking("measuring", move || walk(&[folder])).await??;
    walked.ok_or_else(|| Error::new(ErrorKind::Unsupported, "the engine's volumes aren't seen from this machine"))
}

/// The folders of the engine's machine in which all lies that is the container's own; none where the engine doesn't say.
fn folders(container: &ContainerInspectResponse) -> Option<Vec<PathBuf>> {
    let driver = container.graph_driver.as_ref()?;
    let mut all = vec![PathBuf::from(driver.data.get("UpperDir")?)];
    // Those that nobody named go with it: see `MountSource::Scratch`, and what an image without the agent gets.
    let named = |mount: &&bollard::models::Mount| mount.source.as_deref().is_some_and(|source| !source.is_empty());
    let asked = container.host_config.iter().flat_map(|config| config.mounts.iter().flatten()).filter(named);
    let named: HashSet<&str> = asked.filter_map(|mount| mount.target.as_deref()).collect();
    for mount in container.mounts.iter().flatten() {
        let is_volume = mount.name.as_deref().is_some_and(|name| !name.is_empty());
        if is_volume && !mount.destination.as_deref().is_some_and(|target| named.contains(target)) {
            all.push(mount.source.as_ref()?.into());
        }
    }
    Some(all)
}

fn open(at: impl std::os::fd::AsFd, path: &Path, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat2(at, path, flags, Mode::empty(), resolve)
}

/// Counts what lies in folders. None where they can't be looked at from here. Blocks.
fn walk(folders: &[PathBuf]) -> Result<Option<DiskUse>> {
    let mut used = DiskUse { bytes: 0, files: Some(0) };
    let mut linked = HashSet::new();
    for folder in folders {
        let Ok(root) = open(CWD, folder, ResolveFlags::NO_SYMLINKS) else { return Ok(None) };
        if walk_one(&root, &mut used, &mut linked).is_err() {
            return Ok(None);
        }
    }
    Ok(Some(used))
}

fn walk_one(root: &OwnedFd, used: &mut DiskUse, linked: &mut HashSet<(u64, u64)>) -> Result<(), Errno> {
    // Paths and no descriptors: somebody may nest a million folders. Each is opened beneath the root by the kernel.
    let mut left = vec![PathBuf::from(".")];
    while let Some(path) = left.pop() {
        let folder = match open(root, &path, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
            Ok(folder) => folder,
            // Gone, or something else by now.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::AGAIN) => continue,
            // Deeper than a path can say: nobody has that but to hide something. It is as if there were no end to it.
            Err(Errno::NAMETOOLONG) => {
                used.bytes = u64::MAX;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name: &CStr = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match statat(folder.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            };
            if stat.st_nlink > 1 && FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                #[allow(clippy::useless_conversion, reason = "narrower on other machines")]
                if !linked.insert((stat.st_dev.into(), stat.st_ino.into())) {
                    continue;
                }
            }
            used.bytes = used.bytes.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK));
            used.files = used.files.map(|files| files + 1);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                use std::os::unix::ffi::OsStrExt as _;
                left.push(path.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
            }
        }
    }
    Ok(())
}

/// Whether the engine may have a quota for what a container writes: overlayfs over XFS, if that was mounted with `pquota`, which the
/// engine says only when it is asked for one.
pub(super) fn may_have_quotas(facts: &SystemInfo) -> bool {
    let over_xfs =
        |pair: &Vec<String>| matches!(pair.as_slice(), [name, value] if name == "Backing Filesystem" && value == "xfs");
    facts.driver.as_deref() == Some("overlay2") && facts.driver_status.iter().flatten().any(over_xfs)
}

/// "--storage-opt is supported only for overlay over xfs with 'pquota' mount option".
pub(super) fn is_no_quota(error: &Error) -> bool {
    error.to_string().contains("storage-opt")
}

/// What is left on the disk with the engine's data.
///
/// # Errors
/// `Unsupported` where that isn't seen from here. Blocks.
pub(super) fn space(data_root: Option<&str>) -> Result<DiskSpace> {
    let unseen = || Error::new(ErrorKind::Unsupported, "the disk with the engine's data isn't seen from this machine");
    let stat = statvfs(data_root.ok_or_else(unseen)?).map_err(|error| unseen().caused_by(error))?;
    Ok(DiskSpace {
        // What is kept for root is no room for containers' users, but for the engine.
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        free_files: (stat.f_files > 0).then_some(stat.f_favail),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn used(folders: &[&Path]) -> DiskUse {
        walk(&folders.iter().map(|folder| folder.to_path_buf()).collect::<Vec<_>>()).unwrap().unwrap()
    }

    #[test]
    fn what_lies_on_disk_is_counted_once_and_no_link_is_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        let (one, other) = (root.join("one"), root.join("other"));
        fs::create_dir_all(one.join("deep/er")).unwrap();
        fs::create_dir_all(&other).unwrap();
        let empty = used(&[&other]);
        assert_eq!((empty.bytes, empty.files), (0, Some(0)));
        fs::write(other.join("large"), vec![1; 1 << 20]).unwrap();
        assert!((1 << 20..2 << 20).contains(&used(&[&other]).bytes));

        fs::write(one.join("deep/er/file"), vec![1; 100 << 10]).unwrap();
        fs::hard_link(one.join("deep/er/file"), one.join("again")).unwrap();
        symlink(&other, one.join("link")).unwrap();
        symlink("/", one.join("deep/slash")).unwrap();
        // A hole takes no room.
        fs::File::create(one.join("sparse")).unwrap().set_len(1 << 40).unwrap();
        let all = used(&[&one]);
        assert!((100 << 10..200 << 10).contains(&all.bytes), "{all:?}");
        assert_eq!(all.files, Some(6), "deep, er, file, link, slash, sparse");
        let both = used(&[&one, &other]);
        assert_eq!((both.bytes, both.files), (all.bytes + used(&[&other]).bytes, Some(7)));
        assert_eq!(walk(&[root.join("missing")]).unwrap(), None);
    }

    #[test]
    fn what_is_hidden_deeper_than_a_path_can_say_counts_as_endless() {
        let scratch = tempfile::tempdir().unwrap();
        let root = open(CWD, scratch.path(), ResolveFlags::empty()).unwrap();
        let name = "x".repeat(250);
        let mut folder = root.try_clone().unwrap();
        for _ in 0..20 {
            rustix::fs::mkdirat(&folder, &name, Mode::from_raw_mode(0o700)).unwrap();
            folder = open(&folder, Path::new(&name), ResolveFlags::empty()).unwrap();
        }
        assert_eq!(used(&[scratch.path()]).bytes, u64::MAX);
        // Where the temporary folder's own removal can't come by a path.
        let status = std::process::Command::new("rm").arg("-rf").arg(scratch.path()).status().unwrap();
        assert!(status.success());
    }

    #[test]
    fn a_container_has_what_differs_from_its_image_and_the_volumes_that_nobody_named() {
        use bollard::models::{DriverData, HostConfig, Mount, MountPoint};
        let volume = |name: &str, at: &str| MountPoint {
            name: Some(name.to_owned()),
            source: Some(format!("/data/volumes/{name}/_data")),
            destination: Some(at.to_owned()),
            ..MountPoint::default()
        };
        let folder = MountPoint { name: None, source: Some("/srv".to_owned()), ..volume("", "/srv") };
        let asked = |source: Option<&str>, at: &str| Mount {
            source: source.map(str::to_owned),
            target: Some(at.to_owned()),
            ..Mount::default()
        };
        let mut container = ContainerInspectResponse {
            graph_driver: Some(DriverData {
                name: "overlay2".to_owned(),
                data: [("UpperDir".to_owned(), "/data/upper".to_owned())].into(),
            }),
            mounts: Some(vec![volume("0f", "/app"), volume("1f", "/home"), volume("cache", "/cache"), folder]),
            host_config: Some(HostConfig {
                mounts: Some(vec![asked(None, "/app"), asked(Some("cache"), "/cache"), asked(Some("/srv"), "/srv")]),
                ..HostConfig::default()
            }),
            ..ContainerInspectResponse::default()
        };
        let own = ["/data/upper", "/data/volumes/0f/_data", "/data/volumes/1f/_data"].map(PathBuf::from);
        assert_eq!(folders(&container).unwrap(), own);
        container.graph_driver = None;
        assert_eq!(folders(&container), None);
    }

    #[test]
    fn only_an_engine_over_xfs_is_asked_for_a_quota() {
        let facts = |driver: &str, file_system: &str| SystemInfo {
            driver: Some(driver.to_owned()),
            driver_status: Some(vec![vec!["Backing Filesystem".to_owned(), file_system.to_owned()]]),
            ..SystemInfo::default()
        };
        assert!(may_have_quotas(&facts("overlay2", "xfs")));
        assert!(!may_have_quotas(&facts("overlay2", "extfs")) && !may_have_quotas(&facts("vfs", "xfs")));
        assert!(!may_have_quotas(&SystemInfo::default()));
        let said = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option";
        assert!(is_no_quota(&Error::new(ErrorKind::Engine, said)));
    }

    #[test]
    fn the_disk_says_what_is_left() {
        let space = space(Some("/")).unwrap();
        assert!(space.free_bytes <= space.total_bytes && space.total_bytes > 0);
        for unseen in [None, Some("/no/such/folder")] {
            assert_eq!(super::space(unseen).unwrap_err().kind(), ErrorKind::Unsupported);
        }
    }
}
