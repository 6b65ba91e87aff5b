//! `corehold doctor`: what a workspace needs of this machine, looked at one by one, each with how to mend it.

use std::{path::Path, process::ExitCode};

use corehold_host::runtime::{
    Runtime as _,
    docker::{Docker, Surroundings},
};
use rustix::fs::statvfs;
use serde::Serialize;

use crate::{args::Global, output, surroundings};

/// Below this, an image build or an `npm install` may fail half-way.
const FREE_BYTES: u64 = 2_000_000_000;

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum State {
    Ok,
    /// It works, but not everything will.
    Warning,
    /// Nothing works without it.
    Broken,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    what: &'static str,
    state: State,
    /// What was found.
    found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Finding {
    fn new(what: &'static str, state: State, found: impl Into<String>) -> Self {
        Self { what, state, found: found.into(), mend: None }
    }

    fn mend(mut self, how: impl Into<String>) -> Self {
        self.mend = Some(how.into());
        self
    }
}

pub(crate) async fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let mut findings = engine_and_image(global).await;
    findings.push(certificates());
    findings.push(home());
    findings.push(templates(global));

    let broken = findings.iter().any(|finding| finding.state == State::Broken);
    if global.json {
        output::json(&findings)?;
    } else {
        for finding in &findings {
            let mark = match finding.state {
                State::Ok => "ok     ",
                State::Warning => "warning",
                State::Broken => "BROKEN ",
            };
            output::line(format_args!("{mark}  {:12} {}", finding.what, finding.found))?;
            if let Some(mend) = &finding.mend {
                output::line(format_args!("                      -> {mend}"))?;
            }
        }
    }
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn engine_and_image(global: &Global) -> Vec<Finding> {
    let (candidates, docker) = Docker::find(surroundings::options(global), &Surroundings::of_this_process()).await;
    let tried: Vec<String> = candidates.iter().map(ToString::to_string).collect();
    let docker = match docker {
        Ok(docker) => docker,
        Err(error) => {
            let found = if tried.is_empty() { error.to_string() } else { tried.join("; ") };
            let hint = error.hint_text().unwrap_or("start a Docker engine, or name one by DOCKER_HOST").to_owned();
            return vec![Finding::new("engine", State::Broken, found).mend(hint)];
        }
    };
    let mut findings = Vec::new();
    match docker.describe().await {
        Ok(info) => {
            // Why this one: who names it, and what was passed over for it.
            let origin = docker.candidates().last().map(|chosen| format!(" ({})", chosen.origin)).unwrap_or_default();
            let found =
                format!("{} {}, API {}, at {}{origin}", info.name, info.version, info.api_version, info.address);
            findings.push(Finding::new("engine", State::Ok, found));
            let passed_over = &tried[..tried.len().saturating_sub(1)];
            if !passed_over.is_empty() {
                findings.push(Finding::new("passed over", State::Ok, passed_over.join("; ")));
            }
            if !info.lacks.is_empty() {
                let mend = "use Docker where that is needed (README, \"Engines\")";
                findings.push(Finding::new("not here", State::Warning, info.lacks.join("; ")).mend(mend));
            }
            if let Some(folder) = &info.data_root {
                findings.extend(disk("engine disk", Path::new(folder)));
            }
        }
        Err(error) => {
            let hint = error.hint_text().unwrap_or("look at the engine's own log").to_owned();
            findings.push(Finding::new("engine", State::Broken, error.to_string()).mend(hint));
        }
    }
    findings.push(system_calls(&docker).await);
    findings.push(networks(&docker).await);
    findings.push(image(global, &docker).await);
    findings
}

/// Whether a workspace may ask the kernel for everything.
async fn system_calls(docker: &Docker) -> Finding {
    let what = "system calls";
    match docker.system_call_filter().await {
        Ok(Some(profile)) => Finding::new(what, State::Ok, format!("filtered in every container (seccomp, {profile})")),
        Ok(None) => {
            let found = "the engine filters none: workspaces may ask its kernel for everything";
            Finding::new(what, State::Warning, found)
                .mend("start the engine without `--seccomp-profile unconfined`, on a kernel with CONFIG_SECCOMP_FILTER")
        }
        Err(error) => Finding::new(what, State::Warning, error.to_string()).mend("mend the engine first"),
    }
}

/// Whether workspaces can be kept from each other and from the engine's machine.
async fn networks(docker: &Docker) -> Finding {
    match docker.can_close_networks().await {
        Ok(()) => {
            Finding::new("networks", State::Ok, "can be closed: firewall rules can be set on the engine's machine")
        }
        Err(error) => {
            let hint = error.hint_text().unwrap_or("look at the engine's own log").to_owned();
            Finding::new("networks", State::Broken, error.to_string()).mend(hint)
        }
    }
}

async fn image(global: &Global, docker: &Docker) -> Finding {
    let reference = match surroundings::host_of(global, docker.clone()).await {
        Ok(host) => host.image().to_owned(),
        Err(_) => corehold_host::config::DEFAULT_IMAGE.to_owned(),
    };
    match docker.image(&reference).await {
        Ok(Some(image)) => {
            Finding::new("image", State::Ok, format!("{reference}, {} unpacked", output::size(image.size_bytes)))
        }
        Ok(None) => {
            Finding::new("image", State::Broken, format!("{reference} is not there")).mend("corehold image build")
        }
        Err(error) => Finding::new("image", State::Broken, error.to_string()).mend("mend the engine first"),
    }
}

fn certificates() -> Finding {
    match surroundings::machine_ca_bundle() {
        Some(bundle) => Finding::new("certificates", State::Ok, format!("{} is handed in", bundle.display())),
        None => Finding::new("certificates", State::Warning, "no CA bundle of this machine was found")
            .mend("apt-get install ca-certificates, or name one by `corehold up --ca FILE`"),
    }
}

fn home() -> Finding {
    match corehold_host::config::home() {
        Ok(folder) => match disk("state", &folder) {
            Some(finding) if finding.state != State::Ok => finding,
            _ => Finding::new("state", State::Ok, folder.display().to_string()),
        },
        Err(error) => Finding::new("state", State::Broken, error.to_string())
            .mend(error.hint_text().unwrap_or("set COREHOLD_HOME to a folder that you may write to").to_owned()),
    }
}

fn templates(global: &Global) -> Finding {
    let folders = surroundings::template_folders(global);
    let listing = corehold_host::Catalog::new(&folders).list();
    match (listing.templates.len(), listing.invalid.len()) {
        (0, 0) => Finding::new("templates", State::Warning, "none")
            .mend("set COREHOLD_TEMPLATES or give --templates; `corehold up ./folder` needs none"),
        (good, 0) => Finding::new("templates", State::Ok, format!("{good}")),
        (good, bad) => Finding::new("templates", State::Warning, format!("{good}, and {bad} that can't be used"))
            .mend("corehold template ls"),
    }
}

/// Free space where a folder is or will be; nothing when this machine doesn't see the folder (a remote engine).
fn disk(what: &'static str, folder: &Path) -> Option<Finding> {
    let there = folder.ancestors().find(|folder| folder.exists())?;
    let free = statvfs(there).ok().map(|stat| stat.f_bavail * stat.f_frsize)?;
    let found = format!("{} free at {}", output::size(free), folder.display());
    Some(if free < FREE_BYTES {
        Finding::new(what, State::Warning, found).mend(format!("make room: at least {}", output::size(FREE_BYTES)))
    } else {
        Finding::new(what, State::Ok, found)
    })
}
