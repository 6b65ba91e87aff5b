//! `corehold-agent health`: for a container's health check, which has no curl. Asks, and needs no runtime to do it.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use crate::config::{ConfigError, port_from_environment};

/// An agent that takes longer to say that it is well is not well.
const PATIENCE: Duration = Duration::from_secs(3);

/// The status line of a healthy agent.
const HEALTHY: &[u8] = b"HTTP/1.1 200 ";

/// The agent isn't healthy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unhealthy {
    /// The port isn't known.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It can't be reached, or doesn't answer in time.
    #[error("the agent on port {port} can't be asked: {error}")]
    Unreachable {
        /// The port.
        port: u16,
        /// Why.
        error: io::Error,
    },
    /// Something else answered.
    #[error("port {port} answered {answer:?} and not that all is well")]
    Unwell {
        /// The port.
        port: u16,
        /// The beginning of the answer.
        answer: String,
    },
}

/// Asks the agent on this machine, at the configured port.
///
/// # Errors
/// [`Unhealthy`] says why it isn't well.
pub fn ask() -> Result<(), Unhealthy> {
    ask_port(port_from_environment()?)
}

fn ask_port(port: u16) -> Result<(), Unhealthy> {
    let mut answer = [0; HEALTHY.len()];
    match exchange(port, &mut answer) {
        Ok(()) if answer == HEALTHY => Ok(()),
        Ok(()) => Err(Unhealthy::Unwell { port, answer: String::from_utf8_lossy(&answer).into_owned() }),
        Err(error) => Err(Unhealthy::Unreachable { port, error }),
    }
}

fn exchange(port: u16, answer: &mut [u8]) -> io::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream
        .write_all(format!("GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n").as_bytes())?;
    stream.read_exact(answer)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn answering(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
        });
        port
    }

    #[test]
    fn only_a_healthy_agent_is_well() {
        assert!(ask_port(answering(b"HTTP/1.1 200 OK\r\n\r\n")).is_ok());
        let unwell = ask_port(answering(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"));
        assert!(matches!(unwell, Err(Unhealthy::Unwell { .. })), "{unwell:?}");
        assert!(matches!(ask_port(answering(b"SSH-")), Err(Unhealthy::Unreachable { .. })));
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        assert!(matches!(ask_port(free), Err(Unhealthy::Unreachable { .. })));
    }
}
