//! The agent as a process of its own, and the least of an HTTP client to talk to it.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
    time::Timespec,
};

/// The static token of these agents, and its SHA-256.
const TOKEN: &str = "bench";
const TOKEN_SHA256: &str = "1b32c28cb38c05480eccc1bd60ff97029b57a05c96718b96dad7e9d84894f549";

/// How long an agent and its commands have to end.
const PARTING: Duration = Duration::from_secs(10);

/// A running agent; it ends with its owner.
pub struct Agent {
    child: Child,
    port: u16,
    /// From its start to its first healthy answer.
    pub start: Duration,
}

impl Agent {
    /// Starts an agent and waits until it is healthy.
    ///
    /// # Errors
    /// When it ends, or doesn't answer within ten seconds.
    pub fn start(binary: &Path, root: &Path) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let began = Instant::now();
        let child = Command::new(binary)
            .env("COREHOLD_PORT", port.to_string())
            .env("COREHOLD_ROOT", root)
            .env("COREHOLD_TOKEN_SHA256", TOKEN_SHA256)
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let mut agent = Self { child, port, start: Duration::ZERO };
        while !agent.is_healthy() {
            ensure!(began.elapsed() < Duration::from_secs(10), "the agent does not answer");
            ensure!(agent.child.try_wait()?.is_none(), "the agent has ended");
        }
        agent.start = began.elapsed();
        Ok(agent)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it had so far, as the kernel counts it (`VmHWM`), in kibibytes.
    ///
    /// # Errors
    /// It has ended.
    pub fn peak_memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the kernel counts memory")?;
        Ok(line.trim_end_matches("kB").trim().parse()?)
    }

    /// The CPU time that it took so far, without that of its commands.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // Behind the name, which may hold anything: user and system time are the 14th and 15th of all.
        let (_, fields) = stat.rsplit_once(") ").context("a process has a name")?;
        let ticks: Vec<u64> = fields.split(' ').skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
        // In hundredths of a second, whatever the kernel itself counts in (USER_HZ).
        Ok(Duration::from_millis(ticks.iter().sum::<u64>() * 10))
    }

    fn is_healthy(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.contains("\"ok\""))
    }

    /// Calls a tool and hands each line of its streamed answer to `on_line`, to the last byte.
    ///
    /// # Errors
    /// When the answer is no success.
    pub fn stream(&self, tool: &str, body: &str, mut on_line: impl FnMut(&[u8])) -> Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        write!(
            stream,
            "POST /v1/tools/{tool} HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n\
             Accept: application/x-ndjson\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut reader = BufReader::with_capacity(64 << 10, stream);
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        let status = String::from_utf8_lossy(&line).into_owned();
        while reader.read_until(b'\n', &mut line)? > 2 {}
        ensure!(status.contains(" 200 "), "{tool}: {status}");
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            on_line(&line);
        }
    }
}

/// What goes over the wire as a file.
impl Agent {
    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What proves a caller of its.
    #[must_use]
    pub fn authorization(&self) -> String {
        format!("Bearer {TOKEN}")
    }

    /// The head of a request that keeps its connection, up to its own headers.
    #[must_use]
    pub fn head(&self, method: &str, target: &str) -> String {
        format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n")
    }

    /// Fetches a body, to the last byte. Returns its length.
    ///
    /// # Errors
    /// When the answer is no success, or was cut off.
    pub fn download(&self, target: &str, into: &mut impl io::Write) -> Result<u64> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        write!(stream, "{}Connection: close\r\n\r\n", self.head("GET", target))?;
        let mut reader = BufReader::with_capacity(256 << 10, stream);
        ensure!(status(&mut reader)?.contains(" 200 "), "{target} failed");
        let (mut total, mut line) = (0, String::new());
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let length = u64::from_str_radix(line.trim_end(), 16).context("the body is chunked")?;
            if length == 0 {
                return Ok(total);
            }
            total += io::copy(&mut (&mut reader).take(length), into)?;
            reader.read_line(&mut line)?;
        }
    }

    /// Sends a file as a body and waits for the answer.
    ///
    /// # Errors
    /// When the answer is no success.
    pub fn upload(&self, target: &str, mut file: File) -> Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        write!(stream, "{}Content-Length: {}\r\n\r\n", self.head("PUT", target), file.metadata()?.len())?;
        io::copy(&mut file, &mut stream)?;
        let status = status(&mut BufReader::new(stream))?;
        ensure!(status.contains(" 200 "), "{target}: {status}");
        Ok(())
    }
}

/// Reads an answer's head. Returns its first line.
fn status(reader: &mut impl BufRead) -> Result<String> {
    let (mut status, mut line) = (String::new(), String::new());
    reader.read_line(&mut status)?;
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    Ok(status)
}

impl Drop for Agent {
    /// TERM, so that it ends its commands too; KILL when it takes too long.
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        if let Ok(ends) = pidfd_open(pid, PidfdFlags::empty()) {
            let _ = kill_process(pid, Signal::TERM);
            let patience = Timespec { tv_sec: PARTING.as_secs().cast_signed(), tv_nsec: 0 };
            let _ = poll(&mut [PollFd::new(&ends, PollFlags::IN)], Some(&patience));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
