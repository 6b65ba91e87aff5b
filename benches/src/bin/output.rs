//! The output of a command, 1 GB to one viewer, beside the same through a pipe and through the engine's exec.
//!
//! Usage: `output AGENT [MEGABYTES] [ROUNDS] [IMAGE]` (default 1,000, 7 and `workspace-core:latest`). The command is `cat` of a
//! file in memory (`/dev/shm`). Every side is read by this program, and every byte is compared with what the file has there, so
//! that none is lost, doubled or swapped. The agent has its default limits: its log holds but 64 MB of the command. Its memory is
//! the kernel's high-water mark (`VmHWM`). Without an engine at /var/run/docker.sock, or without the image (`-`), that side is left out.

use std::{
    fs::{self, File},
    io::{BufWriter, Read, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use corehold_benches::{
    agent::Agent,
    engine::Container,
    figures::Samples,
    socket::{Heard, Socket},
};
use serde_json::{Value, json};

/// Bytes of a line of the file.
const LINE: usize = 64;
/// Lines before they begin again. A prime number: whatever whole number of buffers is lost, the lines after it are others.
const LINES: usize = 16_381;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [agent, rest @ ..] = arguments.as_slice() else {
        bail!("usage: output AGENT [MEGABYTES] [ROUNDS] [IMAGE]");
    };
    let megabytes: u64 = rest.first().map_or(Ok(1_000), |megabytes| megabytes.parse())?;
    let rounds: u32 = rest.get(1).map_or(Ok(7), |rounds| rounds.parse())?;
    let image = rest.get(2).map_or("workspace-core:latest", String::as_str);

    let memory = tempfile::tempdir_in("/dev/shm")?;
    // For whoever a container's commands run as.
    fs::set_permissions(memory.path(), fs::Permissions::from_mode(0o755))?;
    let file = make(memory.path(), megabytes * 1_000_000)?;
    let container = container(image, memory.path());
    if let Err(error) = &container {
        println!("the engine's exec is left out: {error:#}\n");
    }
    let agents = [(); 2].map(|()| Agent::start(Path::new(agent), memory.path()));
    let [http, socket] = agents;
    let (http, socket) = (http?, socket?);
    let before = [http.peak_memory()?, socket.peak_memory()?];

    let mut sides = vec![
        Side::new("cat through a pipe", || through_pipe(&file)),
        Side::new("agent, HTTP, NDJSON", || through_http(&http, &file)),
        Side::new("agent, WebSocket", || through_socket(&socket, &file)),
    ];
    if let Ok(container) = &container {
        sides.push(Side::new("the engine's exec", || through_exec(container, &file)));
    }
    for _ in 0..rounds {
        for side in &mut sides {
            let began = Instant::now();
            (side.run)().with_context(|| side.name)?;
            side.samples.add(began.elapsed());
        }
    }

    let rate = |time: Duration| megabytes as f64 / time.as_secs_f64();
    println!("{megabytes} MB, {rounds} rounds, every byte compared");
    let exec = sides.get(3).map(|exec| exec.samples.clone());
    let pipe = sides[0].samples.clone();
    for Side { name, samples, .. } in &sides {
        let beside_exec = exec
            .as_ref()
            .map_or_else(String::new, |exec| format!("   {:>5.2} of the engine's exec", exec.ratio_to(samples)));
        println!(
            "{name:20} median {:>6.0} MB/s (least {:>6.0}, most {:>6.0})   {:>5.2} of the pipe{beside_exec}",
            rate(samples.median()),
            rate(samples.quantile(1.0)),
            rate(samples.quantile(0.0)),
            pipe.ratio_to(samples),
        );
    }
    for (name, agent, before) in [("HTTP", &http, before[0]), ("WebSocket", &socket, before[1])] {
        let in_megabytes = |kibibytes: u64| kibibytes as f64 * 1.024 / 1e3;
        println!(
            "the agent, {name}: {:.1} MB of memory at most, {:.1} MB before; {:.2} s of CPU time for a GB",
            in_megabytes(agent.peak_memory()?),
            in_megabytes(before),
            agent.cpu_time()?.as_secs_f64() / f64::from(rounds) / (megabytes as f64 / 1e3),
        );
    }
    Ok(())
}

/// One way from the command to this program.
struct Side<'a> {
    name: &'static str,
    run: Box<dyn Fn() -> Result<()> + 'a>,
    samples: Samples,
}

impl<'a> Side<'a> {
    fn new(name: &'static str, run: impl Fn() -> Result<()> + 'a) -> Self {
        Self { name, run: Box::new(run), samples: Samples::default() }
    }
}

/// The file, and what it is made of.
struct Patterned {
    path: String,
    length: u64,
    lines: Vec<u8>,
    /// The same as it stands in JSON.
    escaped: Vec<u8>,
}

/// Makes the file, a whole number of lines long.
fn make(folder: &Path, bytes: u64) -> Result<Patterned> {
    let mut lines = Vec::with_capacity(LINES * LINE);
    for number in 0..LINES {
        writeln!(lines, "{number:08} The quick brown fox jumps over the lazy dog, again and")?;
    }
    ensure!(lines.len() == LINES * LINE, "a line has {} bytes", lines.len() / LINES);
    let escaped = String::from_utf8(lines.clone())?.replace('\n', "\\n").into_bytes();
    let path = folder.join("lines");
    let length = bytes / LINE as u64 * LINE as u64;
    let mut file = BufWriter::new(File::create(&path)?);
    let mut left = length;
    while left > 0 {
        let part = usize::try_from(left)?.min(lines.len());
        file.write_all(&lines[..part])?;
        left -= part as u64;
    }
    file.flush()?;
    Ok(Patterned { path: path.to_str().context("its name is text")?.to_owned(), length, lines, escaped })
}

/// Compares what comes with what should.
struct Check<'a> {
    expected: &'a [u8],
    seen: u64,
}

impl<'a> Check<'a> {
    fn new(expected: &'a [u8]) -> Self {
        Self { expected, seen: 0 }
    }

    fn see(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let at = (self.seen % self.expected.len() as u64) as usize;
            let expected = &self.expected[at..];
            let (now, later) = bytes.split_at(bytes.len().min(expected.len()));
            ensure!(now == &expected[..now.len()], "other bytes than the file's, from {} on", self.seen);
            self.seen += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    fn end(&self, length: u64) -> Result<()> {
        ensure!(self.seen == length, "{} bytes of {length}", self.seen);
        Ok(())
    }
}

fn through_pipe(file: &Patterned) -> Result<()> {
    let mut cat = Command::new("cat").arg(&file.path).stdout(Stdio::piped()).spawn()?;
    let mut output = cat.stdout.take().context("it is piped")?;
    let (mut check, mut buffer) = (Check::new(&file.lines), vec![0; 64 << 10]);
    loop {
        match output.read(&mut buffer)? {
            0 => break,
            read => check.see(&buffer[..read])?,
        }
    }
    ensure!(cat.wait()?.success(), "cat failed");
    check.end(file.length)
}

fn through_http(agent: &Agent, file: &Patterned) -> Result<()> {
    let request = json!({ "argv": ["cat", file.path] }).to_string();
    let mut check = Check::new(&file.escaped);
    let (mut end, mut failure) = (Value::Null, None);
    agent.stream("command", &request, |line| {
        if failure.is_some() {
            return;
        }
        let seen = match text_of(line) {
            Some(text) => check.see(text),
            None => serde_json::from_slice(line).map_err(Into::into).map(|event| end = event),
        };
        let lost = (end["type"] == "gap").then(|| anyhow::anyhow!("lost: {end}"));
        failure = seen.err().or(lost);
    })?;
    failure.map_or(Ok(()), Err)?;
    ensure!(end["type"] == "end" && end["response"]["exit"]["code"] == 0, "{end}");
    check.end(file.length / LINE as u64 * (LINE as u64 + 1))
}

/// What an event of standard output carries, as it stands in JSON.
fn text_of(line: &[u8]) -> Option<&[u8]> {
    const BEFORE: &[u8] = b"\"data\":{\"text\":\"";
    if !line.starts_with(br#"{"type":"stdout","#) {
        return None;
    }
    let begin = line.windows(BEFORE.len()).position(|window| window == BEFORE)? + BEFORE.len();
    line[begin..].strip_suffix(b"\"}}\n")
}

fn through_socket(agent: &Agent, file: &Patterned) -> Result<()> {
    let mut socket = Socket::open(agent)?;
    let id = socket.ask("command", &json!({ "argv": ["cat", file.path] }), true)?;
    let mut check = Check::new(&file.lines);
    loop {
        match socket.hear()? {
            Heard::Bytes { offset, payload, .. } => {
                ensure!(offset == check.seen, "bytes from {offset} on came after {}", check.seen);
                check.see(&payload)?;
            }
            Heard::Text(said) if said["id"] == id => {
                ensure!(said["result"]["exit"]["code"] == 0, "{said}");
                return check.end(file.length);
            }
            Heard::Text(said) => ensure!(said["params"]["event"]["type"] != "gap", "lost: {said}"),
        }
    }
}

/// A container that sees the file and does nothing.
fn container(image: &str, folder: &Path) -> Result<Container> {
    ensure!(image != "-", "no image is given");
    let bind = format!("{0}:{0}:ro", folder.display());
    Container::start(&json!({
        "Image": image,
        "Entrypoint": ["sleep", "infinity"],
        "Labels": { "corehold.bench": "output" },
        "HostConfig": { "Binds": [bind], "NetworkMode": "none", "Init": true },
    }))
}

fn through_exec(container: &Container, file: &Patterned) -> Result<()> {
    let mut check = Check::new(&file.lines);
    let code = container.exec(&["cat", &file.path], |bytes| check.see(bytes))?;
    ensure!(code == 0, "cat failed in the container");
    check.end(file.length)
}
