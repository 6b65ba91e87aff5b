//! `activity`: what keeps the workspace awake, told in words.

use std::borrow::Cow;

use corehold_types::{
    Problem, Timestamp,
    tools::{ActiveSource, Activity, ActivityRequest, ActivityResponse, ActivitySource},
};

use crate::{
    agent::Agent,
    handler::{Call, Events, Handler},
};

/// Names in one reason.
const NAMES: usize = 8;
/// Characters of one name.
const NAME_CHARACTERS: usize = 60;

impl Handler for Activity {
    fn keeps_awake(_: bool) -> Option<ActivitySource> {
        None
    }

    async fn handle(call: Call, _: ActivityRequest, _: Events<Self::Event>) -> Result<ActivityResponse, Problem> {
        Ok(answer(&call.agent))
    }
}

fn answer(agent: &Agent) -> ActivityResponse {
    let snapshot = agent.activity.snapshot();
    let (running, last_end) = agent.processes.running();
    let mut found: Vec<(ActivitySource, u64, Timestamp, Cow<'_, str>)> =
        snapshot.held.into_iter().map(|(source, label, held)| (source, held.count, held.since, label)).collect();
    found.extend(running.iter().map(|command| {
        let name = command.label().unwrap_or_else(|| command.line());
        (ActivitySource::Command, 1, command.started(), Cow::Borrowed(name))
    }));
    found.sort_by_key(|(source, ..)| *source);
    let sources: Vec<ActiveSource> = found.chunk_by(|one, other| one.0 == other.0).map(describe).collect();
    let idle_since = sources.is_empty().then(|| last_end.map_or(snapshot.released, |end| end.max(snapshot.released)));
    ActivityResponse { sources, idle_since, last_request: snapshot.last_request, now: Timestamp::now() }
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
    ActiveSource { source, count, since, reason: format!("{count} {what}: {}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use corehold_types::tools::{Command, CommandRequest, Info, InfoRequest};

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
    }

    #[tokio::test]
    async fn to_ask_how_things_are_is_no_activity() {
        let agent = testing::agent();
        let _ = calls::run::<Info>(testing::call(&agent), InfoRequest {}, Events::none()).await.unwrap();
        let asked = calls::run::<Activity>(testing::call(&agent), ActivityRequest {}, Events::none()).await.unwrap();
        assert!(asked.sources.is_empty(), "{asked:?}");
        assert_eq!(asked.last_request, None);
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
