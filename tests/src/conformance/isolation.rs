//! What holds those inside: the kernel's means against one of them, and the network's against all of them together.

use std::sync::Arc;

use corehold_host::ErrorKind;

use super::{AGENT_PORT, Feature, Subject, address};

/// What runs inside is nobody in particular: no capability, no way to gain one, not root, and itself the first process.
pub async fn hardening_seen_from_inside(subject: &Subject) {
    let id = subject.started(&subject.spec("hardening")).await;
    let status = subject.ask_text(&id, "read /proc/self/status").await;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {status}"));
        line[name.len()..].split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field("Pid:"), "1");
    assert_eq!(field("Uid:"), "1000 1000 1000 1000");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2", "a seccomp filter is in force");
}

/// Containers don't reach each other; a runtime that can't see to it makes none, unless it is told that they may.
pub async fn containers_are_kept_apart(subject: &Subject) {
    let spec = subject.spec("apart-0");
    let refused = match subject.strict.create(&spec).await {
        Ok(id) => {
            subject.strict.remove(&id).await.unwrap();
            false
        }
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            assert!(error.hint_text().is_some(), "{error}");
            true
        }
        Err(error) => panic!("{error}"),
    };
    subject.saw(Feature::KeptApart, !refused).await;
    if refused {
        return assert!(subject.runtime.list(&subject.labels).await.unwrap().is_empty(), "nothing is left");
    }
    let subject = &Subject { runtime: Arc::clone(&subject.strict), ..subject.clone() };
    let (one, two) = (subject.started(&subject.spec("apart-1")).await, subject.started(&subject.spec("apart-2")).await);
    let endpoint = subject.runtime.endpoint(&two, AGENT_PORT).await.unwrap();
    let answer = subject.ask_text(&one, &format!("connect {}", address(&endpoint))).await;
    assert!(answer.starts_with("error"), "one container reached another: {answer}");
    assert_eq!(subject.ask_text(&two, "connect 127.0.0.1:3001").await, "connected", "the question itself works");
}
