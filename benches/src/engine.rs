//! The engine's own API, spoken by hand over its socket: the least that a create and a start can cost.

use std::{
    io::{Read as _, Write as _},
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
