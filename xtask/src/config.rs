//! What the environment says, read in one place.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// What the environment says.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// The repository. Not from the environment: where this program was compiled.
    pub(crate) repository: PathBuf,
    /// `CARGO`: the cargo that runs this. Default `cargo`.
    pub(crate) cargo: OsString,
    /// `CARGO_TARGET_DIR`. Default `target` in the repository.
    pub(crate) target: PathBuf,
    /// `PATH`, with the folders where Debian keeps the programs of root, which `su` leaves out.
    pub(crate) path: Vec<PathBuf>,
    /// `COREHOLD_TEMPLATES`: folders with templates, for the command line. Default: those of the repository.
    pub(crate) templates: OsString,
    /// `DOCKER_HOST`: the engine to use and no other.
    pub(crate) docker_host: Option<String>,
    /// `DOCKER_CONTEXT`: the docker command's context to use and no other.
    pub(crate) docker_context: Option<String>,
    /// `DOCKER_CONFIG`: folder of the docker command's configuration. Default `~/.docker`.
    pub(crate) docker_config: PathBuf,
    /// `XDG_RUNTIME_DIR`: where an engine without root has its socket.
    pub(crate) runtime_folder: Option<PathBuf>,
    /// `XDG_STATE_HOME/corehold`, where the engine's log goes. Default `~/.local/state/corehold`.
    pub(crate) state: PathBuf,
}

impl Config {
    pub(crate) fn of_this_process() -> Self {
        let repository =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository").to_owned();
        let home = env::home_dir().unwrap_or_else(|| "/root".into());
        let text = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let mut path: Vec<_> = env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
        for folder in ["/usr/local/sbin", "/usr/sbin", "/sbin"] {
            if !path.iter().any(|known| known == Path::new(folder)) {
                path.push(folder.into());
            }
        }
        Self {
            cargo: env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
            target: folder("CARGO_TARGET_DIR")
                .map_or_else(|| repository.join("target"), |target| repository.join(target)),
            path,
            templates: env::var_os("COREHOLD_TEMPLATES")
                .filter(|value| !value.is_empty())
                .unwrap_or_else(|| repository.join("templates").into()),
            docker_host: text("DOCKER_HOST"),
            docker_context: text("DOCKER_CONTEXT"),
            docker_config: folder("DOCKER_CONFIG").unwrap_or_else(|| home.join(".docker")),
            runtime_folder: folder("XDG_RUNTIME_DIR"),
            state: folder("XDG_STATE_HOME").unwrap_or_else(|| home.join(".local/state")).join("corehold"),
            repository,
        }
    }

    /// `cargo fuzz`: of this repository, or of the machine.
    pub(crate) fn cargo_fuzz(&self) -> Option<PathBuf> {
        let ours = self.target.join("tools/bin/cargo-fuzz");
        if ours.is_file() { Some(ours) } else { self.program("cargo-fuzz") }
    }

    /// Where `schemathesis` is once it is installed: in a virtual environment of its own.
    pub(crate) fn schemathesis(&self) -> PathBuf {
        self.target.join("tools/schemathesis/bin/schemathesis")
    }

    /// The program's file, if it is on the path.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        self.path.iter().map(|folder| folder.join(name)).find(|file| file.is_file())
    }
}
