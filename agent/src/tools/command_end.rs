//! The end of a command in the audit log, where no call's own record tells it.

use std::{sync::Arc, time::Duration};

use corehold_types::{
    Tool as _,
    tools::{Command, CommandResponse},
};
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use super::command_output;
use crate::{
    audit::Pending,
    handler::Call,
    process::{self, Start, StartError},
};

/// A command whose end nobody has been told. Dropped so (it is detached, or its caller went away, even while it was being started),
/// it gets a record of its own when it ends.
pub(super) struct UntoldEnd {
    call: Call,
    stage: Stage,
}

enum Stage {
    Starting(BoxFuture<'static, Result<Arc<process::Command>, StartError>>),
    Running(Arc<process::Command>),
    /// The call's own record tells the end, or there is none to tell.
    Told,
}

impl UntoldEnd {
    /// Begins to start a command.
    pub(super) fn of(call: Call, start: Start) -> Self {
        let agent = Arc::clone(&call.agent);
        let start = Box::pin(async move { agent.processes.start_command(start).await });
        Self { call, stage: Stage::Starting(start) }
    }

    /// The command, as soon as it is started.
    ///
    /// # Errors
    /// It can't be.
    pub(super) async fn started(&mut self) -> Result<Arc<process::Command>, StartError> {
        let result = match &mut self.stage {
            Stage::Starting(start) => start.await,
            Stage::Running(command) => return Ok(Arc::clone(command)),
            Stage::Told => return Err(StartError::Invalid("the command has ended")),
        };
        self.stage = match &result {
            Ok(command) => Stage::Running(Arc::clone(command)),
            Err(_) => Stage::Told,
        };
        let command = result?;
        let (id, subject) = (command.id(), &self.call.caller.subject);
        tracing::info!(id, pid = command.pid(), subject, "command started");
        self.call.notes.note(|touched| touched.command(id));
        Ok(command)
    }

    /// What the caller is told.
    pub(super) fn answered_with(mut self, response: &CommandResponse) {
        self.call.notes.note(|touched| command_output::told(response, 0, touched));
        if response.exit.is_some() {
            self.stage = Stage::Told;
        }
    }
}

impl Drop for UntoldEnd {
    fn drop(&mut self) {
        let stage = std::mem::replace(&mut self.stage, Stage::Told);
        // When the agent ends, so does its log.
        let (false, Ok(runtime)) = (matches!(stage, Stage::Told), Handle::try_current()) else { return };
        let pending = Pending::of_what_follows(&self.call, Command::NAME);
        runtime.spawn(async move {
            let command = match stage {
                Stage::Starting(start) => start.await.ok(),
                Stage::Running(command) => Some(command),
                Stage::Told => None,
            };
            let Some(command) = command else { return pending.forget() };
            let (exit, offset) = command.ended().await;
            pending.note(|touched| {
                touched.command(command.id());
                touched.exited(&exit);
                touched.went_out(offset);
            });
            pending.end(command.started(), Duration::from_millis(exit.duration_ms));
        });
    }
}
