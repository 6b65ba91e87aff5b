//! The host's Ed25519 key: made once per home folder, and the only thing that can mint tokens for its agents.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use corehold_types::{Claims, Scopes, TOKEN_HEADER, Timestamp};
use ed25519_dalek::{Signer as _, SigningKey};

use crate::error::{Error, ErrorKind, Result};

const FILE: &str = "host-key.pem";

/// What stands before the 32 secret bytes in PKCS#8 (RFC 8410, section 7): the file is one that OpenSSL reads.
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// The private key by which agents know their host.
pub(crate) struct HostKey(SigningKey);

impl HostKey {
    /// Reads the key of a home folder, or makes it. Processes that race end with the same key.
    pub(crate) fn load_or_create(home: &Path) -> Result<Self> {
        let path = home.join(FILE);
        if let Some(key) = Self::load(&path)? {
            return Ok(key);
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)
            .map_err(|error| Error::new(ErrorKind::Io, format!("the system gave no random bytes: {error}")))?;
        let fail = |error: io::Error| {
            Error::new(ErrorKind::Io, format!("can't write the host key {}: {error}", path.display())).caused_by(error)
        };
        // NamedTempFile makes its file with mode 0600, so that the secret is never readable by others, not even briefly.
        let mut file = tempfile::NamedTempFile::new_in(home).map_err(fail)?;
        file.write_all(encode(&secret).as_bytes()).map_err(fail)?;
        file.as_file().sync_all().map_err(fail)?;
        match file.persist_noclobber(&path) {
            Ok(_) => Ok(Self(SigningKey::from_bytes(&secret))),
            // Somebody else was faster: theirs is the key.
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Self::load(&path)?
                .ok_or_else(|| Error::new(ErrorKind::Io, format!("the host key {} vanished", path.display()))),
            Err(error) => Err(fail(error.error)),
        }
    }

    fn load(path: &Path) -> Result<Option<Self>> {
        let shown = path.display();
        let fail = |error: io::Error| {
            Error::new(ErrorKind::Io, format!("can't read the host key {shown}: {error}")).caused_by(error)
        };
        let file = match fs::OpenOptions::new().read(true).custom_flags(nonblocking()).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
        };
        let metadata = file.metadata().map_err(fail)?;
        let mode = metadata.permissions().mode() & 0o777;
        if metadata.is_file() && mode & 0o077 != 0 {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the host key {shown} can be read by others (mode {mode:04o}), so it is not used"),
            )
            .hint(format!(
                "chmod 600 {shown}, if nobody else had access; else remove it and create your workspaces anew"
            )));
        }
        let mut text = String::new();
        let readable =
            metadata.is_file() && io::Read::read_to_string(&mut io::Read::take(file, 4096), &mut text).is_ok();
        match readable.then(|| decode(&text)).flatten() {
            Some(secret) => Ok(Some(Self(SigningKey::from_bytes(&secret)))),
            None => Err(Error::new(ErrorKind::Invalid, format!("the host key {shown} is damaged")).hint(format!(
                "restore {shown} from a backup, or remove it: a new key is made then, and workspaces made under the old one can only be removed"
            ))),
        }
    }

    /// The public half, as agents are given it: 32 bytes in standard base64.
    pub(crate) fn public_base64(&self) -> String {
        STANDARD.encode(self.0.verifying_key().as_bytes())
    }

    /// Names the key in labels: 16 hex digits.
    pub(crate) fn fingerprint(&self) -> String {
        blake3::hash(self.0.verifying_key().as_bytes()).to_hex()[..16].to_owned()
    }

    /// A secret for another purpose, from which this key can't be found.
    pub(crate) fn derive(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, self.0.as_bytes())
    }

    /// Signs a token (JWT, EdDSA) that begins now.
    pub(crate) fn mint(&self, grant: &Grant<'_>, lifetime: Duration) -> String {
        let now = Timestamp::now().as_unix_seconds();
        let claims = Claims {
            aud: grant.instance.to_owned(),
            workspace: grant.workspace.to_owned(),
            sub: grant.subject.to_owned(),
            scope: grant.scopes.clone(),
            iat: now,
            exp: now.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX)),
        };
        let payload = serde_json::to_vec(&claims).expect("claims are strings and integers");
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(TOKEN_HEADER), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.0.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
    }
}

/// Never the secret.
impl fmt::Debug for HostKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("HostKey").field(&self.fingerprint()).finish()
    }
}

/// What a token says, its times apart.
pub(crate) struct Grant<'a> {
    pub(crate) instance: &'a str,
    pub(crate) workspace: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) scopes: &'a Scopes,
}

/// A pipe under the key's name must not hang whoever opens it.
fn nonblocking() -> i32 {
    i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0)
}

fn encode(secret: &[u8; 32]) -> String {
    let der = [&PKCS8_PREFIX[..], secret].concat();
    format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", STANDARD.encode(der))
}

fn decode(text: &str) -> Option<[u8; 32]> {
    let body = text.trim().strip_prefix(PEM_BEGIN)?.strip_suffix(PEM_END)?;
    let der = STANDARD.decode(body.split_whitespace().collect::<String>()).ok()?;
    der.strip_prefix(&PKCS8_PREFIX)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signature, VerifyingKey};

    use super::*;

    #[test]
    fn a_key_is_made_once_private_and_found_again() {
        let home = tempfile::tempdir().unwrap();
        let first = HostKey::load_or_create(home.path()).unwrap();
        let mode = fs::metadata(home.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(HostKey::load_or_create(home.path()).unwrap().public_base64(), first.public_base64());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn processes_that_race_end_with_one_key() {
        let home = tempfile::tempdir().unwrap();
        let keys: Vec<String> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..16)
                .map(|_| scope.spawn(|| HostKey::load_or_create(home.path()).unwrap().public_base64()))
                .collect();
            makers.into_iter().map(|maker| maker.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    }

    #[test]
    fn an_open_or_damaged_key_is_refused_with_what_to_do() {
        let home = tempfile::tempdir().unwrap();
        HostKey::load_or_create(home.path()).unwrap();
        let path = home.path().join(FILE);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = HostKey::load_or_create(home.path()).unwrap_err();
        assert!(error.to_string().contains("mode 0644"), "{error}");
        assert!(error.hint_text().unwrap().starts_with("chmod 600"));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for damage in [&b""[..], b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", &[0xff; 64]] {
            fs::write(&path, damage).unwrap();
            let error = HostKey::load_or_create(home.path()).unwrap_err();
            assert!(error.to_string().contains("damaged"), "{error}");
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert_eq!(fs::read(&path).unwrap(), damage, "a damaged key is never overwritten");
        }
    }

    #[test]
    fn a_token_is_a_jwt_that_the_public_key_verifies() {
        let home = tempfile::tempdir().unwrap();
        let key = HostKey::load_or_create(home.path()).unwrap();
        let grant = Grant { instance: "i", workspace: "w", subject: "s", scopes: &Scopes::all() };
        let token = key.mint(&grant, Duration::from_secs(300));

        let [header, payload, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(header).unwrap(), TOKEN_HEADER.as_bytes());
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        assert_eq!((claims.exp - claims.iat, claims.aud.as_str(), claims.sub.as_str()), (300, "i", "s"));

        let public: [u8; 32] = STANDARD.decode(key.public_base64()).unwrap().try_into().unwrap();
        let signature = Signature::from_slice(&URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
        let signed = format!("{header}.{payload}");
        VerifyingKey::from_bytes(&public).unwrap().verify_strict(signed.as_bytes(), &signature).unwrap();
    }
}
