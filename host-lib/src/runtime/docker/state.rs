//! The engine's words for a container's state and use, in this library's terms.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerStatsResponse, ContainerSummary,
    ContainerSummaryStateEnum,
};
use corehold_types::Timestamp;

use crate::runtime::{ContainerId, ContainerState, ContainerStatus, Stats};

/// From an inspection.
pub(super) fn inspected(container: ContainerInspectResponse) -> ContainerState {
    let state = container.state.unwrap_or_default();
    let status = match state.status {
        Some(ContainerStateStatusEnum::CREATED) => ContainerStatus::Created,
        Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::RESTARTING) => ContainerStatus::Running,
        Some(ContainerStateStatusEnum::PAUSED) => ContainerStatus::Paused,
        Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::STOPPING) => ContainerStatus::Exited,
        _ => ContainerStatus::Dead,
    };
    let ended = matches!(status, ContainerStatus::Exited | ContainerStatus::Dead);
    ContainerState {
        id: ContainerId(container.id.unwrap_or_default()),
        name: plain_name(container.name.as_deref()),
        labels: sorted(container.config.and_then(|config| config.labels)),
        status,
        // To the second, as a listing has it, so that the two agree.
        created: container
            .created
            .and_then(|created| created.parse::<Timestamp>().ok())
            .map_or_else(String::new, |created| Timestamp::from_unix(created.as_unix_seconds(), 0).to_string()),
        exit_code: state.exit_code.filter(|_| ended),
        // A container that never ended has a time of its end too: the year 1, or nothing with some engines.
        restarted: !ended && state.finished_at.is_some_and(|end| !end.is_empty() && !end.starts_with("0001-")),
        // Of a place that runs on, the engine says so too when the kernel killed one of its commands.
        oom_killed: ended && state.oom_killed.unwrap_or(false),
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
        exit_code: None,
        oom_killed: false,
        restarted: false,
    })
}

/// What a container uses.
pub(super) fn stats(answer: &ContainerStatsResponse) -> Stats {
    let memory = answer.memory_stats.as_ref();
    let usage = memory.and_then(|memory| memory.usage).unwrap_or(0);
    // What the docker command subtracts too: pages that the kernel drops under pressure (cgroup v1, then v2).
    let droppable = memory
        .and_then(|memory| memory.stats.as_ref())
        .and_then(|stats| stats.get("total_inactive_file").or_else(|| stats.get("inactive_file")))
        .copied()
        .unwrap_or(0);
    Stats {
        memory_bytes: usage.saturating_sub(droppable),
        cpu_ns: answer
            .cpu_stats
            .as_ref()
            .and_then(|cpu| cpu.cpu_usage.as_ref())
            .and_then(|cpu| cpu.total_usage)
            .unwrap_or(0),
        pids: answer.pids_stats.as_ref().and_then(|pids| pids.current).unwrap_or(0),
    }
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
    use bollard::models::{ContainerMemoryStats, ContainerState as EngineState};

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

    #[test]
    fn droppable_cache_is_not_use() {
        for key in ["total_inactive_file", "inactive_file"] {
            let memory = ContainerMemoryStats {
                usage: Some(100),
                stats: Some(HashMap::from([(key.to_owned(), 30)])),
                ..ContainerMemoryStats::default()
            };
            let answer = ContainerStatsResponse { memory_stats: Some(memory), ..ContainerStatsResponse::default() };
            assert_eq!(stats(&answer).memory_bytes, 70);
        }
    }
}
