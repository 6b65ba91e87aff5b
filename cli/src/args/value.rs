//! How values of flags are read: variables, ports, times.

use std::{ops::RangeInclusive, time::Duration};

pub(super) fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// A port inside, and where it is to be reached here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortPair {
    pub(crate) inside: u16,
    pub(crate) local: Option<RangeInclusive<u16>>,
}

/// Reads `<port>`, `<port>:<local>` or `<port>:<first>-<last>`.
pub(super) fn parse_ports(text: &str) -> Result<PortPair, String> {
    let number = |text: &str| match text.parse::<u16>() {
        // Digits only: a number may otherwise begin with a sign.
        Ok(number) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
        _ => Err(format!("{text:?} is no port: a number up to 65535 was expected")),
    };
    let (inside, local) = text.split_once(':').map_or((text, None), |(inside, local)| (inside, Some(local)));
    let inside = number(inside)?;
    if inside == 0 {
        return Err("nothing can listen on port 0 inside".to_owned());
    }
    let local = match local.map(|local| (local, local.split_once('-'))) {
        None => None,
        Some((local, None)) => Some(number(local)?).map(|port| port..=port),
        Some((_, Some((first, last)))) => {
            let range = number(first)?..=number(last)?;
            if range.is_empty() {
                return Err(format!("{first} is greater than {last}"));
            }
            Some(range)
        }
    };
    Ok(PortPair { inside, local })
}

/// A time after which something happens, or that it doesn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    After(Duration),
    Never,
}

/// Reads a time as [`parse_time`] does, or `never`.
pub(super) fn parse_when(text: &str) -> Result<When, String> {
    match text {
        "never" => Ok(When::Never),
        text => parse_time(text).map(When::After).map_err(|why| format!("{why}, or never")),
    }
}

/// Reads a time: `90` and `90s` are seconds, `10m`, `24h` and `7d` minutes, hours and days; `500ms` for the impatient.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return Err(format!("{text:?} is no time; 30s, 10m, 24h or 7d was expected")),
    };
    let time = number.parse::<u64>().ok().and_then(|number| number.checked_mul(milliseconds));
    time.map(Duration::from_millis).ok_or_else(|| format!("{text:?} is no time; 30s, 10m, 24h or 7d was expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_needs_a_name() {
        assert!(parse_variable("=x").is_err() && parse_variable("x").is_err());
        assert_eq!(parse_variable("a=b=c"), Ok(("a".into(), "b=c".into())));
    }

    #[test]
    fn ports_are_read_as_the_help_says() {
        let pair = |inside, local| Ok(PortPair { inside, local });
        assert_eq!(parse_ports("8080"), pair(8080, None));
        assert_eq!(parse_ports("8080:0"), pair(8080, Some(0..=0)));
        assert_eq!(parse_ports("80:9000-9010"), pair(80, Some(9000..=9010)));
        for wrong in ["", ":", "0", "8080:", ":8080", "+80", "65536", "80:9-8", "80:1-", "80:a", "80:1:2", "-1"] {
            assert!(parse_ports(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_read_with_and_without_a_unit() {
        let seconds = |seconds| Ok(Duration::from_secs(seconds));
        assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
        for (text, expected) in
            [("0", 0), ("90", 90), ("90s", 90), ("10m", 600), ("10min", 600), ("24h", 86_400), ("7d", 604_800)]
        {
            assert_eq!(parse_time(text), seconds(expected), "{text}");
        }
        for wrong in ["", "s", "-1", "+1", "1.5h", "1 h", "10M", "1w", "99999999999999999999", "18446744073709551615d"]
        {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }
}
