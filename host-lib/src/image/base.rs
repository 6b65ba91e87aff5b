//! What the core image stands on: a Debian with Node, pulled from a registry or made on this machine.

use serde::Serialize;

use super::{
    event::{Events, ImageEventKind, ImageStep, Running},
    make,
};
use crate::{
    error::{Error, ErrorKind, Result},
    runtime::docker::{Docker, EngineImage},
};

/// The base that is pulled unless another is named.
pub const PULLED_BASE: &str = "node:24-bookworm-slim";

/// Which base to build on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Base {
    /// One that the engine has; else [`PULLED_BASE`] when a registry answers; else one that is made on this machine.
    #[default]
    Auto,
    /// This reference, asked of its registry each time.
    Pull(String),
    /// Made on this machine with debootstrap and npm, without any image registry; kept until `make-base.sh` changes.
    Make,
    /// An image that the engine has.
    Image(String),
}

/// The base that was built on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct BaseInfo {
    /// Its reference.
    pub reference: String,
    /// Its id.
    pub id: String,
    /// Where it came from.
    pub origin: BaseOrigin,
    #[serde(skip)]
    pub(super) layers: usize,
}

/// Where a base came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum BaseOrigin {
    /// The engine had it.
    Present,
    /// It was pulled now.
    Pulled,
    /// It was made now.
    Made,
}

/// Finds or gets the base.
pub(super) async fn resolve(docker: &Docker, base: &Base, events: Events<'_>) -> Result<BaseInfo> {
    match base {
        Base::Image(reference) => present(docker, reference).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("the engine has no image {reference:?} to build on"))
                .hint("pull or load it first, or let the base be chosen (`auto`)")
        }),
        Base::Pull(reference) => pull(docker, reference, events).await,
        Base::Make => made_or_make(docker, events).await,
        Base::Auto => {
            if let Some(pulled) = present(docker, PULLED_BASE).await? {
                return Ok(pulled);
            }
            if let Some(made) = present(docker, &make::reference()).await? {
                return Ok(made);
            }
            let not_pulled = match pull(docker, PULLED_BASE, events).await {
                // An engine that went away pulls nothing and imports nothing.
                Err(error) if error.kind() != ErrorKind::EngineUnavailable => error,
                result => return result,
            };
            made_or_make(docker, events).await.map_err(|not_made| neither(&not_pulled, not_made))
        }
    }
}

async fn present(docker: &Docker, reference: &str) -> Result<Option<BaseInfo>> {
    Ok(docker.image(reference).await?.map(|image| info(reference, &image, BaseOrigin::Present)))
}

async fn pull(docker: &Docker, reference: &str, events: Events<'_>) -> Result<BaseInfo> {
    let running = Running::start(ImageStep::Pull { reference: reference.to_owned() }, events);
    let progress = |progress: crate::runtime::PullProgress| {
        running.tell(ImageEventKind::Received {
            received_bytes: progress.received_bytes,
            total_bytes: progress.total_bytes,
        });
    };
    match docker.pull_image(reference, progress).await {
        Ok(image) => {
            running.finish(false);
            Ok(info(reference, &image, BaseOrigin::Pulled))
        }
        Err(error) => {
            running.tell(ImageEventKind::Failed { reason: error.to_string() });
            Err(error)
        }
    }
}

async fn made_or_make(docker: &Docker, events: Events<'_>) -> Result<BaseInfo> {
    let reference = make::reference();
    if let Some(made) = present(docker, &reference).await? {
        return Ok(made);
    }
    let running = Running::start(ImageStep::MakeBase { reference: reference.clone() }, events);
    match make::make(docker, &running).await {
        Ok(image) => {
            running.finish(false);
            Ok(info(&reference, &image, BaseOrigin::Made))
        }
        Err(error) => {
            running.tell(ImageEventKind::Failed { reason: error.to_string() });
            Err(error)
        }
    }
}

fn info(reference: &str, image: &EngineImage, origin: BaseOrigin) -> BaseInfo {
    BaseInfo { reference: reference.to_owned(), id: image.id.clone(), origin, layers: image.layers.len() }
}

/// Both ways to a base failed; each reason is needed to choose which to mend.
fn neither(not_pulled: &Error, not_made: Error) -> Error {
    let message = format!(
        "there is no base for the core image:\n  it can't be pulled: {not_pulled}\n  it can't be made: {not_made}"
    );
    let hint = match not_made.hint_text() {
        Some(hint) => format!("{hint}; or give the engine a way to a registry, or load {PULLED_BASE} into it"),
        None => format!("give the engine a way to a registry, or load {PULLED_BASE} into it (`docker load`)"),
    };
    let error = Error::new(not_made.kind(), message).hint(hint);
    match not_made.output() {
        Some(output) => {
            let output = output.to_owned();
            error.with_output(output)
        }
        None => error,
    }
    .caused_by(not_made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_both_ways_fail_both_are_named() {
        let not_pulled = Error::new(ErrorKind::Engine, "pulling node: no such host");
        let not_made = Error::new(ErrorKind::Unsupported, "making a base needs: root").hint("run it as root");
        let error = neither(&not_pulled, not_made.with_output("tail"));
        let text = error.to_string();
        assert!(
            text.contains("pulled: pulling node: no such host") && text.contains("made: making a base needs: root")
        );
        assert!(error.hint_text().unwrap().starts_with("run it as root; or give the engine"));
        assert_eq!((error.kind(), error.output()), (ErrorKind::Unsupported, Some("tail")));
    }
}
