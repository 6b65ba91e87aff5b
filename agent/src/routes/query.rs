//! Queries of the routes that are not tools: names and values, percent-encoded bytes.

use corehold_types::{Code, Problem};
use http::Uri;

/// One `name=value`, decoded.
pub(super) struct Pair {
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// The pairs of a URI's query. `+` is itself, as RFC 3986 has it.
pub(super) fn pairs(uri: &Uri) -> Result<Vec<Pair>, Problem> {
    let malformed =
        || Problem::new(Code::InvalidRequest, "the query has a % that isn't followed by two hexadecimal digits");
    let query = uri.query().unwrap_or_default();
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| percent_decode(text.as_bytes()).ok_or_else(malformed);
            Ok(Pair { name: decode(name)?, value: decode(value)? })
        })
        .collect()
}

/// Decodes RFC 3986's percent-encoding; nothing when a `%` isn't followed by two hexadecimal digits.
pub(super) fn percent_decode(encoded: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((byte, after)) = rest.split_first() {
        if *byte == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            let [high, low] = [digits[0], digits[1]].map(|digit| char::from(digit).to_digit(16));
            decoded.push(u8::try_from(high? * 16 + low?).ok()?);
            rest = after;
        } else {
            decoded.push(*byte);
            rest = after;
        }
    }
    Some(decoded)
}
