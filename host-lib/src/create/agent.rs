//! From a started container to an agent that answers.
//!
//! Nothing sleeps here in the hope that it is enough: connection attempts (refused ones cost microseconds) race against
//! what the engine says happens to the container, so that one that dies at once is noticed at once.

use std::{
    collections::BTreeMap,
    future::{Future, pending},
    time::Duration,
};

use corehold_types::{PROTOCOL, wire::Health};
use futures_util::StreamExt as _;

use crate::{
    client::AgentClient,
    error::{Error, ErrorKind, Result},
    labels,
    runtime::{BoxStream, ContainerEvent, ContainerId, Runtime},
};

/// Between the first attempts; the agent needs a few milliseconds.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// What is shown of the agent's log.
const LOG_BYTES: usize = 8 << 10;
const LOG_TIMEOUT: Duration = Duration::from_secs(2);

/// Notices when the container ends.
pub(crate) struct DeathWatch {
    events: BoxStream<ContainerEvent>,
    dead: bool,
}

impl DeathWatch {
    pub(crate) fn new(runtime: &dyn Runtime, instance: &str) -> Self {
        let labels = BTreeMap::from([(labels::INSTANCE.to_owned(), instance.to_owned())]);
        Self { events: runtime.events(&labels), dead: false }
    }

    /// Does `work` while listening, so that nothing between it and what comes next is missed.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            never = async { self.death().await; pending::<T>().await } => never,
            done = work => done,
        }
    }

    /// Waits for the end. An engine whose events break off is no reason to give up: whoever waits has a time-out.
    async fn death(&mut self) {
        while !self.dead {
            match self.events.next().await {
                Some(Ok(event)) => self.dead = matches!(event.action.as_str(), "die" | "destroy"),
                Some(Err(_)) | None => pending().await,
            }
        }
    }
}

/// Waits until the agent answers.
pub(crate) async fn wait(
    client: &AgentClient,
    watch: &mut DeathWatch,
    timeout: Duration,
    runtime: &dyn Runtime,
) -> Result<()> {
    tokio::select! {
        answered = answers(client) => answered.map(|_| ()),
        () = watch.death() => Err(ended(runtime, client.container()).await),
        () = tokio::time::sleep(timeout) => Err(silent(runtime, client.container(), timeout).await),
    }
}

/// Asks until there is an answer.
pub(crate) async fn answers(client: &AgentClient) -> Result<Health> {
    let mut pause = FIRST_PAUSE;
    loop {
        match client.attempt_health().await {
            Ok(health) if health.protocol == PROTOCOL => return Ok(health),
            Ok(health) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("the agent speaks protocol {}, this host {PROTOCOL}", health.protocol),
                )
                .hint("build the image with the same version: corehold image build"));
            }
            // The engine has to say where the agent is.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::EngineUnavailable | ErrorKind::Engine | ErrorKind::Timeout | ErrorKind::Unsupported
                ) =>
            {
                return Err(error);
            }
            // Not there yet, or not any more, which the engine's events tell.
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

async fn ended(runtime: &dyn Runtime, container: &ContainerId) -> Error {
    let how = match runtime.inspect(container).await {
        Ok(state) if state.oom_killed => ", killed for want of memory".to_owned(),
        Ok(state) => state.exit_code.map_or_else(String::new, |code| format!(" with exit code {code}")),
        Err(_) => String::new(),
    };
    Error::new(ErrorKind::AgentUnavailable, format!("the container ended{how} before its agent answered"))
        .hint("its image must be a core image: corehold image build makes one")
        .with_output(log_tail(runtime, container).await)
}

async fn silent(runtime: &dyn Runtime, container: &ContainerId, timeout: Duration) -> Error {
    Error::new(ErrorKind::Timeout, format!("the agent did not answer within {} s", timeout.as_secs_f64()))
        .hint("its image must be a core image whose agent listens on port 3001; `corehold doctor` looks at the engine")
        .with_output(log_tail(runtime, container).await)
}

async fn log_tail(runtime: &dyn Runtime, container: &ContainerId) -> String {
    let mut log = runtime.logs(container, false);
    let mut tail = Vec::new();
    // What there is when the time is up is better than nothing.
    let _ = tokio::time::timeout(LOG_TIMEOUT, async {
        while let Some(Ok(bytes)) = log.next().await {
            tail.extend_from_slice(&bytes);
            let surplus = tail.len().saturating_sub(LOG_BYTES);
            tail.drain(..surplus);
        }
    })
    .await;
    String::from_utf8_lossy(&tail).into_owned()
}
