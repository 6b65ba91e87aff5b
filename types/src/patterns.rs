//! Regular expressions that schemas give for text in requests, in what ECMA-262, Python and Rust have in common. The agent
//! checks by its own code; its test `bounds` holds that against the schemas.

/// What a program can be given: no NUL.
pub(crate) const WITHOUT_NUL: &str = r"^[^\x00]*$";
/// The name of a variable.
pub(crate) const VARIABLE_NAME: &str = r"^[^=\x00]+$";
/// RFC 4648 section 4, padded, with nothing in the bits that are left over.
pub(crate) const BASE64: &str = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";
/// BLAKE3 in hex.
pub(crate) const HASH: &str = "^[0-9A-Fa-f]{64}$";
