//! A client that costs next to nothing, so that what is measured is the server: one connection, prepared requests.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use anyhow::{Context as _, Result, ensure};

/// A connection that is kept.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects to a port of this machine.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 64 << 10] })
    }

    /// Sends a request and reads its answer to the last byte. Returns the length of the body.
    ///
    /// # Errors
    /// The answer is not a 200 with a `Content-Length`.
    pub fn exchange(&mut self, request: &[u8]) -> Result<usize> {
        self.stream.write_all(request)?;
        let mut length = 0;
        let (head, body) = loop {
            let read = self.stream.read(&mut self.buffer[length..])?;
            ensure!(read > 0, "the server closed the connection");
            length += read;
            if let Some(end) = self.buffer[..length].windows(4).position(|four| four == b"\r\n\r\n") {
                break (end, length - end - 4);
            }
            ensure!(length < self.buffer.len(), "the head of the answer is too long");
        };
        let head = std::str::from_utf8(&self.buffer[..head])?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let total = content_length(head).with_context(|| format!("no Content-Length in {head:?}"))?;
        let mut left = total.checked_sub(body).context("more came than was announced")?;
        while left > 0 {
            let most = left.min(self.buffer.len());
            let read = self.stream.read(&mut self.buffer[..most])?;
            ensure!(read > 0, "the server closed the connection within a body");
            left -= read;
        }
        Ok(total)
    }
}

fn content_length(head: &str) -> Option<usize> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })
}
