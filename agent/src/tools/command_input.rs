//! `commandInput`: what a running command reads next.

use corehold_types::{
    Code, Problem,
    tools::{CommandInput, CommandInputRequest, CommandInputResponse},
};

use super::{command::refused, command_output};
use crate::{
    audit::Touched,
    handler::{Call, Events, Handler},
    process::InputClosed,
};

impl Handler for CommandInput {
    async fn handle(
        call: Call,
        request: CommandInputRequest,
        _: Events<Self::Event>,
    ) -> Result<CommandInputResponse, Problem> {
        let command = command_output::find(&call.agent, &request.id)?;
        let bytes = request.data.unwrap_or_default().to_bytes();
        let bytes = bytes.map_err(|error| refused("data", &format!("data is not base64: {error}")))?;
        let most = call.agent.config.limits.command_input_ms;
        if request.timeout_ms.is_some_and(|wanted| wanted > most.value) {
            return Err(most.exceeded("the time to wait for a command that doesn't read"));
        }
        let wait = request.timeout_ms.map_or(most.as_duration(), std::time::Duration::from_millis);
        let mut accepted = 0;
        let written = command.write(&bytes, request.end.unwrap_or(false), &mut accepted);
        let result = tokio::time::timeout(wait, written).await;
        call.notes.note(|touched| touched.came_in(accepted as u64));
        match result {
            Ok(Err(InputClosed)) => Err(no_input().with("accepted", accepted)),
            result => Ok(CommandInputResponse { accepted: accepted as u64, complete: result.is_ok() }),
        }
    }

    fn touches(request: &CommandInputRequest, touched: &mut Touched) {
        touched.command(&request.id);
    }
}

/// The command takes no input (any more).
pub(crate) fn no_input() -> Problem {
    Problem::new(Code::InputClosed, InputClosed.to_string())
}
