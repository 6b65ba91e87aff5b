//! The images of a host's engine: listed, pulled, removed.

use std::sync::Arc;

use crate::{
    error::{Error, ErrorKind, Result},
    host::{Host, HostInner},
    runtime::{ImageSummary, PullProgress},
};

/// Images whose names begin so are made by Corehold's own recipes. No registry is asked for them: whoever had the name there would
/// give every host that lacks the image one of theirs.
const OWN_PREFIX: &str = "workspace-";

/// The images that the engine has, from [`Host::images`].
#[derive(Clone)]
pub struct Images {
    host: Arc<HostInner>,
}

impl Host {
    /// The images that the engine has, whoever brought them.
    #[must_use]
    pub fn images(&self) -> Images {
        Images { host: self.inner.clone() }
    }
}

impl Images {
    /// All of them, the newest first. Cancel-safe.
    ///
    /// # Errors
    /// `Unsupported` where the runtime has no images, and those of the engine.
    pub async fn list(&self) -> Result<Vec<ImageSummary>> {
        self.host.runtime.images().await
    }

    /// Gets an image from its registry, as new as that has it; `progress` hears how far it has come. A creation does so by itself for an
    /// image that is missing. Dropping the future ends the pull; what the engine has of it by then it may keep.
    ///
    /// # Errors
    /// `Forbidden` where the host's policy doesn't allow the image, `NotFound` when the registry hasn't got it, `Unsupported` when it has none
    /// for this machine, `Engine` when no registry answers the engine, `Invalid` for a name that is never in one.
    pub async fn pull(&self, reference: &str, progress: impl Fn(PullProgress) + Send + Sync) -> Result<()> {
        self.host.policy.check_image(reference)?;
        if !is_pulled(reference) {
            return Err(Error::new(ErrorKind::Invalid, format!("{reference} is made here, and in no registry"))
                .hint("`corehold image build` makes it"));
        }
        self.host.runtime.pull_image(reference, &progress).await
    }

    /// Takes a name away from an image, and removes the image with its last one.
    /// Dropping the future abandons the wait, not the work.
    ///
    /// # Errors
    /// `NotFound` when there is no such image, `Conflict` while a workspace or another container is made of it.
    pub async fn remove(&self, reference: &str) -> Result<()> {
        self.host.runtime.image_id(reference).await?;
        self.host.runtime.remove_image(reference).await.map_err(|error| match error.kind() {
            ErrorKind::Conflict => error.hint("remove the workspaces that are made of it first: `corehold ls`"),
            _ => error,
        })
    }
}

/// Whether an image that is missing is pulled for a workspace or a pool: never the host's own, which is made here.
pub(crate) fn may_be_pulled(host: &HostInner, reference: &str) -> bool {
    host.pull_missing && *reference != *host.image && is_pulled(reference)
}

/// Whether a name may be asked of a registry.
fn is_pulled(reference: &str) -> bool {
    reference.contains('/') || !reference.starts_with(OWN_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_names_are_asked_of_no_registry() {
        for own in ["workspace-core:latest", "workspace-core", "workspace-python:1", "workspace-x@sha256:00"] {
            assert!(!is_pulled(own), "{own}");
        }
        for other in ["node:24", "registry.example/workspace-core:1", "acme/workspace-core", "localhost:5000/x"] {
            assert!(is_pulled(other), "{other}");
        }
    }
}
