//! `commandSignal`: a signal to all processes of a command.

use corehold_types::{
    Problem,
    tools::{CommandSignal, CommandSignalRequest, CommandSignalResponse, Signal},
};
use rustix::process::Signal as Number;

use super::{command::refused, command_output};
use crate::{
    audit::Touched,
    handler::{Call, Events, Handler},
};

impl Handler for CommandSignal {
    async fn handle(
        call: Call,
        request: CommandSignalRequest,
        _: Events<Self::Event>,
    ) -> Result<CommandSignalResponse, Problem> {
        let command = command_output::find(&call.agent, &request.id)?;
        let signal = match request.signal {
            Signal::Hup => Number::HUP,
            Signal::Int => Number::INT,
            Signal::Quit => Number::QUIT,
            Signal::Kill => Number::KILL,
            Signal::Term => Number::TERM,
            Signal::Usr1 => Number::USR1,
            Signal::Usr2 => Number::USR2,
            Signal::Stop => Number::STOP,
            Signal::Cont => Number::CONT,
            Signal::Winch => Number::WINCH,
            _ => return Err(refused("signal", "this agent can't send that signal")),
        };
        let processes = call.agent.processes.signal(command, signal).await;
        Ok(CommandSignalResponse { processes: u32::try_from(processes).unwrap_or(u32::MAX) })
    }

    fn touches(request: &CommandSignalRequest, touched: &mut Touched) {
        touched.command(&request.id);
        touched.detail(&format!("{:?}", request.signal));
    }
}
