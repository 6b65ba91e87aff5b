//! What may be mounted where: folders of this machine below the roots that the host allows, at places inside that are nobody else's.
//!
//! A folder is looked up here through its links, and is from then on the folder at the path that came of it, reached through no link:
//! the runtime sees to that when it has mounted it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
};

use crate::{
    blocking::blocking,
    error::{Error, ErrorKind, Result},
    host::HostInner,
    runtime::{Mount, MountSource},
};

/// Where the host's configuration folder lies inside.
pub const CONFIG_PATH: &str = "/etc/corehold";

/// Most mounts of a workspace.
const MOST_MOUNTS: usize = 32;
/// Bytes that a path inside may have.
const TARGET_BYTES: usize = 1024;

/// Paths inside that are the agent's or the kernel's, with all beneath them.
const TAKEN: [&str; 6] = ["/app", "/tools", "/proc", "/sys", "/dev", CONFIG_PATH];

/// Folders of a machine that no workspace gets, whatever the roots are: the kernel's, and where sockets and secrets of running
/// programs are.
const NEVER: [&str; 7] = ["/proc", "/sys", "/dev", "/run", "/var/run", "/etc", "/boot"];

/// Refuses mounts whose places inside can't be, whatever they are of.
fn check_targets(mounts: &[Mount]) -> Result<()> {
    if mounts.len() > MOST_MOUNTS {
        return Err(invalid(format!("{} mounts are too many: {MOST_MOUNTS} is the most", mounts.len())));
    }
    for (number, mount) in mounts.iter().enumerate() {
        let target = mount.target.as_str();
        let plain = target.strip_prefix('/').is_some_and(|rest| {
            !rest.is_empty()
                && rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
                && !rest.contains(['\0', ':'])
        });
        if !plain || target.len() > TARGET_BYTES {
            return Err(invalid(format!("{target:?} is no place for a mount"))
                .hint("write an absolute path like /data, without '.', '..', ':' and a slash at its end"));
        }
        if let Some(taken) = TAKEN.iter().find(|taken| overlap(Path::new(target), Path::new(taken))) {
            return Err(invalid(format!("nothing can be mounted at {target}: {taken} is the agent's or the kernel's"))
                .hint("mount it elsewhere, such as at /data; a link in the workspace may lead there"));
        }
        let clashes = |other: &&Mount| overlap(Path::new(&other.target), Path::new(target));
        if let Some(other) = mounts[..number].iter().find(clashes) {
            return Err(invalid(format!("two mounts lie at or beneath one another: {} and {target}", other.target)));
        }
        if mount.source == MountSource::Memory(0) {
            return Err(invalid(format!("the memory at {target} has no size")));
        }
    }
    Ok(())
}

/// Whether one of them is the other, or beneath it.
fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

/// What a folder may be, and what it must not hold.
struct Bounds {
    roots: Vec<PathBuf>,
    /// Of this host and its engine.
    never: Vec<PathBuf>,
}

impl Bounds {
    /// The folder that a path leads to. Blocks.
    ///
    /// # Errors
    /// `Forbidden` for one that isn't below a root, or holds what nobody gets; `NotFound` for none; `Invalid` for what is no folder.
    fn resolve(&self, path: &Path) -> Result<PathBuf> {
        let shown = path.display();
        if !path.is_absolute() || path.to_str().is_none_or(|text| text.contains('\0')) {
            return Err(invalid(format!("{path:?} can't be mounted: an absolute path in UTF-8 was expected")));
        }
        let forbidden = |why: String| {
            Err(Error::new(ErrorKind::Forbidden, format!("{shown} can't be mounted: {why}"))
                .hint("the host allows folders by `Policy::mount_root`; a named volume needs none"))
        };
        // Of what isn't allowed nobody is told what is there.
        if self.roots.is_empty() {
            return forbidden("this host allows no folder".to_owned());
        }
        let real = fs::canonicalize(path);
        let seen = real.as_deref().unwrap_or(path);
        let is_below = self.roots.iter().any(|root| seen.starts_with(root));
        if !is_below || real.is_err() && self.never.iter().any(|never| overlap(path, never)) {
            return forbidden("it is not below a folder that the host allows".to_owned());
        }
        let real = real.map_err(|error| unusable(path, error))?;
        self.open(&real).map(|()| real)
    }

    /// Makes sure that a path without links leads to a folder that may be mounted.
    fn open(&self, real: &Path) -> Result<()> {
        if let Some(never) = self.never.iter().find(|never| overlap(real, never)) {
            let message = format!("{} can't be mounted: {} is nobody's to see", real.display(), never.display());
            return Err(Error::new(ErrorKind::Forbidden, message));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat2(CWD, real, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
            Ok(_) => Ok(()),
            Err(error) => Err(unusable(real, error.into())),
        }
    }
}

fn unusable(path: &Path, error: io::Error) -> Error {
    let kind = match Errno::from_io_error(&error) {
        Some(Errno::NOENT) => ErrorKind::NotFound,
        Some(Errno::NOTDIR | Errno::LOOP) => ErrorKind::Invalid,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("the folder {} can't be mounted: {error}", path.display()))
        .hint("a folder that is there is mounted, no single file and no link")
        .caused_by(error)
}

/// The folder that a host's configuration names, reached through no link. Blocks.
///
/// # Errors
/// `Invalid`, saying which setting.
pub(crate) fn configured(what: &str, path: &Path, home: &Path) -> Result<PathBuf> {
    let fail = |error: Error| error.context(what);
    if !path.is_absolute() {
        return Err(fail(invalid(format!("{} is no absolute path", path.display()))));
    }
    let real = fs::canonicalize(path).map_err(|error| fail(unusable(path, error)))?;
    if home.starts_with(&real) {
        return Err(fail(invalid(format!("{} holds this host's keys", real.display()))));
    }
    let never = NEVER.iter().map(PathBuf::from).filter(|never| never != Path::new("/etc")).collect();
    Bounds { roots: Vec::new(), never }.open(&real).map_err(fail)?;
    Ok(real)
}

/// Looks up what the class of a pool mounts, as its host's configuration says. Blocks.
///
/// # Errors
/// `Invalid`, as for a request; a request that is to be met by it must be allowed the same.
pub(crate) fn settle(mounts: &mut [Mount], home: &Path) -> Result<()> {
    check_targets(mounts)?;
    for mount in mounts {
        if let MountSource::Folder(path) = &mut mount.source {
            *path = configured("a mount", path, home)?;
        }
    }
    Ok(())
}

impl HostInner {
    /// What is to be mounted, its folders looked up and allowed, in the order of its places.
    ///
    /// # Errors
    /// See [`check_targets`] and [`Bounds::resolve`].
    pub(crate) async fn allowed_mounts(&self, mut mounts: Vec<Mount>) -> Result<Vec<Mount>> {
        check_targets(&mounts)?;
        mounts.sort_by(|one, other| one.target.cmp(&other.target));
        if !mounts.iter().any(|mount| matches!(mount.source, MountSource::Folder(_))) {
            return Ok(mounts);
        }
        let engine = self.runtime.describe().await?;
        let mut never: Vec<PathBuf> = NEVER.iter().map(PathBuf::from).collect();
        never.push(self.home.clone());
        never.extend(engine.data_root.map(PathBuf::from));
        never.extend(engine.address.strip_prefix("unix://").map(PathBuf::from));
        let roots = self.policy.mount_roots.clone();
        let resolved = blocking("looking at the folders", move || {
            // By whichever path the engine was found.
            let real = never.iter().filter_map(|path| fs::canonicalize(path).ok()).collect::<Vec<_>>();
            let bounds =
                Bounds { roots: roots.iter().filter_map(|root| fs::canonicalize(root).ok()).collect(), never: real };
            for mount in &mut mounts {
                if let MountSource::Folder(path) = &mut mount.source {
                    *path = bounds.resolve(path)?;
                }
            }
            Ok(mounts)
        });
        resolved.await?
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use super::*;

    fn at(target: &str) -> Mount {
        Mount::volume("x").at(target)
    }

    #[test]
    fn what_is_the_agents_or_the_kernels_is_not_covered() {
        for target in [
            "",
            "/",
            "data",
            "/data/",
            "/a/../b",
            "/a/./b",
            "//a",
            "/a:b",
            "/a\0",
            "/app",
            "/app/data",
            "/tools",
            "/tools/x",
            "/proc",
            "/sys/fs",
            "/dev",
            "/etc",
            "/etc/corehold",
            "/etc/corehold/x",
        ] {
            assert_eq!(check_targets(&[at(target)]).unwrap_err().kind(), ErrorKind::Invalid, "{target:?}");
        }
        check_targets(&[at("/data"), at("/data2"), at("/apple"), at("/home/workspace/.cache")]).unwrap();
        for pair in [["/a", "/a"], ["/a", "/a/b"], ["/a/b", "/a"]] {
            assert!(check_targets(&pair.map(at)).is_err(), "{pair:?}");
        }
        let many: Vec<_> = (0..33).map(|number| at(&format!("/m{number}"))).collect();
        assert!(check_targets(&many).is_err());
        assert!(check_targets(&[Mount::memory(0).at("/m")]).is_err());
    }

    #[test]
    fn only_folders_below_a_root_are_mounted_whatever_leads_there() {
        let scratch = tempfile::tempdir().unwrap();
        let scratch = scratch.path().canonicalize().unwrap();
        let root = scratch.join("allowed");
        fs::create_dir_all(root.join("project/deep")).unwrap();
        fs::create_dir_all(scratch.join("allowed-not")).unwrap();
        fs::create_dir_all(root.join("home/keys")).unwrap();
        fs::write(root.join("file"), "x").unwrap();
        let _socket = UnixListener::bind(root.join("engine.sock")).unwrap();
        for (link, to) in [
            ("slash", Path::new("/")),
            ("outside", &scratch),
            ("sibling", &scratch.join("allowed-not")),
            ("socket", &root.join("engine.sock")),
            ("inside", &root.join("project/deep")),
            ("loop", Path::new("loop")),
        ] {
            symlink(to, root.join(link)).unwrap();
        }
        let bounds = Bounds {
            roots: vec![root.clone()],
            never: vec!["/proc".into(), root.join("home"), root.join("data/engine.sock")],
        };
        let refused = |path: PathBuf, kind: ErrorKind| {
            let error = bounds.resolve(&path).unwrap_err();
            assert_eq!(error.kind(), kind, "{}: {error}", path.display());
        };
        assert_eq!(bounds.resolve(&root.join("project")).unwrap(), root.join("project"));
        assert_eq!(bounds.resolve(&root.join("inside/../deep")).unwrap(), root.join("project/deep"));
        for outside in ["/", "/etc/passwd", "/nowhere/at/all", "/proc/self/root", "/var/run/docker.sock"] {
            refused(outside.into(), ErrorKind::Forbidden);
        }
        for link in ["slash", "outside", "sibling", "project/../..", "project/../../allowed-not"] {
            refused(root.join(link), ErrorKind::Forbidden);
        }
        // The root itself holds the host's own folder.
        refused(root.clone(), ErrorKind::Forbidden);
        refused(root.join("home/keys"), ErrorKind::Forbidden);
        refused(root.join("missing"), ErrorKind::NotFound);
        for file in ["file", "engine.sock", "socket", "loop"] {
            refused(root.join(file), ErrorKind::Invalid);
        }
        refused("relative".into(), ErrorKind::Invalid);
        // Without a root nobody learns what there is.
        let none = Bounds { roots: Vec::new(), never: Vec::new() };
        assert_eq!(none.resolve(&root.join("missing")).unwrap_err().kind(), ErrorKind::Forbidden);
    }

    #[test]
    fn a_path_that_becomes_a_link_while_it_is_looked_at_is_no_folder() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().canonicalize().unwrap().join("folder");
        let bounds = Bounds { roots: vec!["/".into()], never: Vec::new() };
        fs::create_dir(&folder).unwrap();
        bounds.open(&folder).unwrap();
        // As between the look-up and the check of what came of it.
        fs::remove_dir(&folder).unwrap();
        symlink("/etc", &folder).unwrap();
        assert_eq!(bounds.open(&folder).unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn a_configured_folder_is_there_and_is_not_everything() {
        let scratch = tempfile::tempdir().unwrap();
        let real = scratch.path().canonicalize().unwrap();
        let home = real.join("home");
        assert_eq!(
            configured("the folder", &real.join("home/../."), &real.join("none")).err().unwrap().kind(),
            ErrorKind::NotFound
        );
        fs::create_dir_all(home.join("config")).unwrap();
        assert_eq!(configured("the folder", &home.join("config"), &home).unwrap(), home.join("config"));
        for path in
            [Path::new("/"), Path::new("relative"), Path::new("/proc/self"), Path::new("/nowhere"), &home, &real]
        {
            let error = configured("the folder", path, &home).unwrap_err();
            assert!(error.to_string().contains("the folder"), "{}: {error}", path.display());
        }
    }
}
