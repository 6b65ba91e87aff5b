//! Which egress is weaker than which, and what two of them leave together: what a mode or a plan allows at most, and what is asked for.
//!
//! One is within another when nothing is reached by it that isn't by the other. Of lists of destinations each must be within one of the
//! other's, so of what only several of those hold together it is said that it isn't: a doubt is never decided for the weaker.

use crate::runtime::{Destination, Egress, PRIVATE, PRIVATE6};

impl Egress {
    /// Whether nothing is reached by it that isn't by the other.
    pub(crate) fn is_within(&self, most: &Self) -> bool {
        match (self, most) {
            (Self::None, _) | (_, Self::Open) | (Self::Internet, Self::Internet) => true,
            (Self::Only(named), Self::Internet) => named.iter().all(is_internet),
            (Self::Only(named), Self::Only(most)) => {
                named.iter().all(|one| most.iter().any(|other| one.and(*other) == Some(*one)))
            }
            _ => false,
        }
    }

    /// What is reached by both, or less: of a destination that is the internet's only in part, nothing is left beside the internet.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let both: Vec<Destination> = match (self, other) {
            (one, most) if one.is_within(most) => return one.clone(),
            (one, other) if other.is_within(one) => return other.clone(),
            (Self::Only(named), Self::Internet) | (Self::Internet, Self::Only(named)) => {
                named.iter().filter(|destination| is_internet(destination)).copied().collect()
            }
            (Self::Only(one), Self::Only(other)) => {
                one.iter().flat_map(|one| other.iter().filter_map(|other| one.and(*other))).collect()
            }
            _ => Vec::new(),
        };
        let held = |number: usize, destination: &Destination| {
            both.iter().enumerate().any(|(place, other)| {
                place != number
                    && destination.and(*other) == Some(*destination)
                    && (other != destination || place < number)
            })
        };
        let left: Vec<Destination> = both
            .iter()
            .enumerate()
            .filter(|(number, destination)| !held(*number, destination))
            .map(|(_, destination)| *destination)
            .collect();
        if left.is_empty() { Self::None } else { Self::Only(left) }
    }
}

/// Whether all of it is reached by [`Egress::Internet`].
fn is_internet(destination: &Destination) -> bool {
    let mut others = PRIVATE.iter().chain(&PRIVATE6).filter_map(|network| network.parse::<Destination>().ok());
    others.all(|other| destination.and(other).is_none())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn egress(text: &str) -> Egress {
        text.parse().unwrap()
    }

    #[test]
    fn the_stricter_one_is_within_the_weaker() {
        // Each is within all that come after it.
        for chain in [
            ["none", "203.0.113.7:443", "203.0.113.0/24", "internet", "open"],
            ["none", "[2001:db8::1]:443", "2001:db8::/32,203.0.113.7", "internet", "open"],
            ["none", "10.1.2.3:22", "10.1.0.0/16,203.0.113.0/24", "10.0.0.0/7,203.0.113.0/24", "open"],
        ] {
            for (number, stricter) in chain.iter().enumerate() {
                for weaker in &chain[number..] {
                    assert!(egress(stricter).is_within(&egress(weaker)), "{stricter} is within {weaker}");
                    assert_eq!(egress(stricter).and(&egress(weaker)), egress(stricter));
                    assert_eq!(egress(weaker).and(&egress(stricter)), egress(stricter));
                }
                for stricter_yet in &chain[..number] {
                    assert!(!egress(stricter).is_within(&egress(stricter_yet)), "{stricter} isn't in {stricter_yet}");
                }
            }
        }
    }

    #[test]
    fn of_two_of_which_neither_is_within_the_other_is_left_what_both_hold() {
        for (one, other, both) in [
            ("internet", "10.0.0.0/8,203.0.113.7", "203.0.113.7"),
            ("internet", "10.0.0.0/8", "none"),
            // In part, so not at all.
            ("internet", "0.0.0.0/0:443", "none"),
            ("10.0.0.0/8:443,203.0.113.7", "10.1.0.0/16,203.0.113.0/24:80", "10.1.0.0/16:443,203.0.113.7:80"),
            ("10.0.0.0/8:443", "10.0.0.0/8:80", "none"),
            ("10.0.0.0/8", "192.168.0.0/16,::/0", "none"),
            ("10.0.0.0/8,10.1.0.0/16:22", "10.1.0.0/16,192.168.0.0/16", "10.1.0.0/16"),
        ] {
            assert_eq!(egress(one).and(&egress(other)), egress(both), "{one} and {other}");
            assert_eq!(egress(other).and(&egress(one)), egress(both), "{other} and {one}");
            assert!(!egress(one).is_within(&egress(other)) && !egress(other).is_within(&egress(one)));
        }
    }

    /// What is reached, by the words of [`Egress`]: what holds for one address and port.
    fn reaches(egress: &Egress, address: IpAddr, port: u16) -> bool {
        let target: Destination = match address {
            IpAddr::V4(address) => format!("{address}:{port}").parse().unwrap(),
            IpAddr::V6(address) => format!("[{address}]:{port}").parse().unwrap(),
        };
        match egress {
            Egress::Open => true,
            Egress::Internet => is_internet(&target),
            Egress::Only(named) => named.iter().any(|network| network.and(target) == Some(target)),
            Egress::None => false,
        }
    }

    fn some_address() -> impl Strategy<Value = IpAddr> {
        // Few bits, so that networks overlap often.
        let first = prop::sample::select(vec![9_u8, 10, 11, 100, 127, 172, 192, 203, 224]);
        let v4 =
            (first, prop::sample::select(vec![0_u8, 16, 64, 168]), 0_u8..4).prop_map(|(a, b, d)| [a, b, 0, d].into());
        let v6 = (prop::sample::select(vec![0_u16, 0x2001, 0xfc00, 0xfe80]), 0_u16..4)
            .prop_map(|(first, last)| IpAddr::from([first, 0, 0, 0, 0, 0, 0, last]));
        prop_oneof![3 => v4, 1 => v6]
    }

    fn some_destination() -> impl Strategy<Value = Destination> {
        let port = prop::option::of(prop::sample::select(vec![80_u16, 443]));
        (some_address(), 0_u8..=32, port).prop_map(|(address, bits, port)| {
            let bits = if address.is_ipv4() { bits } else { bits * 4 };
            let network = if port.is_some() { format!("[{address}/{bits}]") } else { format!("{address}/{bits}") };
            port.map_or(network.clone(), |port| format!("{network}:{port}")).parse().unwrap()
        })
    }

    fn some_egress() -> impl Strategy<Value = Egress> {
        prop_oneof![
            Just(Egress::Open),
            Just(Egress::Internet),
            Just(Egress::None),
            prop::collection::vec(some_destination(), 1..5).prop_map(Egress::Only),
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_reached_that_either_refuses(
            one in some_egress(), other in some_egress(), address in some_address(), port in prop::sample::select(vec![22_u16, 80, 443])
        ) {
            let both = one.and(&other);
            prop_assert!(both.is_within(&one) && both.is_within(&other), "{} of {} and {}", both, one, other);
            if reaches(&both, address, port) {
                prop_assert!(reaches(&one, address, port) && reaches(&other, address, port));
            }
            if one.is_within(&other) && reaches(&one, address, port) {
                prop_assert!(reaches(&other, address, port), "{} is said to be within {}", one, other);
            }
            if let (Egress::Only(_), Egress::Only(_)) = (&one, &other) {
                prop_assert_eq!(reaches(&both, address, port), reaches(&one, address, port) && reaches(&other, address, port));
            }
        }
    }
}
