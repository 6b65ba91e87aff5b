//! What a gigabyte costs the agent: time and disk, but no memory. The binary in a process of its own, whose memory the kernel counts.

#[path = "server/own_process.rs"]
mod own_process;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    time::Duration,
};

use own_process::AgentProcess;

const GIGABYTE: usize = 1 << 30;

/// Memory that a body of any size may cost: what is under way between connection, thread and disk, in a build that isn't
/// optimised.
const FEW: u64 = 24 << 20;

/// An agent and its folder.
struct Agent {
    process: AgentProcess,
    folder: tempfile::TempDir,
}

impl Agent {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("app");
        fs::create_dir(&root).unwrap();
        Self { process: AgentProcess::start(&root, &[("COREHOLD_LIMIT_BODY_BYTES", "1048576")]), folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("app")
    }

    /// Does something, and says by how much the agent's memory grew at most meanwhile.
    fn cost<T>(&self, work: impl FnOnce() -> T) -> (T, u64) {
        self.process.reset_peak();
        let before = self.process.memory("VmRSS");
        let done = work();
        (done, self.process.memory("VmHWM").saturating_sub(before))
    }

    fn connect(&self, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.process.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(120))).unwrap();
        let (line, headers) = head.split_once('\n').unwrap_or((head, ""));
        let headers = headers.replace('\n', "\r\n");
        let common = "Host: x\r\nAuthorization: Bearer token\r\nConnection: close";
        write!(stream, "{line} HTTP/1.1\r\n{common}\r\n{headers}\r\n").unwrap();
        stream
    }

    /// Sends a head and a body as long as the agent takes it. The answer's first line, and how much was sent.
    fn send(&self, head: &str, pieces: impl Iterator<Item = Vec<u8>>) -> (String, usize) {
        let mut stream = self.connect(head);
        let mut sent = 0;
        for piece in pieces {
            if stream.write_all(&piece).is_err() {
                break;
            }
            sent += piece.len();
        }
        let mut line = String::new();
        // The answer may be lost when the agent hasn't read everything.
        let _ = BufReader::new(stream).read_line(&mut line);
        (line, sent)
    }

    /// The length of what the agent sends.
    fn receive(&self, head: &str) -> usize {
        let mut stream = self.connect(head);
        let (mut buffer, mut length) = (vec![0; 1 << 20], 0);
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return length,
                more => length += more,
            }
        }
    }

    fn goes_on(&self) {
        let mut answer = String::new();
        self.connect("GET /health").read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

/// Zeros in pieces, as much as a body of a gigabyte holds.
fn zeros() -> impl Iterator<Item = Vec<u8>> {
    (0..GIGABYTE >> 20).map(|_| vec![0; 1 << 20])
}

/// The same as chunks, with something before and behind.
fn chunks(before: Vec<u8>, behind: Vec<u8>) -> impl Iterator<Item = Vec<u8>> {
    let chunk = |bytes: Vec<u8>| [format!("{:x}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n"].concat();
    let all = Some(before).into_iter().chain(zeros()).chain(Some(behind)).filter(|piece| !piece.is_empty());
    all.map(chunk).chain(Some(b"0\r\n\r\n".to_vec()))
}

#[test]
fn a_file_and_an_archive_of_a_gigabyte_come_and_go() {
    let agent = Agent::start();
    let ((line, _), cost) =
        agent.cost(|| agent.send(&format!("PUT /v1/files/f\nContent-Length: {GIGABYTE}\n"), zeros()));
    assert!(line.starts_with("HTTP/1.1 201 "), "{line}");
    assert_eq!(fs::metadata(agent.root().join("f")).unwrap().len(), GIGABYTE as u64);
    assert!(cost < FEW, "a file in: {cost}");
    let (length, cost) = agent.cost(|| agent.receive("GET /v1/files/f"));
    assert!(length > GIGABYTE && cost < FEW, "a file out: {length} for {cost}");
    let (length, cost) = agent.cost(|| agent.receive("GET /v1/archive?format=tar"));
    assert!(length > GIGABYTE && cost < FEW, "an archive out: {length} for {cost}");
    fs::remove_file(agent.root().join("f")).unwrap();

    let mut header = tar::Header::new_ustar();
    header.set_path("in/g").unwrap();
    header.set_mode(0o644);
    header.set_size(GIGABYTE as u64);
    header.set_cksum();
    let body = chunks(header.as_bytes().to_vec(), vec![0; 1024]);
    let ((line, _), cost) = agent.cost(|| agent.send("PUT /v1/archive\nTransfer-Encoding: chunked\n", body));
    assert!(line.starts_with("HTTP/1.1 200 "), "{line}");
    assert_eq!(fs::metadata(agent.root().join("in/g")).unwrap().len(), GIGABYTE as u64);
    assert!(cost < FEW, "an archive in: {cost}");
    agent.goes_on();
}

#[test]
fn a_request_of_a_gigabyte_is_refused_and_not_kept() {
    let agent = Agent::start();
    for tool in ["list", "write", "edit", "command"] {
        let head = format!("POST /v1/tools/{tool}\nContent-Type: application/json\nContent-Length: {GIGABYTE}\n");
        // Whoever says how long it is is refused before it comes.
        let ((line, _), cost) = agent.cost(|| agent.send(&head, std::iter::empty()));
        assert!(line.starts_with("HTTP/1.1 413 "), "{line}");
        assert!(cost < FEW, "{tool}: {cost}");
        for (said, body) in [
            (head.as_str(), Box::new(zeros()) as Box<dyn Iterator<Item = _>>),
            (
                &head.replace(&format!("Content-Length: {GIGABYTE}"), "Transfer-Encoding: chunked"),
                Box::new(chunks(Vec::new(), Vec::new())),
            ),
        ] {
            let ((line, sent), cost) = agent.cost(|| agent.send(said, body));
            assert!(line.is_empty() || line.starts_with("HTTP/1.1 413 "), "{line}");
            // What the kernel holds between the two is no memory of the agent's.
            assert!(sent < 64 << 20 && cost < FEW, "{tool}: {sent} for {cost}");
        }
    }
    agent.goes_on();
}
