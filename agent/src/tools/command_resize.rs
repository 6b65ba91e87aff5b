//! `commandResize`: the size of a command's terminal.

use corehold_types::{
    Code, Problem,
    tools::{CommandResize, CommandResizeRequest, CommandResizeResponse},
};

use super::{command, command_output};
use crate::{
    audit::Touched,
    handler::{Call, Events, Handler},
};

impl Handler for CommandResize {
    async fn handle(
        call: Call,
        request: CommandResizeRequest,
        _: Events<Self::Event>,
    ) -> Result<CommandResizeResponse, Problem> {
        let size = command::terminal_size(request.columns, request.rows)?;
        let command = command_output::find(&call.agent, &request.id)?;
        command.resize(size).map_err(|_| no_terminal())?;
        Ok(CommandResizeResponse {})
    }

    fn touches(request: &CommandResizeRequest, touched: &mut Touched) {
        touched.command(&request.id);
        touched.detail(&format!("{}x{}", request.columns, request.rows));
    }
}

fn no_terminal() -> Problem {
    Problem::new(Code::InputClosed, "the command has no terminal: it has ended, or was started without `pty`")
}
