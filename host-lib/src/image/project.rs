//! Images for types of projects: a core image and Debian's packages, where no registry has one.

use std::{collections::BTreeMap, time::Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::{
    KEY_LABEL,
    base::{BaseInfo, BaseOrigin},
    build::{ImageInfo, Progress, find},
    event::{Events, ImageStep, Running},
};
use crate::{
    config::proxies,
    error::{Error, ErrorKind, Result},
    runtime::docker::{BuildRequest, Docker, EngineImage},
    template::ProjectType,
};

const DOCKERFILE: &str = include_str!("../../../image/project/Dockerfile");

/// Debian's packages for what the core image lacks; `None`: nothing.
const fn packages(project: ProjectType) -> Option<&'static str> {
    match project {
        ProjectType::Node | ProjectType::Static => None,
        ProjectType::Python => Some("python3 python3-pip python3-venv"),
        ProjectType::Java => Some("default-jdk-headless gradle maven"),
        ProjectType::Go => Some("golang-go"),
        ProjectType::Rust => Some("cargo-web gcc libc6-dev rustc-web"),
        ProjectType::Ruby => Some("build-essential bundler ruby ruby-dev"),
        ProjectType::Php => Some("composer php-cli php-curl php-mbstring php-xml php-zip"),
    }
}

/// Builds the image of a type of project from a core image and Debian's packages, unless the engine has one of the same.
/// Dropping the future ends the build; what steps left by then the engine may keep.
///
/// # Errors
/// `Invalid` for a type that needs no image of its own, `NotFound` when the core image isn't there, `CommandFailed` when the packages can't be
/// installed, with the tail of the output.
pub async fn build_project(docker: &Docker, project: ProjectType, core: &str, events: Events<'_>) -> Result<ImageInfo> {
    let began = Instant::now();
    let (Some(packages), Some(reference)) = (packages(project), project.default_image()) else {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("{project} needs no image of its own: the core image has all of it"),
        ));
    };
    let core_image = docker.image(core).await?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("the core image {core} is not there"))
            .hint("`corehold image build` makes it")
    })?;
    let running = Running::start(ImageStep::Build { reference: reference.to_owned() }, events);
    let key = key(&core_image.id, packages);
    let (image, cached) = match find(docker, &key).await? {
        Some(image) => (image, true),
        None => (run(docker, reference, core, packages, &key, events).await?, false),
    };
    let (repository, tag) = reference.rsplit_once(':').unwrap_or((reference, "latest"));
    docker.tag_image(&image.id, repository, tag).await?;
    running.finish(cached);
    let layers = core_image.layers.len();
    Ok(ImageInfo {
        reference: reference.to_owned(),
        id: image.id,
        key,
        cached,
        base: BaseInfo { reference: core.to_owned(), id: core_image.id, origin: BaseOrigin::Present, layers },
        size_bytes: image.size_bytes,
        duration: began.elapsed(),
    })
}

/// Hash of all that an image is made from.
fn key(core: &str, packages: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [DOCKERFILE, core, packages] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

async fn run(
    docker: &Docker,
    reference: &str,
    core: &str,
    packages: &str,
    key: &str,
    events: Events<'_>,
) -> Result<EngineImage> {
    let mut arguments =
        BTreeMap::from([("CORE".to_owned(), core.to_owned()), ("PACKAGES".to_owned(), packages.to_owned())]);
    arguments.extend(proxies());
    let labels = BTreeMap::from([(KEY_LABEL.to_owned(), key.to_owned())]);
    let mut header = tar::Header::new_gnu();
    header.set_size(DOCKERFILE.len() as u64);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, "Dockerfile", DOCKERFILE.as_bytes())?;
    let context = stream::iter([Ok(Bytes::from(archive.into_inner()?))]).boxed();
    let mut progress = Progress::new(events);
    match docker.build_image(BuildRequest { arguments, labels }, context, |line| progress.line(line)).await {
        Ok(id) => {
            progress.end();
            docker.image(&id).await?.ok_or_else(|| {
                Error::new(ErrorKind::Engine, format!("{reference} was removed in the moment it was built"))
            })
        }
        Err(error) => Err(progress.explain(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_an_image_has_packages_for_it() {
        for project in ProjectType::ALL {
            assert_eq!(packages(project).is_some(), project.default_image().is_some(), "{project}");
        }
    }

    #[test]
    fn another_core_image_or_other_packages_are_another_image() {
        assert_eq!(key("core", "a b"), key("core", "a b"));
        assert_ne!(key("core", "a b"), key("core", "a"));
        assert_ne!(key("core", "a b"), key("core2", "a b"));
    }
}
