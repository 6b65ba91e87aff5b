//! Bytes on a JSON wire: text where they are UTF-8, base64 where they are not.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::patterns::BASE64;

/// Bytes as `{"text": …}` where they are valid UTF-8, else as `{"base64": …}` (RFC 4648 section 4, padded).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
pub enum Data {
    /// The bytes are UTF-8; this is them.
    Text(String),
    /// The bytes in base64.
    Base64(#[schemars(regex(pattern = BASE64))] String),
}

impl Data {
    /// Wraps bytes, as text if they are UTF-8.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Base64(STANDARD.encode(error.as_bytes())),
        }
    }

    /// How many bytes it is, without decoding it; of malformed base64 about as many.
    #[must_use]
    pub fn decoded_bytes(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Base64(encoded) => decoded_bytes(encoded),
        }
    }

    /// The bytes themselves, of a value that isn't needed any more.
    ///
    /// # Errors
    /// As [`to_bytes`](Self::to_bytes).
    pub fn into_bytes(self) -> Result<Vec<u8>, base64::DecodeError> {
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Base64(encoded) => STANDARD.decode(encoded),
        }
    }

    /// The bytes themselves.
    ///
    /// # Errors
    /// The base64 form may be malformed when it came from a client.
    pub fn to_bytes(&self) -> Result<Vec<u8>, base64::DecodeError> {
        match self {
            Self::Text(text) => Ok(text.clone().into_bytes()),
            Self::Base64(encoded) => STANDARD.decode(encoded),
        }
    }
}

/// How many bytes base64 with padding stands for.
pub(crate) fn decoded_bytes(encoded: &str) -> u64 {
    (encoded.trim_end_matches('=').len() as u64) * 3 / 4
}

impl Default for Data {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

/// One stream of a finished command as a caller without a stream gets it: all of it, or its head and tail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TS)]
#[serde(rename_all = "camelCase")]
#[ts(optional_fields)]
pub struct CollectedOutput {
    /// The output from its beginning; everything, when `omitted_bytes` is 0.
    #[serde(flatten)]
    #[ts(flatten)]
    pub head: Data,
    /// The end of the output, present only when something between head and tail was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<Data>,
    /// Bytes that the command wrote to this stream.
    pub total_bytes: u64,
    /// Bytes between head and tail that this answer leaves out. `commandOutput` still has them.
    pub omitted_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_whether_text_or_not() {
        for bytes in [b"plain".to_vec(), vec![0xff, 0, 1], "žluťoučký".into(), Vec::new()] {
            let data = Data::from_bytes(bytes.clone());
            assert_eq!((data.to_bytes().unwrap(), data.decoded_bytes()), (bytes.clone(), bytes.len() as u64));
            assert_eq!(data.into_bytes().unwrap(), bytes);
        }
        assert_eq!(serde_json::to_string(&Data::from_bytes(vec![0xff])).unwrap(), r#"{"base64":"/w=="}"#);
    }

    #[test]
    fn collected_output_is_flat_on_the_wire() {
        let output = CollectedOutput { head: Data::Text("hi".into()), total_bytes: 2, ..Default::default() };
        assert_eq!(serde_json::to_string(&output).unwrap(), r#"{"text":"hi","totalBytes":2,"omittedBytes":0}"#);
    }
}
