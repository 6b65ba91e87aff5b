//! `cargo xtask schemathesis`: asks an agent by its OpenAPI document, with all of schemathesis' checks and ours of
//! `agent/tests/schemathesis`.
//!
//! The agent is one of its own: a debug build, whose assertions and overflow checks find more, on a new folder, as a user that nobody else
//! is, on a port that the kernel chooses, by a token that nobody knows, with a policy that lets no command run.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    artifacts::Artifacts,
    config::Config,
    progress,
    setup::{self, Needs, Outcome},
};

/// Of the numbers that systemd gives to users that exist only while something runs (`DynamicUser=`).
const USER: u32 = 61_342;

/// Runs it; fails when something was found.
pub(crate) fn run(config: &Config, artifacts: &Artifacts, duration: Duration, install: bool) -> Result<ExitCode> {
    let Outcome::Ready { .. } = setup::set_up(config, Needs::SCHEMATHESIS, install)? else {
        return Ok(ExitCode::FAILURE);
    };
    progress::step("Build the agent (with debug assertions)", || {
        let mut cargo = artifacts.cargo(&["build", "--package", "corehold-agent"]);
        progress::run(cargo.env("CARGO_TARGET_DIR", &config.target))
    })?;
    let reports = config.target.join("schemathesis");
    fs::create_dir_all(&reports).with_context(|| reports.display().to_string())?;
    let token = token()?;
    let mut agent = Agent::start(&config.target.join("debug/corehold-agent"), &token, &reports.join("agent.log"))?;
    let log = reports.join("output.log");
    let report = reports.join("report.json");
    let heading = format!("Ask the agent at {} for {} minutes", agent.address, duration.as_secs() / 60);
    let found = progress::step(&heading, || {
        let mut asking = ask(config, &agent.address, &token, duration, &report);
        let output = File::create(&log).with_context(|| log.display().to_string())?;
        let status = asking.stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output).status();
        Ok(!status.with_context(|| format!("can't run `{}`", progress::line(&asking)))?.success())
    })?;
    let text = fs::read_to_string(&log).with_context(|| log.display().to_string())?;
    println!("{}", closing(&text));
    agent.assert_alive()?;
    if found {
        println!("FOUND    its output: {}; its report: {}", log.display(), report.display());
    } else {
        println!("nothing  its output: {}", log.display());
    }
    Ok(if found { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The command that asks. It goes on after a failure, and repeats its phases until the time is over.
fn ask(config: &Config, address: &str, token: &str, duration: Duration, report: &Path) -> Command {
    let mut command = Command::new(config.schemathesis());
    command.arg("run").arg(config.repository.join("types/openapi/openapi.json"));
    command.arg("--url").arg(format!("http://{address}"));
    command.arg("--header").arg(format!("Authorization: Bearer {token}"));
    command.arg("--max-time").arg(duration.as_secs().to_string());
    command.arg("--report").arg("json").arg("--report-json-path").arg(report);
    // Where its configuration is.
    command.current_dir(config.repository.join("agent/tests/schemathesis"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("NO_COLOR", "1");
    command
}

/// What it says of itself at the end: cases, checks, failures.
fn closing(text: &str) -> String {
    let wanted = ["Test cases:", "Test phases:", "generated", "Seed:", "Tested:", "Errored:", "issues"];
    let lines = text.lines().map(str::trim);
    let end = lines.clone().position(|line| line.contains(" SUMMARY ")).unwrap_or(0);
    let told = lines.skip(end).filter(|line| wanted.iter().any(|word| line.contains(word)));
    told.collect::<Vec<_>>().join("\n")
}

/// Random, as hexadecimal digits.
fn token() -> Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes)).context("/dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// SHA-256 as hexadecimal digits, by the program that every system has.
fn sha256(text: &str) -> Result<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("can't run `sha256sum`")?;
    child.stdin.take().context("it has an input")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    let hash: String = String::from_utf8_lossy(&output.stdout).chars().take(64).collect();
    ensure!(hash.len() == 64 && output.status.success(), "`sha256sum` says {hash:?}");
    Ok(hash)
}

/// An agent and its folder; both go with this.
struct Agent {
    child: Child,
    address: String,
    folder: PathBuf,
}

impl Agent {
    fn start(program: &Path, token: &str, log: &Path) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("corehold-schemathesis-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let started = Self::start_in(&folder, program, token, log);
        if started.is_err() {
            let _ = fs::remove_dir_all(&folder);
        }
        started
    }

    fn start_in(folder: &Path, program: &Path, token: &str, log: &Path) -> Result<Self> {
        // That user may not come to where it was built.
        let copy = folder.join("corehold-agent");
        fs::copy(program, &copy).with_context(|| program.display().to_string())?;
        let [root, inbox] = ["app", "inbox"].map(|name| folder.join(name));
        for made in [&root, &inbox] {
            fs::create_dir_all(made)?;
            chown(made, Some(USER), Some(USER)).with_context(|| made.display().to_string())?;
        }
        let mut command = Command::new(copy);
        command.uid(USER).gid(USER).current_dir(&root).env_clear();
        command.env("COREHOLD_LISTEN", "127.0.0.1").env("COREHOLD_PORT", "0");
        command.env("COREHOLD_ROOT", &root).env("COREHOLD_INBOX", &inbox);
        command.env("COREHOLD_TOKEN_SHA256", sha256(token)?);
        command.env("COREHOLD_COMMAND_POLICY", r#"{"mode":"allow","allow":[]}"#);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("can't start the agent")?;
        let mut lines = BufReader::new(child.stderr.take().context("it has an output")?).lines().map_while(Result::ok);
        let address = lines.find_map(|line| Some(line.split_once("address=\"")?.1.split('"').next()?.to_owned()));
        let mut agent = Self { child, address: String::new(), folder: folder.to_owned() };
        agent.address = address.context("the agent ended before it listened")?;
        let mut log = File::create(log).with_context(|| log.display().to_string())?;
        // What it still says is read, so that it never waits; it ends with the agent.
        thread::spawn(move || lines.for_each(|line| _ = writeln!(log, "{line}")));
        Ok(agent)
    }

    /// It didn't end meanwhile.
    fn assert_alive(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "the agent ended while it was asked: {ended:?}");
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_hashed_as_the_agent_does() {
        // The hash of `token` that the agent's tests have.
        assert_eq!(sha256("token").unwrap(), "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0");
        assert_ne!(token().unwrap(), token().unwrap());
    }

    #[test]
    fn the_end_of_its_output_is_told() {
        let text = "Operations: 33 selected\n=== SUMMARY ===\n\nAPI Operations:\n  Tested: 30\n\nTest cases:\n  9226 generated, 2 found 1 unique failures\n\nSeed: 42\n";
        assert_eq!(closing(text), "Tested: 30\nTest cases:\n9226 generated, 2 found 1 unique failures\nSeed: 42");
    }
}
