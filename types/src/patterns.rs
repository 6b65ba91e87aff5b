//! What requests have in common: regular expressions that schemas give for text, in what ECMA-262, Python and Rust have in
//! common (the agent checks by its own code; its test `bounds` holds that against the schemas), and maps without doubles.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserializer,
    de::{Error as _, MapAccess, Visitor},
};

/// What a program can be given: no NUL.
pub(crate) const WITHOUT_NUL: &str = r"^[^\x00]*$";
/// The name of a variable.
pub(crate) const VARIABLE_NAME: &str = r"^[^=\x00]+$";
/// RFC 4648 section 4, padded, with nothing in the bits that are left over.
pub(crate) const BASE64: &str = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";
/// BLAKE3 in hex.
pub(crate) const HASH: &str = "^[0-9A-Fa-f]{64}$";

/// Reads a map of words, of which none may come twice: which of them counts would be anybody's guess.
pub(crate) fn without_doubles<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    struct Words;

    impl<'de> Visitor<'de> for Words {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut words = BTreeMap::new();
            while let Some((name, value)) = entries.next_entry::<String, String>()? {
                if words.contains_key(&name) {
                    return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
                }
                words.insert(name, value);
            }
            Ok(words)
        }
    }

    deserializer.deserialize_map(Words)
}
