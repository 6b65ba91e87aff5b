//! What a host tells of its workspaces, on a real engine: events, use, lines, who did what, numbers.

use std::{collections::BTreeMap, time::Duration};

use corehold_e2e::corehold::Corehold;
use corehold_host::{
    AuditEntry, AuditQuery, CreateWorkspace, EventKind, Events, TransitionCause as Cause, WorkspaceId,
    WorkspaceState as State,
    logs::{LogItem, LogOptions, LogSource, LogStream},
    stats::{StatsHistory, StatsRange},
    tools::{Read, ReadRequest, ReadTarget},
    types::Timestamp,
};
use tokio::time::timeout;

const GRACE: Duration = Duration::from_secs(1);
/// Longer than anything takes here; only a broken test waits for it.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is told of a workspace until something holds of it, but for the steps of its creation.
async fn told(events: &mut Events, id: &WorkspaceId, until: impl Fn(&EventKind) -> bool) -> Vec<EventKind> {
    let mut kinds = Vec::new();
    let telling = async {
        loop {
            let event = events.next().await.expect("the host lives");
            if event.workspace.as_ref() == Some(id) && !matches!(event.kind, EventKind::Creation(_)) {
                let last = until(&event.kind);
                kinds.push(event.kind);
                if last {
                    return;
                }
            }
        }
    };
    let done = timeout(PATIENCE, telling).await;
    assert!(done.is_ok(), "it doesn't come, only {kinds:?}");
    kinds
}

fn transitions(kinds: &[EventKind]) -> Vec<(State, State, Cause)> {
    let of = |kind: &EventKind| match kind {
        EventKind::Transition { from, to, cause } => Some((*from, *to, *cause)),
        _ => None,
    };
    kinds.iter().filter_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_is_told_in_the_order_in_which_it_was_lived() {
    let corehold = Corehold::start().await;
    // Of two on the same home, one acts, and the other sees what the engine says.
    let (host, other) = (&corehold.host, corehold.builder().reconciles(false).build().await.unwrap());
    let (mut events, mut others) = (host.events(), other.events());
    let workspace = host.create(CreateWorkspace::empty().id("life")).await.unwrap();
    workspace.write_file("kept", "here").await.unwrap();
    workspace.pause().await.unwrap();
    assert_eq!(workspace.read_file("kept").await.unwrap(), "here");
    workspace.sleep(GRACE).await.unwrap();
    assert_eq!(workspace.read_file("kept").await.unwrap(), "here");
    workspace.remove().await.unwrap();

    let kinds = told(&mut events, workspace.id(), |kind| *kind == EventKind::Removed).await;
    let expected = [
        (State::Creating, State::Ready, Cause::Asked),
        (State::Ready, State::Pausing, Cause::Asked),
        (State::Pausing, State::Paused, Cause::Asked),
        (State::Paused, State::Resuming, Cause::Called),
        (State::Resuming, State::Ready, Cause::Called),
        (State::Ready, State::Archiving, Cause::Asked),
        (State::Archiving, State::Asleep, Cause::Asked),
        (State::Asleep, State::Waking, Cause::Called),
        (State::Waking, State::Ready, Cause::Called),
        (State::Ready, State::Removing, Cause::Asked),
    ];
    assert_eq!(transitions(&kinds), expected, "{kinds:#?}");
    let place = |what: fn(&EventKind) -> bool| kinds.iter().position(what).unwrap_or_else(|| panic!("{kinds:#?}"));
    let (saved, loaded) =
        (place(|kind| matches!(kind, EventKind::Saved { .. })), place(|kind| matches!(kind, EventKind::Loaded { .. })));
    let (asleep, ready) = (
        place(|kind| matches!(kind, EventKind::Transition { to: State::Asleep, .. })),
        place(|kind| matches!(kind, EventKind::Transition { from: State::Waking, .. })),
    );
    assert!(saved < asleep && asleep < loaded && loaded < ready, "{kinds:#?}");
    assert!(!kinds.iter().any(|kind| matches!(kind, EventKind::Vanished | EventKind::OutOfMemory)), "{kinds:#?}");

    // What is told of another one after it has been told of after it, too.
    let marker = host.create(CreateWorkspace::empty().id("marker")).await.unwrap();
    marker.remove().await.unwrap();
    let mut vanished = Vec::new();
    let seeing = async {
        while vanished.last() != Some(marker.id()) {
            let event = others.next().await.expect("the host lives");
            vanished.extend(event.workspace.filter(|_| event.kind == EventKind::Vanished));
        }
    };
    timeout(PATIENCE, seeing).await.expect("the engine tells");
    assert_eq!(vanished, [workspace.id().clone(), marker.id().clone()], "who sleeps hasn't vanished");
}

/// The minutes of a history, by their time.
fn minutes(history: &StatsHistory) -> BTreeMap<String, u64> {
    history.points.iter().map(|point| (point.at.to_string(), point.cpu_ms)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn use_is_measured_and_kept_over_restarts_of_the_host_and_over_sleep() {
    // What is written down first is a minute: one of which enough is left to be measured.
    let second = Timestamp::now().as_unix_seconds().rem_euclid(60).unsigned_abs();
    if second > 40 {
        tokio::time::sleep(Duration::from_secs(61 - second)).await;
    }
    let corehold = Corehold::start().await;
    let host = corehold.builder().measure(true).build().await.unwrap();
    let workspace = host.create(CreateWorkspace::empty().id("used")).await.unwrap();
    let created = workspace.info().await.unwrap().created;
    workspace.command("timeout 60 sh -c 'while :; do :; done'").detach().await.unwrap();
    let now = workspace.stats().await.unwrap();
    assert!(now.memory_bytes > 0 && now.pids > 0 && now.state == State::Ready, "{now:?}");
    let mut samples = workspace.follow_stats();
    // Until the loop was seen, and over the end of a minute, which is then written down.
    let began = Timestamp::now().as_unix_seconds() / 60;
    let seeing = async {
        let mut busiest = 0.0_f64;
        loop {
            let sample = samples.next().await.expect("the host lives");
            busiest = busiest.max(sample.cpu_percent.unwrap_or_default());
            if busiest > 5.0 && sample.at.as_unix_seconds() / 60 > began {
                return;
            }
        }
    };
    timeout(PATIENCE, seeing).await.expect("a loop uses the CPU");
    let file = host.home().join("stats/used.ndjson");
    let kept = async {
        while !file.is_file() {
            samples.next().await;
        }
    };
    timeout(PATIENCE, kept).await.expect("it is written down");
    drop((samples, host));

    // As another process would be, which doesn't measure.
    let again = corehold.builder().build().await.unwrap();
    let range = StatsRange::last(Duration::from_secs(3600));
    let before = minutes(&again.workspace("used").await.unwrap().stats_history(range).await);
    assert!(before.values().sum::<u64>() > 0, "{before:?}");

    let host = corehold.builder().measure(true).build().await.unwrap();
    workspace.sleep(GRACE).await.unwrap();
    // In minutes or finer, by whether the host that measured it still has it in memory.
    let used = |minutes: &BTreeMap<String, u64>| minutes.values().sum::<u64>();
    let asleep = minutes(&workspace.stats_history(range).await);
    assert!(used(&asleep) >= used(&before), "asleep: {asleep:?}, before: {before:?}");
    workspace.wake().await.unwrap();
    assert_eq!(workspace.info().await.unwrap().created, created, "by which its history is known to be its own");
    let workspace = host.workspace("used").await.unwrap();
    timeout(PATIENCE, workspace.follow_stats().next()).await.expect("it is measured in its new container").unwrap();
    let after = minutes(&workspace.stats_history(StatsRange::last(Duration::from_secs(23 * 3600))).await);
    assert!(before.iter().all(|minute| after.get(minute.0) == Some(minute.1)), "{before:?} {after:?}");
    workspace.remove().await.unwrap();
}

/// The next lines of commands.
async fn lines(stream: &mut LogStream, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let reading = async {
        while lines.len() < count {
            match stream.next().await.expect("another line") {
                LogItem::Line(line) if matches!(line.source, LogSource::Command { .. }) => lines.push(line.text),
                LogItem::Ended { code: Some(0), .. } => lines.push("its end".to_owned()),
                other => panic!("{other:?}"),
            }
        }
    };
    let done = timeout(PATIENCE, reading).await;
    assert!(done.is_ok(), "they don't come, only {lines:?}");
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_told_to_all_and_who_is_slow_learns_what_was_missed() {
    let corehold = Corehold::start().await;
    let workspace = corehold.host.create(CreateWorkspace::empty()).await.unwrap();
    let (mut one, mut other) =
        (workspace.logs(LogOptions::default()), workspace.logs(LogOptions::default().label("chosen")));
    let mut slow = workspace.logs(LogOptions::default());
    let chosen = workspace
        .command("printf 'one\\ntwo'; sleep 0.2; printf ' and a half\\r\\n'; printf three >&2")
        .label("chosen");
    chosen.run().await.unwrap();
    workspace.command("echo not chosen").run().await.unwrap();
    let mut first = lines(&mut one, 6).await;
    first.sort();
    assert_eq!(first, ["its end", "its end", "not chosen", "one", "three", "two and a half"]);
    let mut chosen = lines(&mut other, 4).await;
    assert_eq!(chosen.pop().unwrap(), "its end");
    chosen.sort();
    assert_eq!(chosen, ["one", "three", "two and a half"]);

    // One reads as it comes, the other not at all until it is over.
    workspace.command("seq 5000").run().await.unwrap();
    let mut quick = Vec::new();
    let reading = async {
        while quick.last().is_none_or(|line| line != "5000") {
            match one.next().await.expect("another line") {
                LogItem::Line(line) => quick.push(line.text),
                LogItem::Missed { .. } => quick.clear(),
                other => panic!("{other:?}"),
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("all lines come");
    let mut missed = 0;
    let mut seen = Vec::new();
    let reading = async {
        while seen.last().is_none_or(|line| line != "5000") {
            match slow.next().await.expect("another line") {
                LogItem::Line(line) => seen.push(line.text),
                LogItem::Ended { .. } => seen.push("its end".to_owned()),
                LogItem::Missed { lines } => missed += lines,
                other => panic!("{other:?}"),
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("it catches up");
    assert!(missed > 3_000 && missed + seen.len() as u64 == 5_006, "{missed} missed, {} seen", seen.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_did_what_is_written_down_and_outlives_the_workspace() {
    let corehold = Corehold::start().await;
    let host = corehold.builder().audit(true).build().await.unwrap();
    let workspace = host.create(CreateWorkspace::empty().id("audited")).await.unwrap();
    let ada = workspace.for_subject("ada");
    ada.write_file("secret", "of ada").await.unwrap();
    ada.command("cat secret").run().await.unwrap();
    // Its agent, and with it its records, ends with the container.
    workspace.sleep(GRACE).await.unwrap();
    let target = ReadTarget { path: "secret".into(), lines: None, bytes: None };
    ada.call::<Read>(&ReadRequest { files: vec![target], max_bytes: None }).await.unwrap();
    workspace.remove().await.unwrap();

    let mut events = host.events();
    let id = workspace.id().clone();
    drop((workspace, ada, host));
    // The last handle is gone: what was done until then is written down.
    while timeout(PATIENCE, events.next()).await.expect("the host ends").is_some() {}
    let entries = corehold.host.audit(AuditQuery::default().workspace(&id)).await.unwrap();
    assert_eq!(entries.damaged, 0);
    let of_ada: Vec<&str> =
        entries.entries.iter().filter(|entry| entry.subject() == Some("ada")).filter_map(AuditEntry::tool).collect();
    for tool in ["command", "read"] {
        assert_eq!(of_ada.iter().filter(|of| **of == tool).count(), 1, "{of_ada:?}");
    }
    assert!(of_ada.iter().any(|tool| tool.contains("files")), "{of_ada:?}");
    let by_host: Vec<&str> = entries
        .entries
        .iter()
        .filter(|entry| matches!(entry, AuditEntry::Host { .. }))
        .filter_map(AuditEntry::tool)
        .collect();
    assert!(["created", "removed"].iter().all(|tool| by_host.contains(tool)), "{by_host:?}");
    assert!(!entries.entries.iter().any(|entry| matches!(entry, AuditEntry::Gap { .. })), "{entries:#?}");
}

/// The samples of a text in the format of Prometheus, each line of which is held against it.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut kinds = BTreeMap::new();
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("HELP"), Some(name), Some(help)) => assert!(is_name(name) && !help.is_empty(), "{line}"),
                (Some("TYPE"), Some(name), Some(kind)) => {
                    assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                    assert!(kinds.insert(name.to_owned(), kind).is_none(), "twice: {line}");
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        assert!(is_name(name) && labels.ends_with('}'), "{line}");
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        assert!(
            kinds.contains_key(name) || family.is_some_and(|family| kinds.get(family) == Some(&"histogram")),
            "{line}"
        );
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(samples.insert(sample.to_owned(), value).is_none(), "twice: {line}");
    }
    samples
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_can_be_read_and_move() {
    let corehold = Corehold::start().await;
    let host = &corehold.host;
    let value = async |name: &str| samples(&host.metrics().await).get(name).copied().unwrap_or(f64::NAN);
    let pauses = "corehold_host_engine_call_duration_seconds_count{call=\"pause\"}";
    assert!(samples(&host.metrics().await).get(pauses).is_none_or(|count| *count == 0.0));
    assert_eq!(value("corehold_host_engine_up").await, 1.0);
    let workspace = host.create(CreateWorkspace::empty()).await.unwrap();
    assert_eq!(value("corehold_host_creation_duration_seconds_count").await, 1.0);
    assert_eq!(value("corehold_host_workspaces{state=\"ready\"}").await, 1.0);
    for count in [1.0, 2.0] {
        workspace.pause().await.unwrap();
        assert_eq!(value(pauses).await, count);
        assert_eq!(value("corehold_host_workspaces{state=\"paused\"}").await, 1.0);
        workspace.resume().await.unwrap();
    }
    workspace.sleep(GRACE).await.unwrap();
    assert_eq!(value("corehold_host_workspaces{state=\"asleep\"}").await, 1.0);
    let transitions = value("corehold_host_events_total{event=\"transition\"}").await;
    workspace.wake().await.unwrap();
    assert!(value("corehold_host_events_total{event=\"transition\"}").await >= transitions + 2.0);
    workspace.remove().await.unwrap();
    assert_eq!(value("corehold_host_events_total{event=\"removed\"}").await, 1.0);
}
