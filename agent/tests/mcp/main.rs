//! The official clients' word on `POST /mcp`: the SDKs for TypeScript and Python connect to a real agent, list the tools and use
//! each one (`client.mjs`, `client.py`), by the revisions that open with `initialize` and by the one without. Of the SDKs for
//! TypeScript each knows one of these. Needs Node with npm and Python 3 with pip, which fetch them once into the target folder.
//! Without them, leave these tests out: `cargo test -- --skip typescript_client --skip python_client`.

#[path = "../server/own_process.rs"]
mod own_process;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::LazyLock,
};

use own_process::AgentProcess;

/// An SDK for TypeScript, pinned: what another version asks for should be a change of its own.
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
        fetch(&folder, |partial| {
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", "--no-save", "--no-package-lock", "--prefix"]);
            npm.arg(partial).arg(self.package);
            npm
        });
        folder
    }
}

/// The SDK for Python, pinned: it speaks both.
const PYTHON: &str = "mcp==2.3.0";

/// The folder with its modules, fetched at the first call.
fn python_modules() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(PYTHON);
        fetch(&folder, |partial| {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]);
            pip.arg(partial).arg(PYTHON);
            pip
        });
        folder
    });
    &FOLDER
}

/// Has a folder filled that isn't there: beside it and renamed at the end, so that a run that is cut off leaves no half of it behind.
fn fetch(folder: &Path, how: impl FnOnce(&Path) -> Command) {
    if folder.exists() {
        return;
    }
    let name = folder.file_name().unwrap().display();
    let partial = folder.with_file_name(format!("{name}.{}", std::process::id()));
    fs::create_dir_all(&partial).unwrap();
    let output = run(&mut how(&partial));
    assert!(output.status.success(), "{} can't be fetched:\n{}", folder.display(), text(&output));
    if fs::rename(&partial, folder).is_err() {
        // Another run was faster.
        fs::remove_dir_all(&partial).unwrap();
    }
}

fn run(command: &mut Command) -> Output {
    let program = command.get_program().to_owned();
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| {
        panic!(
            "{}: {error}; these tests need Node with npm and Python 3 with pip (without: `cargo test -- --skip typescript_client \
             --skip python_client`)",
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
    assert_all_were_used(&run(Command::new("node").arg(&script).args([url.as_str(), "token", sdk.revision])));
}

fn use_each_from_python(mode: &str, revision: &str) {
    let root = tempfile::tempdir().unwrap();
    let agent = AgentProcess::start(root.path(), &[]);
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", python_modules()).env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONWARNINGS", "ignore");
    python.args(["-c", include_str!("client.py")]).arg(format!("http://{}/mcp", agent.address));
    assert_all_were_used(&run(python.args(["token", mode, revision])));
}

fn assert_all_were_used(output: &Output) {
    assert!(output.status.success() && text(output).contains(" tools were used"), "{}", text(output));
}

#[test]
fn typescript_client_with_a_handshake_lists_the_tools_and_uses_each() {
    list_the_tools_and_use_each(&WITH_HANDSHAKE);
}

#[test]
fn typescript_client_without_a_handshake_lists_the_tools_and_uses_each() {
    list_the_tools_and_use_each(&STATELESS);
}

#[test]
fn python_client_with_a_handshake_lists_the_tools_and_uses_each() {
    use_each_from_python("legacy", WITH_HANDSHAKE.revision);
}

#[test]
fn python_client_without_a_handshake_lists_the_tools_and_uses_each() {
    use_each_from_python("auto", STATELESS.revision);
}
