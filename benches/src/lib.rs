//! What the benchmarks share: figures, and an agent of their own, an engine spoken to without any library of ours, as the peer to compare with.
//!
//! Benchmarks print ratios of what was measured side by side in one run; absolute figures depend on the machine.

pub mod agent;
pub mod engine;
pub mod figures;
pub mod files;
pub mod http;
pub mod socket;

use anyhow::Result;
use corehold_host::Host;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

/// Removes all workspaces of a host, so many at a time.
///
/// # Errors
/// As the host's.
pub async fn remove_all(host: &Host, at_once: usize) -> Result<()> {
    let ids: Vec<_> = host.list().await?.into_iter().map(|info| info.id).collect();
    let removals = stream::iter(ids).map(|id| async move { host.workspace(id.as_str()).await?.remove().await });
    Ok(removals.buffer_unordered(at_once).try_collect::<Vec<()>>().await.map(drop)?)
}
