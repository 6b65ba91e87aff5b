//! The kernel's tables of TCP sockets.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// State of a socket that listens: `TCP_LISTEN` in `include/net/tcp_states.h`.
const LISTEN: &str = "0A";
/// Bytes of a table that are read. A line has 150; listening sockets come first (`tcp4_seq_show` in `net/ipv4/tcp_ipv4.c`).
const TABLE_BYTES: u64 = 16 << 20;

/// A socket that listens. The order is by port, then address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listener {
    /// The port.
    pub port: u16,
    /// The address that it is bound to.
    pub address: IpAddr,
}

impl Listener {
    /// Whether only its own machine reaches it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.address {
            IpAddr::V4(address) => address.is_loopback(),
            IpAddr::V6(address) => {
                address.is_loopback() || address.to_ipv4_mapped().is_some_and(|address| address.is_loopback())
            }
        }
    }
}

/// Everything that listens, with an inode of its socket: several sockets may share a port (`SO_REUSEPORT`).
///
/// # Errors
/// The table of IPv4 can't be read. Without IPv6 in the kernel there is no other one.
pub fn listeners() -> io::Result<BTreeMap<Listener, u64>> {
    let mut found = BTreeMap::new();
    read("/proc/self/net/tcp", &mut found)?;
    match read("/proc/self/net/tcp6", &mut found) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(found),
    }
}

fn read(path: &str, found: &mut BTreeMap<Listener, u64>) -> io::Result<()> {
    let mut lines = BufReader::with_capacity(64 << 10, File::open(path)?.take(TABLE_BYTES));
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        if let Some((listener, inode)) = std::str::from_utf8(&line).ok().and_then(parse) {
            found.entry(listener).or_insert(inode);
        }
        line.clear();
    }
    Ok(())
}

/// One line, if it is of a socket that listens: `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode …`
/// (`Documentation/networking/proc_net_tcp.rst`).
fn parse(line: &str) -> Option<(Listener, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    let listener = Listener { port: hexadecimal(port, 4)?.try_into().ok()?, address: parse_address(address)? };
    Some((listener, fields.nth(5)?.parse().ok()?))
}

/// Words of 32 bits, each in the machine's order.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(hexadecimal(text.get(at..at + 8)?, 8)?.to_ne_bytes());
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (index, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(index * 8)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

/// Exactly so many digits; `from_str_radix` alone would take a sign too.
fn hexadecimal(text: &str, digits: usize) -> Option<u32> {
    let good = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const TAIL: &str = "00000000:00000000 00:00000000 00000000  1000        0 424242 1 0000000000000000 100 0 0 10 0";

    fn line(address: &str, state: &str) -> String {
        format!("   0: {address} 00000000:0000 {state} {TAIL}\n")
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_of_both_families_are_understood() {
        let of = |address: &str| parse(&line(address, "0A")).unwrap();
        let (listener, inode) = of("0100007F:1F90");
        assert_eq!((listener.address.to_string().as_str(), listener.port, inode), ("127.0.0.1", 8080, 424_242));
        assert!(listener.is_loopback());
        assert!(!of("00000000:0050").0.is_loopback());
        let (listener, _) = of("00000000000000000000000001000000:0BB9");
        assert_eq!((listener.address.to_string().as_str(), listener.port), ("::1", 3001));
        assert!(listener.is_loopback());
        assert!(of("0000000000000000FFFF00000100007F:0BB9").0.is_loopback());
    }

    #[test]
    fn what_is_odd_or_does_not_listen_is_passed_over() {
        let odd = [
            line("0100007F:1F90", "01"),
            line("0100007F1F90", "0A"),
            line("0100007F:+F90", "0A"),
            line("0100007F:1F90F", "0A"),
            line("0100007:1F90", "0A"),
            line("+100007F:1F90", "0A"),
            line("ÄÄÄÄ:1F90", "0A"),
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
                .to_owned(),
            "   0: 0100007F:1F90 00000000:0000 0A 0:0".to_owned(),
            line("0100007F:1F90", "0A").replace("424242", "-1"),
            String::new(),
        ];
        for line in odd {
            assert_eq!(parse(&line), None, "{line:?}");
        }
    }

    #[test]
    fn real_listeners_are_found_until_they_close() {
        let four = TcpListener::bind("127.0.0.1:0").unwrap();
        let any = TcpListener::bind("0.0.0.0:0").unwrap();
        for listener in [&four, &any] {
            let address = listener.local_addr().unwrap();
            assert!(listeners().unwrap().contains_key(&Listener { port: address.port(), address: address.ip() }));
        }
        if let Ok(six) = TcpListener::bind("[::1]:0") {
            let address = six.local_addr().unwrap();
            assert!(listeners().unwrap().contains_key(&Listener { port: address.port(), address: address.ip() }));
        }
        let address = four.local_addr().unwrap();
        drop(four);
        assert!(!listeners().unwrap().contains_key(&Listener { port: address.port(), address: address.ip() }));
    }
}
