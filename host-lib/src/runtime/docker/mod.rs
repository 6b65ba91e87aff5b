//! The Docker runtime: the only room that knows bollard.
//!
//! It speaks the Docker Engine API from 1.41 (Docker 20.10) on, to whichever engine answers it. Besides the runtime seam
//! it offers what only engines with images have: see [`Docker::image`] and its neighbours.

mod address;
mod auxiliary;
mod ca_bundle;
mod connection;
mod containers;
mod disk;
mod engine;
mod errors;
mod images;
mod inject;
mod mounts;
mod network;
mod observation;
mod ports;
mod reach;
mod relay;
mod seeded;
mod specification;
mod state;
mod volumes;

pub use address::{DockerAddress, Surroundings};
pub use connection::{Candidate, CandidateOutcome, DockerOptions};
pub use images::{BuildRequest, EngineImage};

use crate::error::Result;

/// The label of what this runtime makes besides core containers (`network`, `network-helper`, `ca-bundle`, `ca-bundle-complete`, `ca-seed`, `agent`,
/// `agent-complete`, `agent-seed`, `folders`, `volume`, `volume-seed`).
/// All of it but volumes may be removed while no core container runs; it is made anew when it is needed.
pub const ROLE_LABEL: &str = "dev.corehold.role";

/// An engine that speaks Docker's API. Cheap to clone.
#[derive(Clone)]
pub struct Docker {
    connection: connection::Connection,
    networks: network::Networks,
    candidates: std::sync::Arc<[Candidate]>,
    /// Set once the engine has said that it has no quota for what a container writes.
    no_quotas: std::sync::Arc<std::sync::atomic::AtomicBool>,
    beginnings: relay::Beginnings,
}

impl Docker {
    /// Whether the engine may have a quota for what a container writes. Only a container that is made with one shows that it has.
    fn has_quotas(&self, facts: &bollard::models::SystemInfo) -> bool {
        disk::may_have_quotas(facts) && !self.no_quotas.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Connects to an engine, with the defaults of [`DockerOptions`]. Cancel-safe.
    ///
    /// # Errors
    /// `EngineUnavailable` when none answers: the message names every place that was tried and why it failed, the hint
    /// says what to do. `Invalid` when what is configured can't be an engine's address.
    pub async fn connect(address: DockerAddress) -> Result<Self> {
        Self::connect_with(DockerOptions { address, ..DockerOptions::default() }).await
    }

    /// Connects to an engine. Cancel-safe.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub async fn connect_with(options: DockerOptions) -> Result<Self> {
        Self::find(options, &Surroundings::of_this_process()).await.1
    }

    /// Connects to an engine and says, in either case, where it was looked for: for people who ask why this one.
    /// Cancel-safe.
    pub async fn find(options: DockerOptions, surroundings: &Surroundings) -> (Vec<Candidate>, Result<Self>) {
        let (candidates, connection) = connection::Connection::find(options, surroundings).await;
        let docker = connection.map(|connection| Self {
            connection,
            networks: network::Networks::default(),
            candidates: candidates.as_slice().into(),
            no_quotas: Default::default(),
            beginnings: relay::Beginnings::default(),
        });
        (candidates, docker)
    }

    /// Removes what this runtime made for its containers and none of them uses: networks, CA bundles and injected agents.
    /// It is made anew when it is needed. Returns the names of what is gone.
    /// Cancel-safe: what is left goes with the next call.
    ///
    /// # Errors
    /// Those of the engine; what is in use is no error.
    pub async fn remove_unused(&self) -> Result<Vec<String>> {
        let mut removed = ca_bundle::remove_unused(&self.connection).await?;
        removed.extend(inject::remove_unused(&self.connection).await?);
        removed.extend(network::remove_unused(&self.connection).await?);
        Ok(removed)
    }

    /// Looks whether the engine's networks can be closed: to its machine, to each other, and to what an egress doesn't name. Sets no rule
    /// and makes no network; a helper container looks, as for each network that is made.
    /// Cancel-safe: the helper goes.
    ///
    /// # Errors
    /// `Unsupported` where they can't be, with why and what to do; `EngineUnavailable`, `Timeout`.
    pub async fn can_close_networks(&self) -> Result<()> {
        network::can_be_closed(&self.connection).await
    }

    /// The filter of system calls that the engine puts before every container, by the name it has for it (`default`, `builtin`, a file of
    /// its administrator's); none where it puts none there, and a workspace may ask the kernel whatever it likes. Cancel-safe.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn system_call_filter(&self) -> Result<Option<String>> {
        let facts = self.connection.facts().await?;
        Ok(engine::system_call_filter(facts.security_options.iter().flatten()))
    }

    /// Where the engine was looked for; the last one is the one in use.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }
}
