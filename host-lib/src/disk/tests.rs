//! The rounds over an engine in memory, round by round.

use super::{watch::Rounds, *};
use crate::{
    CreateVolume, CreateWorkspace, EventKind, Events, Host, Workspace, WorkspaceState,
    policy::{Account, Policy, Totals},
    runtime::{DiskSpace, DiskUse, Resources},
    testing::{AgentScript, CommandLog, EngineScript, Fixture},
    volume,
};

const MIB: u64 = 1 << 20;

struct Room {
    fixture: Fixture,
    host: Host,
    rounds: Rounds,
    events: Events,
}

impl Room {
    /// A host that makes no rounds by itself.
    async fn new(policy: DiskPolicy) -> Self {
        Self::with(policy, AgentScript::default()).await
    }

    async fn with(policy: DiskPolicy, agent: AgentScript) -> Self {
        let fixture = Fixture::new(EngineScript::default(), agent).await;
        let host = fixture.builder().disk(policy).reconciles(false).build().await.unwrap();
        let events = host.events();
        let room = Self { fixture, host, rounds: Rounds::default(), events };
        room.left(100 << 10);
        room
    }

    fn left(&self, mib: u64) {
        let space = DiskSpace { free_bytes: mib * MIB, total_bytes: 200 << 30, free_files: Some(1 << 20) };
        *self.fixture.engine.disk.left.lock().unwrap() = Some(space);
    }

    fn has(&self, id: &str, mib: u64, files: u64) {
        let used = DiskUse { bytes: mib * MIB, files: Some(files) };
        self.fixture.engine.disk.uses.lock().unwrap().insert(format!("corehold-{id}"), used);
    }

    async fn limited(&self, id: &str, mib: u64) -> Workspace {
        let resources = Resources { disk_bytes: Some(mib * MIB), ..Resources::default() };
        self.host.create(CreateWorkspace::empty().id(id).resources(resources)).await.unwrap()
    }

    async fn round(&mut self) -> bool {
        self.rounds.next(&self.host.inner).await.unwrap()
    }

    /// The next of those that this is about.
    async fn told(&mut self) -> (String, u64, Option<u64>) {
        loop {
            let event = self.events.next().await.unwrap();
            if let EventKind::DiskExceeded { bytes, files, .. } = event.kind {
                return (event.workspace.unwrap().to_string(), bytes / MIB, files);
            }
        }
    }
}

#[tokio::test]
async fn who_has_more_than_they_may_is_paused_until_it_is_less() {
    let mut room = Room::new(DiskPolicy::default().files(1_000)).await;
    let (large, many, fine) =
        (room.limited("large", 10).await, room.limited("many", 1_000).await, room.limited("fine", 10).await);
    room.has("large", 11, 5);
    room.has("many", 1, 1_001);
    room.has("fine", 10, 1_000);
    assert!(room.round().await);
    let states = [&large, &many, &fine].map(async |workspace| workspace.state().await.unwrap());
    let states = futures_util::future::join_all(states).await;
    assert_eq!(states, [WorkspaceState::Paused, WorkspaceState::Paused, WorkspaceState::Ready]);
    assert_eq!(room.told().await, ("large".to_owned(), 11, Some(5)));
    assert_eq!(room.told().await, ("many".to_owned(), 1, Some(1_001)));

    // A call wakes it, and it is looked at again; what is less by then runs on.
    large.resume().await.unwrap();
    room.round().await;
    assert_eq!(large.state().await.unwrap(), WorkspaceState::Paused);
    large.resume().await.unwrap();
    room.has("large", 9, 5);
    room.round().await;
    assert_eq!(large.state().await.unwrap(), WorkspaceState::Ready);
    room.has("large", 12, 5);
    room.left(1 << 10);
    room.round().await;
    assert_eq!(room.told().await.1, 12, "once, since it had not meanwhile");
}

#[tokio::test]
async fn who_is_only_told_of_runs_on() {
    let mut room = Room::new(DiskPolicy::default().action(DiskAction::Tell)).await;
    let workspace = room.limited("large", 10).await;
    room.has("large", 11, 5);
    for _ in 0..3 {
        assert!(room.round().await, "who is over its limit is looked at until it isn't");
    }
    assert_eq!((workspace.state().await.unwrap(), room.told().await.1), (WorkspaceState::Ready, 11));
    // Its limit can be changed, and holds over sleep and wake.
    workspace.write_file("kept", "x").await.unwrap();
    workspace.set_resources(Resources { disk_bytes: Some(20 * MIB), ..Resources::default() }).await.unwrap();
    room.round().await;
    workspace.sleep(Duration::ZERO).await.unwrap();
    assert!(!room.round().await, "what has no container has nothing there");
    workspace.wake().await.unwrap();
    room.has("large", 21, 5);
    room.round().await;
    assert_eq!(room.told().await.1, 21);
}

#[tokio::test]
async fn who_has_their_commands_ended_runs_on_without_any_of_them() {
    let log = Arc::new(CommandLog::default());
    let policy = DiskPolicy::default().action(DiskAction::EndCommands);
    let mut room = Room::with(policy, AgentScript { log: Some(log.clone()), ..AgentScript::default() }).await;
    let workspace = room.limited("large", 10).await;
    // The oldest is on the second page: whoever starts many others doesn't hide it.
    let begin = |id: &str, ended: bool| log.commands.lock().unwrap().insert(id.to_owned(), (String::new(), ended));
    begin("0", false);
    (1..=1_200).for_each(|number| drop(begin(&format!("1-{number:04}"), true)));
    log.left_behind.lock().unwrap().insert("1-0600".to_owned());
    begin("forgotten", false);
    begin("new", false);
    room.has("large", 9, 5);
    room.round().await;
    assert!(log.killed.lock().unwrap().is_empty());
    room.has("large", 11, 5);
    room.left(1 << 10);
    room.round().await;
    assert_eq!(room.told().await, ("large".to_owned(), 11, Some(5)));
    assert_eq!(*log.killed.lock().unwrap(), ["new", "1-0600", "0"]);
    assert_eq!(workspace.state().await.unwrap(), WorkspaceState::Ready);
    // What is begun again is ended again, until it is less.
    begin("again", false);
    room.round().await;
    assert_eq!(log.killed.lock().unwrap().iter().filter(|id| *id == "again").count(), 1);
    room.has("large", 9, 5);
    begin("fine", false);
    room.round().await;
    assert!(!log.killed.lock().unwrap().contains(&"fine".to_owned()));
}

#[tokio::test]
async fn while_the_disk_is_as_it_was_nobody_is_measured_but_now_and_then() {
    let mut room = Room::new(DiskPolicy::default()).await;
    assert!(!room.round().await, "nobody is there");
    let _workspace = room.limited("one", 10).await;
    assert!(room.round().await);
    assert!(!room.round().await && !room.round().await);
    room.left((100 << 10) - 20);
    assert!(room.round().await, "20 MiB are gone");
    let mut left_out = 0;
    while !room.round().await {
        left_out += 1;
    }
    assert_eq!(left_out, 6);
    // Where the disk isn't seen, each round is made.
    *room.fixture.engine.disk.left.lock().unwrap() = None;
    assert!(room.round().await && room.round().await);
}

#[tokio::test]
async fn who_was_given_no_limit_has_everybodys_and_is_looked_at_seldom() {
    let policy = DiskPolicy::default();
    assert_eq!((policy.bytes, policy.files, policy.action), (Some(16 << 30), Some(1_000_000), DiskAction::Pause));
    let mut room = Room::new(policy).await;
    let [large, many, fine] = ["large", "many", "fine"].map(|id| room.host.create(CreateWorkspace::empty().id(id)));
    let (large, many, fine) = tokio::try_join!(large, many, fine).unwrap();
    room.has("large", (16 << 10) + 1, 5);
    room.has("many", 1, 1_000_001);
    room.has("fine", 16 << 10, 1_000_000);
    assert!(room.round().await);
    let states = [&large, &many, &fine].map(async |workspace| workspace.state().await.unwrap());
    let states = futures_util::future::join_all(states).await;
    assert_eq!(states, [WorkspaceState::Paused, WorkspaceState::Paused, WorkspaceState::Ready]);
    let mut told = [room.told().await, room.told().await];
    told.sort();
    assert_eq!(told, [("large".to_owned(), (16 << 10) + 1, Some(5)), ("many".to_owned(), 1, Some(1_000_001))]);

    // Nobody is walked through while the disk has become fuller by less than a part of that.
    room.left((99 << 10) + 1);
    assert!(!room.round().await);
    room.left((99 << 10) - 1);
    assert!(room.round().await);
    let mut left_out = 0;
    while !room.round().await {
        left_out += 1;
    }
    assert_eq!(left_out, 60);
    // One who is over it is, until it isn't.
    large.resume().await.unwrap();
    assert!(room.round().await);
    assert_eq!(large.state().await.unwrap(), WorkspaceState::Paused);
    // Where the disk isn't seen, nobody is refused or looked at.
    *room.fixture.engine.disk.left.lock().unwrap() = None;
    many.resume().await.unwrap();
    let unseen = room.host.create(CreateWorkspace::empty().id("unseen")).await.unwrap();
    room.has("unseen", 1 << 20, 5);
    room.round().await;
    assert_eq!(unseen.state().await.unwrap(), WorkspaceState::Ready);
}

#[tokio::test]
async fn who_may_have_any_number_is_not_looked_at() {
    let mut room = Room::new(DiskPolicy::default().bytes(None).files(None)).await;
    let workspace = room.host.create(CreateWorkspace::empty().id("one")).await.unwrap();
    room.has("one", 1 << 30, 1 << 30);
    assert!(!room.round().await);
    assert_eq!(workspace.state().await.unwrap(), WorkspaceState::Ready);
}

#[tokio::test]
async fn a_volume_that_holds_more_than_it_may_is_told_of_once() {
    let mut room = Room::new(DiskPolicy::default().volume_bytes(10 * MIB)).await;
    for name in ["large", "fine"] {
        room.host.volumes().create(CreateVolume::new(name)).await.unwrap();
    }
    let holds = |room: &Room, name: &str, mib: u64| {
        let name = volume::engine_name(&room.host.inner.fingerprint, name);
        let used = DiskUse { bytes: mib * MIB, files: None };
        room.fixture.engine.disk.uses.lock().unwrap().insert(name, used);
        // So that the next round isn't left out.
        *room.fixture.engine.disk.left.lock().unwrap() = None;
    };
    let mut told = Vec::new();
    for (large, fine) in [(11, 10), (12, 10), (9, 10), (13, 10), (13, 14)] {
        holds(&room, "large", large);
        holds(&room, "fine", fine);
        assert!(room.round().await);
    }
    room.host.create(CreateWorkspace::empty().id("last")).await.unwrap();
    loop {
        match room.events.next().await.unwrap().kind {
            EventKind::VolumeExceeded { volume, bytes, limit_bytes } => {
                assert_eq!(limit_bytes, 10 * MIB);
                told.push((volume, bytes / MIB));
            }
            EventKind::Created { .. } => break,
            _ => {}
        }
    }
    assert_eq!(told, [("large".to_owned(), 11), ("large".to_owned(), 13), ("fine".to_owned(), 14)]);
    assert!(room.host.metrics().await.contains("corehold_host_events_total{event=\"volumeExceeded\"} 3"));
}

#[tokio::test]
async fn below_the_floor_nothing_is_made_or_woken() {
    let room = Room::new(DiskPolicy::default().floor_bytes(500 * MIB)).await;
    let workspace = room.limited("one", 10).await;
    workspace.write_file("kept", "x").await.unwrap();
    workspace.sleep(Duration::ZERO).await.unwrap();
    room.left(499);
    let refused = room.host.create(CreateWorkspace::empty()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::DiskFull);
    for figure in ["499 MiB", "204800 MiB", "500 MiB"] {
        assert!(refused.to_string().contains(figure), "{refused}");
    }
    assert_eq!(workspace.wake().await.unwrap_err().kind(), ErrorKind::DiskFull);
    assert_eq!(workspace.state().await.unwrap(), WorkspaceState::Asleep);
    room.left(500);
    workspace.wake().await.unwrap();
    // What runs goes on, and may be removed.
    room.left(1);
    workspace.restart(Duration::ZERO).await.unwrap();
    workspace.remove().await.unwrap();
    let no_files = DiskSpace { free_bytes: 1 << 40, total_bytes: 1 << 40, free_files: Some(0) };
    *room.fixture.engine.disk.left.lock().unwrap() = Some(no_files);
    assert_eq!(room.host.create(CreateWorkspace::empty()).await.unwrap_err().kind(), ErrorKind::DiskFull);
    // A floor that was asked for isn't left out where it can't be held.
    *room.fixture.engine.disk.left.lock().unwrap() = None;
    assert_eq!(room.host.create(CreateWorkspace::empty()).await.unwrap_err().kind(), ErrorKind::Unsupported);
    room.fixture.host.create(CreateWorkspace::empty()).await.unwrap();
}

#[tokio::test]
async fn disk_counts_as_long_as_there_is_a_container() {
    let room = Room::new(DiskPolicy::default()).await;
    let totals = Totals::unlimited().disk_bytes(100 * MIB);
    let host = room.fixture.builder().policy(Policy::new().host(totals)).reconciles(false).build().await.unwrap();
    let sized = |mib: u64| Resources { disk_bytes: Some(mib * MIB), ..Resources::default() };
    let create = |mib| host.create(CreateWorkspace::empty().resources(sized(mib)));
    let error = host.create(CreateWorkspace::empty()).await.unwrap_err();
    assert!(error.quota().is_some() && error.to_string().contains("without a limit"), "{error}");
    let first = create(60).await.unwrap();
    assert_eq!(create(41).await.unwrap_err().quota().unwrap().used, 60 * MIB);
    first.write_file("kept", "x").await.unwrap();
    first.stop(Duration::ZERO).await.unwrap();
    assert!(create(41).await.is_err(), "what is stopped has its files there");
    assert!(first.set_resources(sized(101)).await.unwrap_err().quota().is_some());
    first.set_resources(sized(61)).await.unwrap();
    first.sleep(Duration::ZERO).await.unwrap();
    assert_eq!(host.usage(&Account::Host).await.unwrap().used.disk_bytes, Some(0));
    let second = create(41).await.unwrap();
    assert_eq!(first.wake().await.unwrap_err().kind(), ErrorKind::Quota);
    second.remove().await.unwrap();
    first.wake().await.unwrap();
}

#[test]
fn a_policy_that_would_never_rest_is_refused() {
    assert!(DiskPolicy::default().every(Duration::ZERO).check().is_err());
    DiskPolicy::default().check().unwrap();
}
