//! Installs and starts what is missing, having said so; or only says what is missing.
//!
//! What is to be done is decided first, as a value, from facts that tests make by hand.

use std::{path::Path, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, bail};

use crate::{
    config::Config,
    engine::{self, Address, Daemon, Found, podman},
    machine::Machine,
    progress,
};

/// References of images from which the core image can be built without making a base first.
const BASE_IMAGES: [&str; 3] = ["corehold-base", "workspace-core:latest", "node:24-bookworm-slim"];

/// Pinned: another version may build or find otherwise, and that should be a change of its own.
const CARGO_FUZZ: &str = "cargo-fuzz@0.13.2";
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// What a task needs of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needs {
    /// An engine that answers, and what the core image's base is made with.
    pub(crate) engine: bool,
    /// Podman, to be run beside that engine.
    pub(crate) podman: bool,
    /// What the newest Docker Engine is built and run with, beside that engine.
    pub(crate) newest_docker: bool,
    /// Node with npm, for the TypeScript compiler.
    pub(crate) node: bool,
    /// Python with pip, for the server that speaks S3 and the client that speaks MCP.
    pub(crate) python: bool,
    /// Programs that unit tests run in terminals: an editor, and `top`.
    pub(crate) terminals: bool,
    /// clippy and rustfmt.
    pub(crate) components: bool,
    /// `cargo fuzz`, and what libFuzzer is compiled with.
    pub(crate) fuzz: bool,
    /// `schemathesis`, and the right to run the agent as a user of its own.
    pub(crate) schemathesis: bool,
}

impl Needs {
    pub(crate) const EVERYTHING: Self = Self {
        engine: true,
        podman: false,
        newest_docker: false,
        node: true,
        python: true,
        terminals: true,
        components: true,
        fuzz: false,
        schemathesis: false,
    };
    pub(crate) const NOTHING: Self = Self { engine: false, ..Self::ENGINE };
    pub(crate) const ENGINE: Self =
        Self { node: false, python: false, terminals: false, components: false, ..Self::EVERYTHING };
    pub(crate) const FUZZING: Self = Self { fuzz: true, ..Self::NOTHING };
    pub(crate) const SCHEMATHESIS: Self = Self { schemathesis: true, ..Self::NOTHING };
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All is there.
    Ready {
        /// The engine, if one was needed.
        engine: Option<Address>,
    },
    /// Something is missing, and it was said what.
    Missing,
}

/// One thing to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    /// Debian packages, and what they are for.
    Install(Vec<(&'static str, &'static str)>),
    /// Components of the Rust toolchain.
    AddComponents(Vec<&'static str>),
    /// Debian's packages of Podman, unpacked into the target folder.
    UnpackPodman,
    /// An engine beside the machine's, in a network namespace of its own; done when it is needed, and only by root.
    RunBeside(&'static str),
    /// `cargo fuzz`, compiled into the target folder.
    InstallCargoFuzz,
    /// `schemathesis`, into a virtual environment in the target folder.
    InstallSchemathesis,
    /// The agent runs as a user of its own, which only root can make it do.
    RunAgentApart,
    /// Through systemd.
    StartService,
    /// As a process of its own.
    StartDaemon,
}

/// What is to be done, and what would only help.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Nothing works without these.
    needed: Vec<Action>,
    /// Packages for making the core image's base, which is not needed where one can be pulled.
    for_base: Vec<(&'static str, &'static str)>,
}

/// Decides what is to be done. `has_base` says whether the engine has an image to start from.
fn plan(machine: &Machine, needs: Needs, found: Option<&Found>, has_base: bool) -> Plan {
    let mut plan = Plan::default();
    let mut packages = Vec::new();
    let mut want = |program: &str, package, purpose| {
        if !machine.has(program) && !packages.iter().any(|(known, _)| *known == package) {
            packages.push((package, purpose));
        }
    };
    let start_engine = needs.engine && !matches!(found, Some(Found::Answering(_)));
    if start_engine {
        want("dockerd", "docker.io", "the Docker engine");
        want("iptables", "iptables", "the network of its containers");
        if !machine.has_systemd {
            want("setsid", "util-linux", "starts the engine detached from this terminal");
        }
    }
    if needs.podman || needs.newest_docker {
        want("ip", "iproute2", "the network of an engine beside the machine's");
        want("iptables", "iptables", "the network of its containers");
    }
    if needs.newest_docker {
        want("go", "golang", "builds the newest Docker Engine; 1.24 or newer");
        want("seccomp.h", "libseccomp-dev", "what the newest runc is built with");
    }
    if needs.node {
        want("node", "nodejs", "runs the TypeScript compiler and the MCP client");
        want("npm", "npm", "fetches the TypeScript compiler and the MCP client");
    }
    if needs.python {
        want("python3", "python3", "runs the server that speaks S3, and a client of MCP");
        want("pip3", "python3-pip", "fetches those");
    }
    if needs.terminals {
        want("vi", "vim-tiny", "an editor that a test runs in a terminal");
        want("top", "procps", "a program that a test runs in a terminal");
    }
    if needs.fuzz {
        want("c++", "g++", "compiles libFuzzer");
    }
    if needs.schemathesis {
        want("python3", "python3", "runs schemathesis");
        want("ensurepip", "python3-venv", "installs schemathesis into a folder of its own");
    }
    if !packages.is_empty() {
        plan.needed.push(Action::Install(packages.clone()));
    }
    if needs.fuzz && !machine.has("cargo-fuzz") {
        plan.needed.push(Action::InstallCargoFuzz);
    }
    if needs.schemathesis && !machine.has("schemathesis") {
        plan.needed.push(Action::InstallSchemathesis);
    }
    if needs.schemathesis && !machine.is_root {
        plan.needed.push(Action::RunAgentApart);
    }
    if needs.podman && !machine.has("podman") {
        plan.needed.push(Action::UnpackPodman);
    }
    for (needed, engine) in [(needs.podman, "Podman"), (needs.newest_docker, "the newest Docker Engine")] {
        if needed && !machine.is_root {
            plan.needed.push(Action::RunBeside(engine));
        }
    }
    if needs.components && !machine.missing_components.is_empty() {
        plan.needed.push(Action::AddComponents(machine.missing_components.clone()));
    }
    if start_engine {
        plan.needed.push(if machine.has_systemd { Action::StartService } else { Action::StartDaemon });
    }
    if needs.engine && !has_base {
        for (program, package, purpose) in [
            ("debootstrap", "debootstrap", "makes the core image's base where none can be pulled"),
            ("npm", "npm", "fetches Node for the core image's base where none can be pulled"),
        ] {
            if !machine.has(program) && !packages.iter().any(|(known, _)| *known == package) {
                plan.for_base.push((package, purpose));
            }
        }
    }
    plan
}

/// What stands in the way of doing a plan here, as one line.
fn obstacle(machine: &Machine, plan: &Plan, install: bool) -> Option<&'static str> {
    let for_root = |action: &Action| {
        !matches!(action, Action::AddComponents(_) | Action::InstallCargoFuzz | Action::InstallSchemathesis)
    };
    let installs = plan.needed.iter().any(|action| matches!(action, Action::Install(_) | Action::UnpackPodman));
    if plan.needed.is_empty() {
        None
    } else if !install {
        Some("nothing is installed or started because of --no-install")
    } else if !machine.is_root && plan.needed.iter().any(for_root) {
        Some("only root may install and start these")
    } else if installs && !machine.has("apt-get") {
        Some("this is not Debian, so these are not installed for you")
    } else if plan.needed.iter().any(|action| matches!(action, Action::AddComponents(_))) && !machine.has("rustup") {
        Some("without rustup these are not installed for you")
    } else {
        None
    }
}

/// Whether packages that would only help are installed along.
fn may_install(machine: &Machine, install: bool) -> bool {
    install && machine.is_root && machine.has("apt-get")
}

/// Packages as `apt-get` takes them.
fn names(packages: &[(&str, &str)]) -> String {
    packages.iter().map(|(package, _)| *package).collect::<Vec<_>>().join(" ")
}

/// Lines that say what is missing.
fn missing(action: &Action) -> Vec<String> {
    match action {
        Action::Install(packages) => {
            packages.iter().map(|(package, purpose)| format!("{package}: {purpose}")).collect()
        }
        Action::AddComponents(components) => {
            components.iter().map(|component| format!("{component}: a component of the Rust toolchain")).collect()
        }
        Action::UnpackPodman => vec!["podman: the other engine that the tests run on".to_owned()],
        Action::RunBeside(engine) => vec![format!("root, to run {engine} beside this machine's engine")],
        Action::InstallCargoFuzz => vec!["cargo-fuzz: builds the fuzz targets".to_owned()],
        Action::InstallSchemathesis => vec!["schemathesis: asks the agent by its OpenAPI document".to_owned()],
        Action::RunAgentApart => vec!["root, to run the agent as a user of its own".to_owned()],
        Action::StartService | Action::StartDaemon => vec!["a running Docker engine".to_owned()],
    }
}

/// Commands that mend it, as the user can type them.
fn remedy(action: &Action, machine: &Machine, daemon: &Daemon) -> Vec<String> {
    let sudo = if machine.is_root { "" } else { "sudo " };
    match action {
        Action::Install(packages) if machine.has("apt-get") => vec![
            format!("{sudo}apt-get update"),
            format!("{sudo}apt-get install -y --no-install-recommends {}", names(packages)),
        ],
        Action::Install(packages) => {
            let mut lines =
                vec![format!("install with your system's package manager (Debian's names): {}", names(packages))];
            if packages.iter().any(|(package, _)| *package == "docker.io") {
                lines.push("a Docker engine for any system: https://docs.docker.com/engine/install/".to_owned());
            }
            lines
        }
        Action::AddComponents(components) => vec![format!("rustup component add {}", components.join(" "))],
        Action::UnpackPodman => vec!["cargo xtask test --podman   # as root, without --no-install".to_owned()],
        Action::RunBeside(_) | Action::RunAgentApart => vec!["run this command as root".to_owned()],
        Action::InstallCargoFuzz => vec!["cargo xtask fuzz   # without --no-install".to_owned()],
        Action::InstallSchemathesis => vec!["cargo xtask schemathesis   # without --no-install".to_owned()],
        Action::StartService => vec![format!("{sudo}systemctl start docker")],
        Action::StartDaemon if machine.is_root => vec![daemon.line()],
        // The redirection is the shell's, so sudo has to go around it.
        Action::StartDaemon => vec![
            format!("sudo sh -c '{}'", daemon.line()),
            "sudo usermod -aG docker \"$USER\"   # and log in again, to use the engine without sudo".to_owned(),
        ],
    }
}

/// Makes the machine ready, or says what is missing.
pub(crate) fn set_up(config: &Config, needs: Needs, install: bool) -> Result<Outcome> {
    let machine = Machine::look(config);
    let found = needs.engine.then(|| engine::find(config));
    match &found {
        Some(Found::ConfiguredOneSilent { origin, address, why }) => {
            eprintln!("error: {origin} names the engine {address}, which does not answer: {why}");
            eprintln!("Start that engine, or unset {origin} to use this machine's own.");
            return Ok(Outcome::Missing);
        }
        Some(Found::None { refused: true, tried }) => {
            for (address, why) in tried {
                eprintln!("error: {address}: {why}");
            }
            eprintln!("An engine is there and refuses this user. Either of these helps:");
            eprintln!("  sudo usermod -aG docker \"$USER\"   # and log in again");
            eprintln!("  run this command as root");
            return Ok(Outcome::Missing);
        }
        _ => {}
    }
    let has_base = match &found {
        Some(Found::Answering(address)) => engine::has_image(address, &BASE_IMAGES)?,
        _ => false,
    };
    let daemon = Daemon::of_machine(config);
    let plan = plan(&machine, needs, found.as_ref(), has_base);
    if let Some(obstacle) = obstacle(&machine, &plan, install) {
        explain(&machine, &plan, &daemon, found.as_ref(), obstacle);
        return Ok(Outcome::Missing);
    }
    if !plan.for_base.is_empty() && !may_install(&machine, install) {
        eprintln!("note: not installed: {}", names(&plan.for_base));
        eprintln!("      (only needed where the core image's base can't be pulled)");
    }
    carry_out(config, &machine, plan, &daemon, install)?;
    Ok(Outcome::Ready {
        engine: match found {
            Some(Found::Answering(address)) => Some(address),
            Some(_) => Some(daemon.address),
            None => None,
        },
    })
}

fn explain(machine: &Machine, plan: &Plan, daemon: &Daemon, found: Option<&Found>, obstacle: &str) {
    eprintln!("missing ({obstacle}):");
    for line in plan.needed.iter().flat_map(missing) {
        eprintln!("  {line}");
    }
    if let Some(Found::None { tried, .. }) = found {
        for (address, why) in tried {
            eprintln!("    {address}: {why}");
        }
    }
    for (package, purpose) in &plan.for_base {
        eprintln!("  {package}: {purpose}");
    }
    eprintln!("to mend it:");
    for line in merged(plan).iter().flat_map(|action| remedy(action, machine, daemon)) {
        eprintln!("  {line}");
    }
}

/// The actions with the packages for the base among the others, so that there is one installation.
fn merged(plan: &Plan) -> Vec<Action> {
    let mut actions = plan.needed.clone();
    if plan.for_base.is_empty() {
        return actions;
    }
    match actions
        .iter_mut()
        .find_map(|action| if let Action::Install(packages) = action { Some(packages) } else { None })
    {
        Some(packages) => packages.extend(plan.for_base.clone()),
        None => actions.insert(0, Action::Install(plan.for_base.clone())),
    }
    actions
}

fn carry_out(config: &Config, machine: &Machine, plan: Plan, daemon: &Daemon, install: bool) -> Result<()> {
    let actions = if may_install(machine, install) { merged(&plan) } else { plan.needed };
    for action in &actions {
        match action {
            Action::Install(packages) => {
                for line in missing(action) {
                    eprintln!("will install {line}");
                }
                progress::step(&format!("Install {} with apt-get", names(packages)), || apt_install(packages))?;
            }
            Action::AddComponents(components) => {
                let heading = format!("Add {} to the Rust toolchain", components.join(" and "));
                progress::step(&heading, || {
                    progress::run(Command::new("rustup").args(["component", "add"]).args(components))
                })?;
            }
            Action::UnpackPodman => {
                eprintln!("will unpack Debian's podman into {}", podman::unpacked(config).display());
                progress::step("Fetch podman with apt-get, without installing it", || {
                    podman::fetch(config, apt_download)
                })?;
            }
            Action::InstallCargoFuzz => {
                let tools = config.target.join("tools");
                eprintln!("will install {CARGO_FUZZ} into {}", tools.display());
                let mut cargo = Command::new(&config.cargo);
                cargo.args(["install", "--quiet", "--locked", CARGO_FUZZ, "--root"]).arg(tools);
                progress::step("Compile cargo-fuzz", || progress::run(&mut cargo))?;
            }
            Action::InstallSchemathesis => {
                eprintln!("will install {SCHEMATHESIS} into {}", config.target.join("tools/schemathesis").display());
                progress::step("Fetch schemathesis with pip", || install_schemathesis(config))?;
            }
            // Done by the stage itself.
            Action::RunBeside(_) | Action::RunAgentApart => {}
            Action::StartService => progress::step("Start the Docker engine (systemctl start docker)", || {
                progress::run(Command::new("systemctl").args(["start", "docker"]))
            })?,
            // The package's own script may have started it already.
            Action::StartDaemon if engine::ping(&daemon.address).is_ok() => {}
            Action::StartDaemon => {
                let heading = format!("Start a Docker engine in the background; its log: {}", daemon.log.display());
                progress::step(&heading, || daemon.start(config))?;
            }
        }
    }
    Ok(())
}

/// Into a folder that is removed if that fails, so that no half of it is taken for the whole: its scripts name their folder, so it can't be
/// made elsewhere and moved.
fn install_schemathesis(config: &Config) -> Result<()> {
    let folder = config.target.join("tools/schemathesis");
    let python = folder.join("bin/python3");
    let install = || {
        progress::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", SCHEMATHESIS];
        progress::run(Command::new(python).args(pip))
    };
    install().inspect_err(|_| _ = std::fs::remove_dir_all(&folder))
}

/// It waits for another package manager, and tries again where a download was cut off.
fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.args(["-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3", "-o", "Dpkg::Use-Pty=0"]);
    command
}

/// Fetches the packages of Podman, with those that they need and this machine hasn't got, into a folder.
fn apt_download(folder: &Path) -> Result<()> {
    again(|| progress::run(apt_get().arg("update")))?;
    let into = format!("Dir::Cache::archives={}", folder.display());
    let arguments = ["install", "-y", "--no-install-recommends", "--download-only", "-o", &into, "podman", "runc"];
    again(|| progress::run(apt_get().args(arguments))).context("run this command again once the package manager works")
}

/// Installs Debian packages.
fn apt_install(packages: &[(&str, &str)]) -> Result<()> {
    again(|| progress::run(apt_get().arg("update")))?;
    let names = packages.iter().map(|(package, _)| *package);
    again(|| progress::run(apt_get().args(["install", "-y", "--no-install-recommends"]).args(names.clone())))
        .context("run this command again once the package manager works")
}

/// Three attempts, since neither the lock on the package lists nor a mirror that is being updated tells when it's over.
fn again(mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
    for pause in [5, 20] {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(error) => eprintln!("    {error:#}; trying again in {pause} s"),
        }
        thread::sleep(Duration::from_secs(pause));
    }
    match attempt() {
        Ok(()) => Ok(()),
        Err(error) => bail!("{error:#}, three times"),
    }
}

#[cfg(test)]
mod tests;
