//! The agent as a process of its own, and the least of an HTTP client to talk to it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

/// The static token of these agents, and its SHA-256.
const TOKEN: &str = "bench";
const TOKEN_SHA256: &str = "1b32c28cb38c05480eccc1bd60ff97029b57a05c96718b96dad7e9d84894f549";

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

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
