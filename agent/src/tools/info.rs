//! `info`: what this agent is and can do.

use corehold_types::{
    PROTOCOL, Problem, Tool, WorkspacePath, for_each_tool,
    tools::{ActivitySource, Info, InfoRequest, InfoResponse, ToolInfo},
};

use crate::handler::{Call, Events, Handler};

/// Additions since version 0.1, for clients that must tell. None yet.
const FEATURES: [&str; 0] = [];

impl Handler for Info {
    fn keeps_awake(_: &Self::Request, _: bool) -> Option<ActivitySource> {
        None
    }

    async fn handle(call: Call, _: InfoRequest, _: Events<Self::Event>) -> Result<InfoResponse, Problem> {
        let agent = &call.agent;
        let owner = agent.ownership.owner();
        let mut guards = vec![agent.root.guard().to_owned()];
        guards.extend(agent.processes.guards());
        guards.extend(agent.config.command_policy.as_ref().map(|policy| policy.guard().to_owned()));
        Ok(InfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            boot_id: agent.boot_id.clone(),
            instance: agent.config.instance.clone(),
            workspace: owner.map(|owner| owner.workspace.clone()),
            claimed: owner.map(|owner| owner.since),
            root: WorkspacePath::from_bytes(agent.root.path().as_os_str().as_encoded_bytes()),
            tools: tools(),
            limits: agent.config.limit_infos(),
            features: FEATURES.map(str::to_owned).into(),
            guards,
        })
    }
}

fn tools() -> Vec<ToolInfo> {
    macro_rules! infos {
        ($($tool:ident),*) => { vec![$(describe::<corehold_types::tools::$tool>()),*] };
    }
    for_each_tool!(infos)
}

fn describe<T: Tool>() -> ToolInfo {
    ToolInfo { name: T::NAME.to_owned(), since: T::SINCE.to_owned(), summary: T::SUMMARY.to_owned(), scope: T::SCOPE }
}
