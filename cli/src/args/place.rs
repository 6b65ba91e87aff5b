//! Flags that say what a workspace's container is: what is mounted, how it is held; and the volumes that may be mounted.

use clap::{Args, Subcommand};
use corehold_host::{Capability, Mount, runtime::Resources, template};

use crate::surroundings::home_folder;

/// What a workspace may use.
#[derive(Debug, Args)]
pub(crate) struct Asked {
    /// Memory limit, such as 512MiB or 2GiB
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// CPU limit, such as 0.5 or 2
    #[arg(long, value_name = "CPUS")]
    cpus: Option<f64>,
    /// Limit of processes and threads
    #[arg(long, value_name = "NUMBER")]
    processes: Option<u64>,
    /// Limit of what it has on the engine's disk, such as 2GiB; it is looked after by `corehold supervise` or a backend
    #[arg(long, value_name = "SIZE")]
    disk: Option<String>,
}

impl Asked {
    /// As the library has it. What isn't said stays as it is: the template's, the host's.
    pub(crate) fn resources(&self) -> anyhow::Result<Resources> {
        let mut resources = Resources::default().pids(self.processes);
        if let Some(memory) = &self.memory {
            resources.memory_bytes = Some(template::parse_memory(memory)?);
        }
        if let Some(disk) = &self.disk {
            resources.disk_bytes = Some(template::parse_memory(disk)?);
        }
        if let Some(cpus) = self.cpus {
            anyhow::ensure!((0.01..=1024.0).contains(&cpus), "--cpus {cpus} is not between 0.01 and 1024");
            resources.cpu_millis = Some((cpus * 1000.0).round() as u64);
        }
        Ok(resources)
    }
}

/// Flags of `limits`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  corehold limits demo                              what it may use
  corehold limits demo --memory 1GiB --cpus 2       from now on, and in every container that it has later")]
pub(crate) struct Limits {
    /// The workspace
    pub(crate) workspace: String,
    #[command(flatten)]
    pub(crate) asked: Asked,
}

/// Flags of `up`.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Mount a folder (an absolute path, or one that begins with ./ or ~/) or a named volume; may be given more than once
    #[arg(long = "mount", value_name = "WHAT:INSIDE[:ro]", value_parser = parse_mount)]
    pub(crate) mounts: Vec<Mount>,
    /// Let nothing of the image be written: only /app, the home folder, /tmp (100 MB of memory), /var/tmp and what is mounted
    #[arg(long)]
    pub(crate) read_only_root: bool,
    /// Capability that the workspace is to have, such as NET_BIND_SERVICE; for images whose user is root
    #[arg(long = "capability", value_name = "NAME")]
    pub(crate) capabilities: Vec<Capability>,
    /// The engine's runtime to run it in, such as runsc (gVisor) where that is installed
    #[arg(long, value_name = "NAME")]
    pub(crate) sandbox: Option<String>,
}

/// `volume …`
#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    /// List volumes, and which workspaces mount them
    #[command(visible_alias = "list")]
    Ls,
    /// Make a volume, empty; `up --mount <NAME>:/path` mounts it
    Create {
        /// At most 63 lower-case letters, digits, '-', '_' and '.'
        name: String,
    },
    /// Remove volumes and all that is in them
    #[command(visible_alias = "remove")]
    Rm {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// Reads `WHAT:INSIDE[:ro]`: a folder where WHAT is a path, else a volume.
fn parse_mount(text: &str) -> Result<Mount, String> {
    let wrong = || format!("{text:?} is no mount; <FOLDER or VOLUME>:<PATH INSIDE>, or the same and :ro, was expected");
    let (rest, read_only) = match text.strip_suffix(":ro") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let (what, inside) =
        rest.rsplit_once(':').filter(|(what, inside)| !what.is_empty() && !inside.is_empty()).ok_or_else(wrong)?;
    let folder = if let Some(rest) = what.strip_prefix("~/") {
        Some(home_folder().ok_or("HOME isn't set, so ~/ means nothing")?.join(rest))
    } else if what.starts_with('/') || what == "." || what.starts_with("./") || what.starts_with("../") {
        Some(std::path::absolute(what).map_err(|error| format!("{what}: {error}"))?)
    } else {
        None
    };
    let mount = folder.map_or_else(|| Mount::volume(what), Mount::folder);
    Ok(mount.at(inside).read_only(read_only))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use corehold_host::runtime::MountSource;

    use super::{
        super::{Arguments, Command},
        *,
    };

    #[test]
    fn limits_below_nothing_are_refused() {
        let said = |flags: &[&str]| -> anyhow::Result<Resources> {
            let arguments = Arguments::try_parse_from(["corehold", "limits", "demo"].iter().chain(flags))?;
            let Command::Limits(limits) = arguments.command else { panic!("{flags:?}") };
            limits.asked.resources()
        };
        for flags in [
            &["--memory", "-1"][..],
            &["--memory=-1"],
            &["--memory=-1GiB"],
            &["--disk=-1GiB"],
            &["--cpus", "-1"],
            &["--cpus=-0.5"],
            &["--cpus=NaN"],
            &["--processes", "-1"],
            &["--processes=-1"],
        ] {
            assert!(said(flags).is_err(), "{flags:?}");
        }
        assert_eq!(said(&["--memory=1GiB"]).unwrap().memory_bytes, Some(1 << 30));
    }

    #[test]
    fn a_mount_is_a_folder_where_it_looks_like_one() {
        let read = |text: &str| parse_mount(text).unwrap();
        assert_eq!(read("/srv/models:/models:ro"), Mount::folder("/srv/models").at("/models").read_only(true));
        assert_eq!(read("/with:colon:/x"), Mount::folder("/with:colon").at("/x"));
        assert_eq!(read("cache:/cache"), Mount::volume("cache").at("/cache"));
        assert!(
            matches!(read("./here:/x").source, MountSource::Folder(path) if path.is_absolute() && path.ends_with("here"))
        );
        for wrong in ["", ":", "/srv", "cache", ":/x", "cache:", "cache:ro"] {
            let parsed = parse_mount(wrong);
            assert!(parsed.is_err() || parsed.is_ok_and(|mount| !mount.target.starts_with('/')), "{wrong}");
        }
    }
}
