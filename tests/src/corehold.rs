//! The whole system for one test: the host library over the real engine, the command line, a home folder of its own.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use corehold_host::{
    Host, HostBuilder, WorkspaceInfo,
    runtime::docker::{Docker, DockerOptions},
};
use tempfile::TempDir;

/// A label by which the containers of one test of pools are told from those of others.
pub const POOL_MARK: &str = "corehold-test-pool";

/// The engine and the core image as `cargo xtask test` prepared them, with a home folder that only this test uses: what it
/// lists and removes is its own. All its workspaces go when this does.
pub struct Corehold {
    /// The library.
    pub host: Host,
    /// The engine behind it.
    pub docker: Docker,
    /// A folder for the test's own templates and files.
    pub scratch: TempDir,
    home: TempDir,
}

impl Corehold {
    /// Connects.
    ///
    /// # Panics
    /// Without an engine or without the core image; the message says how to get them or leave these tests out.
    pub async fn start() -> Self {
        let docker = connect().await;
        let image = corehold_host::config::DEFAULT_IMAGE;
        assert!(
            docker.image(image).await.expect("the engine answers").is_some(),
            "these tests need the image {image}: `cargo xtask test --level engine` builds it\n\
             To leave them out: cargo test --workspace --exclude corehold-e2e"
        );
        let home = tempfile::tempdir().expect("a home folder");
        let host = builder(home.path(), &docker).build().await.expect("the host library starts");
        Self { host, docker, scratch: tempfile::tempdir().expect("a scratch folder"), home }
    }

    /// A second host library on the same home folder, to be configured further.
    pub fn builder(&self) -> HostBuilder {
        builder(self.home.path(), &self.docker)
    }

    /// The command line, on the same home folder.
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(command_line());
        command.args(arguments).env("COREHOLD_HOME", self.home.path()).env("COREHOLD_TEMPLATES", templates());
        command
    }

    /// A folder with these files, given as path and content.
    ///
    /// # Panics
    /// When it can't be written.
    #[must_use]
    pub fn folder(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = self.scratch.path().join(name);
        std::fs::create_dir_all(&folder).expect("the folder is made");
        for (path, content) in files {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().expect("it is in the folder")).expect("its folder is made");
            std::fs::write(path, content).expect("the file is written");
        }
        folder
    }
}

impl Drop for Corehold {
    fn drop(&mut self) {
        let home = self.home.path().to_owned();
        // A runtime of its own: the test's may be blocked right here, or gone.
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(async {
                let host = builder(&home, &connect().await).build().await.expect("the host library starts");
                clear(&host).await;
            });
        });
        if removing.join().is_err() {
            eprintln!("the workspaces of the test home {} could not be removed", self.home.path().display());
        }
    }
}

/// Removes the workspaces of a host's home and what waits in its pools, and says what there was of either.
///
/// # Panics
/// When the engine can't.
pub async fn clear(host: &Host) -> (Vec<WorkspaceInfo>, usize) {
    let left = host.list().await.expect("the engine answers");
    for workspace in &left {
        let found = host.workspace(workspace.id.as_str()).await;
        if let Ok(workspace) = found {
            workspace.remove().await.expect("the engine removes it");
        }
    }
    (left, host.drain_pools().await.expect("the engine removes what waits"))
}

async fn connect() -> Docker {
    Docker::connect_with(DockerOptions::default()).await.unwrap_or_else(|error| {
        panic!(
            "these tests need a container engine: {error}\n\
             To leave them out: cargo test --workspace --exclude corehold-e2e"
        )
    })
}

fn builder(home: &Path, docker: &Docker) -> HostBuilder {
    let mut builder = Host::builder().runtime(Arc::new(docker.clone())).home(home).templates(templates());
    // What this machine trusts, its workspaces need too: registries may be behind a proxy.
    let bundle = Path::new("/etc/ssl/certs/ca-certificates.crt");
    if bundle.is_file() {
        builder = builder.ca_bundle(bundle);
    }
    builder
}

/// The templates that ship with the project.
#[must_use]
pub fn templates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates")
}

/// The command line's binary, which `cargo xtask test` builds and names.
fn command_line() -> PathBuf {
    let named = std::env::var_os("COREHOLD_CLI").map(PathBuf::from);
    let binary = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/corehold"));
    assert!(binary.is_file(), "{} is not there: `cargo build -p corehold` makes it", binary.display());
    binary
}
