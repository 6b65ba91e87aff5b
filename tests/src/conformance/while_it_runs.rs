//! What is changed about a place while it runs: frozen and thawed, and its limits. All of it is optional.

use std::time::Duration;

use corehold_host::{
    ErrorKind,
    runtime::{ContainerSpec, ContainerState, ContainerStatus, Resources},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{AGENT_PORT, Feature, Subject, address, kind, patiently};

/// What is paused stands still and keeps its place, is found paused, and goes on when it is resumed. What is so already is no error;
/// what doesn't run can't be paused.
pub async fn pausing_and_resuming(subject: &Subject) {
    let runtime = &subject.runtime;
    let id = subject.started(&subject.spec("pause")).await;
    match runtime.pause(&id).await {
        Err(error) if error.kind() == ErrorKind::Unsupported => return subject.saw(Feature::Pausing, false).await,
        result => result.unwrap(),
    }
    subject.saw(Feature::Pausing, true).await;
    runtime.pause(&id).await.expect("pausing what is paused is no error");
    assert_eq!(subject.status(&id).await, ContainerStatus::Paused);
    let listed = runtime.list(&subject.labels).await.unwrap().into_iter().map(ContainerState::as_listed);
    assert_eq!(listed.collect::<Vec<_>>(), [runtime.inspect(&id).await.unwrap().as_listed()]);

    // The trap: who connects is not refused, and waits. Only the engine says why.
    let address = address(&runtime.endpoint(&id, AGENT_PORT).await.expect("it has its address still"));
    let mut stream = TcpStream::connect(address).await.expect("a connection to what is paused succeeds");
    stream.write_all(b"hello\n").await.unwrap();
    let mut answer = Vec::new();
    let silent = tokio::time::timeout(Duration::from_millis(300), stream.read_to_end(&mut answer)).await;
    assert!(silent.is_err(), "something paused has answered: {answer:?}");
    runtime.resume(&id).await.unwrap();
    runtime.resume(&id).await.expect("resuming what runs is no error");
    patiently("the answer after the pause", stream.read_to_end(&mut answer)).await.unwrap();
    assert_eq!((answer.as_slice(), subject.status(&id).await), (&b"hello"[..], ContainerStatus::Running));

    // It ends by itself on TERM, as if it had not been paused.
    runtime.pause(&id).await.unwrap();
    patiently("stopping what is paused", runtime.stop(&id, Duration::from_secs(30))).await.unwrap();
    let state = runtime.inspect(&id).await.unwrap();
    assert_eq!((state.status, state.exit_code), (ContainerStatus::Exited, Some(0)));
    assert_eq!(kind(runtime.pause(&id).await), ErrorKind::Conflict);
    assert_eq!(kind(runtime.resume(&id).await), ErrorKind::Conflict);

    runtime.start(&id).await.unwrap();
    runtime.pause(&id).await.unwrap();
    patiently("removing what is paused", runtime.remove(&id)).await.unwrap();
    assert_eq!(kind(runtime.inspect(&id).await), ErrorKind::NotFound);
}

/// Limits change while it runs, each for itself; what can't be is refused.
pub async fn limits_are_changed(subject: &Subject) {
    let resources = Resources::default().memory_bytes(64 << 20).cpu_millis(500).pids(77);
    let id = subject.started(&ContainerSpec { resources, ..subject.spec("limits-changed") }).await;
    let only = |memory, cpu, pids| Resources::default().memory_bytes(memory).cpu_millis(cpu).pids(pids);
    match subject.runtime.update_limits(&id, &only(Some(96 << 20), None, None)).await {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            assert!(!subject.runtime.updates_limits() && error.hint_text().is_some());
            return subject.saw(Feature::ChangingLimits, false).await;
        }
        result => result.unwrap(),
    }
    subject.saw(Feature::ChangingLimits, true).await;
    assert!(subject.runtime.updates_limits(), "what works is said beforehand");
    assert_eq!(subject.limits_inside(&id).await, ["100663296", "5000", "77"]);
    subject.runtime.update_limits(&id, &only(None, Some(250), Some(55))).await.unwrap();
    assert_eq!(subject.limits_inside(&id).await, ["100663296", "2500", "55"]);
    for impossible in [only(Some(0), None, None), only(None, Some(1_000_000), None), only(None, None, Some(0))] {
        assert_eq!(kind(subject.runtime.update_limits(&id, &impossible).await), ErrorKind::Invalid);
    }
}
