//! `commandList`: the commands that the agent knows, running and finished.

use corehold_types::{
    Problem,
    tools::{CommandList, CommandListRequest, CommandListResponse},
};

use super::command::refused;
use crate::handler::{Call, Events, Handler};

/// Commands in one answer, when the caller doesn't say.
const DEFAULT_LIMIT: u32 = 100;
/// Commands in one answer, at most.
const MOST: u32 = 1_000;

impl Handler for CommandList {
    async fn handle(
        call: Call,
        request: CommandListRequest,
        _: Events<Self::Event>,
    ) -> Result<CommandListResponse, Problem> {
        let limit = request.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MOST).contains(&limit) {
            return Err(refused("limit", "a limit from 1 to 1,000 is possible"));
        }
        let before = match &request.cursor {
            // A command's number never changes, so that a page goes on where the one before ended, whatever came since.
            Some(cursor) => {
                Some(cursor.parse().map_err(|_| refused("cursor", "the cursor is not one of this agent's"))?)
            }
            None => None,
        };
        let (commands, next) = call.agent.processes.list(request.label.as_deref(), before, limit as usize);
        Ok(CommandListResponse { commands, cursor: next.map(|number| number.to_string()) })
    }
}
