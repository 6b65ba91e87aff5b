//! The engine's own API, spoken by hand over its socket: the least that a create and a start can cost.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::IpAddr,
    os::unix::net::UnixStream,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

/// Sends one request and returns its JSON answer, `null` for none.
///
/// # Errors
/// When the engine doesn't answer, or answers with an error.
pub fn request(method: &str, path: &str, body: &Value) -> Result<Value> {
    let mut stream = UnixStream::connect("/var/run/docker.sock").context("connecting to the engine")?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the engine's answer is no HTTP")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status.starts_with('2') || status == "304", "{method} {path}: {status} {body}");
    Ok(serde_json::from_str(body).unwrap_or(Value::Null))
}

/// Sends a tar and returns what the engine says.
///
/// # Errors
/// As [`request`].
pub fn send_tar(method: &str, path: &str, tar: &[u8]) -> Result<String> {
    let mut stream = UnixStream::connect("/var/run/docker.sock")?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: engine\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        tar.len()
    )?;
    stream.write_all(tar)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // A build doesn't read the padding at the tar's end, and the connection is reset over it once all is said.
        Err(error) if error.kind() == ErrorKind::ConnectionReset && !answer.is_empty() => {}
        read => drop(read?),
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    ensure!(answer.starts_with("HTTP/1.0 200 ") || answer.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok(answer)
}

/// The request that would make a container like an existing one.
///
/// # Errors
/// As [`request`].
pub fn specification_like(container: &str) -> Result<Value> {
    let existing = request("GET", &format!("/containers/{container}/json"), &Value::Null)?;
    let mut specification = existing["Config"].clone();
    if let Some(fields) = specification.as_object_mut() {
        // Of the container that it was, not of one to be.
        fields.remove("Hostname");
        fields.remove("Labels");
    }
    specification["HostConfig"] = existing["HostConfig"].clone();
    let networks = existing["NetworkSettings"]["Networks"].as_object().context("it has networks")?;
    let endpoints: serde_json::Map<_, _> = networks.keys().map(|name| (name.clone(), json!({}))).collect();
    specification["NetworkingConfig"] = json!({ "EndpointsConfig": endpoints });
    Ok(specification)
}

/// Creates and starts a container, and returns its id.
///
/// # Errors
/// As [`request`].
pub fn create_and_start(specification: &Value) -> Result<String> {
    let made = request("POST", "/containers/create", specification)?;
    let id = made["Id"].as_str().context("the engine names the container")?.to_owned();
    request("POST", &format!("/containers/{id}/start"), &Value::Null)?;
    Ok(id)
}

/// Removes a container, running or not.
///
/// # Errors
/// As [`request`].
pub fn remove(id: &str) -> Result<()> {
    request("DELETE", &format!("/containers/{id}?force=1&v=1"), &Value::Null).map(drop)
}

/// A running container of ours; it is removed with its owner.
pub struct Container(String);

impl Container {
    /// Creates and starts one.
    ///
    /// # Errors
    /// As [`request`].
    pub fn start(specification: &Value) -> Result<Self> {
        create_and_start(specification).map(Self)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0
    }

    /// Its own address, in the first of its networks.
    ///
    /// # Errors
    /// As [`request`].
    pub fn address(&self) -> Result<IpAddr> {
        let container = request("GET", &format!("/containers/{}/json", self.0), &Value::Null)?;
        let networks = container["NetworkSettings"]["Networks"].as_object().context("it has networks")?;
        let network = networks.values().next().context("it has a network")?;
        Ok(network["IPAddress"].as_str().unwrap_or_default().parse()?)
    }

    /// Lays a tar into a folder of it.
    ///
    /// # Errors
    /// As [`request`].
    pub fn put_archive(&self, folder: &str, tar: &[u8]) -> Result<()> {
        send_tar("PUT", &format!("/containers/{}/archive?path={folder}", self.0), tar).map(drop)
    }

    /// Runs a program in it and hands over what it writes to its standard output, as it comes. Returns its exit code.
    ///
    /// # Errors
    /// As [`request`]; and whatever `on_bytes` says.
    pub fn exec(&self, arguments: &[&str], mut on_bytes: impl FnMut(&[u8]) -> Result<()>) -> Result<i64> {
        let exec = json!({ "AttachStdout": true, "Cmd": arguments });
        let made = request("POST", &format!("/containers/{}/exec", self.0), &exec)?;
        let exec = made["Id"].as_str().context("the engine names the exec")?;
        let mut stream = UnixStream::connect("/var/run/docker.sock")?;
        let body = r#"{"Detach":false,"Tty":false}"#;
        write!(
            stream,
            "POST /exec/{exec}/start HTTP/1.0\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut reader = BufReader::with_capacity(64 << 10, stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        ensure!(line.contains(" 200 "), "{line}");
        while line.trim_end() != "" {
            line.clear();
            reader.read_line(&mut line)?;
        }
        // Pieces of both streams: one byte of which, three of nothing, four of the length.
        let (mut header, mut piece) = ([0; 8], Vec::new());
        while !reader.fill_buf()?.is_empty() {
            reader.read_exact(&mut header)?;
            let [_, _, _, _, length @ ..] = header;
            piece.resize(u32::from_be_bytes(length) as usize, 0);
            reader.read_exact(&mut piece)?;
            on_bytes(&piece)?;
        }
        let ended = request("GET", &format!("/exec/{exec}/json"), &Value::Null)?;
        ended["ExitCode"].as_i64().context("the engine says how it ended")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = remove(&self.0);
    }
}
