//! `activity`: what keeps the workspace awake, told in words.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use corehold_types::{
    Problem, Timestamp,
    tools::{ActiveSource, Activity, ActivityRequest, ActivityResponse, ActivitySource, EndedSource, HEALTH},
};

use crate::{
    agent::Agent,
    handler::{Call, Events, Handler},
    process::Command,
};

/// Names in one reason.
const NAMES: usize = 8;
/// Characters of one name.
const NAME_CHARACTERS: usize = 60;
/// Labels in one answer.
const LABELS: usize = 64;

impl Handler for Activity {
    fn keeps_awake(_: &Self::Request, _: bool) -> Option<ActivitySource> {
        None
    }

    async fn handle(call: Call, _: ActivityRequest, _: Events<Self::Event>) -> Result<ActivityResponse, Problem> {
        Ok(answer(&call.agent))
    }
}

fn answer(agent: &Agent) -> ActivityResponse {
    let snapshot = agent.activity.snapshot();
    // In this order: one that ends meanwhile is told of twice rather than not at all.
    let (mut running, mut over) = (agent.processes.running(), agent.processes.over());
    running.retain(|command| command.label() != Some(HEALTH));
    over.retain(|(command, _)| command.label() != Some(HEALTH));
    let mut found: Vec<(ActivitySource, u64, Timestamp, Cow<'_, str>)> =
        snapshot.held.into_iter().map(|(source, label, held)| (source, held.count, held.since, label)).collect();
    found.extend(running.iter().map(|command| {
        let name = command.label().unwrap_or_else(|| command.line());
        (source_of(command), 1, command.started(), Cow::Borrowed(name))
    }));
    found.sort_by_key(|(source, ..)| *source);
    let mut sources: Vec<ActiveSource> = found.chunk_by(|one, other| one.0 == other.0).map(describe).collect();
    for source in &mut sources {
        source.labels = labels(running.iter().filter(|command| source_of(command) == source.source));
    }
    let mut ended = snapshot.ended;
    for (command, end) in &over {
        let last = ended.entry(source_of(command)).or_insert(*end);
        *last = (*last).max(*end);
    }
    ended.retain(|source, _| sources.iter().all(|active| active.source != *source));
    let last_end = over.iter().map(|(_, end)| *end).max();
    let idle_since = sources.is_empty().then(|| last_end.map_or(snapshot.released, |end| end.max(snapshot.released)));
    ActivityResponse {
        sources,
        idle_since,
        last_request: snapshot.last_request,
        ended: ended.into_iter().map(|(source, at)| EndedSource { source, at }).collect(),
        now: Timestamp::now(),
    }
}

fn source_of(command: &Command) -> ActivitySource {
    if command.is_on_terminal() { ActivitySource::Terminal } else { ActivitySource::Command }
}

/// How many commands bear which label.
fn labels<'a>(commands: impl Iterator<Item = &'a Arc<Command>>) -> BTreeMap<String, u64> {
    let mut labels = BTreeMap::new();
    for label in commands.filter_map(|command| command.label()) {
        *labels.entry(label.to_owned()).or_insert(0) += 1;
    }
    while labels.len() > LABELS {
        labels.pop_last();
    }
    labels
}

/// What there is of one source; at least one.
fn describe(found: &[(ActivitySource, u64, Timestamp, Cow<'_, str>)]) -> ActiveSource {
    let source = found[0].0;
    let count = found.iter().map(|(_, count, ..)| count).sum();
    let since = found.iter().map(|(_, _, since, _)| *since).min().unwrap_or_else(Timestamp::now);
    let what = match (source, count) {
        (ActivitySource::Call, 1) => "call is being answered",
        (ActivitySource::Call, _) => "calls are being answered",
        (ActivitySource::Transfer, 1) => "file or archive is under way",
        (ActivitySource::Transfer, _) => "files or archives are under way",
        (ActivitySource::Command, 1) => "command runs",
        (ActivitySource::Command, _) => "commands run",
        (ActivitySource::Terminal, 1) => "terminal is open",
        (ActivitySource::Terminal, _) => "terminals are open",
        (ActivitySource::Watch, 1) => "watch is on",
        (ActivitySource::Watch, _) => "watches are on",
        (ActivitySource::Tunnel, 1) => "tunnel is open",
        (ActivitySource::Tunnel, _) => "tunnels are open",
        (ActivitySource::Socket, 1) => "WebSocket is open",
        (ActivitySource::Socket, _) => "WebSockets are open",
        (_, _) => "of something newer",
    };
    let mut names: Vec<String> =
        found.iter().take(NAMES).map(|(.., name)| name.chars().take(NAME_CHARACTERS).collect()).collect();
    if found.len() > NAMES {
        names.push("…".to_owned());
    }
    let reason = format!("{count} {what}: {}", names.join(", "));
    ActiveSource { source, count, since, reason, labels: BTreeMap::new() }
}

#[cfg(test)]
mod tests {
    use corehold_types::tools::{Command, CommandRequest, Info, InfoRequest, Pty};

    use super::*;
    use crate::{calls, testing};

    #[tokio::test]
    async fn says_what_keeps_the_workspace_awake_and_that_nothing_does() {
        let agent = testing::agent();
        let idle = answer(&agent);
        assert!(idle.sources.is_empty() && idle.idle_since.is_some() && idle.last_request.is_none());
        let argv = Some(vec!["sleep".to_owned(), "60".to_owned()]);
        let request = CommandRequest { argv, detach: Some(true), ..CommandRequest::default() };
        let command = calls::run::<Command>(testing::call(&agent), request, Events::none()).await.unwrap();
        let tunnel = agent.activity.hold(ActivitySource::Tunnel, "port 4321");
        let awake = answer(&agent);
        assert_eq!(awake.idle_since, None);
        assert!(awake.last_request.is_some());
        let reasons: Vec<&str> = awake.sources.iter().map(|source| source.reason.as_str()).collect();
        assert_eq!(reasons, ["1 command runs: sleep 60", "1 tunnel is open: port 4321"]);
        drop(tunnel);
        let command = agent.processes.find(&command.id).unwrap();
        agent.processes.signal(std::sync::Arc::clone(&command), rustix::process::Signal::KILL).await;
        let _ = crate::process::collect(command, 0, true, 0).await;
        let idle = answer(&agent);
        assert!(idle.sources.is_empty() && idle.idle_since > awake.last_request);
        let ended: Vec<_> = idle.ended.iter().map(|ended| ended.source).collect();
        assert_eq!(ended, [ActivitySource::Call, ActivitySource::Command, ActivitySource::Tunnel]);
        assert_eq!(idle.ended.iter().map(|ended| ended.at).max(), idle.idle_since);
    }

    /// A shell that waits for its person is another thing than a build; and a dev server runs always.
    #[tokio::test]
    async fn a_terminal_is_no_command_and_labels_are_counted() {
        let agent = testing::agent();
        let start = |label: Option<&str>, pty: Option<Pty>| {
            let (agent, label) = (agent.clone(), label.map(str::to_owned));
            async move {
                let argv = Some(vec!["sleep".to_owned(), "60".to_owned()]);
                let request = CommandRequest { argv, label, pty, detach: Some(true), ..CommandRequest::default() };
                calls::run::<Command>(testing::call(&agent), request, Events::none()).await.unwrap()
            }
        };
        start(Some("dev"), None).await;
        start(None, None).await;
        start(None, Some(Pty { columns: 80, rows: 24, term: None })).await;
        let awake = answer(&agent);
        let told: Vec<_> = awake.sources.iter().map(|source| (source.source, source.count)).collect();
        assert_eq!(told, [(ActivitySource::Command, 2), (ActivitySource::Terminal, 1)]);
        assert_eq!(awake.sources[0].labels, BTreeMap::from([("dev".to_owned(), 1)]));
        assert!(awake.sources[1].labels.is_empty());
        assert!(awake.ended.iter().all(|ended| ended.source == ActivitySource::Call), "{:?}", awake.ended);
        for command in agent.processes.running() {
            agent.processes.signal(Arc::clone(&command), rustix::process::Signal::KILL).await;
            let _ = crate::process::collect(command, 0, true, 0).await;
        }
    }

    #[tokio::test]
    async fn to_ask_how_things_are_is_no_activity() {
        let agent = testing::agent();
        let _ = calls::run::<Info>(testing::call(&agent), InfoRequest {}, Events::none()).await.unwrap();
        let asked = calls::run::<Activity>(testing::call(&agent), ActivityRequest {}, Events::none()).await.unwrap();
        assert!(asked.sources.is_empty(), "{asked:?}");
        assert_eq!(asked.last_request, None);
    }

    #[tokio::test]
    async fn a_health_check_keeps_nothing_awake() {
        let agent = testing::agent();
        let before = answer(&agent);
        let argv = Some(vec!["true".to_owned()]);
        let request = CommandRequest { argv, label: Some(HEALTH.to_owned()), ..CommandRequest::default() };
        let done = calls::run::<Command>(testing::call(&agent), request, Events::none()).await.unwrap();
        assert_eq!(done.exit.and_then(|exit| exit.code), Some(0));
        let after = answer(&agent);
        assert_eq!(after, ActivityResponse { now: after.now, ..before }, "all but the time");
    }

    #[test]
    fn many_names_are_cut() {
        let agent = testing::agent();
        let _held: Vec<_> =
            (0..20).map(|port| agent.activity.hold(ActivitySource::Tunnel, format!("{port}"))).collect();
        let answer = answer(&agent);
        assert_eq!(answer.sources[0].count, 20);
        assert!(answer.sources[0].reason.ends_with(", …"), "{}", answer.sources[0].reason);
    }
}
