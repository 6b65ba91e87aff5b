//! The newest Docker Engine for the tests, built from Go modules: no Debian package and no registry has it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::beside::{Beside, path_with};
use crate::{config::Config, progress};

/// One module and what is built of it.
struct Module {
    name: &'static str,
    version: &'static str,
    packages: &'static [&'static str],
    cgo: &'static str,
    tags: &'static str,
    /// What the linker is told besides leaving symbols out.
    link: &'static str,
}

/// What an engine consists of. Debian's runc is too old for it ("namespace time does not exist"), and so is its docker-proxy.
const MODULES: [Module; 3] = [
    Module {
        name: "github.com/opencontainers/runc",
        version: "v1.4.0",
        packages: &["github.com/opencontainers/runc"],
        cgo: "1",
        tags: "seccomp",
        link: "",
    },
    Module {
        name: "github.com/containerd/containerd/v2",
        version: "v2.2.0",
        packages: &[
            "github.com/containerd/containerd/v2/cmd/containerd",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        ],
        cgo: "0",
        tags: "no_btrfs no_zfs no_devmapper",
        link: "",
    },
    Module {
        name: "github.com/moby/moby/v2",
        version: "v2.0.0-beta.24",
        packages: &["github.com/moby/moby/v2/cmd/dockerd", "github.com/moby/moby/v2/cmd/docker-proxy"],
        cgo: "0",
        tags: "no_btrfs no_zfs exclude_graphdriver_btrfs journald_off",
        link: " -X github.com/moby/moby/v2/dockerversion.Version=29.0.0-test",
    },
];

/// Starts containerd by the first three arguments (program, settings, socket) and, once it listens, the engine by the others.
const WITH_CONTAINERD: &str = r#"
"$1" --config "$2" & containerd=$! socket=$3
shift 3
until [ -S "$socket" ]; do kill -0 $containerd || exit 1; sleep 0.05; done
exec "$@"
"#;

/// Builds what isn't built yet, and says where the programs are.
pub(crate) fn build(config: &Config) -> Result<PathBuf> {
    let root = config.target.join("tools/newest-docker");
    let programs = root.join(MODULES.map(|module| module.version).join("-"));
    for module in &MODULES {
        let done = module.packages.iter().all(|package| programs.join(name(package)).is_file());
        if !done {
            let heading = format!("Build {} {} (minutes)", module.name, module.version);
            progress::step(&heading, || build_module(&root, &programs, module))?;
        }
    }
    let cache = root.join("modules");
    if cache.is_dir() {
        // Its files are read-only, which Go knows how to deal with.
        progress::run(Command::new("go").args(["clean", "-modcache", "-cache"]).envs(caches(&root)))?;
    }
    Ok(programs)
}

/// A package's program.
fn name(package: &str) -> &str {
    package.rsplit('/').next().unwrap_or(package)
}

fn caches(root: &Path) -> [(&'static str, PathBuf); 2] {
    [("GOMODCACHE", root.join("modules")), ("GOCACHE", root.join("cache"))]
}

/// A module that needs nothing but the one whose programs are wanted, so that `go mod tidy` finds the versions it was made with.
fn build_module(root: &Path, programs: &Path, module: &Module) -> Result<()> {
    let folder = root.join("module");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    let requirement = format!("module corehold.test\n\ngo 1.24\n\nrequire {} {}\n", module.name, module.version);
    fs::write(folder.join("go.mod"), requirement)?;
    let imports: String = module.packages.iter().map(|package| format!("import _ {package:?}\n")).collect();
    fs::write(folder.join("tools.go"), format!("//go:build tools\n\npackage tools\n\n{imports}"))?;
    let go = || {
        let mut go = Command::new("go");
        go.current_dir(&folder).envs(caches(root)).env("GOFLAGS", "-mod=mod").env("CGO_ENABLED", module.cgo);
        go
    };
    progress::run(go().args(["mod", "tidy"]))?;
    // Under their names only when they are whole.
    let fresh = folder.join("programs");
    let link = format!("-s -w{}", module.link);
    let mut build = go();
    build
        .args(["build", "-trimpath", "-ldflags", &link, "-tags", module.tags, "-o"])
        .arg(format!("{}/", fresh.display()));
    progress::run(build.args(module.packages))?;
    fs::create_dir_all(programs)?;
    for package in module.packages {
        fs::rename(fresh.join(name(package)), programs.join(name(package)))?;
    }
    Ok(fs::remove_dir_all(&folder)?)
}

/// Starts it with a containerd of its own.
pub(crate) fn start(config: &Config, programs: &Path) -> Result<Beside> {
    let folder = Beside::folder("docker")?;
    let path = path_with(&[programs.to_owned()], &config.path)?;
    let socket = folder.join("containerd.sock");
    let settings = folder.join("containerd.toml");
    let (root, state) = (folder.join("containerd"), folder.join("containerd-state"));
    fs::write(&settings, format!("version = 3\nroot = {root:?}\nstate = {state:?}\n[grpc]\naddress = {socket:?}\n"))?;
    let within = |name: &str| folder.join(name);
    let mut engine = Command::new("sh");
    engine.args(["-c", WITH_CONTAINERD, "sh"]).arg(programs.join("containerd")).arg(&settings).arg(&socket);
    engine.arg(programs.join("dockerd")).arg("-H").arg(format!("unix://{}", within("engine.sock").display()));
    engine.arg("--data-root").arg(within("data")).arg("--exec-root").arg(within("exec"));
    engine.arg("--pidfile").arg(within("pid")).arg("--containerd").arg(&socket).env("PATH", &path);
    Beside::start(folder, &engine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_has_one_name() {
        let mut names: Vec<_> =
            MODULES.iter().flat_map(|module| module.packages).map(|package| name(package)).collect();
        names.sort_unstable();
        assert_eq!(names, ["containerd", "containerd-shim-runc-v2", "docker-proxy", "dockerd", "runc"]);
    }
}
