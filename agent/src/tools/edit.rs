//! `edit`: see [`crate::edit`], which does it.

use corehold_types::{
    Problem,
    tools::{Edit, EditRequest, EditResponse},
};

use crate::{
    audit::Touched,
    blocking, edit,
    handler::{Call, Events, Handler},
};

impl Handler for Edit {
    async fn handle(call: Call, request: EditRequest, _: Events<Self::Event>) -> Result<EditResponse, Problem> {
        let Call { agent, notes, .. } = call;
        blocking::run(move |_| {
            let result = edit::transact(&agent.edits, &agent.root, &agent.config.limits, &request);
            notes.of(result, changed)
        })
        .await
    }

    fn touches(request: &EditRequest, touched: &mut Touched) {
        touched.paths(request.files.iter().map(|file| &file.path));
        touched.came_in(request.files.iter().flat_map(|file| &file.operations).map(edit::brings).sum());
    }
}

fn changed(response: &EditResponse, touched: &mut Touched) {
    if response.dry_run {
        return;
    }
    for file in &response.files {
        let after = file.hash.as_deref().or(file.version.as_deref());
        touched.changed(file.renamed_to.as_ref().unwrap_or(&file.path), file.previous_hash.as_deref(), after);
    }
}
