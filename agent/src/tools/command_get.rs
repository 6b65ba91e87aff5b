//! `commandGet`: one command as it is now.

use corehold_types::{
    Code, Problem,
    tools::{CommandGet, CommandGetRequest, CommandGetResponse},
};

use super::command_output;
use crate::{
    audit::Touched,
    handler::{Call, Events, Handler},
};

impl Handler for CommandGet {
    async fn handle(
        call: Call,
        request: CommandGetRequest,
        _: Events<Self::Event>,
    ) -> Result<CommandGetResponse, Problem> {
        let command = command_output::find(&call.agent, &request.id)?;
        let counted = std::sync::Arc::clone(&command);
        let processes = tokio::task::spawn_blocking(move || counted.count_processes()).await;
        let processes = processes.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        let [stdout_bytes, stderr_bytes] = command.totals();
        Ok(CommandGetResponse {
            takes_input: command.takes_input(),
            terminal: command.terminal_size(),
            processes: u32::try_from(processes).unwrap_or(u32::MAX),
            command: command.info(),
            stdout_bytes,
            stderr_bytes,
        })
    }

    fn touches(request: &CommandGetRequest, touched: &mut Touched) {
        touched.command(&request.id);
    }
}
