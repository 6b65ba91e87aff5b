//! `corehold-agent reach`: says which addresses can be connected to from where it runs. Whoever keeps a network closed looks with it from
//! inside whether it is.
//!
//! First it says what `/etc/resolv.conf` names, a line `resolver ADDRESS` each. Then it reads lines `NAME ADDRESS PORT`, up to one that
//! is a dot, tries all of them at once, and says of each `NAME ADDRESS PORT: HOW`: *reached*, when somebody took the connection or refused
//! it, *closed*, when nobody answered or somebody on the way said that there is none, or *unclear* and why.
//!
//! A firewall of the same machine answers while the attempt is being sent. The kernel keeps that as an error that may pass, and tries
//! again after a second, of which every way that waits for a connection would know only then; here it is asked at once.

use std::{
    fs,
    io::{self, BufRead, Write},
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt},
};

/// Who hasn't answered by then doesn't.
const PATIENCE: Duration = Duration::from_secs(3);

/// Addresses that are tried at once.
const MOST: usize = 256;

/// Why it says nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failed {
    /// A line that it was told.
    #[error("{0:?} is no line `NAME ADDRESS PORT`")]
    Line(String),
    /// More than it tries.
    #[error("at most {MOST} addresses are tried at once")]
    TooMany,
    /// Its input, its output, or waiting.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Does it, over standard input and output.
///
/// # Errors
/// [`Failed`] says why it can't.
pub fn run() -> Result<(), Failed> {
    let resolvers = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    answer(&resolvers, io::stdin().lock(), io::stdout().lock(), PATIENCE)
}

fn answer(resolvers: &str, input: impl BufRead, mut output: impl Write, patience: Duration) -> Result<(), Failed> {
    for line in resolvers.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some("nameserver"), Some(resolver)) = (words.next(), words.next()) {
            writeln!(output, "resolver {resolver}")?;
        }
    }
    output.flush()?;
    let mut lines = Vec::new();
    for line in input.lines() {
        let line = line?;
        if line == "." {
            break;
        }
        if lines.len() == MOST {
            return Err(Failed::TooMany);
        }
        let address = address_of(&line).ok_or_else(|| Failed::Line(line.clone()))?;
        lines.push((line, address));
    }
    let addresses: Vec<SocketAddr> = lines.iter().map(|(_, address)| *address).collect();
    for ((line, _), how) in lines.iter().zip(try_all(&addresses, patience)?) {
        match how {
            Ok(()) | Err(Errno::CONNREFUSED | Errno::CONNRESET) => writeln!(output, "{line}: reached")?,
            Err(Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::PERM | Errno::ACCESS) => {
                writeln!(output, "{line}: closed")?;
            }
            Err(errno) => writeln!(output, "{line}: unclear ({})", io::Error::from(errno))?,
        }
    }
    Ok(output.flush()?)
}

fn address_of(line: &str) -> Option<SocketAddr> {
    let mut words = line.split(' ');
    let (_name, address, port) = (words.next()?, words.next()?, words.next()?);
    let address: IpAddr = address.parse().ok()?;
    words.next().is_none().then_some(SocketAddr::new(address, port.parse().ok()?))
}

/// What came of each attempt.
fn try_all(addresses: &[SocketAddr], patience: Duration) -> io::Result<Vec<Result<(), Errno>>> {
    let until = Instant::now() + patience;
    let mut all: Vec<Attempt> = addresses.iter().map(begin).collect();
    loop {
        let waiting: Vec<usize> = (0..all.len()).filter(|index| matches!(all[*index], Attempt::Waits(_))).collect();
        let left = until.saturating_duration_since(Instant::now());
        if waiting.is_empty() || left.is_zero() {
            return Ok(all.into_iter().map(Attempt::came_to).collect());
        }
        let ready = wait(&all, &waiting, left)?;
        for index in ready {
            all[index] = Attempt::Came(match &all[index] {
                Attempt::Waits(socket) => sockopt::socket_error(socket).unwrap_or_else(Err),
                Attempt::Came(how) => *how,
            });
        }
    }
}

/// Which of those that wait have come to something.
fn wait(all: &[Attempt], waiting: &[usize], left: Duration) -> io::Result<Vec<usize>> {
    let mut watched: Vec<PollFd<'_>> = waiting
        .iter()
        .filter_map(|index| match &all[*index] {
            Attempt::Waits(socket) => Some(PollFd::new(socket, PollFlags::OUT)),
            Attempt::Came(_) => None,
        })
        .collect();
    let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
    let left = Timespec { tv_sec: seconds, tv_nsec: left.subsec_nanos().into() };
    match poll(&mut watched, Some(&left)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let ready = waiting.iter().zip(&watched).filter(|(_, watched)| !watched.revents().is_empty());
    Ok(ready.map(|(index, _)| *index).collect())
}

enum Attempt {
    Waits(OwnedFd),
    Came(Result<(), Errno>),
}

impl Attempt {
    fn came_to(self) -> Result<(), Errno> {
        match self {
            Self::Waits(_) => Err(Errno::TIMEDOUT),
            Self::Came(how) => how,
        }
    }
}

fn begin(address: &SocketAddr) -> Attempt {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = match socket_with(family, SocketType::STREAM, flags, None) {
        Ok(socket) => socket,
        Err(errno) => return Attempt::Came(Err(errno)),
    };
    match connect(&socket, address) {
        Err(Errno::INPROGRESS) => match sockopt::socket_error(&socket) {
            Ok(Ok(())) => Attempt::Waits(socket),
            // Not for good yet, as the kernel has it; see above.
            Ok(Err(errno)) | Err(errno) => Attempt::Came(Err(errno)),
        },
        how => Attempt::Came(how),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn said(resolvers: &str, input: &str) -> Result<String, Failed> {
        let mut output = Vec::new();
        answer(resolvers, input.as_bytes(), &mut output, Duration::from_millis(200))?;
        Ok(String::from_utf8(output).unwrap())
    }

    #[test]
    fn who_answers_in_whatever_way_is_reached_and_nobody_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap().port();
        let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // A listener that takes nobody, with its queue full, doesn't answer.
        let full = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&full, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        rustix::net::listen(&full, 0).unwrap();
        let silent: SocketAddr = rustix::net::getsockname(&full).unwrap().try_into().unwrap();
        let _queued = begin(&silent);
        let silent = silent.port();
        let lines = [
            format!("a 127.0.0.1 {open}"),
            format!("b 127.0.0.1 {refused}"),
            format!("c 127.0.0.1 {silent}"),
            // Kept for examples: no machine has a way there, or somebody who answers.
            "d 2001:db8::1 4".to_owned(),
        ];
        let input = format!("{}\n.\nnot read", lines.join("\n"));
        let [a, b, c, d] = &lines;
        assert_eq!(said("", &input).unwrap(), format!("{a}: reached\n{b}: reached\n{c}: closed\n{d}: closed\n"));
    }

    #[test]
    fn resolvers_are_said_first_and_nothing_else_of_the_file() {
        let file = "# nameserver 1.1.1.1\nnameserver 10.0.0.2 # mine\nsearch x\n nameserver fe80::1%eth0\nnameserver";
        assert_eq!(said(file, ".\n").unwrap(), "resolver 10.0.0.2\nresolver fe80::1%eth0\n");
    }

    #[test]
    fn what_is_no_line_is_refused_before_anything_is_tried() {
        for line in ["", "a 127.0.0.1", "a localhost 80", "a 127.0.0.1 65536", "a 127.0.0.1 80 b", "a 127.0.0.1 -1"] {
            assert!(matches!(said("", &format!("{line}\n.\n")), Err(Failed::Line(_))), "{line:?}");
        }
        let many = "a 127.0.0.1 4\n".repeat(MOST + 1);
        assert!(matches!(said("", &many), Err(Failed::TooMany)));
        assert_eq!(said("", "").unwrap(), "", "its input may end without a dot");
    }
}
