//! Rounds over the fake engine: who is told what, until when, and what is kept.

use std::sync::atomic::Ordering;

use super::*;
use crate::{
    CreateWorkspace, Host, Workspace,
    testing::{AgentScript, EngineScript, Fixture},
};

async fn fixture() -> (Fixture, Workspace) {
    let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
    let workspace = fixture.host.create(CreateWorkspace::empty().id("w")).await.unwrap();
    // What comes is rounds and files: nothing on the network.
    tokio::time::pause();
    (fixture, workspace)
}

/// One more host on the same home, as another process would be.
async fn another(fixture: &Fixture, measures: bool) -> Host {
    let builder = Host::builder().runtime(fixture.engine.clone()).home(fixture.host.home());
    builder.measure(measures).build().await.unwrap()
}

fn day() -> StatsRange {
    let now = Timestamp::now();
    StatsRange::new(Timestamp::from_unix(now.as_unix_seconds() - 80_000, 0), now.after(PERIOD * 100_000))
}

#[tokio::test]
async fn every_reader_gets_every_sample_until_the_workspace_is_removed() {
    let (fixture, workspace) = fixture().await;
    let (mut one, mut other) = (workspace.follow_stats(), workspace.follow_stats());
    for number in 0..3 {
        let sample = one.next().await.unwrap();
        assert_eq!(Some(&sample), other.next().await.as_ref());
        assert_eq!((sample.state, sample.memory_percent), (WorkspaceState::Ready, Some(25.0)));
        assert_eq!(sample.cpu_percent, (number > 0).then_some(50.0), "a first sample has nothing to compare with");
        assert_eq!(workspace.stats().await.unwrap(), sample);
    }
    workspace.remove().await.unwrap();
    assert_eq!((one.next().await, other.next().await), (None, None));
    assert!(fixture.host.monitor().room.lock().is_empty());
}

/// Reads on until the stream ends.
async fn ends(samples: &mut StatsStream) {
    let reading = async { while samples.next().await.is_some() {} };
    tokio::time::timeout(100 * PERIOD, reading).await.expect("it ends");
}

#[tokio::test]
async fn one_that_another_process_removes_in_its_sleep_ends_the_stream() {
    let (fixture, workspace) = fixture().await;
    tokio::time::resume();
    workspace.sleep(Duration::ZERO).await.unwrap();
    tokio::time::pause();
    let mut samples = workspace.follow_stats();
    assert!(tokio::time::timeout(10 * PERIOD, samples.next()).await.is_err(), "it is there, and tells nothing");
    let stats = workspace.stats().await.unwrap();
    assert_eq!((stats.state, stats.memory_bytes, stats.pids), (WorkspaceState::Asleep, 0, 0));
    another(&fixture, false).await.workspace("w").await.unwrap().remove().await.unwrap();
    ends(&mut samples).await;
    ends(&mut workspace.follow_stats()).await;
    assert_eq!(workspace.stats().await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Regression: more than the bus holds happened at once, a removal among it.
#[tokio::test]
async fn a_removal_among_events_that_were_missed_ends_the_stream() {
    let fixture = Fixture::new(EngineScript { no_events: true, ..EngineScript::default() }, AgentScript::default());
    let fixture = fixture.await;
    let workspace = fixture.host.create(CreateWorkspace::empty().id("w")).await.unwrap();
    let mut samples = workspace.follow_stats();
    samples.next().await.unwrap();
    // By another host, of which the engine tells nothing here.
    let other = fixture.builder().reconciles(false).build().await.unwrap();
    other.workspace("w").await.unwrap().remove().await.unwrap();
    let again = other.create(CreateWorkspace::empty().id("w")).await.unwrap();
    tokio::time::pause();
    for _ in 0..2000 {
        fixture.host.inner.events.emit(None, EventKind::EngineBack);
    }
    ends(&mut samples).await;
    let mut samples = fixture.host.workspace("w").await.unwrap().follow_stats();
    assert_eq!(samples.next().await.unwrap().state, WorkspaceState::Ready, "another one of its name");
    ends(&mut workspace.follow_stats()).await;
    assert_eq!(samples.next().await.unwrap().state, WorkspaceState::Ready);
    drop(again);
}

#[tokio::test]
async fn without_rounds_the_engine_is_asked() {
    let (fixture, workspace) = fixture().await;
    let sample = workspace.stats().await.unwrap();
    assert_eq!((sample.cpu_percent, sample.memory_percent), (None, Some(25.0)));
    fixture.engine.set_status("corehold-w", ContainerStatus::Exited);
    let sample = workspace.stats().await.unwrap();
    assert_eq!((sample.state, sample.memory_bytes, sample.pids), (WorkspaceState::Stopped, 0, 0));
    fixture.engine.measure_fails.store(true, Ordering::Relaxed);
    assert_eq!(workspace.stats().await.unwrap_err().kind(), ErrorKind::Engine);
    assert!(fixture.host.monitor().task.get().is_none());
}

#[tokio::test]
async fn states_are_told_and_an_error_ends_nothing() {
    let (fixture, workspace) = fixture().await;
    let mut samples = workspace.follow_stats();
    assert_eq!(samples.next().await.unwrap().state, WorkspaceState::Ready);
    for (container, action, status) in [
        (ContainerStatus::Paused, "pause", WorkspaceState::Paused),
        (ContainerStatus::Exited, "die", WorkspaceState::Stopped),
        (ContainerStatus::Running, "start", WorkspaceState::Ready),
    ] {
        fixture.engine.set_status("corehold-w", container);
        fixture.engine.say_of("corehold-w", action);
        let sample = samples.next().await.unwrap();
        assert_eq!((sample.state, sample.pids > 0), (status, container != ContainerStatus::Exited));
    }
    fixture.engine.measure_fails.store(true, Ordering::Relaxed);
    tokio::time::sleep(10 * PERIOD).await;
    fixture.engine.go_away();
    tokio::time::sleep(10 * PERIOD).await;
    fixture.engine.come_back();
    fixture.engine.measure_fails.store(false, Ordering::Relaxed);
    assert_eq!(samples.next().await.unwrap().cpu_percent, Some(50.0));
}

#[tokio::test]
async fn another_host_knows_the_minutes_of_one_before_and_goes_on() {
    let (fixture, workspace) = fixture().await;
    let mut samples = workspace.follow_stats();
    for _ in 0..40 {
        samples.next().await.unwrap();
    }
    let before = workspace.stats_history(day()).await;
    assert_eq!(before.every_seconds, 60);
    assert!(before.points.len() >= 3 && before.points.iter().any(|point| point.network_sent_bytes == 12_000));

    // All but the newest, which may be being written.
    let kept = before.points.len() - 1;
    for measures in [true, false] {
        let host = another(&fixture, measures).await;
        let theirs = host.workspace("w").await.unwrap();
        if measures {
            theirs.follow_stats().next().await.unwrap();
        }
        assert_eq!(theirs.stats_history(day()).await.points[..kept], before.points[..kept]);
    }
    assert!(!Store::new(fixture.host.home().join("stats")).ours().unwrap(), "one of them writes, the first");
}

#[tokio::test]
async fn what_can_not_be_kept_is_told_once_and_measuring_goes_on() {
    let (fixture, workspace) = fixture().await;
    std::fs::write(fixture.host.home().join("stats"), "in the way").unwrap();
    let mut events = fixture.host.events();
    let mut samples = workspace.follow_stats();
    for _ in 0..60 {
        samples.next().await.unwrap();
    }
    assert!(workspace.stats_history(day()).await.points.len() >= 4);
    let told: Vec<Event> =
        std::iter::from_fn(|| futures_util::FutureExt::now_or_never(events.next()).flatten()).collect();
    let [Event { kind: EventKind::NotKept { error }, .. }] = told.as_slice() else { panic!("{told:?}") };
    assert!(error.contains("/stats: "), "{error}");
}

#[tokio::test]
async fn several_workspaces_are_one_sum() {
    let (fixture, workspace) = fixture().await;
    tokio::time::resume();
    let other = fixture.host.create(CreateWorkspace::empty().id("v")).await.unwrap();
    tokio::time::pause();
    let mut samples = workspace.follow_stats();
    for _ in 0..40 {
        samples.next().await.unwrap();
    }
    let ids = [workspace.id().clone(), other.id().clone(), "nobody".parse().unwrap()];
    let sum = fixture.host.stats_history_of(&ids, day()).await;
    assert!(sum.points.iter().any(|point| point.cpu_percent == Some(100.0) && point.pids == 6), "{sum:?}");
}

/// What an owner's workspaces sent, in all minutes.
async fn sent_of(host: &Host, owner: &str) -> u64 {
    host.stats_history_of_owner(owner, day()).await.points.iter().map(|point| point.network_sent_bytes).sum()
}

/// B9: an owner's day has what was removed since, to the last sample, on other hosts too.
#[tokio::test]
async fn an_owners_day_includes_what_was_removed() {
    let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
    let host = &fixture.host;
    let create = async |id: &str, owner: &str| host.create(CreateWorkspace::empty().id(id).owner(owner)).await.unwrap();
    let (one, other) = (create("one", "ada").await, host.get_or_create("ada", CreateWorkspace::empty()).await.unwrap());
    let bobs = create("bobs", "bob").await;
    tokio::time::pause();
    let mut samples = [one.follow_stats(), other.follow_stats(), bobs.follow_stats()];
    let mut sent = [0; 3];
    for _ in 0..40 {
        for (samples, sent) in samples.iter_mut().zip(&mut sent) {
            *sent = samples.next().await.unwrap().network_sent_bytes;
        }
    }
    let before = host.stats_history_of_owner("ada", day()).await;
    assert!(before.every_seconds == 60 && before.points.iter().any(|point| point.pids == 6), "{before:?}");
    let mut expected = 0;
    for (at, workspace) in [&one, &other].into_iter().enumerate() {
        // In the middle of a minute.
        tokio::time::resume();
        workspace.remove().await.unwrap();
        tokio::time::pause();
        while let Some(sample) = samples[at].next().await {
            sent[at] = sample.network_sent_bytes;
        }
        // The first sample has nothing to compare with.
        expected += sent[at] - 1_000;
    }
    let kept = async {
        while sent_of(host, "ada").await != expected {
            tokio::time::sleep(PERIOD).await;
        }
    };
    let kept = tokio::time::timeout(100 * PERIOD, kept).await;
    assert!(kept.is_ok(), "{} of {expected}", sent_of(host, "ada").await);
    let theirs = another(&fixture, false).await;
    assert_eq!((sent_of(&theirs, "ada").await, sent_of(&theirs, "eve").await), (expected, 0));
    assert!(sent_of(&theirs, "bob").await > 12_000);
    let minutes = host.stats_history_of_owner("ada", day()).await.points;
    assert!(minutes.is_sorted_by(|one, other| one.at < other.at), "{minutes:?}");
}

/// A home whose minutes were kept when nothing was kept of owners: what is known of their workspaces is theirs.
#[tokio::test]
async fn what_an_earlier_version_kept_of_workspaces_becomes_their_owners() {
    let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
    let workspace = fixture.host.create(CreateWorkspace::empty().id("w").owner("ada")).await.unwrap();
    tokio::time::pause();
    let mut samples = workspace.follow_stats();
    for _ in 0..40 {
        samples.next().await.unwrap();
    }
    let (engine, home) = (fixture.engine.clone(), fixture.host.home().to_owned());
    let before = sent_of(&fixture.host, "ada").await;
    assert!(before > 12_000);
    drop((samples, workspace, fixture.host));
    // Until its process would have ended.
    while !Store::new(home.join("stats")).ours().unwrap() {
        tokio::task::yield_now().await;
    }
    std::fs::remove_dir_all(home.join("stats/owners")).unwrap();
    let host = Host::builder().runtime(engine).home(home).measure(true).build().await.unwrap();
    host.workspace("w").await.unwrap().follow_stats().next().await.unwrap();
    assert!(sent_of(&host, "ada").await >= before, "{} of {before}", sent_of(&host, "ada").await);
}
