//! An engine's images: found, pulled, built, made from a root file system, and read back. What an image should be is said
//! in [`crate::image`].

use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
};

use bollard::{
    models::ImageInspect,
    query_parameters::{BuildImageOptions, CreateImageOptions, ListImagesOptions, RemoveImageOptions, TagImageOptions},
};
use bytes::Bytes;
use corehold_types::Timestamp;
use futures_util::{StreamExt as _, stream};

use super::{
    Docker, connection::watch, engine::Engine, errors::translate, inject::has_agent, specification::checked_reference,
};
use crate::{
    error::{Error, ErrorKind, Result},
    image::Lines,
    runtime::{BoxStream, ImageSummary, PullProgress},
};

/// An image that the engine has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineImage {
    /// Its id.
    pub id: String,
    /// Its names.
    pub tags: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Size of its layers on the engine's disk, in bytes, uncompressed (with the containerd image store, the engine
    /// counts the compressed ones too).
    pub size_bytes: u64,
    /// Digests of its uncompressed layers, the lowest first.
    pub layers: Vec<String>,
    /// The system that it is for: `linux`.
    pub os: String,
    /// The processors that it is for, as Go names them: `amd64`.
    pub architecture: String,
    /// Whether it holds the agent. Into others that is put when a workspace is made of them.
    pub has_agent: bool,
    /// Its user; empty: root.
    pub(super) user: String,
    /// Its variables, as `NAME=value`.
    pub(super) env: Vec<String>,
}

/// What the engine's builder is to do.
#[derive(Debug, Clone, Default)]
pub struct BuildRequest {
    /// Values for the Dockerfile's `ARG`s.
    pub arguments: BTreeMap<String, String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
}

impl Docker {
    /// The image with this reference or id; `None` when the engine hasn't got it. Cancel-safe.
    ///
    /// # Errors
    /// `Invalid` for what can't be a reference.
    pub async fn image(&self, reference: &str) -> Result<Option<EngineImage>> {
        let call = self.connection.client.inspect_image(checked_reference(reference)?);
        match self.connection.call(&format!("looking for the image {reference:?}"), call).await {
            Ok(image) => Ok(Some(engine_image(image))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The image with this reference or id.
    ///
    /// # Errors
    /// `NotFound` when the engine hasn't got it.
    pub(super) async fn existing_image(&self, reference: &str) -> Result<EngineImage> {
        let missing = || Error::new(ErrorKind::NotFound, format!("the image {reference} is not there"));
        self.image(reference).await?.ok_or_else(missing)
    }

    /// All images but those in between, of which others are made; the newest first. Cancel-safe.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn images(&self) -> Result<Vec<ImageSummary>> {
        let call = self.connection.client.list_images(None::<ListImagesOptions>);
        let mut images = self.connection.call("listing images", call).await?;
        images.sort_by_key(|image| std::cmp::Reverse(image.created));
        Ok(images.into_iter().map(summary).collect())
    }

    /// Ids of the images that carry a label, the newest first. Cancel-safe.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn images_labelled(&self, name: &str, value: &str) -> Result<Vec<String>> {
        let filters = HashMap::from([("label".to_owned(), vec![format!("{name}={value}")])]);
        let options = ListImagesOptions { filters: Some(filters), ..ListImagesOptions::default() };
        let call = self.connection.client.list_images(Some(options));
        let mut images = self.connection.call("listing images", call).await?;
        images.sort_by_key(|image| std::cmp::Reverse(image.created));
        Ok(images.into_iter().map(|image| image.id).collect())
    }

    /// Gives an image one more name, taking it away from whichever image has it.
    /// Dropping the future abandons the wait, not the work.
    ///
    /// # Errors
    /// `NotFound` when there is no such image.
    pub async fn tag_image(&self, image: &str, repository: &str, tag: &str) -> Result<()> {
        checked_reference(repository)?;
        let options = TagImageOptions { repo: Some(repository.to_owned()), tag: Some(tag.to_owned()) };
        let call = self.connection.client.tag_image(checked_reference(image)?, Some(options));
        self.connection.call(&format!("naming the image {repository}:{tag}"), call).await
    }

    /// Takes a name away from an image, and removes the image with its last one. One that isn't there is no error.
    /// Dropping the future abandons the wait, not the work.
    ///
    /// # Errors
    /// `Conflict` while a container uses it.
    pub async fn remove_image(&self, reference: &str) -> Result<()> {
        let call = self.connection.client.remove_image(checked_reference(reference)?, None::<RemoveImageOptions>, None);
        match self.connection.call(&format!("removing the image {reference:?}"), call).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result.map(drop),
        }
    }

    /// Pulls an image from its registry, saying how far it has come.
    /// Dropping the future ends the pull; what the engine has of it by then it may keep.
    ///
    /// # Errors
    /// `NotFound` when the registry hasn't got it, `Unsupported` when it has none for this machine, `Engine` when no registry answers the
    /// engine.
    pub async fn pull_image(
        &self,
        reference: &str,
        mut progress: impl FnMut(PullProgress) + Send,
    ) -> Result<EngineImage> {
        let what = format!("pulling {reference}");
        let (name, tag) = split_reference(checked_reference(reference)?);
        let options = CreateImageOptions { from_image: Some(name), tag: Some(tag), ..CreateImageOptions::default() };
        let mut stream = self.connection.client.create_image(Some(options), None, None);
        let mut layers: HashMap<String, (u64, u64)> = HashMap::new();
        while let Some(status) = self.connection.next(&what, &mut stream).await.map_err(not_pulled)? {
            let (Some(layer), Some("Downloading")) = (status.id, status.status.as_deref()) else { continue };
            let Some(detail) = status.progress_detail else { continue };
            let bytes = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
            layers.insert(layer, (bytes(detail.current), bytes(detail.total)));
            progress(PullProgress {
                received_bytes: layers.values().map(|(current, _)| current).sum(),
                total_bytes: layers.values().map(|(_, total)| total).sum(),
            });
        }
        self.image(reference).await?.ok_or_else(|| {
            Error::new(ErrorKind::Engine, format!("{what}: the engine said it was done, but hasn't got the image"))
        })
    }

    /// Builds an image from a context (a tar with a `Dockerfile` on top) with the engine's classic builder, which every
    /// engine has. Each line that the builder writes goes to `line`. The image has no name yet; returns its id.
    /// Dropping the future ends the build; what steps left by then the engine may keep.
    ///
    /// # Errors
    /// `CommandFailed` when a step of the Dockerfile fails.
    pub async fn build_image(
        &self,
        request: BuildRequest,
        context: BoxStream<Bytes>,
        line: impl FnMut(&str) + Send,
    ) -> Result<String> {
        self.build(request, true, context, line).await
    }

    async fn build(
        &self,
        request: BuildRequest,
        cached: bool,
        context: BoxStream<Bytes>,
        mut line: impl FnMut(&str) + Send,
    ) -> Result<String> {
        let what = "building the image";
        let options = BuildImageOptions {
            dockerfile: "Dockerfile".to_owned(),
            buildargs: Some(request.arguments.into_iter().collect()),
            labels: Some(request.labels.into_iter().collect()),
            nocache: !cached,
            rm: true,
            // Its containers go also when a step fails or this process is killed.
            forcerm: true,
            ..BuildImageOptions::default()
        };
        let (body, pulse) = watch(context);
        let client = self.connection.client.clone();
        let mut stream = pin!(client.build_image(options, None, Some(bollard::body_try_stream(body))));
        let mut lines = Lines::default();
        let mut id = None;
        loop {
            let info = match tokio::time::timeout(self.connection.options.quiet_timeout, stream.next()).await {
                Ok(info) => info,
                Err(_) => return Err(super::errors::timed_out().context(what)),
            };
            match info {
                Some(Ok(info)) => {
                    if let Some(text) = info.stream {
                        lines.feed(text.as_bytes(), &mut line);
                    }
                    id = info.aux.and_then(|aux| aux.id).or(id);
                }
                Some(Err(error)) => {
                    lines.end(&mut line);
                    return Err(match (pulse.source_error(), error) {
                        (Some(source), _) => source,
                        (None, bollard::errors::Error::DockerStreamError { error }) => {
                            Error::new(ErrorKind::CommandFailed, format!("{what}: {}", error.trim()))
                        }
                        (None, error) => translate(what, error),
                    });
                }
                None => break,
            }
        }
        lines.end(&mut line);
        id.ok_or_else(|| Error::new(ErrorKind::Engine, format!("{what}: the engine ended without naming the image")))
    }

    /// Makes an image of one layer from the tar of a root file system.
    /// Dropping the future breaks the import off, and no image is made.
    ///
    /// # Errors
    /// The body's own, or the engine's: a full disk, a damaged tar.
    pub async fn import_image(
        &self,
        repository: &str,
        tag: &str,
        changes: Vec<String>,
        root: BoxStream<Bytes>,
    ) -> Result<EngineImage> {
        let reference = format!("{repository}:{tag}");
        let what = format!("importing {reference}");
        checked_reference(&reference)?;
        let builds = self.connection.engine == Engine::Podman && !changes.is_empty();
        let options = CreateImageOptions {
            from_src: Some("-".to_owned()),
            // Podman 4.3 reads no tag beside the repository, and Docker takes one there too.
            repo: Some(reference.clone()),
            tag: Some(tag.to_owned()),
            // All in one parameter, of which Podman would read the first alone, with the others in its value.
            changes: if builds { Vec::new() } else { changes.clone() },
            ..CreateImageOptions::default()
        };
        let client = self.connection.client.clone();
        self.connection
            .upload(&what, root, |body| async move {
                let mut stream = client.create_image(Some(options), Some(body), None);
                while let Some(status) = stream.next().await {
                    status?;
                }
                Ok(())
            })
            .await?;
        let missing =
            || Error::new(ErrorKind::Engine, format!("{what}: the engine said it was done, but hasn't got the image"));
        let imported = self.image(&reference).await?.ok_or_else(missing)?;
        if !builds {
            return Ok(imported);
        }
        let context = one_file("Dockerfile", &format!("FROM {}\n{}\n", imported.id, changes.join("\n")))?;
        // Looking into its cache fails where another image is removed meanwhile: "layer not known".
        let built = self.build(BuildRequest::default(), false, stream::iter([Ok(context)]).boxed(), |_| {}).await;
        let built = built.map_err(|error| error.context(&what))?;
        self.tag_image(&built, repository, tag).await?;
        self.image(&reference).await?.ok_or_else(missing)
    }

    /// The image as the engine writes it to be carried elsewhere: a tar of its layers' tars and its description.
    ///
    /// # Errors
    /// `Invalid` for what can't be a reference; the stream has the engine's.
    pub fn save_image(&self, reference: &str) -> Result<BoxStream<Bytes>> {
        let what = format!("reading the image {reference:?}");
        let stream = self.connection.client.export_image(checked_reference(reference)?);
        Ok(stream.map(move |chunk| chunk.map_err(|error| translate(&what, error))).boxed())
    }
}

/// A tar with one file.
fn one_file(name: &str, content: &str) -> Result<Bytes> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, name, content.as_bytes())?;
    Ok(archive.into_inner()?.into())
}

/// What hinders a pull is seldom what the engine's errors are about otherwise.
fn not_pulled(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => {
            error.hint("look for a mistake in its name; of one that needs a login the registry says the same: get that by `docker pull`")
        }
        ErrorKind::Engine => error.hint(
            "the engine needs a way to the registry (`docker info` shows its proxies); without one, an image comes in by `docker load`",
        ),
        _ => error,
    }
}

fn summary(image: bollard::models::ImageSummary) -> ImageSummary {
    ImageSummary {
        // Of an image without a name the engine says `<none>:<none>`.
        references: image.repo_tags.into_iter().filter(|name| !name.starts_with('<')).collect(),
        created: Timestamp::from_unix(image.created, 0),
        size_bytes: u64::try_from(image.size).unwrap_or(0),
        core: has_agent(&image.labels, &[]),
        id: image.id,
    }
}

fn engine_image(image: ImageInspect) -> EngineImage {
    let config = image.config.unwrap_or_default();
    let labels = config.labels.unwrap_or_default();
    EngineImage {
        id: image.id.unwrap_or_default(),
        tags: image.repo_tags.unwrap_or_default(),
        has_agent: has_agent(&labels, &config.entrypoint.unwrap_or_default()),
        labels: labels.into_iter().collect(),
        os: image.os.unwrap_or_default(),
        architecture: image.architecture.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        env: config.env.unwrap_or_default(),
        size_bytes: image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        layers: image.root_fs.and_then(|root| root.layers).unwrap_or_default(),
    }
}

/// Name and tag (or digest). Without a tag the engine would pull every tag there is.
fn split_reference(reference: &str) -> (String, String) {
    if let Some((name, digest)) = reference.split_once('@') {
        return (name.to_owned(), digest.to_owned());
    }
    match reference.rsplit_once(':') {
        // A colon before the last slash belongs to the registry's port.
        Some((name, tag)) if !tag.contains('/') => (name.to_owned(), tag.to_owned()),
        _ => (reference.to_owned(), "latest".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_port_is_no_tag() {
        let split = |reference| {
            let (name, tag) = split_reference(reference);
            format!("{name} {tag}")
        };
        assert_eq!(split("node:24-bookworm-slim"), "node 24-bookworm-slim");
        assert_eq!(split("node"), "node latest");
        assert_eq!(split("localhost:5000/node"), "localhost:5000/node latest");
        assert_eq!(split("localhost:5000/node:1"), "localhost:5000/node 1");
        assert_eq!(split("node@sha256:00"), "node sha256:00");
    }
}
