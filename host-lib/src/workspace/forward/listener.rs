//! Listening on this machine's loopback: on one port, on the first of a range that is free, or on one that the system chooses.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
};

use tokio::net::{TcpListener, TcpSocket};

use crate::error::{Error, ErrorKind, Result};

/// Connections that the kernel holds for a listener that has no room for them yet; beyond them clients try again.
const BACKLOG: u32 = 1024;

/// Listens on the first of these ports that is free; 0 means one that the system chooses.
pub(in crate::workspace) fn listen(ports: RangeInclusive<u16>) -> Result<TcpListener> {
    if ports.is_empty() {
        let (first, last) = (ports.start(), ports.end());
        return Err(Error::new(ErrorKind::Invalid, format!("{first} to {last} is no range of ports")));
    }
    let mut refusal = None;
    for port in ports.clone() {
        match bind(port) {
            Ok(listener) => return Ok(listener),
            Err(error) => refusal = Some(error),
        }
    }
    let (first, last) = (ports.start(), ports.end());
    let what = if first == last { format!("port {first}") } else { format!("each of the ports {first} to {last}") };
    let error = refusal.unwrap_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable));
    Err(match error.kind() {
        io::ErrorKind::AddrInUse => Error::new(ErrorKind::Conflict, format!("{what} of this machine is in use"))
            .hint("choose another one, or 0 for one that is free"),
        io::ErrorKind::PermissionDenied => {
            Error::new(ErrorKind::Io, format!("this user may not listen on {what} of this machine"))
                .hint("choose one above 1023, or 0 for one that is free")
        }
        _ => Error::new(ErrorKind::Io, format!("can't listen on {what} of this machine: {error}")),
    }
    .caused_by(error))
}

fn bind(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // Else the port of a listener that has just ended can't be had for a minute.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    socket.listen(BACKLOG)
}
