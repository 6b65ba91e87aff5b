//! The official clients' word on `POST /mcp`: the TypeScript SDKs connect to a real agent, list the tools and use each one
//! (`client.mjs`). There are two: one speaks the revisions that open with `initialize`, the other the one without. Needs
//! Node with npm, which fetches them once into the target folder. Without them, leave these tests out:
//! `cargo test -- --skip typescript_client`.

#[path = "../server/own_process.rs"]
mod own_process;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use own_process::AgentProcess;

/// An SDK, pinned: what another version asks for should be a change of its own.
struct Sdk {
    /// As npm names it.
    package: &'static str,
    /// What `client.mjs` imports from it.
    exports: &'static str,
    /// The revision that it and the agent agree on.
    revision: &'static str,
}

const WITH_HANDSHAKE: Sdk = Sdk {
    package: "@modelcontextprotocol/sdk@1.32.2",
    exports: r#"export { Client } from "@modelcontextprotocol/sdk/client/index.js";
                export { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";"#,
    revision: "2025-11-25",
};

const STATELESS: Sdk = Sdk {
    package: "@modelcontextprotocol/client@2.4.0",
    exports: r#"export { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";"#,
    revision: "2026-07-28",
};

impl Sdk {
    /// The folder with its `node_modules`, fetched at the first call.
    fn folder(&self) -> PathBuf {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let name = self.package.replace('/', "+");
        let folder = cache.join(&name);
        if !folder.join("node_modules/@modelcontextprotocol").exists() {
            // Beside it and renamed at the end, so that a run that is cut off leaves no half of it behind.
            let partial = cache.join(format!("{name}.{}", std::process::id()));
            fs::create_dir_all(&partial).unwrap();
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", "--no-save", "--no-package-lock", "--prefix"]);
            let output = run(npm.arg(&partial).arg(self.package));
            assert!(output.status.success(), "npm can't install {}:\n{}", self.package, text(&output));
            if fs::rename(&partial, &folder).is_err() {
                // Another run was faster.
                fs::remove_dir_all(&partial).unwrap();
            }
        }
        folder
    }
}

fn run(command: &mut Command) -> Output {
    let program = command.get_program().to_owned();
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| {
        panic!(
            "{}: {error}; this test needs Node with npm (without: `cargo test -- --skip typescript_client`)",
            program.display()
        )
    })
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn list_the_tools_and_use_each(sdk: &Sdk) {
    let root = tempfile::tempdir().unwrap();
    let agent = AgentProcess::start(root.path(), &[]);
    let folder = sdk.folder();
    // The script stands beside the modules that it imports.
    let script = folder.join("client.mjs");
    fs::write(&script, include_str!("client.mjs")).unwrap();
    fs::write(folder.join("sdk.mjs"), sdk.exports).unwrap();
    let url = format!("http://{}/mcp", agent.address);
    let output = run(Command::new("node").arg(&script).args([url.as_str(), "token", sdk.revision]));
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains(" tools were used"), "{}", text(&output));
}

#[test]
fn typescript_client_with_a_handshake_lists_the_tools_and_uses_each() {
    list_the_tools_and_use_each(&WITH_HANDSHAKE);
}

#[test]
fn typescript_client_without_a_handshake_lists_the_tools_and_uses_each() {
    list_the_tools_and_use_each(&STATELESS);
}
