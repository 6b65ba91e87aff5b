//! Short-lived containers that do one thing for a network and end: set the firewall, or look from inside. They are of the core image,
//! mount nothing, and have no capability but what the one needs.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bollard::{
    container::{AttachContainerResults, LogOutput},
    models::{ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig},
    query_parameters::{
        AttachContainerOptions, CreateContainerOptions, ListContainersOptions, StartContainerOptions,
        WaitContainerOptions,
    },
};
use futures_util::StreamExt as _;
use tokio::{io::AsyncWriteExt as _, task::JoinHandle};

use super::super::{
    ROLE_LABEL, auxiliary, connection::Connection, engine::Engine, inject::AGENT_PATH, specification::checked_reference,
};
use crate::error::{Error, ErrorKind, Result};

/// The value of [`ROLE_LABEL`] of helpers.
const ROLE: &str = "network-helper";

/// How long a helper may take. It takes as long as the engine takes to start a container.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of what a helper says that are kept: it says a few lines.
const OUTPUT_BYTES: usize = 64 * 1024;

/// What a helper is to do.
#[derive(Debug, Clone)]
pub(super) struct Task {
    /// What it is for, in an error's message: `closing the network "x"`.
    pub(super) what: String,
    /// What it runs.
    pub(super) program: Program,
    /// The network it is in, or `host` for the engine's own.
    pub(super) network: String,
    /// Whether it may change the firewall: then it is root, with that capability alone.
    pub(super) administers: bool,
}

/// What a helper runs, of what the core image has.
#[derive(Debug, Clone)]
pub(super) enum Program {
    /// A script, for bash, and its arguments.
    Script(&'static str, Vec<String>),
    /// The agent, with these arguments.
    Agent(&'static [&'static str]),
}

/// Helpers that are being removed.
#[derive(Clone, Default)]
pub(in super::super) struct Leaving(Arc<Mutex<Vec<JoinHandle<()>>>>);

impl Leaving {
    fn spawn(&self, removal: impl Future<Output = ()> + Send + 'static) {
        let mut removals = self.removals();
        removals.retain(|removal| !removal.is_finished());
        removals.push(tokio::spawn(removal));
    }

    /// Waits until all are gone that leave now.
    pub(super) async fn gone(&self) {
        let removals = std::mem::take(&mut *self.removals());
        for removal in removals {
            // One that panicked has been told.
            let _ = removal.await;
        }
    }

    fn removals(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a helper ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    /// Its exit code.
    pub(super) code: i64,
    /// All it said, on both outputs.
    pub(super) output: String,
}

/// A helper that was made. It goes when this does; [`remove`](Self::remove) waits for that.
pub(super) struct Helper {
    connection: Connection,
    id: String,
    what: String,
    removed: bool,
}

/// A helper that was started, and whoever hears it.
pub(super) struct Running<'a> {
    helper: &'a Helper,
    attached: AttachContainerResults,
}

impl Helper {
    /// Makes one without starting it.
    ///
    /// # Errors
    /// `Unsupported` when the core image isn't there, with what to do.
    pub(super) async fn create(connection: &Connection, task: Task) -> Result<Self> {
        let image = &connection.options.helper_image;
        let options = None::<CreateContainerOptions>;
        let call = connection.client.create_container(options, body(image, &task)?);
        let created = connection.call(&task.what, call).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::new(
                ErrorKind::Unsupported,
                format!("{}: it is done by a helper container of the image {image}, which is not there", task.what),
            )
            .hint(
                "build it (`corehold image build`), or name another core image as DockerOptions::helper_image; where workspaces \
                 may reach the engine's machine, DockerOptions::host_may_be_reached does without",
            )
            .caused_by(error),
            _ => error,
        })?;
        Ok(Self { connection: connection.clone(), id: created.id, what: task.what, removed: false })
    }

    /// Starts it, and no more.
    pub(super) async fn start(&self) -> Result<()> {
        let call = self.connection.client.start_container(&self.id, None::<StartContainerOptions>);
        self.connection.call(&self.what, call).await
    }

    /// Starts it, to be told something and heard.
    pub(super) async fn begin(&self) -> Result<Running<'_>> {
        let options = AttachContainerOptions {
            stream: true,
            stdin: true,
            stdout: true,
            stderr: true,
            ..AttachContainerOptions::default()
        };
        // Before the start, so that nothing is missed; the engine may keep no log.
        let call = self.connection.client.attach_container(&self.id, Some(options));
        let attached = self.connection.call(&self.what, call).await?;
        self.start().await?;
        Ok(Running { helper: self, attached })
    }

    /// The addresses that it has in its network, while it runs.
    pub(super) async fn addresses(&self) -> Result<Vec<IpAddr>> {
        let call = self.connection.client.inspect_container(&self.id, None);
        let container = self.connection.call(&self.what, call).await?;
        let networks = container.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        Ok(networks.values().flat_map(addresses_of).collect())
    }

    /// Removes it, running or not.
    pub(super) async fn remove(mut self) {
        told_of(remove(&self.connection, &self.id).await, &self.id);
        self.removed = true;
    }

    /// Removes it while others go on; [`Leaving::gone`] waits for that.
    pub(super) fn leave(self) {
        let leaving = self.connection.leaving.clone();
        leaving.spawn(self.remove());
    }
}

impl Drop for Helper {
    /// Whoever waited for it was dropped.
    fn drop(&mut self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && !self.removed
        {
            let (connection, id) = (self.connection.clone(), self.id.clone());
            runtime.spawn(async move { told_of(remove(&connection, &id).await, &id) });
        }
    }
}

/// A container's addresses in one network: of IPv4, and of IPv6 if it has them.
pub(super) fn addresses_of(endpoint: &EndpointSettings) -> Vec<IpAddr> {
    let both = [&endpoint.ip_address, &endpoint.global_ipv6_address];
    both.into_iter().filter_map(|address| address.as_ref()?.parse().ok()).collect()
}

fn told_of(removed: Result<()>, id: &str) {
    if let Err(error) = removed {
        tracing::warn!(container = id, %error, "a helper container could not be removed");
    }
}

impl Running<'_> {
    /// Writes to its input.
    pub(super) async fn tell(&mut self, text: &str) -> Result<()> {
        let written = async {
            self.attached.input.write_all(text.as_bytes()).await?;
            Ok(self.attached.input.flush().await?)
        };
        self.helper.connection.call(&self.helper.what, written).await
    }

    /// Waits for its end.
    pub(super) async fn ended(mut self) -> Result<Ended> {
        let Helper { connection, id, what, .. } = self.helper;
        let ended = async {
            let mut said = Vec::new();
            while let Some(Ok(output)) = self.attached.output.next().await {
                let bytes = LogOutput::into_bytes(output);
                said.extend_from_slice(&bytes[..bytes.len().min(OUTPUT_BYTES - said.len())]);
            }
            let mut waiting = connection.client.wait_container(id, None::<WaitContainerOptions>);
            let code = match waiting.next().await {
                Some(Ok(answer)) => Ok(answer.status_code),
                // bollard makes an error of a code that isn't zero.
                Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => Ok(code),
                Some(Err(error)) => Err(error),
                None => Ok(-1),
            };
            code.map(|code| Ended { code, output: String::from_utf8_lossy(&said).into_owned() })
        };
        connection.call_within(PATIENCE, what, ended).await
    }
}

/// Runs one to its end and removes it.
pub(super) async fn run(connection: &Connection, task: Task) -> Result<Ended> {
    let helper = Helper::create(connection, task).await?;
    let ended = async { helper.begin().await?.ended().await }.await;
    helper.leave();
    ended
}

/// Removes those that a process left behind that was killed. One that still runs may be somebody's.
pub(super) async fn remove_ended(connection: &Connection) -> Result<()> {
    let filters = HashMap::from([
        ("label".to_owned(), vec![format!("{ROLE_LABEL}={ROLE}")]),
        ("status".to_owned(), ended(connection.engine)),
    ]);
    let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
    let call = connection.client.list_containers(Some(options));
    for container in connection.call("looking for helpers that were left behind", call).await? {
        let Some(id) = container.id else { continue };
        remove(connection, &id).await?;
    }
    Ok(())
}

/// What an engine calls the states of those that have ended; Podman refuses a question for one that it doesn't know.
fn ended(engine: Engine) -> Vec<String> {
    let states: &[&str] = match engine {
        Engine::Docker => &["exited", "dead"],
        Engine::Podman => &["exited", "stopped"],
    };
    states.iter().map(ToString::to_string).collect()
}

async fn remove(connection: &Connection, id: &str) -> Result<()> {
    auxiliary::remove(connection, "removing a helper container", id).await
}

fn body(image: &str, task: &Task) -> Result<ContainerCreateBody> {
    let (program, command) = match &task.program {
        Program::Script(script, arguments) => {
            // Of `bash -c SCRIPT NAME ARGUMENTS`, the name is what it calls itself in its errors.
            let before = ["-c", *script, "helper"].map(str::to_owned).into_iter();
            ("bash", before.chain(arguments.iter().cloned()).collect())
        }
        Program::Agent(arguments) => (AGENT_PATH, arguments.iter().map(ToString::to_string).collect::<Vec<_>>()),
    };
    Ok(ContainerCreateBody {
        image: Some(checked_reference(image)?.to_owned()),
        entrypoint: Some(vec![program.to_owned()]),
        cmd: Some(command),
        user: Some(if task.administers { "0:0" } else { "1000:1000" }.to_owned()),
        working_dir: Some("/".to_owned()),
        labels: Some(HashMap::from([(ROLE_LABEL.to_owned(), ROLE.to_owned())])),
        // Its input ends with whoever tells it something, so that it waits for nobody who was killed.
        open_stdin: Some(true),
        stdin_once: Some(true),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        host_config: Some(HostConfig {
            network_mode: Some(task.network.clone()),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: task.administers.then(|| vec!["NET_ADMIN".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            privileged: Some(false),
            readonly_rootfs: Some(true),
            memory: Some(256 << 20),
            pids_limit: Some(64),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_has_one_capability_at_most_and_mounts_nothing() {
        for administers in [false, true] {
            let task = Task {
                what: "x".to_owned(),
                program: Program::Script("true", vec!["$(evil)".to_owned()]),
                network: "host".to_owned(),
                administers,
            };
            let body = body("workspace-core:latest", &task).unwrap();
            // As an argument, which the shell doesn't read as part of the script.
            assert_eq!(body.cmd.unwrap(), ["-c", "true", "helper", "$(evil)"]);
            assert_eq!(body.user.as_deref(), Some(if administers { "0:0" } else { "1000:1000" }));
            let host = body.host_config.unwrap();
            assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
            assert_eq!(host.cap_add, administers.then(|| vec!["NET_ADMIN".to_owned()]));
            assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
            assert_eq!((host.privileged, host.readonly_rootfs), (Some(false), Some(true)));
            assert!(host.mounts.is_none() && host.binds.is_none() && host.devices.is_none());
        }
        let task = Task {
            what: String::new(),
            program: Program::Agent(&["reach"]),
            network: String::new(),
            administers: false,
        };
        assert_eq!(body("../evil", &task).unwrap_err().kind(), ErrorKind::Invalid);
        let body = body("image", &task).unwrap();
        assert_eq!(
            (body.entrypoint.unwrap(), body.cmd.unwrap()),
            (vec![AGENT_PATH.to_owned()], vec!["reach".to_owned()])
        );
    }
}
