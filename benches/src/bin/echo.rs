//! A key's echo from a terminal, idle, and while another stream of the same WebSocket carries 100 MB again and again and
//! `npm install` runs, all of it under a limit of one CPU.
//!
//! Usage: `echo AGENT [KEYS] [FOLDER]` (default 1,000, and the template vite-react; it needs a `package.json`). The terminal is in raw
//! mode, so that it is a program (`cat`) that echoes and not the kernel. From sending one byte to having its echo; a pause between
//! keys. Three limits, each with an agent of its own: a quota of CPU time as containers have it, in the engine's usual periods
//! (`docker run --cpus 1`) and in shorter ones (`--cpu-period 10000 --cpu-quota 10000`), where who has used up a period's part on two
//! CPUs waits for the next (a control group, so it needs root and is left out without); and the affinity to one CPU (`--cpuset-cpus`,
//! here `taskset`), where all take turns. The limit holds for the agent and all that it runs, not for this program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use corehold_benches::{
    agent::Agent,
    figures::Samples,
    socket::{Heard, Socket},
};
use serde_json::{Value, json};

/// Bytes that the other stream carries at a time.
const FLOOD: usize = 100_000_000;

/// Between two keys; somewhat different each time, so that nothing that comes regularly is always met or always missed.
const PAUSES: [u64; 7] = [14, 19, 11, 23, 17, 13, 29];

/// `npm install`, from its cache when it ran once.
const INSTALL: &str =
    "rm -rf node_modules && npm install --no-audit --no-fund --prefer-offline --ignore-scripts && echo >>installs";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [agent, rest @ ..] = arguments.as_slice() else {
        bail!("usage: echo AGENT [KEYS] [FOLDER]");
    };
    let keys: usize = rest.first().map_or(Ok(1_000), |keys| keys.parse())?;
    let template = concat!(env!("CARGO_MANIFEST_DIR"), "/../templates/vite-react");
    let project = PathBuf::from(rest.get(1).map_or(template, String::as_str));

    let memory = tempfile::tempdir_in("/dev/shm")?;
    fs::write(memory.path().join("flood"), "0123456789abcdef\n".repeat(FLOOD / 17 + 1))?;
    for period_ms in [Some(100), Some(10), None] {
        match period_ms {
            Some(period_ms) => println!("one CPU by a quota in periods of {period_ms} ms"),
            None => println!("one CPU by affinity"),
        }
        let limit = period_ms.map_or(Ok(Limit::Affinity), Limit::quota);
        let limit = match limit {
            Ok(limit) => limit,
            Err(error) => {
                println!("  left out: {error:#}");
                continue;
            }
        };
        let app = tempfile::tempdir()?;
        for name in ["package.json", "package-lock.json"] {
            if project.join(name).exists() || name == "package.json" {
                fs::copy(project.join(name), app.path().join(name))
                    .with_context(|| format!("{}", project.display()))?;
            }
        }
        let running = Agent::start(Path::new(agent), app.path())?;
        limit.set(running.pid())?;
        measure(&running, keys, app.path(), memory.path())?;
    }
    Ok(())
}

fn measure(agent: &Agent, keys: usize, app: &Path, memory: &Path) -> Result<()> {
    let mut terminal = Terminal::open(agent)?;
    terminal.type_keys(keys / 10)?;
    report("idle", terminal.type_keys(keys)?);

    // Once beforehand, so that the registry's speed is no part of it.
    let installed = terminal.socket.call("command", &json!({ "line": INSTALL }), false)?;
    ensure!(installed["exit"]["code"] == 0, "npm install has failed: {installed}");
    fs::remove_file(app.join("installs"))?;

    let began = Instant::now();
    let again = format!("while {INSTALL}; do :; done");
    let installs = terminal.socket.call("command", &json!({ "line": again, "detach": true }), false)?;
    terminal.flood(memory.join("flood"))?;
    let echoes = terminal.type_keys(keys)?;
    let took = began.elapsed();
    let installed = fs::read_to_string(app.join("installs")).map_or(0, |lines| lines.lines().count());
    let now = terminal.socket.call("commandGet", &json!({ "id": installs["id"] }), false)?;
    ensure!(now["command"]["exit"].is_null(), "npm install has failed meanwhile: {now}");
    report("busy", echoes);
    println!(
        "        in {:.0} s the other stream carried {:.0} MB, npm install ran {installed} times and once in part",
        took.as_secs_f64(),
        terminal.flooded as f64 / 1e6
    );
    Ok(())
}

fn report(name: &str, echoes: Samples) {
    let [half, most, all] = [0.5, 0.99, 1.0].map(|share| echoes.quantile(share).as_secs_f64() * 1e3);
    println!("  {name}  p50 {half:>6.2} ms   p99 {most:>6.2} ms   longest {all:>6.2} ms");
}

/// A terminal whose program echoes, and who types there.
struct Terminal {
    socket: Socket,
    /// The stream that shows it.
    screen: u64,
    /// The stream that takes the keys, and how many it took.
    keyboard: u32,
    typed: u64,
    /// The call whose stream is the other one, and what it asks for.
    flood: Option<(u64, Value)>,
    flooded: u64,
}

impl Terminal {
    fn open(agent: &Agent) -> Result<Self> {
        let mut socket = Socket::open(agent)?;
        let pty = json!({ "columns": 80, "rows": 24 });
        let request = json!({ "line": "stty raw -echo; printf ready; exec cat", "pty": pty, "timeoutMs": 0 });
        let screen = socket.call("command", &request, true)?.as_u64().context("a stream has a number")?;
        let (mut id, mut shown) = (Value::Null, Vec::new());
        while shown != b"ready" {
            match socket.hear()? {
                Heard::Bytes { payload, .. } => shown.extend_from_slice(&payload),
                Heard::Text(mut said) => id = said["params"]["event"]["id"].take(),
            }
        }
        let keyboard = socket.call("commandInput", &json!({ "id": id }), true)?;
        let keyboard = keyboard.as_u64().context("a stream has a number")?.try_into()?;
        Ok(Self { socket, screen, keyboard, typed: 0, flood: None, flooded: 0 })
    }

    /// Lets another stream of the socket carry a file, again and again.
    fn flood(&mut self, file: PathBuf) -> Result<()> {
        let request = json!({ "argv": ["cat", file] });
        let call = self.socket.ask("command", &request, true)?;
        self.flood = Some((call, request));
        Ok(())
    }

    /// Types keys and waits for the echo of each.
    fn type_keys(&mut self, keys: usize) -> Result<Samples> {
        let mut echoes = Samples::default();
        for pause in PAUSES.iter().cycle().take(keys) {
            let until = Instant::now() + Duration::from_millis(*pause);
            while let Some(heard) = self.socket.hear_until(until)? {
                ensure!(self.take_in(heard)?.is_none(), "an echo of nothing");
            }
            let key = b'a' + (self.typed % 26) as u8;
            let began = Instant::now();
            self.socket.input(self.keyboard, self.typed, &[key])?;
            self.typed += 1;
            let echo = loop {
                let heard = self.socket.hear()?;
                if let Some(echo) = self.take_in(heard)? {
                    break echo;
                }
            };
            echoes.add(began.elapsed());
            ensure!(echo[..] == [key], "{echo:?} is no echo of {key}");
        }
        Ok(echoes)
    }

    /// Returns what the terminal shows.
    fn take_in(&mut self, heard: Heard) -> Result<Option<bytes::Bytes>> {
        match (heard, &self.flood) {
            (Heard::Bytes { stream, payload, .. }, _) if u64::from(stream) == self.screen => return Ok(Some(payload)),
            (Heard::Bytes { payload, .. }, _) => self.flooded += payload.len() as u64,
            (Heard::Text(said), Some((call, request))) if said["id"] == *call => {
                let request = request.clone();
                let call = self.socket.ask("command", &request, true)?;
                self.flood = Some((call, request));
            }
            (Heard::Text(_), _) => {}
        }
        Ok(None)
    }
}

/// What keeps an agent and all that it runs to one CPU.
enum Limit {
    /// As much CPU time as a period is long, in each period. The control group is removed in the end.
    Quota(PathBuf),
    /// The first CPU.
    Affinity,
}

impl Limit {
    fn quota(period_ms: u64) -> Result<Self> {
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let above = Path::new(if unified { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/cpu" });
        let group = above.join(format!("corehold-echo-{}", std::process::id()));
        fs::create_dir(&group).with_context(|| format!("making {}", group.display()))?;
        let limit = Self::Quota(group.clone());
        let period = (period_ms * 1_000).to_string();
        let settings: &[_] = if unified {
            &[("cpu.max", format!("{period} {period}"))]
        } else {
            &[("cpu.cfs_period_us", period.clone()), ("cpu.cfs_quota_us", period)]
        };
        for (name, value) in settings {
            fs::write(group.join(name), value).with_context(|| format!("setting {name}"))?;
        }
        Ok(limit)
    }

    fn set(&self, pid: u32) -> Result<()> {
        let pid = pid.to_string();
        match self {
            Self::Quota(group) => Ok(fs::write(group.join("cgroup.procs"), pid)?),
            Self::Affinity => {
                let status = Command::new("taskset").args(["-acp", "0", &pid]).stdout(Stdio::null()).status();
                ensure!(status.context("running taskset")?.success(), "taskset failed");
                Ok(())
            }
        }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        if let Self::Quota(group) = self {
            let _ = fs::remove_dir(group);
        }
    }
}
