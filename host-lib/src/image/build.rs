//! Builds the core image, or finds it built already from the same content.

use std::{collections::BTreeMap, path::PathBuf, time::Duration, time::Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;

use super::{
    BASE_LABEL, BASE_LAYERS_LABEL, CORE_IMAGE, KEY_LABEL, agent,
    base::{Base, BaseInfo, resolve},
    event::{Events, ImageStep, Running},
    lines::Tail,
};
use crate::{
    config::proxies,
    error::{Error, ErrorKind, Result},
    runtime::docker::{BuildRequest, Docker, EngineImage},
};

const DOCKERFILE: &str = include_str!("../../../image/Dockerfile");

/// What to build.
#[derive(Debug, Clone)]
pub struct ImageBuild {
    /// The agent's static binary.
    pub agent: PathBuf,
    /// What to build on. Default [`Base::Auto`].
    pub base: Base,
    /// The image's name. Default [`CORE_IMAGE`]. It also gets the name `<repository>:<first 12 digits of its key>`.
    pub tag: String,
}

impl ImageBuild {
    /// The core image with this agent and the defaults.
    #[must_use]
    pub fn new(agent: impl Into<PathBuf>) -> Self {
        Self { agent: agent.into(), base: Base::Auto, tag: CORE_IMAGE.to_owned() }
    }
}

/// The image that was built or found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ImageInfo {
    /// Its name.
    pub reference: String,
    /// Its id.
    pub id: String,
    /// Hash of what it was made from.
    pub key: String,
    /// Whether it was there already, so that nothing was built.
    pub cached: bool,
    /// What it stands on.
    pub base: BaseInfo,
    /// Its size on the engine's disk, in bytes, base included.
    pub size_bytes: u64,
    /// How long it took.
    #[serde(skip)]
    pub duration: Duration,
}

/// Builds the core image, unless the engine has one of the same Dockerfile, agent and base.
/// Dropping the future ends the build; what steps left by then the engine may keep.
///
/// # Errors
/// `NotFound` or `Invalid` for an agent that isn't there or not static, with the command that builds one;
/// `CommandFailed` when a step of the Dockerfile fails, with the tail of its output; and those of the way to a base.
pub async fn build(docker: &Docker, build: &ImageBuild, events: Events<'_>) -> Result<ImageInfo> {
    let began = Instant::now();
    let (repository, tag) = split_tag(&build.tag)?;
    let agent = agent::read(&build.agent).await?;
    let running = Running::start(ImageStep::Build { reference: build.tag.clone() }, events);
    let base = resolve(docker, &build.base, events).await?;
    let key = key(&agent, &base.id);
    let short_key = &key[..12];

    let (image, cached) = match find(docker, &key).await? {
        Some(image) => (image, true),
        None => {
            let image = run(docker, &build.tag, agent, &base, &key, events).await?;
            (image, false)
        }
    };
    docker.tag_image(&image.id, repository, tag).await?;
    docker.tag_image(&image.id, repository, short_key).await?;
    running.finish(cached);
    Ok(ImageInfo {
        reference: build.tag.clone(),
        id: image.id,
        key,
        cached,
        base,
        size_bytes: image.size_bytes,
        duration: began.elapsed(),
    })
}

/// Repository and tag of the image's name to be.
fn split_tag(reference: &str) -> Result<(&str, &str)> {
    match reference.rsplit_once(':') {
        Some((repository, tag)) if !repository.is_empty() && !tag.is_empty() && !tag.contains(['/', '@']) => {
            Ok((repository, tag))
        }
        _ => Err(Error::new(ErrorKind::Invalid, format!("{reference:?} is not a name for an image"))
            .hint("write it as `repository:tag`, like workspace-core:latest")),
    }
}

/// Hash of all that an image is made from.
fn key(agent: &[u8], base_id: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [DOCKERFILE.as_bytes(), agent, base_id.as_bytes()] {
        // With lengths, so that no two different lists of parts run together to the same bytes.
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.finalize().to_hex().to_string()
}

pub(super) async fn find(docker: &Docker, key: &str) -> Result<Option<EngineImage>> {
    for id in docker.images_labelled(KEY_LABEL, key).await? {
        if let Some(image) = docker.image(&id).await? {
            return Ok(Some(image));
        }
    }
    Ok(None)
}

async fn run(
    docker: &Docker,
    reference: &str,
    agent: Bytes,
    base: &BaseInfo,
    key: &str,
    events: Events<'_>,
) -> Result<EngineImage> {
    let mut arguments = BTreeMap::from([("BASE".to_owned(), base.reference.clone())]);
    arguments.extend(proxies());
    let request = BuildRequest {
        arguments,
        labels: BTreeMap::from([
            (KEY_LABEL.to_owned(), key.to_owned()),
            (BASE_LABEL.to_owned(), base.reference.clone()),
            (BASE_LAYERS_LABEL.to_owned(), base.layers.to_string()),
        ]),
    };
    let mut progress = Progress::new(events);
    let context = stream::iter([Ok(context(&agent)?)]).boxed();
    let built = docker.build_image(request, context, |line| progress.line(line)).await;
    match built {
        Ok(id) => {
            progress.end();
            docker.image(&id).await?.ok_or_else(|| {
                Error::new(ErrorKind::Engine, format!("{reference} was removed in the moment it was built"))
            })
        }
        Err(error) => Err(progress.explain(error)),
    }
}

/// What the Dockerfile is built from: itself and the agent.
fn context(agent: &[u8]) -> Result<Bytes> {
    let mut archive = tar::Builder::new(Vec::with_capacity(agent.len() + 16 * 1024));
    for (name, content, mode) in [("Dockerfile", DOCKERFILE.as_bytes(), 0o644), ("tools/corehold-agent", agent, 0o755)]
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        archive.append_data(&mut header, name, content)?;
    }
    Ok(archive.into_inner()?.into())
}

/// Reads the classic builder's output: which step runs, whether its result was there, what it wrote.
pub(super) struct Progress<'a> {
    events: Events<'a>,
    running: Option<Running<'a>>,
    cached: bool,
    tail: Tail,
}

impl<'a> Progress<'a> {
    pub(super) fn new(events: Events<'a>) -> Self {
        Self { events, running: None, cached: false, tail: Tail::default() }
    }

    pub(super) fn line(&mut self, line: &str) {
        if let Some(step) = instruction(line) {
            self.end();
            self.running = Some(Running::start(step, self.events));
        } else if line.trim() == "---> Using cache" {
            self.cached = true;
        } else if !is_bookkeeping(line) {
            self.tail.push(line);
            if let Some(running) = &self.running {
                running.output(line);
            }
        }
    }

    pub(super) fn end(&mut self) {
        if let Some(running) = self.running.take() {
            running.finish(self.cached);
        }
        self.cached = false;
    }

    /// The engine repeats the whole command in its error; which step it was is said shorter.
    pub(super) fn explain(&self, error: Error) -> Error {
        let Some(running) = self.running.as_ref().filter(|_| error.kind() == ErrorKind::CommandFailed) else {
            return error;
        };
        let text = error.to_string();
        let why = text.rfind("returned a non-zero code").map_or(text.as_str(), |at| &text[at..]);
        Error::new(ErrorKind::CommandFailed, format!("building the image: step {} failed: {why}", running.step()))
            .hint("its last output says more; packages need a way to Debian's mirror from inside a container")
            .with_output(self.tail.text())
            .caused_by(error)
    }
}

/// `Step 3/12 : RUN …` (Docker) or `STEP 3/12: RUN …` (Podman).
fn instruction(line: &str) -> Option<ImageStep> {
    let rest = line.strip_prefix("Step ").or_else(|| line.strip_prefix("STEP "))?;
    let (numbers, text) = rest.split_once(':')?;
    let (number, total) = numbers.trim().split_once('/')?;
    let mut text = text.split_whitespace().take(8).collect::<Vec<_>>().join(" ");
    if text.len() > 60 {
        text.truncate(text.floor_char_boundary(60));
        text.push('…');
    }
    Some(ImageStep::Instruction { number: number.parse().ok()?, total: total.parse().ok()?, text })
}

fn is_bookkeeping(line: &str) -> bool {
    [" ---> ", "Removing intermediate container ", "Successfully built ", "Successfully tagged "]
        .iter()
        .any(|prefix| line.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::image::{ImageEvent, ImageEventKind};

    #[test]
    fn a_key_changes_with_each_part_and_only_then() {
        assert_eq!(key(b"agent", "base"), key(b"agent", "base"));
        assert_ne!(key(b"agent", "base"), key(b"agent2", "base"));
        assert_ne!(key(b"agent", "base"), key(b"agent", "base2"));
        assert_ne!(key(b"agentb", "ase"), key(b"agent", "base"));
    }

    #[test]
    fn names_for_an_image_are_checked() {
        assert_eq!(split_tag("workspace-core:latest").unwrap(), ("workspace-core", "latest"));
        assert_eq!(split_tag("localhost:5000/a/b:1").unwrap(), ("localhost:5000/a/b", "1"));
        for bad in ["workspace-core", "localhost:5000/core", "", ":x", "x:", "a@sha256:00/1"] {
            assert_eq!(split_tag(bad).unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
        }
    }

    #[test]
    fn the_builders_output_becomes_steps() {
        let seen = Mutex::new(Vec::new());
        let record = |event: ImageEvent| {
            let kind = match event.kind {
                ImageEventKind::Started => "started".to_owned(),
                ImageEventKind::Finished { cached, .. } => format!("finished {cached}"),
                ImageEventKind::Output { line } => format!("output {line}"),
                other => format!("{other:?}"),
            };
            seen.lock().unwrap().push(format!("{}: {kind}", event.step));
        };
        let mut progress = Progress::new(&record);
        for line in [
            "Step 1/3 : ARG BASE=x",
            "Step 2/3 : FROM ${BASE}",
            " ---> 7d2ce19ce7df",
            "Step 3/3 : RUN set -eu;     apt-get update",
            " ---> Using cache",
            " ---> Running in 01",
            "E: Unable to locate package",
        ] {
            progress.line(line);
        }
        let failed = Error::new(ErrorKind::CommandFailed, "The command 'very long' returned a non-zero code: 100");
        let error = progress.explain(failed);
        progress.end();
        assert_eq!(
            *seen.lock().unwrap(),
            [
                "1/3 ARG BASE=x: started",
                "1/3 ARG BASE=x: finished false",
                "2/3 FROM ${BASE}: started",
                "2/3 FROM ${BASE}: finished false",
                "3/3 RUN set -eu; apt-get update: started",
                "3/3 RUN set -eu; apt-get update: output E: Unable to locate package",
                "3/3 RUN set -eu; apt-get update: finished true",
            ]
        );
        let expected = "building the image: step 3/3 RUN set -eu; apt-get update failed: returned a non-zero code: 100";
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.output(), Some("E: Unable to locate package"));
    }

    #[test]
    fn the_context_has_the_agent_as_roots_program() {
        let bytes = context(b"agent").unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                (entry.path().unwrap().display().to_string(), header.mode().unwrap(), header.uid().unwrap())
            })
            .collect();
        assert_eq!(entries, [("Dockerfile".to_owned(), 0o644, 0), ("tools/corehold-agent".to_owned(), 0o755, 0)]);
    }
}
