//! What a coding agent does, without the model: `cargo run -p corehold-host --example agent_loop`.
//!
//! A test fails; what its output names is searched for, read and edited; and so on until it passes. The edit says which version of the
//! file it is made for, so it never undoes what somebody else did meanwhile.

use corehold_host::{
    CreateWorkspace, Host, Workspace,
    tools::{
        Edit, EditOperation, EditRequest, FileEdit, Read, ReadRequest, ReadResult, ReadTarget, Search, SearchRequest,
    },
};

const TEST: &str = "const { add } = require('./add'); \
    if (add(2, 3) !== 5) { console.error('add is wrong: ' + add(2, 3)); process.exit(1) }";

#[tokio::main]
async fn main() -> corehold_host::Result<()> {
    let host = Host::builder().build().await?;
    let workspace = host.create(CreateWorkspace::empty()).await?;
    let worked = work(&workspace).await;
    workspace.remove().await?;
    worked
}

async fn work(workspace: &Workspace) -> corehold_host::Result<()> {
    workspace.write_file("add.js", "exports.add = (a, b) => a - b;\n").await?;
    workspace.write_file("test.js", TEST).await?;
    for attempt in 1..=3 {
        let test = workspace.command("node test.js").run().await?;
        if test.success() {
            println!("attempt {attempt}: the test passes");
            return Ok(());
        }
        println!("attempt {attempt}: {}", test.stderr_text().trim_end());
        mend(workspace).await?;
    }
    println!("given up");
    Ok(())
}

/// Finds the function, and mends it as a model would that has seen it.
async fn mend(workspace: &Workspace) -> corehold_host::Result<()> {
    let found = workspace
        .call::<Search>(&SearchRequest { pattern: r"exports\.add\b".to_owned(), ..Default::default() })
        .await?;
    for file in found.files {
        let wanted = ReadRequest {
            files: vec![ReadTarget { path: file.path.clone(), lines: None, bytes: None }],
            ..Default::default()
        };
        let Some(ReadResult::Ok(content)) = workspace.call::<Read>(&wanted).await?.files.pop() else { continue };
        let replace =
            EditOperation::Replace { old: "a - b".into(), new: "a + b".into(), all: None, count: None, exact: None };
        let edit = FileEdit { path: file.path, expected: Some(content.version), operations: vec![replace] };
        let done = workspace.call::<Edit>(&EditRequest { files: vec![edit], ..Default::default() }).await?;
        for file in done.files {
            println!("{}", file.diff.unwrap_or_default().trim_end());
        }
    }
    Ok(())
}
