//! The engine's words for a container's state and use, in this library's terms.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerStatsResponse, ContainerSummary,
    ContainerSummaryStateEnum,
};
use corehold_types::Timestamp;

use super::ports;
use crate::runtime::{ContainerId, ContainerState, ContainerStatus, Stats};

/// From an inspection.
pub(super) fn inspected(container: ContainerInspectResponse) -> ContainerState {
    let published = ports::published(&container);
    let networks = container.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let mut addresses = networks.into_values().filter_map(|endpoint| endpoint.ip_address?.parse().ok());
    let (labels, image) = container.config.map_or((None, None), |config| (config.labels, config.image));
    let state = container.state.unwrap_or_default();
    let status = match state.status {
        Some(ContainerStateStatusEnum::CREATED) => ContainerStatus::Created,
        Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::RESTARTING) => ContainerStatus::Running,
        Some(ContainerStateStatusEnum::PAUSED) => ContainerStatus::Paused,
        Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::STOPPING) => ContainerStatus::Exited,
        _ => ContainerStatus::Dead,
    };
    let ended = matches!(status, ContainerStatus::Exited | ContainerStatus::Dead);
    // A container that never ended has a time of its end too: the year 1, or nothing with some engines.
    let time = |at: &Option<String>| at.as_deref().filter(|at| !at.starts_with("0001-"))?.parse::<Timestamp>().ok();
    let (started, finished) = (time(&state.started_at), time(&state.finished_at));
    ContainerState {
        id: ContainerId(container.id.unwrap_or_default()),
        name: plain_name(container.name.as_deref()),
        labels: sorted(labels),
        status,
        // To the second, as a listing has it, so that the two agree.
        created: container
            .created
            .and_then(|created| created.parse::<Timestamp>().ok())
            .map_or_else(String::new, |created| Timestamp::from_unix(created.as_unix_seconds(), 0).to_string()),
        started,
        finished,
        address: addresses.next(),
        image,
        exit_code: state.exit_code.filter(|_| ended),
        // A container that never ended has a time of its end too: the year 1, or nothing with some engines.
        restarted: !ended && state.finished_at.is_some_and(|end| !end.is_empty() && !end.starts_with("0001-")),
        // Of a place that runs on, the engine says so too when the kernel killed one of its commands.
        oom_killed: ended && state.oom_killed.unwrap_or(false),
        published,
    }
}

/// From a listing, which has neither exit code nor the reason of the end; `None` when it must be inspected for that.
pub(super) fn listed(container: &ContainerSummary) -> Option<ContainerState> {
    let status = match container.state {
        Some(ContainerSummaryStateEnum::CREATED) => ContainerStatus::Created,
        Some(ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::RESTARTING) => ContainerStatus::Running,
        Some(ContainerSummaryStateEnum::PAUSED) => ContainerStatus::Paused,
        _ => return None,
    };
    Some(ContainerState {
        id: ContainerId(container.id.clone()?),
        name: plain_name(container.names.iter().flatten().next().map(String::as_str)),
        labels: sorted(container.labels.clone()),
        status,
        created: Timestamp::from_unix(container.created?, 0).to_string(),
        started: None,
        finished: None,
        address: None,
        image: container.image.clone(),
        exit_code: None,
        oom_killed: false,
        restarted: false,
        published: ports::listed(container),
    })
}

/// What a container uses; `None` when it doesn't run, of which the engine says that it was measured in the year 1.
pub(super) fn stats(answer: &ContainerStatsResponse) -> Option<Stats> {
    let at = answer.read.as_deref().filter(|at| !at.is_empty() && !at.starts_with("0001-"))?;
    let memory = answer.memory_stats.as_ref();
    let usage = memory.and_then(|memory| memory.usage).unwrap_or(0);
    // What the docker command subtracts too: pages that the kernel drops under pressure (cgroup v1, then v2).
    let droppable = memory
        .and_then(|memory| memory.stats.as_ref())
        .and_then(|stats| stats.get("total_inactive_file").or_else(|| stats.get("inactive_file")))
        .copied()
        .unwrap_or(0);
    let networks = || answer.networks.iter().flat_map(HashMap::values);
    let sum = |counts: &mut dyn Iterator<Item = Option<u64>>| counts.flatten().fold(0, u64::saturating_add);
    // `Read` with cgroup v1, `read` with v2; v1 has sums of them beside.
    let disk = |operation: &str| {
        let entries = answer.blkio_stats.iter().flat_map(|disk| disk.io_service_bytes_recursive.iter().flatten());
        let wanted = entries.filter(|entry| entry.op.as_deref().is_some_and(|op| op.eq_ignore_ascii_case(operation)));
        sum(&mut wanted.map(|entry| entry.value))
    };
    Some(Stats {
        at: at.parse().ok(),
        memory_bytes: usage.saturating_sub(droppable),
        memory_limit_bytes: memory.and_then(|memory| memory.limit).filter(|limit| *limit > 0),
        cpu_ns: answer
            .cpu_stats
            .as_ref()
            .and_then(|cpu| cpu.cpu_usage.as_ref())
            .and_then(|cpu| cpu.total_usage)
            .unwrap_or(0),
        network_received_bytes: sum(&mut networks().map(|network| network.rx_bytes)),
        network_sent_bytes: sum(&mut networks().map(|network| network.tx_bytes)),
        disk_read_bytes: disk("read"),
        disk_written_bytes: disk("write"),
        pids: answer.pids_stats.as_ref().and_then(|pids| pids.current).unwrap_or(0),
    })
}

/// The engine writes names with a leading slash.
fn plain_name(name: Option<&str>) -> String {
    name.unwrap_or_default().trim_start_matches('/').to_owned()
}

fn sorted(labels: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    labels.unwrap_or_default().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use bollard::models::ContainerState as EngineState;

    use super::*;

    #[test]
    fn listing_and_inspection_agree() {
        let summary = ContainerSummary {
            id: Some("ab".to_owned()),
            names: Some(vec!["/corehold-w".to_owned()]),
            created: Some(1_700_000_000),
            state: Some(ContainerSummaryStateEnum::RUNNING),
            ..ContainerSummary::default()
        };
        let inspection = ContainerInspectResponse {
            id: Some("ab".to_owned()),
            name: Some("/corehold-w".to_owned()),
            created: Some("2023-11-14T22:13:20.987654321Z".to_owned()),
            state: Some(EngineState {
                status: Some(ContainerStateStatusEnum::RUNNING),
                exit_code: Some(0),
                ..EngineState::default()
            }),
            ..ContainerInspectResponse::default()
        };
        assert_eq!(listed(&summary).unwrap(), inspected(inspection));
    }

    #[test]
    fn an_exit_code_is_told_only_after_the_end() {
        let of = |status| {
            let state = EngineState { status: Some(status), exit_code: Some(137), ..EngineState::default() };
            inspected(ContainerInspectResponse { state: Some(state), ..ContainerInspectResponse::default() }).exit_code
        };
        assert_eq!(of(ContainerStateStatusEnum::CREATED), None);
        assert_eq!(of(ContainerStateStatusEnum::EXITED), Some(137));
    }

    fn answer(json: serde_json::Value) -> Option<Stats> {
        stats(&serde_json::from_value(json).unwrap())
    }

    #[test]
    fn droppable_cache_is_not_use() {
        for key in ["total_inactive_file", "inactive_file"] {
            let memory = serde_json::json!({"usage": 100, "limit": 400, "stats": {key: 30}});
            let stats = answer(serde_json::json!({"read": "2026-01-01T00:00:00Z", "memory_stats": memory})).unwrap();
            assert_eq!((stats.memory_bytes, stats.memory_limit_bytes), (70, Some(400)));
        }
    }

    #[test]
    fn both_kinds_of_control_groups_are_read() {
        let entry = |op: &str, value: u64| serde_json::json!({"major": 8, "minor": 0, "op": op, "value": value});
        let networks = serde_json::json!({"eth0": {"rx_bytes": 5, "tx_bytes": 6}, "eth1": {"rx_bytes": 10}});
        let of = |entries: Vec<serde_json::Value>| {
            let disk = serde_json::json!({"io_service_bytes_recursive": entries});
            answer(serde_json::json!({"read": "2026-01-01T00:00:00.5Z", "blkio_stats": disk, "networks": networks}))
        };
        let first =
            of(vec![entry("Read", 1), entry("Write", 2), entry("Sync", 3), entry("Total", 3), entry("Read", 4)]);
        let second = of(vec![entry("read", 5), entry("write", 2)]);
        assert_eq!(first, second);
        let stats = first.unwrap();
        assert_eq!((stats.disk_read_bytes, stats.disk_written_bytes), (5, 2));
        assert_eq!((stats.network_received_bytes, stats.network_sent_bytes), (15, 6));
        assert_eq!(stats.at.unwrap().to_string(), "2026-01-01T00:00:00.500000000Z");
    }

    #[test]
    fn what_does_not_run_uses_nothing_that_could_be_told() {
        // As 20.10 answers for a stopped container, and a bare answer.
        let stopped = serde_json::json!({
            "read": "0001-01-01T00:00:00Z", "blkio_stats": {"io_service_bytes_recursive": null}, "memory_stats": {}
        });
        assert_eq!(answer(stopped), None);
        assert_eq!(answer(serde_json::json!({})), None);
    }
}
