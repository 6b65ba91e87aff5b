//! What the Docker runtime does beyond the suite: when processes race, are killed between two steps, or the engine dies.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use corehold_e2e::{
    conformance::Subject,
    engine::Engine,
    proxy::{CONNECTING, Fault, Proxy},
};
use corehold_host::{
    ErrorKind,
    runtime::{
        CaBundle, ContainerSpec, Endpoint, Runtime as _,
        docker::{Candidate, CandidateOutcome, Docker, DockerAddress, Surroundings},
    },
};
use futures_util::{StreamExt as _, TryStreamExt as _, future::join_all};

fn bundle(engine: &Engine, content: &str) -> CaBundle {
    CaBundle {
        pem: Bytes::from(format!("{}{content}", engine.name(""))),
        path: "/data/ca/bundle.pem".to_owned(),
        java: None,
    }
}

/// Each as if it were a process of its own: they share nothing but the engine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_begin_at_once_share_one_network_and_one_bundle() {
    let engine = Engine::start().await;
    let subject = engine.subject();
    let ca_bundle = Some(bundle(&engine, "shared"));
    let specs: Vec<_> = (0..4)
        .map(|number| ContainerSpec { ca_bundle: ca_bundle.clone(), ..subject.spec(&format!("race-{number}")) })
        .collect();
    let processes = join_all((0..4).map(|_| engine.reconnect())).await;
    let created = join_all(processes.iter().zip(&specs).map(|(docker, spec)| docker.create(spec))).await;
    for id in created {
        let id = id.unwrap();
        engine.docker.start(&id).await.unwrap();
        let read = subject.ask_text(&id, "read /data/ca/bundle.pem").await;
        assert_eq!(read.as_bytes(), ca_bundle.as_ref().unwrap().pem);
    }
    // Were there two networks of the name, the engine could not tell them apart, and this would fail.
    for container in engine.docker.list(&engine.labels()).await.unwrap() {
        engine.docker.remove(&container.id).await.unwrap();
    }
    let removed = engine.docker.remove_unused().await.unwrap();
    assert_eq!(removed.iter().filter(|name| **name == engine.options().network).count(), 1, "{removed:?}");
    assert!(!engine.docker.remove_unused().await.unwrap().contains(&engine.options().network), "there was only one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_removed_behind_our_back_is_made_anew() {
    let engine = Engine::start().await;
    let subject = engine.subject();
    let spec = ContainerSpec { ca_bundle: Some(bundle(&engine, "anew")), ..subject.spec("anew") };
    let first = engine.docker.create(&spec).await.unwrap();
    // A container that was created, though it doesn't run, keeps both; the others' are none of this test's business.
    let in_use = engine.docker.remove_unused().await.unwrap();
    engine.docker.remove(&first).await.unwrap();
    let removed = engine.docker.remove_unused().await.unwrap();
    let network = &engine.options().network;
    assert!(!in_use.contains(network) && removed.contains(network), "{in_use:?} {removed:?}");
    let bundle = removed.iter().filter_map(|name| name.strip_suffix("-complete")).find(|bundle| {
        removed.iter().any(|name| name == bundle) && !in_use.iter().any(|name| name.starts_with(bundle))
    });
    assert!(bundle.is_some(), "{in_use:?} {removed:?}");

    let again = engine.docker.create(&spec).await.unwrap();
    engine.docker.remove(&again).await.unwrap();
    // As `docker network prune` and `docker volume prune` would, from another process.
    engine.reconnect().await.remove_unused().await.unwrap();
    let second = subject.started(&spec).await;
    let read = subject.ask_text(&second, "read /data/ca/bundle.pem").await;
    assert_eq!(read.as_bytes(), spec.ca_bundle.unwrap().pem);
}

/// `docker network prune` takes the network of containers that don't run; and a process that was killed at the wrong
/// moment may have left a second one of the name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_container_starts_though_its_network_was_removed_or_doubled() {
    let engine = Engine::start().await;
    let subject = engine.subject();
    let network = engine.options().network;
    let id = subject.started(&subject.spec("stopped")).await;
    engine.docker.stop(&id, Duration::from_secs(30)).await.unwrap();
    assert_eq!(engine.request("DELETE", &format!("/networks/{network}"), "").await.0, 204);
    engine.docker.start(&id).await.unwrap();
    assert_eq!(subject.ask_text(&id, "hello").await, "hello");
    engine.docker.stop(&id, Duration::from_secs(30)).await.unwrap();

    let double = format!(
        r#"{{"Name":"{network}","Labels":{{"dev.corehold.role":"network"}},"Options":{{"com.docker.network.bridge.enable_icc":"false"}}}}"#
    );
    for _ in 0..2 {
        // 201 to each on the oldest engines, newer ones refuse.
        let status = engine.request("POST", "/networks/create", &double).await.0;
        assert!([201, 409].contains(&status), "{status}");
    }
    engine.reconnect().await.create(&subject.spec("after-doubling")).await.unwrap();
    engine.docker.start(&id).await.unwrap();
    assert_eq!(subject.ask_text(&id, "hello").await, "hello");
    // With two of the name, the engine would not know which is meant.
    assert_eq!(engine.request("GET", &format!("/networks/{network}"), "").await.0, 200);
}

/// Lets a creation with all its parts break off at each request in turn, in two ways, and sees that another process
/// then makes the same: nothing that was left behind is in its way, and the bundle is complete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_between_two_steps_leaves_nothing_in_the_way() {
    let engine = Engine::start().await;
    let socket = engine.socket();
    let subject = engine.subject();
    let mut tried = 0;
    for fault in [Fault::Cut, Fault::LoseAnswer] {
        for good in 1.. {
            let content = format!("{fault:?}{good}").repeat(1000);
            let spec = ContainerSpec {
                ca_bundle: Some(bundle(&engine, &content)),
                ..subject.spec(&format!("killed-{}-{good}", tried))
            };
            let proxy = Proxy::start(&socket, good, fault).await;
            let mut options = engine.options();
            options.address = DockerAddress::At(proxy.address());
            options.lock_timeout = Duration::from_millis(500);
            let broken = match Docker::connect_with(options.clone()).await {
                Ok(docker) => docker.create(&spec).await,
                Err(error) => Err(error),
            };
            if broken.is_ok() {
                assert!(proxy.requests() <= good, "a lost request went unnoticed");
                break;
            }
            assert_eq!(broken.unwrap_err().kind(), ErrorKind::EngineUnavailable);
            tried += 1;

            options.address = DockerAddress::Auto;
            let other = Docker::connect_with(options).await.unwrap();
            for left in other.list(&engine.labels()).await.unwrap() {
                other.remove(&left.id).await.unwrap();
            }
            let id = other.create(&spec).await.unwrap_or_else(|error| panic!("{fault:?} after {good}: {error}"));
            other.start(&id).await.unwrap();
            let read = subject.ask_text(&id, "read /data/ca/bundle.pem").await;
            assert!(read.as_bytes() == spec.ca_bundle.unwrap().pem, "{fault:?} after {good}");
            other.remove(&id).await.unwrap();
        }
    }
    assert!(tried > 20, "a creation with all its parts has many steps, {tried} were broken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_dies_or_hangs_in_any_call_is_an_error_in_time() {
    let engine = Engine::start().await;
    let socket = engine.socket();
    let subject = engine.subject();
    let id = subject.started(&subject.spec("dying")).await;
    for (fault, expected) in [
        (Fault::Cut, ErrorKind::EngineUnavailable),
        (Fault::CutAnswer(20), ErrorKind::EngineUnavailable),
        (Fault::Hang, ErrorKind::Timeout),
    ] {
        let docker = || async {
            let proxy = Proxy::start(&socket, CONNECTING, fault).await;
            let mut options = engine.options();
            options.address = DockerAddress::At(proxy.address());
            options.call_timeout = Duration::from_millis(500);
            options.quiet_timeout = Duration::from_millis(500);
            (Docker::connect_with(options).await.unwrap(), proxy)
        };
        macro_rules! fails {
            ($docker:ident, $call:expr) => {{
                let ($docker, _proxy) = docker().await;
                let began = Instant::now();
                let error = $call.await.err().unwrap_or_else(|| panic!("{fault:?}: {} succeeded", stringify!($call)));
                assert_eq!(error.kind(), expected, "{fault:?}: {}: {error}", stringify!($call));
                assert!(error.hint_text().is_some(), "{error}");
                assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
            }};
        }
        fails!(docker, docker.describe());
        fails!(docker, docker.create(&subject.spec("never")));
        fails!(docker, docker.start(&id));
        fails!(docker, docker.stop(&id, Duration::ZERO));
        fails!(docker, docker.list(&BTreeMap::new()));
        fails!(docker, docker.inspect(&id));
        fails!(docker, docker.endpoint(&id, 3001));
        fails!(docker, docker.stats(&id));
        fails!(
            docker,
            docker.put_archive(&id, "/data", futures_util::stream::iter([Ok(Bytes::from(vec![0; 1 << 20]))]).boxed())
        );
        fails!(docker, docker.image("x:1"));
        fails!(docker, docker.pull_image("x:1", |_| {}));
        if fault != Fault::Hang {
            // These follow for as long as it takes; that nothing comes is no failure of theirs.
            fails!(docker, docker.logs(&id, true).try_collect::<Vec<_>>());
            fails!(docker, docker.events(&engine.labels()).try_collect::<Vec<_>>());
        }
    }
    // One stop got through to the engine, only its answer did not come back.
    engine.docker.start(&id).await.unwrap();
    assert_eq!(subject.ask_text(&id, "hello").await, "hello");
}

/// Removing is safe to repeat, so its faults are looked at alone: the container goes with the first that gets through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_whose_answer_is_lost_can_be_repeated() {
    let engine = Engine::start().await;
    let socket = engine.socket();
    let subject = engine.subject();
    let id = subject.started(&subject.spec("lost-answer")).await;
    let proxy = Proxy::start(&socket, CONNECTING, Fault::LoseAnswer).await;
    let mut options = engine.options();
    options.address = DockerAddress::At(proxy.address());
    let docker = Docker::connect_with(options).await.unwrap();
    assert_eq!(docker.remove(&id).await.unwrap_err().kind(), ErrorKind::EngineUnavailable);
    engine.docker.remove(&id).await.unwrap();
    assert!(engine.docker.list(&engine.labels()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_containers_have_no_reachable_address_the_agent_is_published() {
    let engine = Engine::start().await;
    let mut options = engine.options();
    options.publish_agent = true;
    let subject =
        Subject { runtime: std::sync::Arc::new(Docker::connect_with(options).await.unwrap()), ..engine.subject() };
    let id = subject.started(&subject.spec("published")).await;
    let Endpoint::Tcp(address) = subject.runtime.endpoint(&id, 3001).await.unwrap() else { panic!("not TCP") };
    assert!(address.ip().is_loopback(), "{address}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_choice_of_the_engine_is_explained() {
    let engine = Engine::start().await;
    let socket = engine.socket();
    let folder = tempfile::tempdir().unwrap();
    let around = Surroundings {
        runtime_dir: Some(folder.path().to_owned()),
        system_dir: socket.parent().unwrap().to_owned(),
        ..Surroundings::default()
    };
    let (candidates, found) = Docker::find(engine.options(), &around).await;
    assert_eq!(found.unwrap().candidates(), candidates);
    let outcomes: Vec<_> =
        candidates.iter().map(|Candidate { origin, outcome, .. }| (origin.as_str(), outcome)).collect();
    assert!(matches!(
        outcomes.as_slice(),
        [("rootless socket", CandidateOutcome::Failed { .. }), ("system socket", CandidateOutcome::Chosen)]
    ));
}
