//! Bytes that a caller hands in: a plain string where they are text, `{"base64": …}` where they are not.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::patterns::BASE64;

/// Content of a file or a piece of one: a string, or `{"base64": …}` (RFC 4648 section 4, padded) for any bytes.
///
/// The request's form of what [`Data`](crate::Data) is in answers; a string is shorter to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(untagged, deny_unknown_fields, expecting = "a string, or {\"base64\": …} was expected")]
pub enum Content {
    /// UTF-8.
    Text(String),
    /// Any bytes.
    Bytes {
        /// Standard alphabet, padded.
        #[schemars(regex(pattern = BASE64))]
        base64: String,
    },
}

impl Content {
    /// How many bytes it is, without decoding it; of malformed base64 about as many.
    #[must_use]
    pub fn decoded_bytes(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Bytes { base64 } => crate::data::decoded_bytes(base64),
        }
    }

    /// The bytes themselves.
    ///
    /// # Errors
    /// The base64 form is malformed.
    pub fn to_bytes(&self) -> Result<Cow<'_, [u8]>, base64::DecodeError> {
        match self {
            Self::Text(text) => Ok(Cow::Borrowed(text.as_bytes())),
            Self::Bytes { base64 } => STANDARD.decode(base64).map(Cow::Owned),
        }
    }

    /// Content from bytes, as a string if they are UTF-8.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes { base64: STANDARD.encode(bytes) },
        }
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_cross_the_wire_and_text_stays_text() {
        for bytes in [&b"plain\r\n"[..], b"\xff\x00", b"", "žluť".as_bytes()] {
            let json = serde_json::to_string(&Content::from_bytes(bytes)).unwrap();
            assert_eq!(serde_json::from_str::<Content>(&json).unwrap().to_bytes().unwrap(), bytes);
        }
        assert_eq!(serde_json::to_string(&Content::from("a")).unwrap(), "\"a\"");
        assert!(Content::Bytes { base64: "*".into() }.to_bytes().is_err());
    }

    #[test]
    fn another_type_is_refused_with_what_was_expected() {
        let error = serde_json::from_str::<Content>("5").unwrap_err().to_string();
        assert!(error.contains("a string, or"), "{error}");
    }
}
