//! Connections that the runtime itself opens, for hosts that have no address to connect to.

use std::time::Duration;

use corehold_host::{
    ErrorKind,
    runtime::{BoxConnection, ContainerId, Endpoint},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{AGENT_PORT, Subject, kind, patiently, unknown};

/// A port on which nothing listens.
const NOBODYS_PORT: u16 = 4;

/// A connection that the runtime opens carries both ways, its halves end each for itself, and what carried it goes with it.
pub async fn connections_are_opened_by_the_runtime(subject: &Subject) {
    let runtime = &subject.runtime;
    let id = subject.started(&subject.spec("connections")).await;
    let before = processes(subject, &id).await;
    let mut first = match runtime.connect(&id, AGENT_PORT).await {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            let endpoint = runtime.endpoint(&id, AGENT_PORT).await.unwrap();
            return assert_ne!(endpoint, Endpoint::ThroughRuntime, "there would be no way in");
        }
        connection => connection.unwrap(),
    };
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(runtime.connect(&id, AGENT_PORT).await.unwrap());
    }
    assert_eq!(asked(&mut first, "hello").await, b"hello");
    for connection in &mut others[..2] {
        assert_eq!(asked(connection, "size /stand-in").await.first().map(u8::is_ascii_digit), Some(true));
    }
    // Those that were asked have ended, the others are open and go with this.
    drop((first, others));
    patiently("the end of what carried them", async {
        while processes(subject, &id).await > before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;

    let error = runtime.connect(&id, NOBODYS_PORT).await.err().expect("nothing listens there");
    assert_eq!(error.kind(), ErrorKind::AgentUnavailable, "{error}");
    assert!(error.to_string().contains("nothing listens on port 4"), "{error}");
    assert_eq!(refused(subject, &unknown()).await, ErrorKind::NotFound);
    if runtime.pause(&id).await.is_ok() {
        assert_eq!(refused(subject, &id).await, ErrorKind::Conflict, "it is paused");
        runtime.resume(&id).await.unwrap();
    }
    runtime.stop(&id, Duration::from_secs(30)).await.unwrap();
    assert_eq!(refused(subject, &id).await, ErrorKind::NotFound, "it doesn't run");
    assert_eq!(kind(runtime.endpoint(&id, AGENT_PORT).await), ErrorKind::NotFound);
}

/// Asks one thing, says that that is all, and reads to the end.
async fn asked(connection: &mut BoxConnection, question: &str) -> Vec<u8> {
    patiently("an answer", async {
        connection.write_all(format!("{question}\n").as_bytes()).await.unwrap();
        connection.shutdown().await.unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await.unwrap();
        answer
    })
    .await
}

async fn processes(subject: &Subject, id: &ContainerId) -> u64 {
    subject.runtime.stats(id).await.unwrap().pids
}

async fn refused(subject: &Subject, id: &ContainerId) -> ErrorKind {
    subject.runtime.connect(id, AGENT_PORT).await.err().expect("there is no way in").kind()
}
