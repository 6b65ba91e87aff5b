//! The tasks that follow the records of all agents of a home, and write them down.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use corehold_types::{
    Timestamp,
    tools::{AuditEvent, AuditOutcome, AuditRead, AuditReadRequest, Info, InfoRequest},
};
use futures_util::StreamExt as _;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use super::{AuditEntry, LAST_WORDS, folder, store::Store};
use crate::{
    client::{AgentClient, Frame, Patience, TokenSource},
    error::Result,
    events::{ChangeKind, Event, EventKind, Events, Signal, Signals, WeakBus},
    host::AGENT_PORT,
    key::HostKey,
    labels,
    life::{TransitionCause, WorkspaceState},
    pool::Records,
    runtime::{ContainerId, ContainerStatus, Runtime},
    workspace::{Labelled, WorkspaceId},
};

/// Entries that wait to be written down. Who follows an agent waits when they are this many, and the agent keeps the rest.
const QUEUE: usize = 1024;
/// Records in one answer.
const PAGE: u32 = 1000;
/// Between attempts to reach an agent: the first, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// An agent that has nothing to tell is asked whether it lives. Where it doesn't, its container's end is told soon enough.
const SILENCE: Duration = Duration::from_secs(60);

/// Collects, until it is dropped.
pub(crate) struct Auditor {
    room: Arc<Room>,
    _watch: AbortOnDropHandle<()>,
}

/// What an auditor needs of its host.
pub(crate) struct AuditSeat {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) records: Records,
    pub(crate) key: Arc<HostKey>,
    pub(crate) fingerprint: String,
    pub(crate) subject: String,
    pub(crate) events: WeakBus,
    pub(crate) home: PathBuf,
}

struct Room {
    seat: AuditSeat,
    store: Store,
    queue: mpsc::Sender<Work>,
    /// By the container of each; `None` when the auditor is gone, and nobody may be followed any more.
    followers: Mutex<Option<HashMap<ContainerId, Follower>>>,
}

/// Something to be written down, and who wants to know that it was.
#[derive(Default)]
struct Work {
    entries: Vec<AuditEntry>,
    /// The workspace of which nothing comes after them.
    over: Option<WorkspaceId>,
    done: Option<oneshot::Sender<()>>,
}

/// Who follows one agent.
struct Follower {
    agent: Agent,
    /// What is frozen has nothing new to tell, and can't tell it.
    paused: bool,
    _task: AbortOnDropHandle<()>,
}

/// An agent that can be asked.
#[derive(Clone)]
struct Agent {
    workspace: WorkspaceId,
    client: Arc<AgentClient>,
    tokens: Arc<TokenSource>,
}

impl Auditor {
    /// Begins to collect.
    pub(crate) fn start(seat: AuditSeat, signals: Signals, events: Events) -> Arc<Self> {
        let (queue, work) = mpsc::channel(QUEUE);
        let store = Store::new(folder(seat.home.clone()));
        // These two end by themselves, once they have written down what was told until the host's end: the one with the last
        // event, the other with the last entry.
        tokio::spawn(note(seat.subject.clone(), queue.clone(), events));
        tokio::spawn(write(store.clone(), work, seat.events.clone()));
        let room = Arc::new(Room { seat, store, queue, followers: Mutex::new(Some(HashMap::new())) });
        let watch = AbortOnDropHandle::new(tokio::spawn(watch(room.clone(), signals)));
        Arc::new(Self { room, _watch: watch })
    }

    /// A container is about to end: what its agent still has is written down, unless that takes too long.
    pub(crate) async fn before_end(&self, container: &ContainerId) {
        let agent = {
            let followers = self.room.lock();
            let follower = followers.as_ref().and_then(|followers| followers.get(container));
            let Some(follower) = follower.filter(|follower| !follower.paused) else { return };
            follower.agent.clone()
        };
        match tokio::time::timeout(LAST_WORDS, self.room.collect(&agent)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(workspace = %agent.workspace, %error, "the last records of an agent can't be had");
            }
            Err(_) => tracing::warn!(workspace = %agent.workspace, "an agent took too long to tell its last records"),
        }
    }
}

impl Drop for Auditor {
    fn drop(&mut self) {
        // Followers hold the room, and the room holds them.
        self.room.lock().take();
    }
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, Option<HashMap<ContainerId, Follower>>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the agents of all workspaces that run, and no others.
    async fn look(self: &Arc<Self>) -> Result<()> {
        let home = labels::of_home(&self.seat.fingerprint);
        let mut states = self.seat.runtime.list(&home).await?;
        states.retain(|state| matches!(state.status, ContainerStatus::Running | ContainerStatus::Paused));
        let pooled =
            |labels: &BTreeMap<String, String>| labels.get(labels::KIND).is_some_and(|kind| kind == labels::KIND_POOL);
        let any_pooled = states.iter().any(|state| pooled(&state.labels));
        let records = if any_pooled { self.seat.records.all().await } else { Vec::new() };
        let mut guard = self.lock();
        let Some(followers) = guard.as_mut() else { return Ok(()) };
        followers.retain(|container, _| states.iter().any(|state| state.id == *container));
        for state in states {
            let Some(labelled) = Labelled::of(&state, &records).ok().flatten() else { continue };
            let paused = state.status == ContainerStatus::Paused;
            let follower = followers.entry(state.id.clone()).or_insert_with(|| {
                let patience = Patience { silence: SILENCE, ..Patience::default() };
                let client = AgentClient::new(self.seat.runtime.clone(), state.id, AGENT_PORT, patience);
                let (workspace, subject) = (labelled.id.to_string(), self.seat.subject.clone());
                let tokens = TokenSource::new(self.seat.key.clone(), labelled.instance, workspace, subject);
                let agent = Agent { workspace: labelled.id, client: Arc::new(client), tokens: Arc::new(tokens) };
                let task = tokio::spawn(follow(Arc::clone(self), agent.clone()));
                Follower { agent, paused, _task: AbortOnDropHandle::new(task) }
            });
            follower.paused = paused;
        }
        Ok(())
    }

    /// Where an agent's records go on, and of which start they are.
    async fn position(&self, agent: &Agent) -> Result<(String, u64)> {
        let boot_id = agent.client.call::<Info>(&agent.tokens, &InfoRequest::default()).await?.boot_id;
        let (store, workspace, boot) = (self.store.clone(), agent.workspace.clone(), boot_id.clone());
        let cursor = tokio::task::spawn_blocking(move || store.cursor(&workspace, &boot)).await;
        Ok((boot_id, cursor.unwrap_or(0)))
    }

    /// Writes down what an agent has now, and waits until it is.
    async fn collect(&self, agent: &Agent) -> Result<()> {
        let (boot_id, mut after) = self.position(agent).await?;
        loop {
            let request = AuditReadRequest { after: Some(after), limit: Some(PAGE), ..Default::default() };
            let page = agent.client.call::<AuditRead>(&agent.tokens, &request).await?;
            let mut entries = Vec::with_capacity(page.records.len() + 1);
            entries.extend(page.gap.map(|gap| agent.entry(&boot_id, AuditEvent::Gap { gap })));
            after = page.records.last().map_or(after, |record| record.seq);
            let records = page.records.into_iter().map(|record| AuditEvent::Record { record: Box::new(record) });
            entries.extend(records.map(|event| agent.entry(&boot_id, event)));
            let (done, written) = oneshot::channel();
            if self.queue.send(Work { entries, done: Some(done), ..Work::default() }).await.is_ok() {
                let _ = written.await;
            }
            if page.cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// Writes down what an agent tells, until the connection breaks off.
    async fn listen(&self, agent: &Agent) -> Result<()> {
        let (boot_id, after) = self.position(agent).await?;
        let request = AuditReadRequest { after: Some(after), follow: Some(true), ..Default::default() };
        let mut told = agent.client.stream::<AuditRead>(&agent.tokens, &request).await?;
        // Started anew in between, it counts from 1 again, and this would be a wrong place to go on from.
        if agent.client.call::<Info>(&agent.tokens, &InfoRequest::default()).await?.boot_id != boot_id {
            return Ok(());
        }
        while let Some(frame) = told.next().await {
            if let Frame::Event(event) = frame? {
                let work = Work { entries: vec![agent.entry(&boot_id, event)], ..Work::default() };
                if self.queue.send(work).await.is_err() {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Agent {
    fn entry(&self, boot_id: &str, event: AuditEvent) -> AuditEntry {
        let (workspace, boot_id) = (self.workspace.clone(), boot_id.to_owned());
        match event {
            AuditEvent::Record { record } => AuditEntry::Agent { workspace, boot_id, record },
            AuditEvent::Gap { gap } => AuditEntry::Gap { workspace, boot_id, time: Timestamp::now(), gap },
        }
    }
}

/// Follows one agent for ever, over whatever breaks off.
async fn follow(room: Arc<Room>, agent: Agent) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        if let Err(error) = room.listen(&agent).await {
            tracing::debug!(workspace = %agent.workspace, %error, "following an agent's records broke off");
        }
        if began.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Sees to it that the right agents are followed.
async fn watch(room: Arc<Room>, mut signals: Signals) {
    let mut due = true;
    loop {
        if due {
            due = match room.look().await {
                Ok(()) => false,
                Err(error) => {
                    tracing::debug!(%error, "the agents to be followed can't be listed");
                    true
                }
            };
        }
        let signal = tokio::select! {
            signal = signals.next() => signal,
            () = tokio::time::sleep(LONGEST_PAUSE), if due => continue,
        };
        match signal {
            Some(Signal::LookAgain) => due = true,
            Some(Signal::Change(change)) => match change.kind {
                ChangeKind::Started | ChangeKind::Renamed | ChangeKind::Paused | ChangeKind::Resumed => due = true,
                ChangeKind::Ended { .. } | ChangeKind::Removed { .. } => {
                    if let Some(followers) = room.lock().as_mut() {
                        followers.remove(&change.container);
                    }
                }
                ChangeKind::Created | ChangeKind::OutOfMemory => {}
            },
            None => return,
        }
    }
}

/// Turns what the host tells into entries of its own.
async fn note(subject: String, queue: mpsc::Sender<Work>, mut events: Events) {
    while let Some(event) = events.next().await {
        let over = event.workspace.clone().filter(|_| matches!(event.kind, EventKind::Removed | EventKind::Vanished));
        let Some(entry) = entry(event, &subject) else { continue };
        if queue.send(Work { entries: vec![entry], over, done: None }).await.is_err() {
            return;
        }
    }
}

/// What a host did; nothing for what only says how far something is.
fn entry(event: Event, subject: &str) -> Option<AuditEntry> {
    let outcome = match &event.kind {
        EventKind::Creation(_) | EventKind::NotKept { .. } | EventKind::PoolImagePulling { .. } => return None,
        EventKind::Transition { from, to, cause } => transition(*from, *to, *cause)?,
        EventKind::CreationFailed { .. } | EventKind::PoolImageFailed { .. } => AuditOutcome::Failed,
        _ => AuditOutcome::Ok,
    };
    let befell = matches!(
        event.kind,
        EventKind::Ended { .. }
            | EventKind::OutOfMemory
            | EventKind::DiskExceeded { .. }
            | EventKind::VolumeExceeded { .. }
            | EventKind::Vanished
            | EventKind::EngineLost { .. }
            | EventKind::EngineBack
            | EventKind::Missed { .. }
            | EventKind::Transition { cause: TransitionCause::Engine, .. }
    );
    let subject = (!befell).then(|| event.subject.clone().unwrap_or_else(|| subject.to_owned()));
    let serde_json::Value::Object(mut detail) = serde_json::to_value(&event.kind).ok()? else { return None };
    let tool = detail.remove("event")?.as_str()?.to_owned();
    Some(AuditEntry::Host { workspace: event.workspace, time: event.at, subject, tool, outcome, detail })
}

/// What came of a transition; nothing while it is under way, or where its end is told as something else: created, removed.
fn transition(from: WorkspaceState, to: WorkspaceState, cause: TransitionCause) -> Option<AuditOutcome> {
    use WorkspaceState as S;
    if to.is_transitional() || matches!(from, S::Creating | S::Removing) || to == S::Removed {
        return None;
    }
    let meant = match from {
        S::Stopping => S::Stopped,
        S::Pausing => S::Paused,
        S::Archiving => S::Asleep,
        S::Starting | S::Resuming | S::Waking => S::Ready,
        // What befell it was meant by nobody.
        _ => to,
    };
    // What a host that died had begun may well be undone.
    let done = to == meant || cause == TransitionCause::Recovered;
    Some(if done { AuditOutcome::Ok } else { AuditOutcome::Failed })
}

/// Writes down what comes, as many at a time as there are.
async fn write(store: Store, mut work: mpsc::Receiver<Work>, events: WeakBus) {
    let mut told = false;
    let mut batch = Vec::new();
    while work.recv_many(&mut batch, QUEUE).await > 0 {
        let (mut entries, mut over, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for work in batch.drain(..) {
            entries.extend(work.entries);
            over.extend(work.over);
            waiting.extend(work.done);
        }
        let writing = store.clone();
        let write = move || {
            writing.append(entries)?;
            over.iter().for_each(|workspace| writing.forget(workspace));
            Ok(())
        };
        let written = tokio::task::spawn_blocking(write).await;
        let result = written.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        match result {
            Ok(()) => told = false,
            Err(error) if !std::mem::replace(&mut told, true) => {
                let error = format!("the audit log in {} can't be written: {error}", store.folder().display());
                tracing::warn!(error, "records of agents and of this host are lost");
                events.emit(None, EventKind::NotKept { error });
            }
            Err(_) => {}
        }
        for done in waiting {
            // Nobody may be waiting any more.
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use corehold_types::tools::{AuditRecord, AuditSurface};

    use super::*;
    use crate::{
        AuditQuery, CreateWorkspace, Host,
        testing::{AgentScript, EngineScript, Fixture},
    };

    fn record(seq: u64) -> AuditRecord {
        AuditRecord {
            seq,
            time: Timestamp::from_unix(0, 0),
            subject: Some("ada".to_owned()),
            surface: AuditSurface::Http,
            request_id: "r".to_owned(),
            tool: "read".to_owned(),
            paths: vec![],
            paths_omitted: None,
            detail: None,
            command: None,
            changed: None,
            bytes_in: None,
            bytes_out: None,
            duration_ms: 1,
            outcome: AuditOutcome::Ok,
            code: None,
            replayed: false,
            times: None,
            since: None,
        }
    }

    /// What is written down, shortly; waits until it is as expected.
    async fn expect(host: &Host, expected: &[&str]) {
        let read = || async {
            let entries = host.audit(AuditQuery::default()).await.unwrap().entries;
            let shown = entries.iter().map(|entry| match entry {
                AuditEntry::Agent { workspace, boot_id, record } => format!("{workspace} {boot_id} {}", record.seq),
                AuditEntry::Host { workspace, subject, tool, .. } => {
                    let workspace = workspace.as_ref().map_or("-", WorkspaceId::as_str);
                    format!("{workspace} {tool} by {}", subject.as_deref().unwrap_or("nobody"))
                }
                AuditEntry::Gap { gap, .. } => format!("gap {} to {}", gap.from, gap.to),
            });
            let mut shown = shown.collect::<Vec<_>>();
            // When its making was told, beside what its agent was asked meanwhile, is nobody's promise.
            shown.sort_by_key(|entry| !entry.contains(" created "));
            shown
        };
        let waiting = async {
            while read().await != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), waiting).await.is_err() {
            assert_eq!(read().await, expected);
        }
    }

    fn auditing(fixture: &Fixture) -> crate::HostBuilder {
        Host::builder().runtime(fixture.engine.clone()).home(fixture.host.home()).audit(true)
    }

    #[tokio::test]
    async fn what_was_done_is_there_after_the_workspace_and_the_host() {
        let records = Arc::new(Mutex::new(vec![record(1), record(2)]));
        let agent = AgentScript { records: Some(records.clone()), ..AgentScript::default() };
        let fixture = Fixture::new(EngineScript::default(), agent).await;
        let host = auditing(&fixture).subject("backend").build().await.unwrap();
        let workspace = host.create(CreateWorkspace::empty().id("w")).await.unwrap();
        expect(&host, &["w created by backend", "w b 1", "w b 2"]).await;
        // The stream of the fake agent tells no more; only who asks before the end gets these.
        records.lock().unwrap().extend([record(5), record(6)]);
        workspace.for_subject("bob").remove().await.unwrap();
        drop((host, workspace));
        let log = ["w created by backend", "w b 1", "w b 2", "gap 3 to 4", "w b 5", "w b 6", "w removed by bob"];
        expect(&fixture.host, &log).await;
    }

    #[tokio::test]
    async fn each_transition_is_written_down_with_its_end_its_cause_and_in_whose_name() {
        let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
        let host = auditing(&fixture).subject("backend").reconciles(false).build().await.unwrap();
        // It would take note of what the engine does, and tell nobody here.
        drop(fixture.host);
        let workspace = host.create(CreateWorkspace::empty().id("w")).await.unwrap();
        workspace.for_subject("ada").pause().await.unwrap();
        workspace.for_subject("bob").write_file("a", "wakes it").await.unwrap();
        workspace.sleep(Duration::ZERO).await.unwrap();
        fixture.engine.fail_starts(1);
        workspace.for_subject("ada").wake().await.unwrap_err();
        workspace.wake().await.unwrap();
        fixture.engine.stop(&workspace.container(), Duration::ZERO).await.unwrap();
        host.reconcile().await.unwrap();
        let seen = || async {
            let entries = host.audit(AuditQuery::default().tool("transition")).await.unwrap().entries;
            let shown = entries.into_iter().map(|entry| match entry {
                AuditEntry::Host { subject, outcome, detail, .. } => {
                    let word = |name: &str| detail[name].as_str().unwrap().to_owned();
                    let subject = subject.unwrap_or_else(|| "nobody".to_owned());
                    format!("{} to {}, {} by {subject}: {outcome:?}", word("from"), word("to"), word("cause"))
                }
                other => panic!("{other:?}"),
            });
            shown.collect::<Vec<_>>()
        };
        let expected = [
            "pausing to paused, asked by ada: Ok",
            "resuming to ready, called by backend: Ok",
            "archiving to asleep, asked by backend: Ok",
            "waking to asleep, asked by ada: Failed",
            "waking to ready, asked by backend: Ok",
            "ready to stopped, engine by nobody: Ok",
        ];
        let waiting = async {
            while seen().await.len() < expected.len() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        assert_eq!(seen().await, expected);
    }

    #[tokio::test]
    async fn two_hosts_write_each_record_once_and_what_befalls_is_nobodys_deed() {
        let records = Arc::new(Mutex::new(vec![record(1)]));
        let agent = AgentScript { records: Some(records.clone()), ..AgentScript::default() };
        let fixture = Fixture::new(EngineScript::default(), agent).await;
        let workspace = fixture.host.create(CreateWorkspace::empty().id("w")).await.unwrap();
        let one = auditing(&fixture).build().await.unwrap();
        expect(&one, &["w b 1"]).await;
        records.lock().unwrap().push(record(2));
        let other = auditing(&fixture).build().await.unwrap();
        expect(&one, &["w b 1", "w b 2"]).await;
        drop(other);
        fixture.engine.remove(&workspace.container()).await.unwrap();
        expect(&one, &["w b 1", "w b 2", "w vanished by nobody"]).await;
    }

    #[tokio::test]
    async fn what_can_not_be_written_is_told_and_ends_nothing() {
        let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
        std::fs::write(fixture.host.home().join("audit"), "in the way").unwrap();
        let host = auditing(&fixture).build().await.unwrap();
        let mut events = host.events();
        let workspace = host.create(CreateWorkspace::empty().id("w")).await.unwrap();
        let told = async {
            loop {
                if let EventKind::NotKept { error } = events.next().await.unwrap().kind {
                    return error;
                }
            }
        };
        assert!(told.await.contains("/audit can't be written"));
        workspace.remove().await.unwrap();
    }

    #[tokio::test]
    async fn it_ends_with_its_host() {
        let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
        let host = auditing(&fixture).build().await.unwrap();
        let workspace = host.create(CreateWorkspace::empty().id("w")).await.unwrap();
        let mut events = host.events();
        drop((host, workspace));
        while events.next().await.is_some() {}
    }
}
