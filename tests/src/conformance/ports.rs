//! Published ports from a range: others' are passed over, what ends gives its own back, and when none is left it is said.

use std::{
    net::TcpListener,
    ops::RangeInclusive,
    sync::atomic::{AtomicU16, Ordering},
};

use corehold_host::{
    ErrorKind,
    runtime::{ContainerId, ContainerSpec, ContainerStatus},
};

use super::{Feature, PUBLISHED_PORT, Subject, address, ask};

/// Three ports that nobody has, of which somebody then takes the first. Below those that the kernel gives to whoever asks for any.
fn range_with_one_taken() -> (RangeInclusive<u16>, TcpListener) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let of_this_process = 20_000 + (std::process::id() % 1000) as u16 * 10;
    loop {
        let first = of_this_process + NEXT.fetch_add(3, Ordering::Relaxed) % 2_000;
        let all: Result<Vec<_>, _> = (first..first + 3).map(|port| TcpListener::bind(("127.0.0.1", port))).collect();
        if let Ok(all) = all {
            return (first..=first + 2, all.into_iter().next().expect("three were bound"));
        }
    }
}

async fn published(subject: &Subject, id: &ContainerId) -> u16 {
    let endpoint = subject.runtime.endpoint(id, PUBLISHED_PORT).await.unwrap();
    assert_eq!(ask(address(&endpoint), "hello").await, b"hello");
    address(&endpoint).port()
}

/// Of a range each container gets a port that nobody has; without one left it doesn't start, and says so.
pub async fn published_ports_come_from_a_range(subject: &Subject) {
    let runtime = &subject.runtime;
    let (range, somebody) = range_with_one_taken();
    let spec =
        |name| ContainerSpec { publish: vec![PUBLISHED_PORT], publish_on: Some(range.clone()), ..subject.spec(name) };
    match runtime.create(&spec("range-0")).await {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            assert!(error.hint_text().is_some());
            return subject.saw(Feature::PortRanges, false).await;
        }
        result => runtime.remove(&result.unwrap()).await.unwrap(),
    }
    subject.saw(Feature::PortRanges, true).await;
    let (one, two) = (subject.started(&spec("range-1")).await, subject.started(&spec("range-2")).await);
    let mut ports = [published(subject, &one).await, published(subject, &two).await];
    ports.sort_unstable();
    assert_eq!(ports, [range.start() + 1, *range.end()]);

    let three = runtime.create(&spec("range-3")).await.unwrap();
    for _ in 0..2 {
        // As often as it is tried: no engine starts it without its port in the end.
        let error = runtime.start(&three).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.to_string().contains(&format!("{}-{}", range.start(), range.end())), "{error}");
        assert!(error.hint_text().unwrap().contains("COREHOLD_PORT_RANGE"));
        assert_ne!(runtime.inspect(&three).await.unwrap().status, ContainerStatus::Running);
    }
    // What is removed, and what somebody else gives back, can be had.
    runtime.remove(&two).await.unwrap();
    runtime.start(&three).await.unwrap();
    published(subject, &three).await;
    drop(somebody);
    let four = subject.started(&spec("range-4")).await;
    assert_eq!(published(subject, &four).await, *range.start());
}
