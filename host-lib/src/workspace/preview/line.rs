//! One preview's way inside: opened anew for each connection, and what is remembered of them.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use corehold_types::{
    Code, Timestamp,
    tools::{Ports, PortsRequest},
};
use tokio::time::Instant;

use super::{
    super::{
        WeakWorkspace, Workspace,
        forward::{Destination, Lifeline},
    },
    PreviewUse,
};
use crate::{
    client::Tunnel,
    create::DEV,
    error::{Error, ErrorKind, Result},
};

/// Time from its start that a dev server may take to listen until connections to it are reset.
const STARTING: Duration = Duration::from_secs(30);
/// Between two looks at what listens inside: the least that an agent takes.
const LOOK_MS: u64 = 100;

pub(super) struct Line {
    /// Weak, since the host holds the line: it ends with the host, not the host with it.
    workspace: WeakWorkspace,
    port: u16,
    traffic: Arc<Traffic>,
    failure: Mutex<Option<String>>,
}

impl Line {
    pub(super) fn new(workspace: WeakWorkspace, port: u16) -> Self {
        Self { workspace, port, traffic: Arc::new(Traffic::new()), failure: Mutex::default() }
    }

    pub(super) fn leads_to(&self, workspace: &Workspace) -> bool {
        self.workspace.is(workspace)
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn used(&self, port: u16) -> PreviewUse {
        let connections = self.traffic.connections.load(Ordering::Relaxed);
        PreviewUse { port, connections, quiet: self.traffic.quiet() }
    }

    async fn reach(&self, workspace: &Workspace) -> Result<(Tunnel, Lifeline)> {
        if let Some(before) = &workspace.host.previews.before_connect {
            before(workspace.id().clone()).await?;
        }
        let connect = async {
            match workspace.tunnel(self.port).await {
                Err(error) if is_nobody_listening(&error) && self.opens_yet(workspace).await? => {
                    workspace.tunnel(self.port).await
                }
                tunnel => tunnel,
            }
        };
        Lifeline::along(workspace, connect).await
    }

    /// Waits for a dev server that was started a moment ago, as when this connection has woken the workspace: who asks for a page
    /// shall get it, and not be told to ask again.
    async fn opens_yet(&self, workspace: &Workspace) -> Result<bool> {
        let dev = workspace.latest_command(DEV).await?.filter(|command| command.exit.is_none());
        let Some(left) = dev.and_then(|dev| STARTING.checked_sub(Timestamp::now().since(dev.started))) else {
            return Ok(false);
        };
        let request = PortsRequest {
            wait_for: Some(self.port),
            timeout_ms: Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            interval_ms: Some(LOOK_MS),
            ..PortsRequest::default()
        };
        Ok(workspace.call::<Ports>(&request).await?.opened == Some(true))
    }

    fn remember(&self, failure: Option<String>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }
}

impl Destination for Line {
    type Held = Connected;

    async fn open(&self) -> Result<(Tunnel, Lifeline, Connected)> {
        let connected = Connected::begin(&self.traffic, &self.workspace);
        let host_is_gone = || Error::new(ErrorKind::NotFound, "the host has ended");
        let workspace = self.workspace.upgrade().ok_or_else(host_is_gone)?.waking();
        let (tunnel, lifeline) = match self.reach(&workspace).await {
            Ok(reached) => reached,
            Err(error) => {
                if error.kind() == ErrorKind::NotFound && is_gone(&workspace).await {
                    workspace.host.previews.close_line(workspace.id(), self);
                }
                return Err(error);
            }
        };
        self.remember(None);
        Ok((tunnel, lifeline, connected))
    }

    fn moved(connected: &Connected) {
        connected.traffic.touch();
    }

    /// A connection that was quiet keeps nobody awake, and whoever says something on it finds the workspace running.
    fn asked(connected: &Connected) {
        connected.traffic.touch();
        connected.workspace.knock();
    }

    fn failed(&self, error: Error) {
        tracing::debug!(port = self.port, %error, "a preview's connection was not carried");
        self.remember(Some(match error.hint_text() {
            Some(hint) => format!("{error} ({hint})"),
            None => error.to_string(),
        }));
    }
}

fn is_nobody_listening(error: &Error) -> bool {
    error.problem().is_some_and(|problem| problem.code == Code::NotListening)
}

/// One that only doesn't run may run again, under the same address.
async fn is_gone(workspace: &Workspace) -> bool {
    workspace.container_state().await.is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

struct Traffic {
    connections: AtomicUsize,
    began: Instant,
    /// Milliseconds from `began` to when something last happened.
    last: AtomicU64,
}

impl Traffic {
    fn new() -> Self {
        Self { connections: AtomicUsize::new(0), began: Instant::now(), last: AtomicU64::new(0) }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn touch(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.last.load(Ordering::Relaxed)))
    }
}

/// Counts a connection as long as it is there.
pub(super) struct Connected {
    traffic: Arc<Traffic>,
    workspace: WeakWorkspace,
}

impl Connected {
    fn begin(traffic: &Arc<Traffic>, workspace: &WeakWorkspace) -> Self {
        traffic.connections.fetch_add(1, Ordering::Relaxed);
        traffic.touch();
        Self { traffic: traffic.clone(), workspace: workspace.clone() }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.traffic.connections.fetch_sub(1, Ordering::Relaxed);
        self.traffic.touch();
    }
}
