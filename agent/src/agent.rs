//! The agent: what its handlers share while it runs.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::Instant,
};

use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::{
    access::Access,
    activity::Activity,
    audit::Audit,
    calls::{Answers, Room},
    config::Config,
    edit::{self, Edits},
    mcp,
    ownership::Ownership,
    process::Processes,
    root::Root,
    search::kept::{Kept, KeptOptions},
    socket::Sockets,
    watch::Watches,
};

/// One running agent. Handlers reach it through [`Call`](crate::handler::Call).
#[derive(Debug)]
pub struct Agent {
    /// How it was set up.
    pub config: Config,
    /// Whose workspace it serves.
    pub ownership: Arc<Ownership>,
    /// Who may call.
    pub access: Access,
    /// The only way to a file of the workspace.
    pub root: Root,
    /// The only way to a process of the workspace.
    pub processes: Processes,
    /// Who changes which file now, so that of two changes to one version one wins; and the transactions of `edit`.
    pub edits: Edits,
    /// One permit for each file or archive that is received, and each archive that is sent.
    pub transfers: Arc<Semaphore>,
    /// Taken by each search while it runs.
    pub searches: Arc<Semaphore>,
    /// What later searches know from earlier ones.
    pub kept: Arc<Kept>,
    /// What changes under an `Idempotency-Key` were answered.
    pub answers: Arc<Answers>,
    /// Memory for large answers.
    pub room: Arc<Room>,
    /// One permit for each open tunnel.
    pub tunnels: Arc<Semaphore>,
    /// One permit for each call of `watch`.
    pub watch_calls: Arc<Semaphore>,
    /// What these calls watch.
    pub watches: Watches,
    /// The open WebSockets.
    pub sockets: Sockets,
    /// Calls by MCP that are under way.
    pub mcp: mcp::Running,
    /// Who called what.
    pub audit: Arc<Audit>,
    /// What keeps the workspace awake.
    pub activity: Arc<Activity>,
    /// New at every start; what was promised under another one is void. 16 characters from `a` to `p`.
    pub boot_id: String,
    /// When it started.
    pub started: Instant,
    port: OnceLock<u16>,
    ending: CancellationToken,
}

/// The agent can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The workspace root can't be used.
    #[error("the workspace root {root:?} can't be opened: {error}")]
    Root {
        /// The root as configured.
        root: std::path::PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The kernel gave no random bytes.
    #[error("the kernel gave no random bytes: {0}")]
    Random(getrandom::Error),
}

impl Agent {
    /// Puts an agent together.
    ///
    /// # Errors
    /// [`StartError`] says what is missing.
    pub fn new(config: Config, processes: Processes) -> Result<Self, StartError> {
        let root = Root::open(&config.root).map_err(|error| StartError::Root { root: config.root.clone(), error })?;
        let edits = Edits::default();
        let recovered = edit::recover(&edits, &root);
        if let Err(problem) = &recovered {
            // An agent that doesn't start helps nobody; the next transaction tries again.
            tracing::error!(%problem, "transactions that a killed agent left can't be undone or finished yet");
        }
        // Not before: it would take away what they are recovered from.
        crate::archive::sweep(&root, recovered.is_ok());
        let boot_id = random_id().map_err(StartError::Random)?;
        let searches = config.limits.searches.as_usize().clamp(1, Semaphore::MAX_PERMITS);
        let ownership = Arc::new(Ownership::from_start(config.workspace.clone()));
        Ok(Self {
            audit: Arc::new(Audit::new(&config.limits)),
            access: Access::new(&config, Arc::clone(&ownership)),
            ownership,
            answers: Arc::new(Answers::new(&config.limits)),
            room: Arc::new(Room::new(&config.limits)),
            root,
            processes,
            edits,
            transfers: config.limits.transfers.permits(),
            searches: Arc::new(Semaphore::new(searches)),
            kept: Arc::new(Kept::new(KeptOptions {
                most_bytes: config.limits.search_kept_bytes.value,
                ..KeptOptions::default()
            })),
            watch_calls: config.limits.watches.permits(),
            watches: Watches::new(&config.limits),
            sockets: Sockets::new(&config.limits),
            tunnels: config.limits.tunnels.permits(),
            config,
            activity: Arc::default(),
            mcp: mcp::Running::default(),
            boot_id,
            started: Instant::now(),
            port: OnceLock::new(),
            ending: CancellationToken::new(),
        })
    }

    /// Whether the agent was told to end.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.ending.is_cancelled()
    }

    /// Waits until the agent is told to end: for what would else last for ever.
    pub fn shutting_down(&self) -> WaitForCancellationFuture<'_> {
        self.ending.cancelled()
    }

    /// From now on the agent says that it ends.
    pub fn begin_shutdown(&self) {
        self.ending.cancel();
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.get().copied().unwrap_or(self.config.listen.port())
    }

    /// Says which port the kernel gave to an agent that listens on port 0. The first word counts.
    pub fn listens_on(&self, port: u16) {
        let _ = self.port.set(port);
    }
}

/// A name that nobody has had: 64 random bits as 16 lower-case letters, DNS-safe and free of digits at the front.
///
/// # Errors
/// The kernel gave no random bytes.
pub fn random_id() -> Result<String, getrandom::Error> {
    getrandom::u64().map(letters)
}

/// 64 bits as 16 letters from `a` to `p`.
pub(crate) fn letters(bits: u64) -> String {
    (0..16).map(|nibble| char::from(b'a' + ((bits >> (nibble * 4)) & 0xf) as u8)).collect()
}
