//! An agent on a temporary directory, for unit tests.

use std::{ops::Deref, sync::Arc};

use corehold_types::env_vars;

use crate::{
    access::Caller,
    agent::Agent,
    calls::Share,
    config::Config,
    handler::{Call, Progress, Surface},
    process::Processes,
};

/// SHA-256 of `token`, the static token of agents in tests.
pub(crate) const TOKEN_SHA256: &str = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0";

/// An agent whose workspace goes when it goes.
pub(crate) struct TestAgent {
    agent: Arc<Agent>,
    _root: tempfile::TempDir,
}

impl Deref for TestAgent {
    type Target = Arc<Agent>;

    fn deref(&self) -> &Arc<Agent> {
        &self.agent
    }
}

/// An agent with an empty workspace and the default limits.
pub(crate) fn agent() -> TestAgent {
    agent_with(&[])
}

/// An agent with an empty workspace and these variables.
pub(crate) fn agent_with(variables: &[(&str, &str)]) -> TestAgent {
    agent_in(tempfile::tempdir().unwrap(), variables)
}

/// An agent whose files are in memory, for a test that makes very many.
pub(crate) fn agent_in_memory() -> TestAgent {
    agent_in(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap(), &[])
}

/// An agent whose workspace is there already.
pub(crate) fn agent_in(root: tempfile::TempDir, variables: &[(&str, &str)]) -> TestAgent {
    let config = Config::from_variables(|name| match name {
        env_vars::ROOT => Some(root.path().into()),
        env_vars::TOKEN_SHA256 => Some(TOKEN_SHA256.into()),
        name => variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()),
    })
    .unwrap();
    let processes = Processes::start(crate::process::ProcessConfig::from_config(&config)).unwrap();
    TestAgent { agent: Arc::new(Agent::new(config, processes).unwrap()), _root: root }
}

/// A call by `test`, who may do everything.
pub(crate) fn call(agent: &Arc<Agent>) -> Call {
    Call {
        agent: Arc::clone(agent),
        caller: Arc::new(Caller::with_every_scope("test")),
        surface: Surface::Http,
        idempotency_key: None,
        request_id: "1".to_owned(),
        notes: crate::audit::Notes::default(),
        progress: Progress::default(),
        share: Share::of(&agent.room),
    }
}
