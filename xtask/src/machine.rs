//! What this machine is and has, as far as setting it up is concerned.

use std::{
    collections::BTreeSet,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Stdio},
};

use crate::{config::Config, engine::podman};

/// Programs whose absence changes what set-up does.
const PROGRAMS: [&str; 20] = [
    "apt-get",
    "c++",
    "cargo-fuzz",
    "debootstrap",
    "dockerd",
    "ensurepip",
    "go",
    "ip",
    "iptables",
    "node",
    "npm",
    "pip3",
    "podman",
    "python3",
    "rustup",
    "schemathesis",
    "seccomp.h",
    "setsid",
    "top",
    "vi",
];

/// The facts that decide what set-up does. Made by hand in tests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    /// Whether this process may install packages and start an engine.
    pub(crate) is_root: bool,
    /// Whether systemd is the init, so that services are its business.
    pub(crate) has_systemd: bool,
    /// Which of [`PROGRAMS`] are there.
    pub(crate) programs: BTreeSet<&'static str>,
    /// Components of the Rust toolchain that are missing: `clippy`, `rustfmt`.
    pub(crate) missing_components: Vec<&'static str>,
}

impl Machine {
    pub(crate) fn look(config: &Config) -> Self {
        let missing = |subcommand: &str| !succeeds(Command::new(&config.cargo).args([subcommand, "--version"]));
        let components = [("clippy", "clippy"), ("rustfmt", "fmt")];
        Self {
            is_root: std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0),
            has_systemd: Path::new("/run/systemd/system").is_dir(),
            programs: PROGRAMS
                .into_iter()
                .filter(|program| match *program {
                    "podman" => podman::is_there(config),
                    // A header, which is looked for as if it were a program.
                    "seccomp.h" => Path::new("/usr/include/seccomp.h").is_file(),
                    "cargo-fuzz" => config.cargo_fuzz().is_some(),
                    "schemathesis" => config.schemathesis().is_file(),
                    // A module of Python, which Debian keeps in a package of its own.
                    "ensurepip" => succeeds(Command::new("python3").args(["-c", "import ensurepip"])),
                    program => config.program(program).is_some(),
                })
                .collect(),
            missing_components: components
                .into_iter()
                .filter(|(_, subcommand)| missing(subcommand))
                .map(|(component, _)| component)
                .collect(),
        }
    }

    pub(crate) fn has(&self, program: &str) -> bool {
        self.programs.contains(program)
    }
}

/// Whether a command can be run and says so, whatever it prints.
fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
