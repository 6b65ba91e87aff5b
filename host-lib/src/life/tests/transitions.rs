//! Start, stop, restart, pause, resume, remove.

use super::*;
use crate::{
    Class, PoolOptions,
    life::transition::{Next, Verb},
};

#[test]
fn every_verb_means_something_in_every_state_that_stays() {
    use WorkspaceState as S;
    let through = |verb: Verb| {
        [S::Ready, S::Stopped, S::Paused, S::Asleep, S::Failed].map(|state| match verb.next(state) {
            Next::Already => "already".to_owned(),
            Next::Through(state) => {
                assert!(state.is_transitional());
                state.to_string()
            }
            Next::Refused(hint) => {
                assert!(!hint.is_empty());
                "refused".to_owned()
            }
        })
    };
    assert_eq!(through(Verb::Start), ["already", "starting", "resuming", "waking", "starting"]);
    assert_eq!(through(Verb::Stop), ["stopping", "already", "stopping", "already", "stopping"]);
    assert_eq!(through(Verb::Restart), ["stopping", "starting", "stopping", "waking", "starting"]);
    assert_eq!(through(Verb::Pause), ["pausing", "refused", "already", "refused", "refused"]);
    assert_eq!(through(Verb::Resume), ["already", "refused", "resuming", "refused", "refused"]);
    assert_eq!(through(Verb::Sleep), ["archiving", "archiving", "archiving", "already", "refused"]);
    assert_eq!(through(Verb::Wake), ["already", "refused", "resuming", "waking", "refused"]);
}

#[tokio::test]
async fn stopped_and_started_it_is_the_same_with_its_dev_server_running_again() {
    let fixture = fixture().await;
    let workspace = web(&fixture, &fixture.host).await;
    let container = workspace.container();
    let mut events = fixture.host.events();
    assert_eq!(state(&workspace).await, WorkspaceState::Ready);
    for _ in 0..2 {
        workspace.stop(GRACE).await.unwrap();
        assert_eq!(state(&workspace).await, WorkspaceState::Stopped);
    }
    for _ in 0..2 {
        workspace.start().await.unwrap();
        assert_eq!(state(&workspace).await, WorkspaceState::Ready);
    }
    assert_eq!((workspace.container(), fixture.engine.dev_servers("corehold-web")), (container.clone(), 1));
    workspace.preview_url().await.unwrap();
    workspace.write_file("a", "b").await.unwrap();
    workspace.restart(GRACE).await.unwrap();
    assert_eq!((workspace.container(), fixture.engine.dev_servers("corehold-web")), (container, 1));
    workspace.write_file("a", "b").await.expect("handles know the agent's new address");
    workspace.remove().await.unwrap();
    workspace.remove().await.expect("removing what is gone is no error");
    assert_eq!(state(&workspace).await, WorkspaceState::Removed);
    assert_eq!(workspace.start().await.unwrap_err().kind(), ErrorKind::NotFound);

    use WorkspaceState as S;
    let mut seen = Vec::new();
    while let Some(Some(event)) = futures_util::FutureExt::now_or_never(events.next()) {
        if let crate::EventKind::Transition { from, to, cause } = event.kind {
            assert_eq!(cause, TransitionCause::Asked);
            seen.push((from, to));
        }
    }
    let restart = [(S::Ready, S::Stopping), (S::Stopping, S::Starting), (S::Starting, S::Ready)];
    let stop_start =
        [(S::Ready, S::Stopping), (S::Stopping, S::Stopped), (S::Stopped, S::Starting), (S::Starting, S::Ready)];
    let all: Vec<_> = stop_start.into_iter().chain(restart).chain([(S::Ready, S::Removing)]).collect();
    assert_eq!(seen, all, "each is told once");
}

#[tokio::test]
async fn paused_it_waits_and_goes_on_where_it_was() {
    let fixture = fixture().await;
    let workspace = web(&fixture, &fixture.host).await;
    for _ in 0..2 {
        workspace.pause().await.unwrap();
        assert_eq!(state(&workspace).await, WorkspaceState::Paused);
    }
    let writing = workspace.clone();
    let call = tokio::spawn(async move { writing.write_file("a", "b").await });
    for _ in 0..2 {
        workspace.resume().await.unwrap();
        assert_eq!(state(&workspace).await, WorkspaceState::Ready);
    }
    call.await.unwrap().expect("who called meanwhile is answered");
    assert_eq!(fixture.engine.dev_servers("corehold-web"), 1, "nothing was started anew");
    workspace.pause().await.unwrap();
    workspace.stop(GRACE).await.unwrap();
    assert_eq!(state(&workspace).await, WorkspaceState::Stopped);
    let error = workspace.pause().await.unwrap_err();
    assert_eq!((error.kind(), error.hint_text()), (ErrorKind::Conflict, Some("start it first")));
    workspace.start().await.unwrap();
    workspace.pause().await.unwrap();
    workspace.start().await.expect("starting what is paused resumes it");
    workspace.pause().await.unwrap();
    workspace.remove().await.unwrap();
    assert!(fixture.engine.names().is_empty());
}

/// The agent knows whose it is, and with which variables, only as long as it runs.
#[tokio::test]
async fn one_from_a_pool_is_claimed_again_when_it_starts() {
    let fixture = fixture().await;
    let host = fixture.pooled_class(Class::default(), PoolOptions::default().min(1).max(1)).await;
    host.pools_filled().await.unwrap();
    let workspace = web(&fixture, &host).await;
    assert_eq!(host.pools()[0].claimed, 1);
    let other = another(&fixture).await;
    let found = other.workspace("web").await.unwrap();
    found.restart(GRACE).await.unwrap();
    let env = fixture.engine.claimed_env("corehold-web");
    assert_eq!((env["A"].as_str(), env["B"].as_str()), ("template", "request"));
    for handle in [&workspace, &found] {
        handle.write_file("whose", "web").await.unwrap();
    }
    assert_eq!(fixture.engine.dev_servers("corehold-web"), 1);
}

#[tokio::test]
async fn of_many_who_change_it_at_once_each_gets_what_it_asked_for() {
    let fixture = fixture().await;
    let workspace = web(&fixture, &fixture.host).await;
    let other = another(&fixture).await.workspace("web").await.unwrap();
    for _ in 0..5 {
        let stops = (0..6).map(|number| if number % 2 == 0 { &workspace } else { &other }.stop(GRACE));
        assert!(futures_util::future::join_all(stops).await.into_iter().all(|done| done.is_ok()));
        assert_eq!(state(&other).await, WorkspaceState::Stopped);
        let starts = (0..6).map(|number| if number % 2 == 0 { &workspace } else { &other }.start());
        assert!(futures_util::future::join_all(starts).await.into_iter().all(|done| done.is_ok()));
        assert_eq!((state(&workspace).await, fixture.engine.dev_servers("corehold-web")), (WorkspaceState::Ready, 1));
    }
    // Any order will do, as long as nothing breaks.
    let (stop, start, restart, pause) =
        tokio::join!(workspace.stop(GRACE), other.start(), workspace.restart(GRACE), other.pause());
    for done in [stop, start, restart] {
        done.unwrap();
    }
    assert!(pause.err().is_none_or(|error| error.kind() == ErrorKind::Conflict));
    let removals = tokio::join!(workspace.remove(), other.remove(), workspace.start());
    removals.0.unwrap();
    removals.1.unwrap();
    assert!(removals.2.err().is_none_or(|error| error.kind() == ErrorKind::NotFound));
    assert_eq!(fixture.engine.names(), Vec::<String>::new());
}

#[tokio::test]
async fn a_start_that_fails_leaves_it_so_that_the_next_one_works() {
    let fixture = Fixture::new(EngineScript::default(), AgentScript::default()).await;
    let workspace = web(&fixture, &fixture.host).await;
    workspace.stop(GRACE).await.unwrap();
    fixture.engine.fail_starts(1);
    let error = workspace.start().await.unwrap_err();
    assert!(error.to_string().contains("fails at start"), "{error}");
    assert_eq!(state(&workspace).await, WorkspaceState::Stopped);
    workspace.start().await.unwrap();
    assert_eq!(state(&workspace).await, WorkspaceState::Ready);
}

#[tokio::test]
async fn who_waits_no_more_doesnt_stop_it() {
    let fixture = fixture().await;
    let workspace = web(&fixture, &fixture.host).await;
    let mut stop = Box::pin(workspace.stop(GRACE));
    assert!(futures_util::FutureExt::now_or_never(stop.as_mut()).is_none());
    drop(stop);
    fixture.host.settled().await;
    assert_eq!(state(&workspace).await, WorkspaceState::Stopped);
}

#[tokio::test]
async fn what_happens_to_its_container_is_what_it_is_doing() {
    let fixture = fixture().await;
    let workspace = web(&fixture, &fixture.host).await;
    for (status, seen) in [
        (ContainerStatus::Exited, WorkspaceState::Stopped),
        (ContainerStatus::Paused, WorkspaceState::Paused),
        (ContainerStatus::Dead, WorkspaceState::Failed),
        (ContainerStatus::Running, WorkspaceState::Ready),
    ] {
        fixture.engine.set_status("corehold-web", status);
        assert_eq!(state(&workspace).await, seen);
        assert_eq!(fixture.host.list().await.unwrap()[0].state, seen);
    }
    // Ended by itself: what is asked for is what is missing.
    fixture.engine.set_status("corehold-web", ContainerStatus::Exited);
    workspace.stop(GRACE).await.unwrap();
    workspace.start().await.unwrap();
    assert_eq!(fixture.engine.dev_servers("corehold-web"), 1);
}

#[tokio::test]
async fn what_is_of_another_home_can_be_removed_if_that_is_said_and_nothing_else() {
    let fixture = fixture().await;
    let home = tempfile::tempdir().unwrap();
    let other = Host::builder().runtime(fixture.engine.clone()).home(home.path()).build().await.unwrap();
    other.create(CreateWorkspace::empty().id("theirs")).await.unwrap();
    let theirs = fixture.host.workspace("theirs").await.unwrap();
    assert_eq!(theirs.stop(GRACE).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(fixture.host.reconcile().await.unwrap().adopted, []);
    let refused = [theirs.remove().await.unwrap_err(), theirs.read_file("a").await.unwrap_err()];
    assert_eq!(refused.map(|error| error.kind()), [ErrorKind::Conflict; 2]);
    assert_eq!(fixture.engine.names(), ["corehold-theirs"]);
    let error = fixture.host.create(CreateWorkspace::empty().id("theirs")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::AlreadyExists && !error.hint_text().unwrap().contains("down"), "{error:?}");
    theirs.remove_with(RemoveOptions::default().other_homes(true)).await.unwrap();
    assert!(fixture.engine.names().is_empty());
    let reconciled = other.reconcile().await.unwrap();
    assert!(other.list().await.unwrap().is_empty() && reconciled.failed.is_empty(), "{reconciled:?}");
}

#[tokio::test]
async fn one_that_is_being_made_is_taken_out_of_its_makers_hands() {
    let gate = Arc::new(tokio::sync::Notify::new());
    let engine = EngineScript { create_gate: Some(gate.clone()), ..EngineScript::default() };
    let fixture = Fixture::new(engine, AgentScript::default()).await;
    let host = fixture.host.clone();
    let creation = tokio::spawn(async move { host.create(CreateWorkspace::empty().id("w")).await });
    until(|| async { fixture.host.inner.store.get(&"w".parse().unwrap()).await.unwrap().is_some() }).await;
    // By another process, which the maker hears nothing of.
    let other = another(&fixture).await;
    other.workspace("w").await.unwrap().remove().await.unwrap();
    assert_eq!(other.workspace("w").await.unwrap_err().kind(), ErrorKind::NotFound);
    let again = other.create(CreateWorkspace::empty().id("w")).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists, "the maker may be about to make its container");
    gate.notify_one();
    assert_eq!(creation.await.unwrap().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(fixture.engine.names(), Vec::<String>::new());
    gate.notify_one();
    other.create(CreateWorkspace::empty().id("w")).await.unwrap();
}

#[tokio::test]
async fn a_host_that_ends_leaves_what_runs_or_pauses_or_stops_all_of_it() {
    let fixture = fixture().await;
    for id in ["a", "b", "c"] {
        fixture.host.create(CreateWorkspace::empty().id(id)).await.unwrap();
    }
    fixture.host.workspace("c").await.unwrap().stop(GRACE).await.unwrap();
    let states = || async {
        let infos = fixture.host.list().await.unwrap();
        let mut states: Vec<_> = infos.into_iter().map(|info| (info.id.to_string(), info.state)).collect();
        states.sort_by(|one, other| one.0.cmp(&other.0));
        states.into_iter().map(|(_, state)| state).collect::<Vec<_>>()
    };
    use WorkspaceState as S;
    for (how, done, after) in [
        (Shutdown::LeaveRunning, 0, [S::Ready, S::Ready, S::Stopped]),
        (Shutdown::Pause, 2, [S::Paused, S::Paused, S::Stopped]),
        (Shutdown::Stop, 2, [S::Stopped, S::Stopped, S::Stopped]),
    ] {
        let report = another(&fixture).await.shutdown(how, GRACE).await.unwrap();
        assert_eq!((report.done.len(), report.failed.len(), states().await), (done, 0, after.to_vec()), "{how:?}");
    }
}

#[tokio::test]
async fn one_that_cant_be_ended_holds_up_no_other() {
    let fixture = fixture().await;
    for id in ["a", "b", "c"] {
        fixture.host.create(CreateWorkspace::empty().id(id)).await.unwrap();
    }
    fixture.engine.stuck("corehold-b");
    let report = another(&fixture).await.shutdown(Shutdown::Stop, GRACE).await.unwrap();
    let mut done: Vec<_> = report.done.iter().map(|id| id.as_str()).collect();
    done.sort_unstable();
    assert_eq!(done, ["a", "c"]);
    assert_eq!(report.failed.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["b"]);
}

/// B3: all of them at once, and an answer when the time is up, however many ignore that they are to end.
#[tokio::test]
async fn a_hundred_that_dont_end_take_no_longer_than_one() {
    let fixture = fixture().await;
    for number in 0..100 {
        fixture.host.create(CreateWorkspace::empty().id(format!("w{number}"))).await.unwrap();
    }
    fixture.engine.hang("stop");
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let report = another(&fixture).await.shutdown(Shutdown::Stop, Host::SHUTDOWN_GRACE).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), Host::SHUTDOWN_GRACE.as_secs());
    assert_eq!((fixture.engine.hanging(), report.done.len(), report.failed.len()), (100, 0, 100));
    assert!(report.failed.iter().all(|(_, error)| error.kind() == ErrorKind::Timeout), "{:?}", report.failed[0]);
}

#[tokio::test]
async fn what_has_no_room_to_be_saved_in_time_stays_as_it_is() {
    let fixture = fixture().await;
    for number in 0..20 {
        fixture.host.create(CreateWorkspace::empty().id(format!("w{number}"))).await.unwrap();
    }
    fixture.engine.hang("stop");
    tokio::time::pause();
    let host = another(&fixture).await;
    let report = host.shutdown(Shutdown::Sleep, Duration::from_secs(60)).await.unwrap();
    assert_eq!((fixture.engine.hanging(), report.failed.len()), (16, 20));
    let states: Vec<_> = host.list().await.unwrap().into_iter().map(|info| info.state).collect();
    assert_eq!(states.iter().filter(|state| **state == WorkspaceState::Ready).count(), 4, "{states:?}");
}
