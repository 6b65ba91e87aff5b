//! The host's CA bundle as a volume that containers mount read-only; see [`seeded`](super::seeded).

use bollard::models::Mount;
use bytes::Bytes;

use super::{
    connection::Connection,
    seeded::{self, Content, Kind, Seeded, Source},
};
use crate::{
    error::{Error, ErrorKind, Result},
    runtime::CaBundle,
};

const KIND: Kind = Kind { what: "the CA bundle", role: "ca-bundle", seed_role: "ca-seed", seed_folder: "/corehold-ca" };

/// A bundle's place among the engine's volumes, and inside a container.
struct Plan<'a> {
    seeded: Seeded<Bundle>,
    folder: &'a str,
}

struct Bundle {
    files: Vec<(String, Bytes)>,
}

impl Source for Bundle {
    async fn content(&self, _: &Connection, _: &str) -> Result<Content> {
        Ok(Content { files: self.files.clone(), mode: 0o644, folders: &[] })
    }
}

impl<'a> Plan<'a> {
    fn of(bundle: &'a CaBundle) -> Result<Self> {
        let invalid = || {
            Error::new(
                ErrorKind::Invalid,
                format!(
                    "the CA bundle's path {:?} must be absolute and in a folder of its own, which the bundle's volume covers",
                    bundle.path
                ),
            )
        };
        let (folder, file) = bundle.path.rsplit_once('/').ok_or_else(invalid)?;
        let plain = folder.starts_with('/') && folder.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
        if !plain || matches!(file, "" | "." | "..") {
            return Err(invalid());
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(file.as_bytes()).update(b"\0").update(&bundle.pem);
        let mut files = vec![(file.to_owned(), bundle.pem.clone())];
        if let Some(java) = &bundle.java {
            // Made of the PEM, so that it need not be hashed too.
            hasher.update(b"\0java");
            files.push((format!("{file}.jks"), java.clone()));
        }
        let volume = format!("corehold-ca-{}", &hasher.finalize().to_hex()[..12]);
        Ok(Self { seeded: Seeded { kind: KIND, volume, source: Bundle { files } }, folder })
    }
}

/// The mount by which a container gets the bundle; its volume is seeded if need be.
///
/// # Errors
/// `Invalid` for a path that isn't absolute or not in a folder, `NotFound` when the image isn't there.
pub(super) async fn mount(connection: &Connection, image: &str, bundle: &CaBundle) -> Result<Mount> {
    let plan = Plan::of(bundle)?;
    plan.seeded.ensure(connection, image, plan.folder).await
}

/// Makes sure that a container that was just created with [`mount`] has the bundle.
pub(super) async fn verify(connection: &Connection, image: &str, bundle: &CaBundle) -> Result<()> {
    Plan::of(bundle)?.seeded.verify(connection, image).await
}

/// Removes the bundles that no container has, and says which.
pub(super) async fn remove_unused(connection: &Connection) -> Result<Vec<String>> {
    seeded::remove_unused(connection, KIND).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(pem: &'static str, path: &str) -> CaBundle {
        CaBundle { pem: Bytes::from_static(pem.as_bytes()), path: path.to_owned(), java: None }
    }

    #[test]
    fn a_volume_is_named_by_what_it_holds() {
        let name = |pem, path: &str| Plan::of(&bundle(pem, path)).unwrap().seeded.volume;
        assert_eq!(name("a", "/tools/ca/bundle.pem"), name("a", "/etc/other/bundle.pem"));
        assert_ne!(name("a", "/tools/ca/bundle.pem"), name("b", "/tools/ca/bundle.pem"));
        assert_ne!(name("a", "/tools/ca/bundle.pem"), name("a", "/tools/ca/other.pem"));
        let java = CaBundle { java: Some(Bytes::from_static(b"j")), ..bundle("a", "/tools/ca/bundle.pem") };
        assert_ne!(Plan::of(&java).unwrap().seeded.volume, name("a", "/tools/ca/bundle.pem"), "older ones lack it");
        assert_eq!(name("a", "/x/y").len(), "corehold-ca-".len() + 12);
    }

    #[test]
    fn a_bundle_must_lie_in_a_folder_that_can_be_covered() {
        for path in ["", "bundle.pem", "/bundle.pem", "ca/bundle.pem", "/ca/", "/ca/..", "/../ca/x", "/a//b", "/a/./b"]
        {
            assert_eq!(Plan::of(&bundle("a", path)).err().unwrap().kind(), ErrorKind::Invalid, "{path}");
        }
    }
}
