//! What the command line takes from the machine it runs on: the engine, the folders, the certificates, the log level.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use corehold_host::{
    Capability, Host, Result,
    policy::Policy,
    runtime::docker::{Docker, DockerAddress, DockerOptions},
};
use tracing_subscriber::EnvFilter;

use crate::args::Global;

/// Where Linux systems keep the bundle of all CAs they trust, in the order in which it is looked for.
const SYSTEM_CA_BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",   // Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",             // openSUSE
];

/// Logs to standard error, warnings and worse unless `COREHOLD_LOG` says otherwise.
pub(crate) fn start_logging() {
    let filter = EnvFilter::try_from_env("COREHOLD_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}

/// The engine that the flags and the environment name.
pub(crate) async fn engine(global: &Global) -> Result<Docker> {
    Docker::connect_with(options(global)).await
}

/// Where to look for the engine, and how to use it.
pub(crate) fn options(global: &Global) -> DockerOptions {
    let mut options = DockerOptions::default();
    if let Some(address) = &global.host {
        options.address = DockerAddress::At(address.clone());
    }
    options.containers_may_meet = global.containers_may_meet;
    // Whoever types this may use the engine as they like, and mount what they like by it.
    options.folders_unseen = true;
    options
}

/// A host over the engine that is named, with the templates of the flags, else those of `./templates`.
pub(crate) async fn host(global: &Global) -> Result<Host> {
    host_of(global, engine(global).await?).await
}

/// The same over an engine that is connected already.
pub(crate) async fn host_of(global: &Global, engine: Docker) -> Result<Host> {
    builder(global, engine).build().await
}

/// The same for a command that may wake a workspace: its new container trusts what this machine trusts.
pub(crate) async fn waking(global: &Global) -> Result<Host> {
    let mut builder = builder(global, engine(global).await?);
    if let Some(bundle) = machine_ca_bundle() {
        builder = builder.ca_bundle(bundle);
    }
    builder.build().await
}

/// The same, still to be completed.
pub(crate) fn builder(global: &Global, engine: Docker) -> corehold_host::HostBuilder {
    // A command does one thing and ends: what an earlier one left stays to be seen, and is removed by who asks for that.
    let mut policy = Policy::new().mount_root("/");
    for capability in Capability::ALL {
        policy = policy.capability(capability);
    }
    let mut builder = Host::builder().runtime(Arc::new(engine)).subject("cli").reconciles(false).policy(policy);
    for folder in template_folders(global) {
        builder = builder.templates(folder);
    }
    builder
}

/// The folders in which templates are looked for.
pub(crate) fn template_folders(global: &Global) -> Vec<PathBuf> {
    if global.templates.is_empty() { vec![PathBuf::from("templates")] } else { global.templates.clone() }
}

/// The user's own folder.
pub(crate) fn home_folder() -> Option<PathBuf> {
    std::env::var_os("HOME").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// What kind of terminal we were started on.
pub(crate) fn terminal_type() -> Option<String> {
    std::env::var("TERM").ok().filter(|term| !term.is_empty())
}

/// The bundle of CAs that this machine itself uses: what `SSL_CERT_FILE` names, else the system's.
pub(crate) fn machine_ca_bundle() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    named.into_iter().chain(SYSTEM_CA_BUNDLES.map(PathBuf::from)).find(|path: &PathBuf| Path::is_file(path))
}
