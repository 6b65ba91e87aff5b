//! `GET /health`: whether the agent answers. The only route without authorization; it tells nothing that is secret.

use std::sync::Arc;

use axum::{Json, extract::State};
use corehold_types::{
    PROTOCOL,
    wire::{Health, HealthStatus},
};

use crate::agent::Agent;

/// Answers that the agent answers.
pub(crate) async fn get(State(agent): State<Arc<Agent>>) -> Json<Health> {
    Json(Health {
        status: if agent.is_shutting_down() { HealthStatus::ShuttingDown } else { HealthStatus::Ok },
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: PROTOCOL,
        uptime_ms: u64::try_from(agent.started.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}
