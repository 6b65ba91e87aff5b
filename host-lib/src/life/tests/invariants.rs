//! The transitions, one by one, and what must be true after any of them was cut off or failed.

use super::{
    kept::{Kept, Objects},
    *,
};
use crate::{
    Class, PoolOptions, SaveOptions,
    labels::POOL_NAME_PREFIX,
    runtime::{Resources, Runtime as _},
    testing::{EngineCopy, FakeEngine, tar_of},
};

/// What is done to the workspace `w`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Create,
    Claim,
    GetOrCreate,
    Start,
    Stop,
    Restart,
    Pause,
    Resume,
    Sleep,
    /// Of one that has slept before: its old archive goes.
    SleepAgain,
    SleepStopped,
    Wake,
    WakeFromPool,
    /// No transition: its limits are changed.
    SetLimits,
    SetLimitsPaused,
    Remove,
    RemoveAsleep,
    /// With what was saved of it.
    RemoveArchives,
}

impl Step {
    pub(super) const ALL: [Self; 18] = [
        Self::Create,
        Self::Claim,
        Self::GetOrCreate,
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::Pause,
        Self::Resume,
        Self::Sleep,
        Self::SleepAgain,
        Self::SleepStopped,
        Self::Wake,
        Self::WakeFromPool,
        Self::SetLimits,
        Self::SetLimitsPaused,
        Self::Remove,
        Self::RemoveAsleep,
        Self::RemoveArchives,
    ];

    const fn is_creation(self) -> bool {
        matches!(self, Self::Create | Self::Claim | Self::GetOrCreate)
    }

    const fn has_pool(self) -> bool {
        matches!(self, Self::Claim | Self::WakeFromPool)
    }

    /// The state that it ends in.
    const fn to(self) -> WorkspaceState {
        match self {
            Self::Create | Self::Claim | Self::GetOrCreate | Self::Start | Self::Restart | Self::Resume => {
                WorkspaceState::Ready
            }
            Self::Wake | Self::WakeFromPool | Self::SetLimits => WorkspaceState::Ready,
            Self::Stop => WorkspaceState::Stopped,
            Self::Pause | Self::SetLimitsPaused => WorkspaceState::Paused,
            Self::Sleep | Self::SleepAgain | Self::SleepStopped => WorkspaceState::Asleep,
            Self::Remove | Self::RemoveAsleep | Self::RemoveArchives => WorkspaceState::Removed,
        }
    }

    /// Whether it may be found not to be there, if it wasn't done: it wasn't made yet, or is removed.
    fn may_be_missing(self) -> bool {
        self.is_creation() || self.to() == WorkspaceState::Removed
    }

    /// Makes what there is before it.
    async fn prepare(self, stage: &Stage) {
        let bystander = stage.host.create(CreateWorkspace::empty().id("bystander")).await.unwrap();
        stage.write(&bystander, "the bystander's").await.unwrap();
        if self.is_creation() {
            return;
        }
        let workspace = stage.host.create(stage.request()).await.unwrap();
        stage.write(&workspace, CONTENT).await.unwrap();
        match self {
            Self::Start | Self::SleepStopped => workspace.stop(GRACE).await.unwrap(),
            Self::Resume | Self::SetLimitsPaused => workspace.pause().await.unwrap(),
            Self::Wake | Self::WakeFromPool | Self::RemoveAsleep => workspace.sleep(GRACE).await.unwrap(),
            Self::SleepAgain => {
                stage.write(&workspace, "what w held before").await.unwrap();
                workspace.sleep(GRACE).await.unwrap();
                workspace.wake().await.unwrap();
                stage.write(&workspace, CONTENT).await.unwrap();
            }
            Self::RemoveArchives => {
                for saved in [&workspace, &bystander] {
                    stage.host.archives().save(saved, SaveOptions::default()).await.unwrap();
                }
            }
            _ => {}
        }
    }

    pub(super) async fn go(self, stage: &Stage) -> Result<()> {
        let host = &stage.host;
        if self.is_creation() {
            let made = match self {
                Self::GetOrCreate => host.get_or_create(OWNER, stage.request()).await?,
                _ => host.create(stage.request()).await?,
            };
            return stage.write(&made, CONTENT).await;
        }
        let workspace = host.workspace("w").await?;
        match self {
            Self::Start => workspace.start().await,
            Self::Stop => workspace.stop(GRACE).await,
            Self::Restart => workspace.restart(GRACE).await,
            Self::Pause => workspace.pause().await,
            Self::Resume => workspace.resume().await,
            Self::Sleep | Self::SleepAgain | Self::SleepStopped => workspace.sleep(GRACE).await,
            Self::Wake | Self::WakeFromPool => workspace.wake().await,
            Self::SetLimits | Self::SetLimitsPaused => workspace.set_resources(MORE).await,
            Self::RemoveArchives => workspace.remove_with(RemoveOptions::default().archives(true)).await,
            _ => workspace.remove().await,
        }
    }
}

pub(super) const CONTENT: &str = "what w holds";
/// What [`Step::SetLimits`] asks for. Nobody has this much by default.
const MORE: Resources =
    Resources { memory_bytes: Some(777 << 20), cpu_millis: Some(333), pids: None, disk_bytes: None };
const OWNER: &str = "ada";

/// A host, and all that outlives it.
pub(super) struct Stage {
    pub(super) host: Host,
    pub(super) engine: Arc<FakeEngine>,
    pub(super) kept: Kept,
    pub(super) folder: tempfile::TempDir,
}

impl Stage {
    /// Before a step.
    pub(super) async fn before(step: Step, kept: Kept) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let templates = folder.path().join("templates/web");
        std::fs::create_dir_all(&templates).unwrap();
        std::fs::write(templates.join("template.json"), DEV).unwrap();
        let engine = Arc::new(FakeEngine::new(EngineScript::default(), AgentScript::default()));
        let stage = Self::on(folder, engine, kept, step.has_pool()).await;
        step.prepare(&stage).await;
        if step.has_pool() {
            stage.host.pools_filled().await.unwrap();
        }
        stage.host.settled().await;
        stage
    }

    /// The next host, where one has died.
    pub(super) async fn after(folder: tempfile::TempDir, engine: &EngineCopy, kept: Kept) -> Self {
        Self::on(folder, Arc::new(engine.engine().await), kept, false).await
    }

    async fn on(folder: tempfile::TempDir, engine: Arc<FakeEngine>, kept: Kept, pooled: bool) -> Self {
        let builder = Host::builder()
            .runtime(engine.clone())
            .home(folder.path().join("home"))
            .templates(folder.path().join("templates"))
            .reconciles(false);
        let builder = kept.by(builder);
        let builder =
            if pooled { builder.pool(Class::default(), PoolOptions::default().min(1).max(1)) } else { builder };
        Self { host: builder.build().await.unwrap(), engine, kept, folder }
    }

    fn request(&self) -> CreateWorkspace {
        let template = self.host.catalog().find("web").unwrap();
        CreateWorkspace::from_template(&template).id("w").env("B", "request")
    }

    /// Reconciles, and looks whether everything is in order then: nothing orphaned, doubled, lost or left over.
    pub(super) async fn reconcile(&self) {
        let reconciled = self.host.reconcile().await.unwrap();
        assert!(reconciled.failed.is_empty(), "{reconciled:?}");
        self.check().await;
        let again = self.host.reconcile().await.unwrap();
        assert!(again.is_empty(), "what is right stays as it is: {again:?}");
        if let Kept::Objects(objects) = &self.kept {
            self.check_objects(objects).await;
        }
    }

    /// Long after, what no archive needs goes, and archives are whole.
    async fn check_objects(&self, objects: &Objects) {
        let archives = self.host.archives();
        objects.age();
        archives.prune().await.unwrap();
        let all = archives.list(None).await.unwrap();
        for archive in &all {
            archives.verify(archive).await.unwrap();
        }
        // Each has another content and another list of it, in a chunk each, an index, and a manifest.
        let names = objects.names();
        assert_eq!(names.len(), 4 * all.len(), "an archive is lost, or more is there than archives need: {names:?}");
    }

    async fn check(&self) {
        let inner = &self.host.inner;
        let (entries, archives) = (inner.store.all().await.unwrap(), self.kept.names(&self.host).await);
        let containers = self.engine.list(&BTreeMap::new()).await.unwrap();
        for entry in &entries {
            let container = entry.container.as_ref();
            let container = container.map(|id| containers.iter().find(|container| container.id.0 == *id));
            assert!(!entry.state.is_transitional() && entry.actor.is_none(), "nobody is at it any more: {entry:?}");
            match container {
                Some(container) => {
                    let container = container.unwrap_or_else(|| panic!("its container is there: {entry:?}"));
                    assert_eq!(entry.state, WorkspaceState::of(container.status), "{entry:?}");
                }
                None => assert!(entry.state == WorkspaceState::Asleep && entry.archive.is_some(), "{entry:?}"),
            }
            assert!(entry.archive.iter().all(|archive| archives.contains(archive)), "{entry:?} of {archives:?}");
        }
        let needed = |archive: &String| entries.iter().any(|entry| entry.archive.as_ref() == Some(archive));
        assert!(archives.iter().all(needed), "no archive is left over: {archives:?}, {entries:?}");
        for container in &containers {
            let owners = entries.iter().filter(|entry| entry.container.as_ref() == Some(&container.id.0)).count();
            let waits = container.name.starts_with(POOL_NAME_PREFIX);
            assert_eq!(owners, usize::from(!waits), "each is somebody's, or waits: {container:?}, {entries:?}");
        }
        assert_eq!(self.engine.claimed_while_waiting(), Vec::<String>::new(), "none is nobody's and can't be had");
        for entry in &entries {
            assert!(!entry.recipe.limits_pending, "its container has its limits: {entry:?}");
            let Some(container) = containers.iter().find(|container| entry.container.as_ref() == Some(&container.id.0))
            else {
                continue;
            };
            let (given, written) = (self.engine.spec(&container.name).resources, entry.recipe.resources());
            assert_eq!(given, written, "{entry:?}");
        }
        for record in inner.records.all().await {
            let of = |entry: &crate::state::Entry| {
                entry.id == record.workspace && entry.container.as_ref() == Some(&record.container)
            };
            assert!(entries.iter().any(of), "no record is left over: {record:?}, {entries:?}");
        }
        let infos = self.host.list().await.unwrap();
        assert_eq!(infos.len(), entries.len(), "a listing has each once: {infos:?}");
        assert!(
            infos.iter().all(|info| entries.iter().any(|entry| (&entry.id, entry.state) == (&info.id, info.state)))
        );
    }

    /// What there is then is what there was before the step, or after it; and after it, if it was done.
    pub(super) async fn holds(&self, step: Step, done: bool) {
        let bystander = self.host.workspace("bystander").await.unwrap();
        self.holds_content(&bystander, "the bystander's").await;
        let found = self.host.workspace("w").await;
        match found {
            Ok(workspace) => {
                assert!(!(done && step.to() == WorkspaceState::Removed), "it was removed");
                if done {
                    assert_eq!(state(&workspace).await, step.to());
                } else if step.is_creation() {
                    assert_eq!(state(&workspace).await, WorkspaceState::Ready, "whole, or not at all");
                }
                if step == Step::SleepStopped {
                    let now = state(&workspace).await;
                    assert!(
                        matches!(now, WorkspaceState::Stopped | WorkspaceState::Asleep),
                        "nobody started it: {now}"
                    );
                }
                if done && matches!(step, Step::SetLimits | Step::SetLimitsPaused) {
                    let given = self.engine.spec("corehold-w").resources;
                    assert_eq!((given.memory_bytes, given.cpu_millis), (MORE.memory_bytes, MORE.cpu_millis));
                }
                workspace.start().await.unwrap();
                if !step.is_creation() || done {
                    self.holds_content(&workspace, CONTENT).await;
                }
                self.write(&workspace, CONTENT).await.unwrap();
                assert_eq!(self.engine.dev_servers("corehold-w"), 1);
                let entry = self.host.inner.store.get(workspace.id()).await.unwrap().unwrap();
                assert_eq!(entry.recipe.env["B"], "request");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
                if step == Step::RemoveArchives {
                    let left = self.host.archives().list(None).await.unwrap();
                    let left: Vec<_> = left.iter().map(|archive| archive.workspace.as_str()).collect();
                    assert_eq!(left, ["bystander"], "what was saved of it went with it");
                }
                assert!(step.may_be_missing() && (!done || step.to() == WorkspaceState::Removed), "it is lost");
                if step.is_creation() {
                    Box::pin(step.go(self)).await.expect("its name and its owner are free");
                }
            }
        }
        if step == Step::GetOrCreate {
            let owned = self.host.get_or_create(OWNER, self.request()).await.unwrap();
            assert_eq!(owned.id().as_str(), "w");
        }
    }

    /// Removes everything, and nothing is left.
    pub(super) async fn clear(&self) {
        for info in self.host.list().await.unwrap() {
            let everything = RemoveOptions::default().archives(true);
            self.host.workspace(info.id.as_str()).await.unwrap().remove_with(everything).await.unwrap();
        }
        self.host.drain_pools().await.unwrap();
        self.host.settled().await;
        assert_eq!(self.engine.names(), Vec::<String>::new());
        assert_eq!(self.host.inner.store.all().await.unwrap(), []);
        assert_eq!((self.kept.names(&self.host).await, self.host.inner.records.all().await.len()), (Vec::new(), 0));
        if let Kept::Objects(objects) = &self.kept {
            objects.age();
            self.host.archives().prune().await.unwrap();
            assert_eq!(objects.names(), Vec::<String>::new(), "nothing is left over that no archive needs");
        }
    }

    /// Lays what is to be kept into a workspace that runs.
    async fn write(&self, workspace: &Workspace, content: &str) -> Result<()> {
        match &self.kept {
            Kept::Bed(_) => drop(workspace.write_file("kept", content.to_owned()).await?),
            Kept::Objects(_) => self.engine.set_tar(&name_of(workspace), tar_of(&[("kept", content.as_bytes())])),
        }
        Ok(())
    }

    async fn holds_content(&self, workspace: &Workspace, content: &str) {
        match &self.kept {
            Kept::Bed(_) => assert_eq!(workspace.read_file("kept").await.unwrap(), content),
            Kept::Objects(_) => {
                let wanted = tar_of(&[("kept", content.as_bytes())]);
                assert!(self.engine.tar(&name_of(workspace)) == wanted, "{} has other files", workspace.id());
            }
        }
    }
}

fn name_of(workspace: &Workspace) -> String {
    format!("corehold-{}", workspace.id())
}
