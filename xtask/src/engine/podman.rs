//! Podman for the tests: Debian's packages unpacked into a folder of ours, not installed, so that the machine stays as it is.

use std::{
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::beside::{Beside, path_with};
use crate::{config::Config, progress};

/// Where the packages are unpacked, in the target folder.
pub(crate) fn unpacked(config: &Config) -> PathBuf {
    config.target.join("tools/podman")
}

/// Whether there is one: the machine's, or ours.
pub(crate) fn is_there(config: &Config) -> bool {
    config.program("podman").is_some() || unpacked(config).join("usr/bin/podman").is_file()
}

/// Fetches the packages, with those that they need and this machine hasn't got, and unpacks them.
pub(crate) fn fetch(config: &Config, mut download: impl FnMut(&Path) -> Result<()>) -> Result<()> {
    let (folder, half) = (unpacked(config), unpacked(config).with_extension("new"));
    let _ = fs::remove_dir_all(&half);
    let packages = half.join("packages");
    // Where apt-get keeps what it hasn't got whole.
    fs::create_dir_all(packages.join("partial")).with_context(|| format!("can't make {}", packages.display()))?;
    download(&packages)?;
    for entry in fs::read_dir(&packages)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            progress::run(Command::new("dpkg").arg("--extract").arg(&file).arg(&half))?;
        }
    }
    fs::remove_dir_all(&packages)?;
    fs::rename(&half, &folder).with_context(|| format!("can't make {}", folder.display()))
}

/// Runs its arguments where the files of its name lie over those of `/etc`: in what is its own alone of the file systems, and where
/// Podman, which is told of no other place for them, looks.
const WITH_ETC: &str = r#"mount -t overlay overlay -o "lowerdir=$0:/etc" /etc && exec "$@""#;

/// Starts it with everything of its own: storage, state, configuration, networks.
pub(crate) fn start(config: &Config) -> Result<Beside> {
    let unpacked = unpacked(config);
    let ours = unpacked.join("usr/bin/podman");
    let program = if ours.is_file() { ours } else { "podman".into() };
    let folder = Beside::folder("podman")?;
    // Runc, since crun refuses some layouts of control groups.
    let runc = config.program("runc").unwrap_or_else(|| unpacked.join("usr/sbin/runc"));
    let limits = fs::read_to_string("/proc/self/limits")?;
    let most_processes = fs::read_to_string("/proc/sys/kernel/pid_max")?.trim().parse()?;
    fs::create_dir_all(folder.join("home"))?;
    let etc = folder.join("etc");
    fs::create_dir_all(etc.join("containers"))?;
    // Any image may be used: they are the tests' own.
    fs::write(etc.join("containers/policy.json"), r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)?;
    let settings = folder.join("containers.conf");
    let libraries = unpacked.join(format!("usr/lib/{ARCH}-linux-gnu"));
    let path = path_with(&[unpacked.join("usr/bin"), unpacked.join("usr/sbin")], &config.path)?;
    let text = configuration(&unpacked, &folder, &libraries, &path.to_string_lossy(), &limits, most_processes);
    fs::write(&settings, text)?;
    let within = |name: &str| folder.join(name);
    let mut podman = Command::new("sh");
    podman.args(["-c", WITH_ETC]).arg(etc).arg(program);
    podman.arg("--root").arg(within("storage")).arg("--runroot").arg(within("run"));
    podman.arg("--tmpdir").arg(within("tmp")).args(["--storage-driver", "overlay"]).arg("--runtime").arg(runc);
    podman.args(["system", "service", "--time=0"]).arg(format!("unix://{}", within("engine.sock").display()));
    podman.env("HOME", within("home")).env("CONTAINERS_CONF", settings);
    podman.env("LD_LIBRARY_PATH", libraries).env("PATH", path);
    Beside::start(folder, &podman)
}

/// `containers.conf`: its programs where they are unpacked, else where Debian installs them.
fn configuration(
    unpacked: &Path,
    folder: &Path,
    libraries: &Path,
    path: &str,
    limits: &str,
    most_processes: u64,
) -> String {
    let either = |there: &str| format!("[{:?}, {:?}]", unpacked.join(there.trim_start_matches('/')), there);
    // Its own defaults are higher than some machines let anybody have; that of processes it lowers to what the kernel has first.
    let ulimits: Vec<_> = [("nofile", "Max open files", u64::MAX), ("nproc", "Max processes", most_processes)]
        .iter()
        .filter_map(|(name, line, most)| Some((name, hard_limit(limits, line)?.min(*most))))
        .map(|(name, limit)| format!("\"{name}={limit}:{limit}\""))
        .collect();
    format!(
        "[containers]\ndefault_ulimits = [{}]\n\
         [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nconmon_path = {}\nhelper_binaries_dir = {}\n\
         conmon_env_vars = [{:?}, {:?}]\n\
         [network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = {}\nnetwork_config_dir = {:?}\n",
        ulimits.join(", "),
        either("/usr/bin/conmon"),
        either("/usr/lib/podman"),
        // What conmon starts when a container ends is podman itself.
        format!("PATH={path}"),
        format!("LD_LIBRARY_PATH={}", libraries.display()),
        either("/usr/lib/cni"),
        folder.join("networks"),
    )
}

/// A limit that can't be raised, of `/proc/self/limits`; `None` where there is none.
fn hard_limit(limits: &str, name: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().nth(1)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::pretend::{self, Folder};

    #[test]
    fn it_is_told_of_programs_and_limits_as_they_are_here() {
        let limits = "Limit   Soft Limit  Hard Limit  Units\nMax processes  unlimited  unlimited  processes\nMax open files  1024  20000  files\n";
        let text = configuration(Path::new("/t"), Path::new("/f"), Path::new("/t/lib"), "/bin", limits, 32_768);
        for line in [
            "default_ulimits = [\"nofile=20000:20000\"]",
            "conmon_path = [\"/t/usr/bin/conmon\", \"/usr/bin/conmon\"]",
            "conmon_env_vars = [\"PATH=/bin\", \"LD_LIBRARY_PATH=/t/lib\"]",
            "network_config_dir = \"/f/networks\"",
        ] {
            assert!(text.lines().any(|there| there == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn packages_that_are_not_whole_are_not_taken_for_podman() {
        let folder = Folder::new("podman");
        let config = Config { target: folder.0.join("target"), path: Vec::new(), ..pretend::config(&folder) };
        assert!(fetch(&config, |_| anyhow::bail!("no network")).is_err());
        assert!(!is_there(&config));
        fetch(&config, |packages| Ok(fs::write(packages.join("lock"), "")?)).unwrap();
        assert!(!is_there(&config), "nothing was in them");
    }
}
