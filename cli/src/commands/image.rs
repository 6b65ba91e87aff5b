//! `corehold image`: builds the core image and says how large it is; lists, pulls and removes images.

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode};

use corehold_host::{
    image::{self, Base, BaseOrigin, ImageBuild, ImageEvent, ImageEventKind, PULLED_BASE},
    runtime::PullProgress,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::{
    args::{Global, ImageBuild as BuildArguments},
    output, surroundings,
};

pub(crate) async fn build(global: &Global, arguments: &BuildArguments) -> anyhow::Result<ExitCode> {
    let as_json = global.json;
    let events = |event: ImageEvent| show(&event, as_json);
    let info = if let Some(project) = arguments.project {
        let engine = surroundings::engine(global).await?;
        let host = surroundings::host_of(global, engine.clone()).await?;
        image::build_project(&engine, project, host.image(), &events).await?
    } else {
        let agent = agent(arguments)?;
        let engine = surroundings::engine(global).await?;
        let mut build = ImageBuild::new(agent);
        build.base = base(&arguments.base);
        image::build(&engine, &build, &events).await?
    };
    if as_json {
        output::json(&json!({ "type": "image", "image": info }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let how = if info.cached { "is up to date" } else { "is built" };
    let from = match info.base.origin {
        BaseOrigin::Pulled => ", pulled",
        BaseOrigin::Made => ", made here",
        _ => "",
    };
    output::line(format_args!(
        "{} {how} ({}; base {}{from}; {} unpacked)",
        info.reference,
        output::duration(info.duration),
        info.base.reference,
        output::size(info.size_bytes),
    ))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn report(global: &Global) -> anyhow::Result<ExitCode> {
    let engine = surroundings::engine(global).await?;
    let host = surroundings::host_of(global, engine.clone()).await?;
    eprintln!("compressing every layer as a registry would; this takes a while");
    let report = image::report(&engine, host.image()).await?;
    if global.json {
        output::json(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::line(format_args!(
        "{}: {} unpacked, {} as a registry ships it, {} of that ours",
        report.reference,
        output::size(report.size_bytes),
        output::size(report.compressed_bytes),
        output::size(report.own_compressed_bytes),
    ))?;
    for (number, layer) in report.layers.iter().enumerate() {
        let whose = if layer.own { "ours" } else { "base" };
        output::line(format_args!(
            "layer {} ({whose}): {} unpacked, {} compressed",
            number + 1,
            output::size(layer.size_bytes),
            output::size(layer.compressed_bytes),
        ))?;
        for portion in &layer.largest {
            output::line(format_args!(
                "  {:>9} {:>9}  {}",
                output::size(portion.size_bytes),
                output::size(portion.compressed_bytes),
                portion.path,
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn ls(global: &Global) -> anyhow::Result<ExitCode> {
    let host = surroundings::host(global).await?;
    let images = host.images().list().await?;
    if global.json {
        output::json(&images)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = images
        .iter()
        .flat_map(|image| {
            let names = if image.references.is_empty() { vec!["-".to_owned()] } else { image.references.clone() };
            let id = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
            let id = id.get(..12).unwrap_or(id).to_owned();
            let created = image.created.to_string().get(..19).unwrap_or_default().replace('T', " ");
            let agent = if image.core { "its own" } else { "put in" };
            let rest = [id, created, output::size(image.size_bytes), agent.to_owned()];
            names.into_iter().map(move |name| {
                let [id, created, size, agent] = rest.clone();
                [name, id, created, size, agent]
            })
        })
        .collect();
    output::table(["IMAGE", "ID", "CREATED (UTC)", "SIZE", "AGENT"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn pull(global: &Global, images: &[String]) -> anyhow::Result<ExitCode> {
    let host = surroundings::host(global).await?;
    for image in images {
        let progress = Pulled::start(global, image);
        let pulled = host.images().pull(image, |received| progress.show(received)).await;
        progress.end();
        pulled?;
        if global.json {
            output::json(&json!({ "type": "pulled", "image": image }))?;
        } else {
            output::line(format_args!("{image} is pulled"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How a pull is shown: a line that moves on a terminal, JSON for scripts; a file has no use for it.
enum Pulled<'a> {
    Terminal(ProgressBar),
    Json(&'a str),
    Plain,
}

impl<'a> Pulled<'a> {
    fn start(global: &Global, image: &'a str) -> Self {
        match (global.json, std::io::stderr().is_terminal()) {
            (true, _) => Self::Json(image),
            (false, true) => {
                let style = ProgressStyle::with_template("{prefix} {wide_bar} {bytes}/{total_bytes}");
                let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                Self::Terminal(bar.with_prefix(image.to_owned()))
            }
            (false, false) => Self::Plain,
        }
    }

    fn show(&self, received: PullProgress) {
        match self {
            Self::Terminal(bar) => {
                bar.set_length(received.total_bytes);
                bar.set_position(received.received_bytes);
            }
            // A reader who went away ends the program at its next regular line.
            Self::Json(image) => drop(output::json(&json!({
                "type": "received",
                "image": image,
                "receivedBytes": received.received_bytes,
                "totalBytes": received.total_bytes,
            }))),
            Self::Plain => {}
        }
    }

    fn end(&self) {
        if let Self::Terminal(bar) = self {
            bar.finish_and_clear();
        }
    }
}

pub(crate) async fn rm(global: &Global, images: &[String]) -> anyhow::Result<ExitCode> {
    let host = surroundings::host(global).await?;
    for image in images {
        host.images().remove(image).await?;
        if global.json {
            output::json(&json!({ "type": "removed", "image": image }))?;
        } else {
            output::line(format_args!("{image} is removed"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn base(word: &str) -> Base {
    match word {
        "auto" => Base::Auto,
        "pull" => Base::Pull(PULLED_BASE.to_owned()),
        "make" => Base::Make,
        reference => Base::Image(reference.to_owned()),
    }
}

/// The agent's binary: the one that was named, else the one beside this program, as releases ship it.
fn agent(arguments: &BuildArguments) -> anyhow::Result<PathBuf> {
    if let Some(named) = &arguments.agent {
        anyhow::ensure!(named.is_file(), "the agent's binary {} is not there", named.display());
        return Ok(named.clone());
    }
    let beside = std::env::current_exe()?.with_file_name("corehold-agent");
    anyhow::ensure!(
        beside.is_file(),
        "the agent's static binary is not at {}; name it by --agent or COREHOLD_AGENT (`cargo xtask agent` builds it)",
        beside.display()
    );
    Ok(beside)
}

fn show(event: &ImageEvent, as_json: bool) {
    if as_json {
        // A reader who went away ends the program at its next regular line.
        let _ = output::json(event);
        return;
    }
    match &event.kind {
        ImageEventKind::Finished { duration, cached } => {
            let cached = if *cached { " (cached)" } else { "" };
            eprintln!("{:>9}  {}{cached}", output::duration(*duration), event.step);
        }
        ImageEventKind::Output { line } => eprintln!("  | {line}"),
        ImageEventKind::Failed { reason } => eprintln!("   failed  {}: {reason}", event.step),
        ImageEventKind::Started => eprintln!("           {} …", event.step),
        _ => {}
    }
}
