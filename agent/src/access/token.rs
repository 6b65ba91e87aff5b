//! Signed tokens: whether a token is one that the host signed. What it says is checked by the module above.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::URL_SAFE_NO_PAD},
};
use corehold_types::{Claims, TOKEN_HEADER};
use ed25519_dalek::{Signature, VerifyingKey};

/// Base64url as RFC 7515 has it: no padding, and no bits left over, so that each token has one spelling.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(false),
);

/// Why a token is not one of the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    #[error("the token is not of the form header.payload.signature")]
    Form,
    #[error("the token's header is not {TOKEN_HEADER}, the only one that is accepted")]
    Header,
    #[error("the token's signature is not the host's")]
    Signature,
    #[error("the token's claims can't be read")]
    Claims,
}

/// Holds the host's public key.
#[derive(Debug)]
pub(super) struct Verifier {
    key: VerifyingKey,
    header: String,
}

impl Verifier {
    pub(super) fn new(key: VerifyingKey) -> Self {
        Self { key, header: URL_SAFE_NO_PAD.encode(TOKEN_HEADER) }
    }

    /// What a genuine token says. Nothing of the payload is looked at before the signature holds.
    pub(super) fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Form)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Form)?;
        if payload.contains('.') {
            return Err(TokenError::Form);
        }
        if header != self.header {
            return Err(TokenError::Header);
        }
        let signature = BASE64URL.decode(signature).map_err(|_| TokenError::Signature)?;
        let signature = Signature::from_slice(&signature).map_err(|_| TokenError::Signature)?;
        self.key.verify_strict(signed.as_bytes(), &signature).map_err(|_| TokenError::Signature)?;
        let payload = BASE64URL.decode(payload).map_err(|_| TokenError::Claims)?;
        serde_json::from_slice(&payload).map_err(|_| TokenError::Claims)
    }
}
