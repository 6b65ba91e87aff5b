//! The agent in a place whose image has none: its binary on a read-only volume over `/tools`, and folders that its user may write.
//!
//! A foreign image needs nothing: no shell, no libc, no `/app`, no user 1000. What a workspace writes (`/app`, its home, `/tmp`) are
//! volumes that go with their container. An engine copies the owner of a new volume from the image that it is made with; that
//! of the foreign image would be root or nobody, so a container that never starts, of the image that lends the agent, has
//! them made, and the real one takes them over (`VolumesFrom`). Laying a folder into a container takes five times as long.

use std::collections::HashMap;

use bollard::{
    models::{ContainerCreateBody, HealthConfig, HostConfig, Mount},
    query_parameters::{ListContainersOptions, UploadToContainerOptions},
};
use bytes::Bytes;
use corehold_types::Timestamp;
use futures_util::stream;

use super::{
    Docker, EngineImage, ROLE_LABEL, auxiliary,
    connection::Connection,
    seeded::{self, Content, Kind, Seeded, Source, read_file},
};
use crate::{
    error::{Error, ErrorKind, Result},
    image::check_agent,
    runtime::{ContainerSpec, Injection, MountSource},
    workspace::random_word,
};

/// Where the agent lies, in core images as in others.
pub(super) const AGENT_PATH: &str = "/tools/corehold-agent";
const TOOLS: &str = "/tools";
const APP: &str = "/app";
const HOME: &str = "/home/workspace";
const TMP: &str = "/tmp";
/// The user of core images.
const USER: (u32, u32) = (1000, 1000);
/// An agent larger than this is something else.
const LARGEST_AGENT: usize = 256 << 20;
/// `/etc/passwd` of an image, if it is one.
const LARGEST_PASSWD: usize = 1 << 20;
/// Variables that only the host may set: an image that could would let its author's tokens in.
const OWN_VARIABLES: &str = "COREHOLD_";

const KIND: Kind = Kind { what: "the agent", role: "agent", seed_role: "agent-seed", seed_folder: "/corehold-agent" };
/// Role of a container that only has volumes made.
const FOLDERS_ROLE: &str = "folders";
/// Label of that container: the name of the one that it is for.
const FOR_LABEL: &str = "dev.corehold.for";
/// One that is older was left behind by a process that was killed: they live for milliseconds.
const LEFT_BEHIND_SECONDS: i64 = 600;

/// What is added to a container so that the agent runs in it.
pub(super) struct Injected {
    agent: Seeded<Lender>,
    mount: Mount,
    /// Container whose volumes it takes over.
    folders: String,
    /// The image's own user, if it is to be that one.
    own_user: Option<String>,
    /// Variables of the image that must not be there.
    unset: Vec<String>,
}

/// The image that lends its agent.
struct Lender {
    image: String,
}

impl Source for Lender {
    async fn content(&self, connection: &Connection, container: &str) -> Result<Content> {
        let read = read_file(connection, "reading the agent", container, AGENT_PATH, LARGEST_AGENT).await;
        let what = match read {
            Ok(Some(bytes)) => match check_agent(&bytes) {
                Ok(()) => {
                    let (file, bytes) = ("corehold-agent".to_owned(), Bytes::from(bytes));
                    // The certificates' volume is mounted in one of the folders; the agent looks for archives in the other.
                    return Ok(Content { files: vec![(file, bytes)], mode: 0o755, folders: &["ca", "inbox"] });
                }
                Err(why) => why,
            },
            Ok(None) => "is not a program",
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // The file, or the container.
                connection
                    .call("reading the agent", connection.client.inspect_container(container, None))
                    .await
                    .map(|_| "is not there")?
            }
            Err(error) => return Err(error),
        };
        let message = format!("the image {} says that it has the agent, but its {AGENT_PATH} {what}", self.image);
        Err(Error::new(ErrorKind::Invalid, message).hint("build it anew: `corehold image build`"))
    }
}

/// Prepares what a container needs to have the agent; nothing, if its image has one.
///
/// # Errors
/// `NotFound` when the image isn't there; `Unsupported` when it is for another machine than the agent, or no image lends one.
pub(super) async fn prepare(docker: &Docker, spec: &ContainerSpec, injection: &Injection) -> Result<Option<Injected>> {
    let connection = &docker.connection;
    let image = docker.existing_image(&spec.image).await?;
    if image.has_agent {
        return Ok(None);
    }
    let lender = lender(docker, &spec.image, injection).await?;
    check_platform(&spec.image, &image, &lender)?;
    let digits = lender.id.strip_prefix("sha256:").unwrap_or(&lender.id);
    let agent = Seeded {
        kind: KIND,
        volume: format!("corehold-agent-{}", digits.get(..12).unwrap_or(digits)),
        source: Lender { image: lender.id.clone() },
    };
    // Each to its end: a seeding that is dropped leaves its lock behind.
    let (mount, folders) =
        tokio::join!(agent.ensure(connection, &lender.id, TOOLS), make_folders(connection, &lender.id, spec));
    let (mount, folders) = (mount?, folders?);
    let unset = |variable: &String| {
        let name = variable.split('=').next().unwrap_or_default();
        (name.starts_with(OWN_VARIABLES) && !spec.env.contains_key(name)).then(|| name.to_owned())
    };
    Ok(Some(Injected {
        agent,
        mount,
        folders,
        own_user: injection.own_user.then(|| image.user.clone()),
        unset: image.env.iter().filter_map(unset).collect(),
    }))
}

async fn lender(docker: &Docker, image: &str, injection: &Injection) -> Result<EngineImage> {
    for reference in &injection.from {
        if let Some(lender) = docker.image(reference).await?
            && lender.has_agent
        {
            return Ok(lender);
        }
    }
    let message = format!(
        "the image {image} has no agent, and there is no core image that lends its own (looked for {})",
        injection.from.join(", ")
    );
    Err(Error::new(ErrorKind::Unsupported, message).hint("`corehold image build` makes one"))
}

fn check_platform(reference: &str, image: &EngineImage, lender: &EngineImage) -> Result<()> {
    if (&image.os, &image.architecture) == (&lender.os, &lender.architecture) {
        return Ok(());
    }
    let platform = |image: &EngineImage| format!("{}/{}", image.os, image.architecture);
    let message = format!("the image {reference} is for {}, and the agent for {}", platform(image), platform(lender));
    Err(Error::new(ErrorKind::Unsupported, message).hint(format!(
        "use the image of that name for {}, if there is one: remove this one and pull it",
        platform(lender)
    )))
}

/// Has the volumes made that a workspace writes, owned as they are in the core image. Returns the container that has them.
async fn make_folders(connection: &Connection, lender: &str, spec: &ContainerSpec) -> Result<String> {
    let name = format!("corehold-folders-{}", random_word(16)?);
    let mut body = auxiliary::never_started(lender, FOLDERS_ROLE, HostConfig::default())?;
    body.volumes = Some(own_folders(spec).map(str::to_owned).collect());
    body.labels.get_or_insert_default().insert(FOR_LABEL.to_owned(), spec.name.clone());
    auxiliary::create(connection, "making the workspace's folders", &name, body).await?;
    Ok(name)
}

/// What a workspace writes and nothing else is mounted over.
fn own_folders(spec: &ContainerSpec) -> impl Iterator<Item = &'static str> {
    let is_free = |folder: &&str| {
        !spec.mounts.iter().any(|mount| mount.target == **folder && mount.source != MountSource::Scratch)
    };
    [APP, HOME, TMP].into_iter().filter(is_free)
}

impl Injected {
    /// Adds it to the request that creates the container.
    pub(super) fn apply(&self, spec: &ContainerSpec, body: &mut ContainerCreateBody) {
        let seconds = |seconds: i64| Some(seconds * 1_000_000_000);
        let host_config = body.host_config.get_or_insert_default();
        let mounts = host_config.mounts.get_or_insert_default();
        // Those of a root that can't be written: the image may have no such folder, or one that is root's.
        let own: Vec<_> = own_folders(spec).collect();
        mounts.retain(|mount| mount.source.is_some() || !mount.target.as_deref().is_some_and(|at| own.contains(&at)));
        mounts.push(self.mount.clone());
        host_config.volumes_from.get_or_insert_default().push(self.folders.clone());
        body.entrypoint = Some(vec![AGENT_PATH.to_owned()]);
        body.cmd = Some(Vec::new());
        body.working_dir = Some(APP.to_owned());
        body.stop_signal = Some("SIGTERM".to_owned());
        body.user = self.own_user.is_none().then(|| format!("{}:{}", USER.0, USER.1));
        // As in the core image's Dockerfile; the image's own would run a program of its own.
        body.healthcheck = Some(HealthConfig {
            test: Some(vec!["CMD".to_owned(), AGENT_PATH.to_owned(), "health".to_owned()]),
            interval: seconds(30),
            timeout: seconds(5),
            start_period: seconds(5),
            retries: Some(3),
            ..HealthConfig::default()
        });
        let env = body.env.get_or_insert_default();
        if !spec.env.contains_key("HOME") {
            env.push(format!("HOME={HOME}"));
        }
        // A name alone takes the image's variable away.
        env.extend(self.unset.iter().cloned());
    }

    /// What is left to be done in a container that was created so, before it starts.
    ///
    /// # Errors
    /// `Forbidden` when the image's own user is wanted and that is root, `Invalid` when nobody knows who it is.
    pub(super) async fn finish(&self, connection: &Connection, container: &str) -> Result<()> {
        self.agent.verify(connection, &self.agent.source.image).await?;
        match &self.own_user {
            Some(user) => self.give_folders(connection, container, user).await,
            None => Ok(()),
        }
    }

    /// Makes the image's own user the owner of what a workspace writes. By way of the container that had the volumes made: nothing can be
    /// laid into one whose root is read-only.
    async fn give_folders(&self, connection: &Connection, container: &str, user: &str) -> Result<()> {
        let read = |path: &'static str| async move {
            match read_file(connection, "reading who the image's user is", container, path, LARGEST_PASSWD).await {
                Ok(content) => Ok(String::from_utf8_lossy(&content.unwrap_or_default()).into_owned()),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
                Err(error) => Err(error),
            }
        };
        let (uid, gid) = resolve_user(user, &read("/etc/passwd").await?, &read("/etc/group").await?)?;
        if (uid, gid) == USER {
            return Ok(());
        }
        let mut builder = tar::Builder::new(Vec::new());
        for folder in [APP.to_owned(), HOME.to_owned(), format!("{HOME}/.local"), format!("{HOME}/.local/bin")] {
            auxiliary::append_folder(&mut builder, folder.trim_start_matches('/'), (uid, gid), 0o755)?;
        }
        let tar = Bytes::from(builder.into_inner()?);
        let options = UploadToContainerOptions { path: "/".to_owned(), ..UploadToContainerOptions::default() };
        connection
            .upload("giving the workspace's folders to the image's user", stream::iter([Ok(tar)]), |body| {
                connection.client.upload_to_container(&self.folders, Some(options), body)
            })
            .await
    }

    /// Removes what was only needed for the creation. The volumes are the real container's by now, or nobody's.
    pub(super) async fn release(&self, connection: &Connection) {
        if let Err(error) = remove_folders(connection, &self.folders).await {
            tracing::warn!(container = %self.folders, %error, "a container that was only to make volumes is left behind");
        }
    }
}

async fn remove_folders(connection: &Connection, name: &str) -> Result<()> {
    auxiliary::remove(connection, "removing what made the workspace's folders", name).await
}

/// Whom an image's `USER` means, as engines read it: names are looked up, a number without a group has its account's, else 0.
fn resolve_user(user: &str, passwd: &str, group: &str) -> Result<(u32, u32)> {
    let (name, wanted_group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let unknown = |what: &str, name: &str| {
        Error::new(ErrorKind::Invalid, format!("the image has no {what} {name:?}, which it is to run as"))
    };
    // passwd(5): name, password, uid, gid, …; group(5): name, password, gid, ….
    let account = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (account, uid, gid) = (fields.next()?, fields.nth(1)?.parse::<u32>().ok()?, fields.next()?.parse().ok()?);
        (account == name || name.parse() == Ok(uid)).then_some((uid, gid))
    });
    let uid = match (account, name.parse()) {
        (Some((uid, _)), _) | (None, Ok(uid)) => uid,
        (None, Err(_)) if name.is_empty() => 0,
        (None, Err(_)) => return Err(unknown("user", name)),
    };
    if uid == 0 {
        return Err(Error::new(ErrorKind::Forbidden, "the image's own user is root, as which no workspace runs")
            .hint("leave the image's user out: then it is user 1000, whom the image need not know"));
    }
    let gid = match wanted_group {
        None => account.map_or(0, |(_, gid)| gid),
        Some(wanted) => group
            .lines()
            .find_map(|line| {
                let mut fields = line.split(':');
                (fields.next() == Some(wanted)).then(|| fields.nth(1)?.parse().ok()).flatten()
            })
            .or_else(|| wanted.parse().ok())
            .ok_or_else(|| unknown("group", wanted))?,
    };
    Ok((uid, gid))
}

/// Removes the agents that no container has, and containers that killed processes left behind. Says which.
pub(super) async fn remove_unused(connection: &Connection) -> Result<Vec<String>> {
    let filters = HashMap::from([("label".to_owned(), vec![format!("{ROLE_LABEL}={FOLDERS_ROLE}")])]);
    let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
    let call = connection.client.list_containers(Some(options));
    let before = Timestamp::now().as_unix_seconds() - LEFT_BEHIND_SECONDS;
    let mut removed = Vec::new();
    for container in connection.call("looking for what was left behind", call).await? {
        let (Some(id), Some(created)) = (container.id, container.created) else { continue };
        if created < before {
            remove_folders(connection, &id).await?;
            removed.push(id);
        }
    }
    removed.extend(seeded::remove_unused(connection, KIND).await?);
    Ok(removed)
}

/// Whether an image holds the agent: it says so, or is started by it.
pub(super) fn has_agent(labels: &HashMap<String, String>, entrypoint: &[String]) -> bool {
    labels.contains_key(crate::image::KEY_LABEL) || entrypoint.first().is_some_and(|program| program == AGENT_PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:101:102::/:/sbin/nologin\n";
    const GROUP: &str = "root:x:0:\nweb:x:102:\nstaff:x:50:web\n";

    fn who(user: &str) -> (u32, u32) {
        resolve_user(user, PASSWD, GROUP).unwrap()
    }

    #[test]
    fn an_images_user_is_read_as_engines_read_it() {
        assert_eq!(who("web"), (101, 102));
        assert_eq!(who("101"), (101, 102), "a number has its account's group");
        assert_eq!(who("12345"), (12345, 0));
        assert_eq!(who("12345:12345"), (12345, 12345));
        assert_eq!(who("web:staff"), (101, 50));
        assert_eq!(who("12345:staff"), (12345, 50));
        for user in ["nobody-knows", "web:nobodies", "-1"] {
            assert_eq!(resolve_user(user, PASSWD, GROUP).unwrap_err().kind(), ErrorKind::Invalid, "{user}");
        }
    }

    #[test]
    fn nobody_becomes_root_by_an_image() {
        for user in ["", "0", "root", "root:web", "0:0", "00", ":102"] {
            let error = resolve_user(user, PASSWD, GROUP).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Forbidden, "{user}");
            assert!(error.hint_text().unwrap().contains("1000"));
        }
        // By whichever name.
        let passwd = "toor:x:0:0::/:\n";
        assert_eq!(resolve_user("toor", passwd, "").unwrap_err().kind(), ErrorKind::Forbidden);
    }
}
