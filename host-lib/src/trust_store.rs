//! The host's CA bundle as Java reads it.
//!
//! Java takes no PEM: before version 18 there is no such key store at all, and `keytool`, which makes others, comes with Java. Of those that it
//! reads everywhere the simplest is its own first one (`JKS`, as in `sun.security.provider.JavaKeyStore`): certificates one after the other,
//! nothing encrypted. Its digest is made with a password that everybody knows, and asked for only by who gives one.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::{Digest as _, Sha1};

const MAGIC: u32 = 0xFEED_FEED;
const VERSION: u32 = 2;
/// An entry that is a certificate, and no key.
const TRUSTED: u32 = 2;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// The password of Java's own trust store.
const PASSWORD: &str = "changeit";

/// The certificates of a PEM bundle as a key store; none, if there is no certificate in it. The same bundle is always the same key store. What
/// isn't base64 within is left out: who reads the PEM says what is wrong with it.
pub(crate) fn java_trust_store(pem: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(pem);
    let blocks = text.split(BEGIN).skip(1).filter_map(|block| block.split_once(END));
    let decode = |block: &str| STANDARD.decode(block.split_whitespace().collect::<String>()).ok();
    let certificates: Vec<_> = blocks.filter_map(|(block, _)| decode(block)).filter(|der| !der.is_empty()).collect();
    if certificates.is_empty() {
        return None;
    }
    let mut store = Vec::with_capacity(pem.len());
    let number = |store: &mut Vec<u8>, number: u32| store.extend(number.to_be_bytes());
    number(&mut store, MAGIC);
    number(&mut store, VERSION);
    number(&mut store, u32::try_from(certificates.len()).ok()?);
    for (index, der) in certificates.iter().enumerate() {
        number(&mut store, TRUSTED);
        text_of(&mut store, &format!("ca-{index}"))?;
        // When it came in: at no time, so that the same is always the same.
        store.extend(0_u64.to_be_bytes());
        text_of(&mut store, "X.509")?;
        number(&mut store, u32::try_from(der.len()).ok()?);
        store.extend(der);
    }
    let mut digest = Sha1::new();
    PASSWORD.encode_utf16().for_each(|unit| digest.update(unit.to_be_bytes()));
    // What every such store is salted with.
    digest.update(b"Mighty Aphrodite");
    digest.update(&store);
    store.extend(digest.finalize());
    Some(store)
}

/// Text of ASCII, as Java writes it.
fn text_of(store: &mut Vec<u8>, text: &str) -> Option<()> {
    store.extend(u16::try_from(text.len()).ok()?.to_be_bytes());
    store.extend(text.as_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `keytool -importcert` of Java 17 would list it: read back field by field.
    #[test]
    fn certificates_are_written_as_java_reads_them() {
        let pem = format!("# a comment\n{BEGIN}\nAQID\nBA==\n{END}\nnothing\n{BEGIN}\r\nBQ==\r\n{END}\r\n");
        let store = java_trust_store(pem.as_bytes()).unwrap();
        let mut expected = b"\xfe\xed\xfe\xed\0\0\0\x02\0\0\0\x02".to_vec();
        expected.extend(b"\0\0\0\x02\0\x04ca-0\0\0\0\0\0\0\0\0\0\x05X.509\0\0\0\x04\x01\x02\x03\x04");
        expected.extend(b"\0\0\0\x02\0\x04ca-1\0\0\0\0\0\0\0\0\0\x05X.509\0\0\0\x01\x05");
        assert_eq!(store[..store.len() - 20], expected);
        // Of the bytes `c\0h\0…` in the other order, the salt and the store, by `sha1sum`.
        assert_eq!(STANDARD.encode(&store[store.len() - 20..]), DIGEST);
        assert_eq!(java_trust_store(pem.as_bytes()).unwrap(), store);
    }

    const DIGEST: &str = "pcXXt65EhLq8zjcQZT0CFV2J6pE=";

    #[test]
    fn where_there_is_no_certificate_there_is_no_store() {
        for pem in
            ["", "no certificate", &format!("{BEGIN}\n*\n{END}"), &format!("{BEGIN}{END}"), &format!("{BEGIN}\nAQ==")]
        {
            assert_eq!(java_trust_store(pem.as_bytes()), None, "{pem}");
        }
    }
}
