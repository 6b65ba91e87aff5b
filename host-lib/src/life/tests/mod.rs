//! The life of workspaces over an engine and an agent in memory.

/// Hands each step, and the name of its test, to a macro that makes the tests.
macro_rules! for_each_step {
    ($each:ident) => {
        $each! {
            a_creation: Create,
            a_claim: Claim,
            get_or_create: GetOrCreate,
            a_start: Start,
            a_stop: Stop,
            a_restart: Restart,
            a_pause: Pause,
            a_resume: Resume,
            a_sleep: Sleep,
            a_sleep_of_one_that_slept_before: SleepAgain,
            a_sleep_of_one_that_is_stopped: SleepStopped,
            a_wake: Wake,
            a_wake_from_a_pool: WakeFromPool,
            limits: SetLimits,
            limits_of_one_that_is_paused: SetLimitsPaused,
            a_removal: Remove,
            a_removal_of_one_that_sleeps: RemoveAsleep,
            a_removal_with_archives: RemoveArchives,
        }
    };
}

mod asleep;
mod deaths;
mod failures;
mod invariants;
mod kept;
mod limits;
mod owners;
mod reconciling;
mod spans;
mod transitions;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;

use super::*;
use crate::{
    CreateWorkspace, Host, Sleeper, Workspace, WorkspaceId,
    error::{Error, ErrorKind, Result},
    runtime::ContainerStatus,
    testing::{AgentScript, EngineScript, Fixture},
};

const GRACE: Duration = Duration::from_secs(1);
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
const DEV: &str = r#"{"name": "web", "env": {"A": "template"}, "dev": "serve"}"#;

async fn fixture() -> Fixture {
    Fixture::new(EngineScript::default(), AgentScript::default()).await
}

/// One more host, which does nothing by itself.
async fn another(fixture: &Fixture) -> Host {
    fixture.builder().reconciles(false).build().await.unwrap()
}

async fn web(fixture: &Fixture, host: &Host) -> Workspace {
    let template = fixture.template(DEV);
    host.create(CreateWorkspace::from_template(&template).id("web").env("B", "request")).await.unwrap()
}

async fn state(workspace: &Workspace) -> WorkspaceState {
    workspace.state().await.unwrap()
}

/// Waits until something is so that other tasks bring about.
async fn until<F: Future<Output = bool>>(mut done: impl FnMut() -> F) {
    let waiting = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it comes about");
}

/// Keeps what it is given in memory: the file `kept` of each workspace.
#[derive(Default)]
struct FakeBed {
    archives: Mutex<BTreeMap<String, (Vec<u8>, Sleeper)>>,
    saves: std::sync::atomic::AtomicUsize,
    /// Saving fails.
    full: std::sync::atomic::AtomicBool,
    /// Restoring fails.
    damaged: std::sync::atomic::AtomicBool,
}

impl FakeBed {
    fn names(&self) -> Vec<String> {
        self.archives.lock().unwrap().keys().cloned().collect()
    }

    /// One that goes on from here.
    fn copy(&self) -> Self {
        let saves = self.saves.load(std::sync::atomic::Ordering::Relaxed);
        Self { archives: Mutex::new(self.archives.lock().unwrap().clone()), saves: saves.into(), ..Self::default() }
    }
}

#[async_trait]
impl Bed for FakeBed {
    async fn save_verified(&self, workspace: &Workspace, sleeper: Sleeper) -> Result<String> {
        use std::sync::atomic::Ordering::Relaxed;
        if self.full.load(Relaxed) {
            return Err(Error::new(ErrorKind::Io, "the archive store is full"));
        }
        let content = workspace.read_file("kept").await?;
        let name = format!("{}/{}", workspace.id(), self.saves.fetch_add(1, Relaxed));
        self.archives.lock().unwrap().insert(name.clone(), (content.to_vec(), sleeper));
        // Saved, and nobody knows it yet.
        tokio::task::yield_now().await;
        Ok(name)
    }

    async fn restore(&self, archive: &str, workspace: &Workspace) -> Result<()> {
        if self.damaged.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Invalid, "the archive is damaged"));
        }
        let content = self.archives.lock().unwrap().get(archive).cloned();
        let (content, _) =
            content.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no archive {archive}")))?;
        workspace.write_file("kept", content).await.map(|_| ())
    }

    async fn sweep(&self, workspace: &WorkspaceId, needed: Option<&str>) -> Result<()> {
        let is_needed = |name: &str| !name.starts_with(&format!("{workspace}/")) || needed == Some(name);
        self.archives.lock().unwrap().retain(|name, _| is_needed(name));
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn sleepers(&self) -> Result<Vec<(WorkspaceId, String, Sleeper)>> {
        let archives = self.archives.lock().unwrap();
        let named = |(name, (_, sleeper)): (&String, &(Vec<u8>, Sleeper))| {
            (name.split('/').next().unwrap().parse().unwrap(), name.clone(), sleeper.clone())
        };
        Ok(archives.iter().map(named).collect())
    }
}

/// A fixture whose hosts have a bed.
async fn with_bed() -> (Fixture, Arc<FakeBed>, Host) {
    let (fixture, bed) = (fixture().await, Arc::new(FakeBed::default()));
    let host = fixture.builder().bed(bed.clone()).reconciles(false).build().await.unwrap();
    (fixture, bed, host)
}
