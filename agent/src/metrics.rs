//! `GET /metrics`: what the agent has done and has open, in the text format of Prometheus.
//!
//! Labels are words of the agent's own (tools, routes, surfaces, outcomes), never a caller's, so there is a bounded number of
//! series. Calls are counted where they are recorded for the audit log.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use corehold_types::{PROTOCOL, Problem, Scope, tools::AuditOutcome};
use http::{HeaderMap, header};

use crate::{agent::Agent, audit::Audit, handler::Surface, server::problem::Failure};

/// Upper bounds of the buckets, in seconds.
const BUCKETS: [f64; 9] = [0.000_25, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];

/// Media type of the format, version 0.0.4.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The calls under way, how those before ended, and how long they took.
#[derive(Debug, Default)]
pub struct Metrics {
    counts: Mutex<Counts>,
    /// By surface, as they stand in [`SURFACES`].
    under_way: [AtomicU64; SURFACES.len()],
}

const SURFACES: [Surface; 3] = [Surface::Http, Surface::WebSocket, Surface::Mcp];

/// A call is under way as long as this lives.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Audit>, Surface);

impl UnderWay {
    /// A call has begun.
    pub(crate) fn begin(audit: &Arc<Audit>, surface: Surface) -> Self {
        audit.metrics.under_way[surface as usize].fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(audit), surface)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.metrics.under_way[self.1 as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Counts {
    calls: BTreeMap<(&'static str, &'static str, &'static str), u64>,
    durations: BTreeMap<&'static str, Durations>,
}

#[derive(Debug, Default)]
struct Durations {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: Duration,
}

impl Metrics {
    /// A call has ended.
    pub(crate) fn count(&self, tool: &'static str, surface: Surface, outcome: AuditOutcome, duration: Duration) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.calls.entry((tool, surface_of(surface), outcome_of(outcome))).or_default() += 1;
        let durations = counts.durations.entry(tool).or_default();
        if let Some(bucket) = BUCKETS.iter().position(|bound| duration.as_secs_f64() <= *bound) {
            durations.buckets[bucket] += 1;
        }
        durations.count += 1;
        durations.sum += duration;
    }

    fn write(&self, text: &mut String) {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        head(text, "corehold_agent_calls_total", "counter", "Calls of tools and requests of routes that have ended.");
        for ((tool, surface, outcome), count) in &counts.calls {
            let labels = format!("tool=\"{tool}\",surface=\"{surface}\",outcome=\"{outcome}\"");
            let _ = writeln!(text, "corehold_agent_calls_total{{{labels}}} {count}");
        }
        head(
            text,
            "corehold_agent_calls_running",
            "gauge",
            "Calls of tools and requests of routes that are under way.",
        );
        for surface in SURFACES {
            let running = self.under_way[surface as usize].load(Ordering::Relaxed);
            let _ = writeln!(text, "corehold_agent_calls_running{{surface=\"{}\"}} {running}", surface_of(surface));
        }
        let name = "corehold_agent_call_duration_seconds";
        head(text, name, "histogram", "How long they took; a stream or a download until its end.");
        for (tool, durations) in &counts.durations {
            let mut so_far = 0;
            for (bound, count) in BUCKETS.iter().zip(durations.buckets) {
                so_far += count;
                let _ = writeln!(text, "{name}_bucket{{tool=\"{tool}\",le=\"{bound}\"}} {so_far}");
            }
            let _ = writeln!(text, "{name}_bucket{{tool=\"{tool}\",le=\"+Inf\"}} {}", durations.count);
            let _ = writeln!(text, "{name}_sum{{tool=\"{tool}\"}} {}", durations.sum.as_secs_f64());
            let _ = writeln!(text, "{name}_count{{tool=\"{tool}\"}} {}", durations.count);
        }
    }
}

const fn surface_of(surface: Surface) -> &'static str {
    match surface {
        Surface::Http => "http",
        Surface::WebSocket => "webSocket",
        Surface::Mcp => "mcp",
    }
}

const fn outcome_of(outcome: AuditOutcome) -> &'static str {
    match outcome {
        AuditOutcome::Ok => "ok",
        AuditOutcome::Failed => "failed",
        AuditOutcome::Refused => "refused",
        AuditOutcome::CallerGone => "callerGone",
        _ => "other",
    }
}

/// Answers with all of them. Needs the scope `read`.
pub(crate) async fn get(State(agent): State<Arc<Agent>>, headers: HeaderMap) -> Response {
    match answer(&agent, &headers) {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT)], text).into_response(),
        Err(problem) => Failure(problem).into_response(),
    }
}

fn answer(agent: &Agent, headers: &HeaderMap) -> Result<String, Problem> {
    agent.access.authorize(headers, Scope::Read)?;
    let mut text = String::new();
    let version = env!("CARGO_PKG_VERSION");
    head(&mut text, "corehold_agent_info", "gauge", "Which agent this is.");
    let _ = writeln!(text, "corehold_agent_info{{version=\"{version}\",protocol=\"{PROTOCOL}\"}} 1");
    agent.audit.metrics.write(&mut text);
    let limits = &agent.config.limits;
    let taken = |free: usize, most: usize| most.saturating_sub(free) as f64;
    let running = agent.processes.running();
    let (known, kept) = agent.processes.kept();
    for (name, help, value) in [
        ("commands_running", "Commands that run.", running.len() as f64),
        ("commands_kept", "Commands that are known, those that run included.", known as f64),
        ("command_output_kept_bytes", "Output of commands that is kept for readers.", kept as f64),
        ("answers_held_bytes", "Memory that large requests and unread answers hold.", agent.room.taken() as f64),
        ("answers_waiting", "Requests and calls that wait for memory that others hold.", agent.room.waiting() as f64),
        ("sockets_open", "Open WebSockets.", agent.sockets.open() as f64),
        ("tunnels_open", "Open tunnels.", taken(agent.tunnels.available_permits(), limits.tunnels.as_usize())),
        ("watches_open", "Calls of `watch`.", taken(agent.watch_calls.available_permits(), limits.watches.as_usize())),
        ("searches_running", "Searches.", taken(agent.searches.available_permits(), limits.searches.as_usize())),
        (
            "transfers_running",
            "Files and archives that are received, and archives that are sent.",
            taken(agent.transfers.available_permits(), limits.transfers.as_usize()),
        ),
    ] {
        gauge(&mut text, &format!("corehold_agent_{name}"), help, value);
    }
    process(&mut text, agent.started.elapsed());
    Ok(text)
}

/// The agent's own process, under the names that Prometheus' clients use. What can't be read is left out.
fn process(text: &mut String, lasted: Duration) {
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(lasted);
    gauge(text, "process_start_time_seconds", "When the agent was started, since 1970.", began.as_secs_f64());
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let name = "process_cpu_seconds_total";
    head(text, name, "counter", "CPU time that the agent has used, user and system.");
    let _ = writeln!(text, "{name} {}.{:09}", used.tv_sec, used.tv_nsec);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    if let Some(kilobytes) = resident.map(|kilobytes: u32| f64::from(kilobytes)) {
        gauge(text, "process_resident_memory_bytes", "Memory that the agent holds.", kilobytes * 1024.0);
    }
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        gauge(text, "process_open_fds", "Descriptors that the agent has open.", descriptors.count() as f64);
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn gauge(text: &mut String, name: &str, help: &str, value: f64) {
    head(text, name, "gauge", help);
    let _ = writeln!(text, "{name} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_up_to_their_bound() {
        let metrics = Metrics::default();
        for milliseconds in [1, 1, 30, 100_000] {
            metrics.count("read", Surface::Mcp, AuditOutcome::Ok, Duration::from_millis(milliseconds));
        }
        let mut text = String::new();
        metrics.write(&mut text);
        for line in [
            "corehold_agent_calls_total{tool=\"read\",surface=\"mcp\",outcome=\"ok\"} 4",
            "corehold_agent_call_duration_seconds_bucket{tool=\"read\",le=\"0.00025\"} 0",
            "corehold_agent_call_duration_seconds_bucket{tool=\"read\",le=\"0.001\"} 2",
            "corehold_agent_call_duration_seconds_bucket{tool=\"read\",le=\"0.1\"} 3",
            "corehold_agent_call_duration_seconds_bucket{tool=\"read\",le=\"60\"} 3",
            "corehold_agent_call_duration_seconds_bucket{tool=\"read\",le=\"+Inf\"} 4",
            "corehold_agent_call_duration_seconds_sum{tool=\"read\"} 100.032",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} lacks in\n{text}");
        }
    }
}
