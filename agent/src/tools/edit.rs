//! `edit`: see [`crate::edit`], which does it.

use corehold_types::{
    Problem,
    tools::{Edit, EditRequest, EditResponse},
};

use crate::{
    blocking, edit,
    handler::{Call, Events, Handler},
};

impl Handler for Edit {
    async fn handle(call: Call, request: EditRequest, _: Events<Self::Event>) -> Result<EditResponse, Problem> {
        let agent = call.agent;
        blocking::run(move |_| edit::transact(&agent.edits, &agent.root, &agent.config.limits, &request)).await
    }
}
