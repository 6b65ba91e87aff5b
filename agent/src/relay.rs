//! `corehold-agent relay <port>`: a connection to a port of the container's own loopback, carried over standard input and output
//! as [`corehold_types::relay`] says. A host that reaches the container by nothing but its engine has the engine start it.
//!
//! It is no part of the agent that serves: a small process beside it, of the same user, which knows no token and decides nothing. One
//! thread waits for both ends; each direction holds one buffer, so that who doesn't read slows who writes.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use corehold_types::relay::{END, FRAME_BYTES, GREETING, HEADER_BYTES, header};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::sockopt,
    process::DumpableBehavior,
};

/// What listens on the container's own loopback takes a connection in microseconds, or is stuck.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes read of the caller's at once.
const INPUT_BYTES: usize = 64 << 10;

/// Why the connection isn't carried any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// The argument is no port.
    #[error("{0:?} is no port: a number from 1 to 65535 was expected")]
    NoPort(String),
    /// Nobody took the connection.
    #[error("nothing listens on port {port} ({error})")]
    NotListening {
        /// The port.
        port: u16,
        /// Why.
        error: io::Error,
    },
    /// The input ended without the connection's end.
    #[error("the caller has gone")]
    Gone,
    /// What the caller sent are no frames.
    #[error("the caller sent something after the end")]
    AfterTheEnd,
    /// The connection, or what it is carried by, broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
}

/// Carries a connection to this port until both directions have ended.
///
/// # Errors
/// [`Broken`] says why it ended otherwise.
pub fn run(port: &str) -> Result<(), Broken> {
    // Commands of the workspace run as the same user. They shall not look into what passes here, such as tokens.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(io::Error::from)?;
    let digits = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|port| port.parse().ok()).filter(|port| *port != 0);
    let socket = connect(number.ok_or_else(|| Broken::NoPort(port.to_owned()))?)?;
    let (input, output) = (io::stdin(), io::stdout());
    // What is written to a pipe that has less room would wait, and with it the other direction.
    io::stdout().write_all(GREETING)?;
    io::stdout().flush()?;
    rustix::io::ioctl_fionbio(&output, true).map_err(io::Error::from)?;
    socket.set_nonblocking(true)?;
    let carried = carry(&socket, input.as_fd(), output.as_fd());
    if carried.is_err() {
        // What was cut off must not look as if it had ended.
        let _ = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
    }
    carried
}

/// Development servers listen on IPv4, on IPv6, or on both.
fn connect(port: u16) -> Result<TcpStream, Broken> {
    let attempt = |address: SocketAddr| {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        // Where nobody listens the kernel may choose that very port for our end (RFC 9293, 3.5: simultaneous open).
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    attempt((Ipv4Addr::LOCALHOST, port).into())
        .or_else(|error| attempt((Ipv6Addr::LOCALHOST, port).into()).map_err(|_| error))
        .map_err(|error| Broken::NotListening { port, error })
}

fn carry(socket: &TcpStream, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Result<(), Broken> {
    let (mut inward, mut outward) = (Inward::new(), Outward::new());
    loop {
        inward.look_at_frames()?;
        if inward.ended && !inward.shut {
            inward.shut = true;
            // The port may have closed the connection by now; reading from it tells.
            let _ = socket.shutdown(Shutdown::Write);
        }
        if outward.ended && outward.is_empty() && (inward.ended || inward.refused) {
            // Whoever sent what nobody took shall not believe otherwise.
            return if inward.refused { Err(io::Error::from(io::ErrorKind::ConnectionReset).into()) } else { Ok(()) };
        }

        let wants = |wanted: bool, flag| if wanted { flag } else { PollFlags::empty() };
        let reads_socket = outward.is_empty() && !outward.ended;
        let of_socket = wants(reads_socket, PollFlags::IN) | wants(!inward.payload().is_empty(), PollFlags::OUT);
        // Both ends of the caller are always looked at: whether it has gone is told unasked.
        let mut waiting = vec![
            PollFd::from_borrowed_fd(input, wants(inward.payload().is_empty(), PollFlags::IN)),
            PollFd::from_borrowed_fd(output, wants(!outward.is_empty(), PollFlags::OUT)),
        ];
        if !of_socket.is_empty() {
            // Else a socket that has ended both ways would be told of without end.
            waiting.push(PollFd::new(socket, of_socket));
        }
        match poll(&mut waiting, None) {
            Err(Errno::INTR) => continue,
            polled => polled.map_err(io::Error::from)?,
        };
        let told: Vec<PollFlags> = waiting.iter().map(PollFd::revents).collect();
        let over = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        if told[0].intersects(over) || told[1].intersects(over) {
            return Err(Broken::Gone);
        }
        if told[0].contains(PollFlags::IN) {
            inward.read(input)?;
        }
        if told[1].contains(PollFlags::OUT) {
            outward.write(output)?;
        }
        if told.get(2).is_some_and(|told| !told.is_empty()) {
            inward.write(socket);
            if reads_socket {
                outward.read(socket)?;
                if outward.ended && inward.refused {
                    // A connection that broke says so once, and to whoever writes first.
                    return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
                }
            }
        }
    }
}

/// From the caller to the port.
struct Inward {
    buffer: Vec<u8>,
    /// What of it is there.
    start: usize,
    end: usize,
    /// Bytes of the frame that aren't written yet.
    left: usize,
    /// The caller has said all.
    ended: bool,
    /// The port was told so.
    shut: bool,
    /// The port takes no more. What it said before may still be on its way out.
    refused: bool,
}

impl Inward {
    fn new() -> Self {
        let buffer = vec![0; INPUT_BYTES];
        Self { buffer, start: 0, end: 0, left: 0, ended: false, shut: false, refused: false }
    }

    /// What can be written now.
    fn payload(&self) -> &[u8] {
        &self.buffer[self.start..self.end.min(self.start + self.left)]
    }

    fn took(&mut self, bytes: usize) {
        self.start += bytes;
        self.left -= bytes;
    }

    fn look_at_frames(&mut self) -> Result<(), Broken> {
        if self.refused {
            self.took(self.payload().len());
        }
        while self.left == 0 && !self.ended && self.end - self.start >= HEADER_BYTES {
            let length = [self.buffer[self.start], self.buffer[self.start + 1]];
            self.start += HEADER_BYTES;
            self.left = u16::from_be_bytes(length).into();
            self.ended = length == END;
            if self.refused {
                self.took(self.payload().len());
            }
        }
        if self.ended && self.start < self.end { Err(Broken::AfterTheEnd) } else { Ok(()) }
    }

    /// Reads, when nothing but the beginning of a length is left to be looked at.
    fn read(&mut self, input: BorrowedFd<'_>) -> Result<(), Broken> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        match rustix::io::read(input, &mut self.buffer[self.end..]) {
            Ok(0) => Err(Broken::Gone),
            Ok(read) => {
                self.end += read;
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    fn write(&mut self, mut socket: &TcpStream) {
        if self.payload().is_empty() {
            return;
        }
        match socket.write(self.payload()) {
            Ok(written) => self.took(written),
            Err(error) if is_for_later(&error) => {}
            Err(_) => self.refused = true,
        }
    }
}

/// From the port to the caller: one frame at a time.
struct Outward {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The port has said all.
    ended: bool,
}

impl Outward {
    fn new() -> Self {
        Self { buffer: vec![0; HEADER_BYTES + FRAME_BYTES], start: 0, end: 0, ended: false }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn read(&mut self, mut socket: &TcpStream) -> Result<(), Broken> {
        let read = match socket.read(&mut self.buffer[HEADER_BYTES..]) {
            Err(error) if is_for_later(&error) => return Ok(()),
            read => read?,
        };
        self.ended = read == 0;
        self.buffer[..HEADER_BYTES].copy_from_slice(&header(read).unwrap_or(END));
        (self.start, self.end) = (0, HEADER_BYTES + read);
        Ok(())
    }

    fn write(&mut self, output: BorrowedFd<'_>) -> Result<(), Broken> {
        match rustix::io::write(output, &self.buffer[self.start..self.end]) {
            Ok(written) => {
                self.start += written;
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(Errno::PIPE) => Err(Broken::Gone),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
