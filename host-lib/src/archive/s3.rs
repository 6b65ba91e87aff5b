//! Buckets that speak S3.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    prefix::PrefixStore,
};

use crate::error::{Error, ErrorKind, Result};

/// Time in which a request that fails is repeated: a store that slows us down (503) or loses a connection is not given up.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRIES: usize = 8;
/// Time for one request, the sending of a chunk of at most 4 MiB included.
const REQUEST: &str = "60s";

/// A bucket, and where in it: `s3://bucket/prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bucket {
    name: String,
    prefix: String,
}

impl FromStr for Bucket {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let rest = text.strip_prefix("s3://").unwrap_or(text);
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/');
        // As AWS has it, and what usual other stores allow.
        let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        if !(3..=63).contains(&name.len()) || !name.bytes().all(fine) {
            return Err(Error::new(ErrorKind::Invalid, format!("{text:?} names no bucket")).hint(
                "name it as s3://bucket/prefix, the bucket by 3 to 63 lower-case letters, digits, hyphens and dots",
            ));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
        let parts = || prefix.split('/');
        if !prefix.is_empty() && (!prefix.bytes().all(plain) || parts().any(|part| matches!(part, "" | "." | ".."))) {
            return Err(Error::new(ErrorKind::Invalid, format!("{text:?} has a prefix that can't be one"))
                .hint("use letters, digits, `-`, `_`, `.` and slashes"));
        }
        Ok(Self { name: name.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "s3://{}", self.name)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(formatter, "/{}", self.prefix) }
    }
}

impl Bucket {
    /// Opens it with what the `AWS_` variables say; asks nothing of it yet.
    pub(super) fn open(&self) -> Result<Arc<dyn ObjectStore>> {
        self.open_with(AmazonS3Builder::from_env())
    }

    /// The same with other credentials and another address.
    pub(super) fn open_with(&self, builder: AmazonS3Builder) -> Result<Arc<dyn ObjectStore>> {
        let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES, retry_timeout: PATIENCE };
        let builder = builder
            .with_bucket_name(&self.name)
            .with_retry(retry)
            // An option at a time: all at once would replace what the variables say.
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), REQUEST);
        let objects = builder.build().map_err(|error| {
            Error::new(ErrorKind::Invalid, format!("the archive store {self} can't be used: {error}"))
                .hint("AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL say how it is reached")
                .caused_by(error)
        })?;
        Ok(match self.prefix.as_str() {
            "" => Arc::new(objects),
            prefix => Arc::new(PrefixStore::new(objects, prefix)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_a_name_and_perhaps_a_prefix() {
        for (text, shown) in [
            ("s3://archives", "s3://archives"),
            ("s3://archives/", "s3://archives"),
            ("s3://a.b-c/one/two/", "s3://a.b-c/one/two"),
        ] {
            assert_eq!(text.parse::<Bucket>().unwrap().to_string(), shown);
        }
        for wrong in
            ["s3://", "s3://ab", "s3://Upper", "s3://a/b", "s3://bucket/../x", "s3://bucket/a//b", "s3://bucket/a?b"]
        {
            assert_eq!(wrong.parse::<Bucket>().unwrap_err().kind(), ErrorKind::Invalid, "{wrong}");
        }
    }
}
