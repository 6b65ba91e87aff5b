//! What a host has done and has, in the text format of Prometheus.
//!
//! Labels are words of this library's own (steps, states, calls, kinds of errors) and numbers of pools, never a workspace's or a
//! caller's, so there is a bounded number of series. What agents count is theirs: `GET /metrics` of each.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    create::{CreateEvent, CreateEventKind},
    error::ErrorKind,
    events::EventKind,
    host::Host,
    life::WorkspaceState,
    pool::PoolStatus,
};

/// Upper bounds of the buckets, in seconds: an engine's shortest calls, and set-ups of minutes.
const BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0];

/// All that is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    events: BTreeMap<String, u64>,
    creations: Durations,
    failures: BTreeMap<&'static str, u64>,
    steps: BTreeMap<&'static str, Durations>,
    setup_cache: [u64; 2],
    calls: BTreeMap<&'static str, Durations>,
    call_errors: BTreeMap<(&'static str, &'static str), u64>,
}

#[derive(Debug, Default)]
struct Durations {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: Duration,
}

impl Durations {
    fn add(&mut self, duration: Duration) {
        if let Some(bucket) = BUCKETS.iter().position(|bound| duration.as_secs_f64() <= *bound) {
            self.buckets[bucket] += 1;
        }
        self.count += 1;
        self.sum += duration;
    }

    /// `labels` are empty, or end with a comma.
    fn write(&self, text: &mut String, name: &str, labels: &str) {
        let mut so_far = 0;
        for (bound, count) in BUCKETS.iter().zip(self.buckets) {
            so_far += count;
            let _ = writeln!(text, "{name}_bucket{{{labels}le=\"{bound}\"}} {so_far}");
        }
        let _ = writeln!(text, "{name}_bucket{{{labels}le=\"+Inf\"}} {}", self.count);
        let braced = match labels.trim_end_matches(',') {
            "" => String::new(),
            labels => format!("{{{labels}}}"),
        };
        let _ = writeln!(text, "{name}_sum{braced} {}\n{name}_count{braced} {}", self.sum.as_secs_f64(), self.count);
    }
}

impl Metrics {
    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened.
    pub(crate) fn event(&self, kind: &EventKind) {
        let mut counts = self.lock();
        match kind {
            EventKind::Creation(CreateEvent { step, kind: CreateEventKind::Finished { duration, .. } }) => {
                return counts.steps.entry(step.as_str()).or_default().add(*duration);
            }
            EventKind::Creation(_) => return,
            EventKind::Created { duration } => counts.creations.add(*duration),
            EventKind::CreationFailed { step, .. } => {
                *counts.failures.entry(step.map_or("none", |step| step.as_str())).or_default() += 1;
            }
            EventKind::SetupCache { hit, .. } => counts.setup_cache[usize::from(*hit)] += 1,
            _ => {}
        }
        // Its name stands once, where it is written for readers.
        let named = serde_json::to_value(kind).ok();
        let name = named.as_ref().and_then(|event| event.get("event")?.as_str()).unwrap_or("unknown");
        *counts.events.entry(name.to_owned()).or_default() += 1;
    }

    /// The engine has answered a call, or failed to.
    pub(crate) fn call(&self, call: &'static str, duration: Duration, failure: Option<ErrorKind>) {
        let mut counts = self.lock();
        counts.calls.entry(call).or_default().add(duration);
        if let Some(kind) = failure {
            *counts.call_errors.entry((call, word(kind))).or_default() += 1;
        }
    }

    fn write(&self, text: &mut String) {
        let counts = self.lock();
        let mut name = "corehold_host_events_total";
        head(text, name, "counter", "What this host has told as events, steps of creations aside.");
        for (event, count) in &counts.events {
            let _ = writeln!(text, "{name}{{event=\"{event}\"}} {count}");
        }
        name = "corehold_host_creation_duration_seconds";
        head(text, name, "histogram", "How long creations took that made a workspace.");
        counts.creations.write(text, name, "");
        name = "corehold_host_creation_step_duration_seconds";
        head(text, name, "histogram", "How long steps of creations took that succeeded.");
        for (step, durations) in &counts.steps {
            durations.write(text, name, &format!("step=\"{step}\","));
        }
        name = "corehold_host_creation_failures_total";
        head(text, name, "counter", "Creations that failed, by the step; none: given up, or before the first.");
        for (step, count) in &counts.failures {
            let _ = writeln!(text, "{name}{{step=\"{step}\"}} {count}");
        }
        name = "corehold_host_setup_cache_lookups_total";
        head(text, name, "counter", "Results of set-ups that were looked for.");
        for (result, count) in ["miss", "hit"].into_iter().zip(counts.setup_cache) {
            let _ = writeln!(text, "{name}{{result=\"{result}\"}} {count}");
        }
        name = "corehold_host_engine_call_duration_seconds";
        head(text, name, "histogram", "How long calls of the engine took, those that failed included.");
        for (call, durations) in &counts.calls {
            durations.write(text, name, &format!("call=\"{call}\","));
        }
        name = "corehold_host_engine_call_errors_total";
        head(text, name, "counter", "Calls of the engine that failed.");
        for ((call, kind), count) in &counts.call_errors {
            let _ = writeln!(text, "{name}{{call=\"{call}\",kind=\"{kind}\"}} {count}");
        }
    }
}

const fn word(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "notFound",
        ErrorKind::Conflict => "conflict",
        ErrorKind::Invalid => "invalid",
        ErrorKind::EngineUnavailable => "engineUnavailable",
        ErrorKind::Engine => "engine",
        ErrorKind::Timeout => "timeout",
        ErrorKind::Unsupported => "unsupported",
        _ => "other",
    }
}

impl Host {
    /// What this host has done since it began, and what there is now, in the text format of Prometheus (version 0.0.4): for an endpoint
    /// of the program that holds it. Asks the engine for the workspaces; where that fails, `corehold_host_engine_up` is 0 and
    /// their number is left out. Cancel-safe.
    pub async fn metrics(&self) -> String {
        let workspaces = self.list().await;
        let mut text = String::new();
        head(&mut text, "corehold_host_info", "gauge", "Which host this is.");
        let _ = writeln!(text, "corehold_host_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
        head(&mut text, "corehold_host_engine_up", "gauge", "Whether the engine answers.");
        let _ = writeln!(text, "corehold_host_engine_up {}", u8::from(workspaces.is_ok()));
        if let Ok(workspaces) = workspaces {
            let name = "corehold_host_workspaces";
            head(&mut text, name, "gauge", "Workspaces of the home, by what they are doing.");
            let mut counts: BTreeMap<&str, usize> = BTreeMap::from([
                (WorkspaceState::Ready.as_str(), 0),
                (WorkspaceState::Paused.as_str(), 0),
                (WorkspaceState::Stopped.as_str(), 0),
                (WorkspaceState::Asleep.as_str(), 0),
            ]);
            for workspace in &workspaces {
                *counts.entry(workspace.state.as_str()).or_default() += 1;
            }
            for (state, count) in counts {
                let _ = writeln!(text, "{name}{{state=\"{state}\"}} {count}");
            }
        }
        pools(&mut text, &self.pools());
        self.counted().write(&mut text);
        text
    }
}

fn pools(text: &mut String, pools: &[PoolStatus]) {
    let mut name = "corehold_host_pool_containers";
    head(text, name, "gauge", "Containers of each pool, in the order in which the host was given them.");
    for (number, pool) in pools.iter().enumerate() {
        for (state, count) in [("ready", pool.ready), ("starting", pool.starting), ("wanted", pool.wanted)] {
            let _ = writeln!(text, "{name}{{pool=\"{number}\",state=\"{state}\"}} {count}");
        }
    }
    name = "corehold_host_pool_claims_total";
    head(text, name, "counter", "Requests that a pool could meet: with a container that was ready, or with none.");
    for (number, pool) in pools.iter().enumerate() {
        for (outcome, count) in [("claimed", pool.claimed), ("missed", pool.missed)] {
            let _ = writeln!(text, "{name}{{pool=\"{number}\",outcome=\"{outcome}\"}} {count}");
        }
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        CreateWorkspace, PoolOptions,
        testing::{AgentScript, EngineScript, Fixture},
    };

    /// What `promtool check metrics` refuses.
    fn check(text: &str) {
        assert!(text.ends_with('\n'));
        let (mut seen, mut series) = (BTreeMap::new(), BTreeSet::new());
        let mut family = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split(' ').next().unwrap().to_owned();
                assert!(help.len() > family.len() + 1, "{line}: no help");
                assert!(seen.insert(family.clone(), String::new()).is_none(), "{line}: again");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!((name, name.ends_with("_total")), (family.as_str(), kind == "counter"), "{line}");
                seen.insert(family.clone(), kind.to_owned());
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert!(series.insert(name.to_owned()), "{line}: again");
                value.parse::<f64>().unwrap();
                let bare = name.split('{').next().unwrap();
                let suffix = bare.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line} stands elsewhere"));
                let histogram = seen[&family] == "histogram";
                assert!(if histogram { ["_bucket", "_sum", "_count"].contains(&suffix) } else { suffix.is_empty() });
            }
        }
        let bucket = |line: &&str| line.contains("_bucket{");
        for (one, next) in text.lines().filter(bucket).zip(text.lines().filter(bucket).skip(1)) {
            let of = |line: &str| line.split_once("le=").unwrap().0.to_owned();
            let count = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap();
            assert!(of(one) != of(next) || count(one) <= count(next), "{one}, then {next}");
        }
    }

    fn value(text: &str, series: &str) -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} lacks in\n{text}")).parse().unwrap()
    }

    #[tokio::test]
    async fn what_was_done_is_counted_and_reads_as_prometheus_wants_it() {
        let script = EngineScript { remove_failures: 1, ..EngineScript::default() };
        let fixture = Fixture::new(script, AgentScript::default()).await;
        let host = fixture.pooled(PoolOptions::default().min(1)).await;
        host.pools_filled().await.unwrap();
        check(&fixture.host.metrics().await);
        let workspace = fixture.host.create(CreateWorkspace::empty()).await.unwrap();
        fixture.host.create(CreateWorkspace::empty()).await.unwrap();
        fixture.host.create(CreateWorkspace::empty().id(workspace.id().as_str())).await.unwrap_err();
        workspace.remove().await.unwrap_err();
        workspace.remove().await.unwrap();
        let text = fixture.host.metrics().await;
        check(&text);
        for (series, expected) in [
            ("corehold_host_engine_up", 1.0),
            ("corehold_host_workspaces{state=\"ready\"}", 1.0),
            ("corehold_host_workspaces{state=\"paused\"}", 0.0),
            ("corehold_host_creation_duration_seconds_count", 2.0),
            ("corehold_host_creation_step_duration_seconds_count{step=\"agent\"}", 2.0),
            ("corehold_host_creation_failures_total{step=\"create\"}", 1.0),
            ("corehold_host_events_total{event=\"created\"}", 2.0),
            ("corehold_host_events_total{event=\"removed\"}", 1.0),
            ("corehold_host_engine_call_errors_total{call=\"remove\",kind=\"engine\"}", 1.0),
            ("corehold_host_engine_call_duration_seconds_count{call=\"remove\"}", 2.0),
        ] {
            assert_eq!(value(&text, series), expected, "{series}");
        }
        assert!(!text.contains(workspace.id().as_str()), "no series of a workspace");

        let text = host.metrics().await;
        check(&text);
        assert_eq!(value(&text, "corehold_host_pool_containers{pool=\"0\",state=\"ready\"}"), 1.0);
        assert_eq!(value(&text, "corehold_host_pool_claims_total{pool=\"0\",outcome=\"claimed\"}"), 0.0);

        fixture.engine.go_away();
        let text = fixture.host.metrics().await;
        check(&text);
        assert_eq!(value(&text, "corehold_host_engine_up"), 0.0);
        assert!(!text.contains("corehold_host_workspaces"));
    }

    #[test]
    fn buckets_count_up_to_their_bound() {
        let metrics = Metrics::default();
        for milliseconds in [1, 3, 30, 400_000] {
            metrics.call("start", Duration::from_millis(milliseconds), None);
        }
        let mut text = String::new();
        metrics.write(&mut text);
        check(&text);
        let name = "corehold_host_engine_call_duration_seconds";
        for (bound, expected) in [("0.001", 1.0), ("0.005", 2.0), ("300", 3.0), ("+Inf", 4.0)] {
            assert_eq!(value(&text, &format!("{name}_bucket{{call=\"start\",le=\"{bound}\"}}")), expected);
        }
        assert_eq!(value(&text, &format!("{name}_sum{{call=\"start\"}}")), 400.034);
    }
}
