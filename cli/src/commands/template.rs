//! `corehold template`: what there is, and whether it is right. No engine is needed.

use std::{path::Path, process::ExitCode};

use corehold_host::{
    Catalog, Template,
    template::{self, Severity},
};
use serde_json::json;

use crate::{args::Global, output, surroundings};

pub(crate) fn ls(global: &Global) -> anyhow::Result<ExitCode> {
    let listing = Catalog::new(surroundings::template_folders(global)).list();
    if global.json {
        let templates: Vec<_> = listing.templates.iter().map(describe).collect();
        let invalid: Vec<_> = listing
            .invalid
            .iter()
            .map(|broken| json!({ "name": broken.name, "folder": broken.folder, "error": broken.error.to_string() }))
            .collect();
        output::json(&json!({ "templates": templates, "invalid": invalid }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = listing
        .templates
        .iter()
        .map(|template| {
            [
                template.name.clone(),
                image(template).unwrap_or("(core image)").to_owned(),
                template.port.to_string(),
                template.description.clone().unwrap_or_default(),
            ]
        })
        .collect();
    output::table(["TEMPLATE", "IMAGE", "PORT", "DESCRIPTION"], &rows)?;
    for broken in &listing.invalid {
        eprintln!("warning: {} can't be used: {}", broken.name, broken.error);
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn check(global: &Global, source: &str) -> anyhow::Result<ExitCode> {
    let catalog = Catalog::new(surroundings::template_folders(global));
    // A template that can't even be loaded is a finding too, with its file and line.
    let resolved = catalog.resolve(source);
    let folder = match &resolved {
        Ok(template) => template.folder.clone(),
        Err(error) => match catalog.list().invalid.into_iter().find(|broken| broken.name == source) {
            Some(broken) => broken.folder,
            None if error.kind() == corehold_host::ErrorKind::Invalid && Path::new(source).is_dir() => source.into(),
            None => return Err(resolved.map(drop).expect_err("it is an error").into()),
        },
    };
    let findings = template::check(&folder);
    let wrong = findings.iter().any(|finding| finding.severity == Severity::Error);
    if global.json {
        output::json(&json!({ "template": resolved.as_ref().ok().map(describe), "findings": findings }))?;
    } else {
        if let Ok(template) = &resolved {
            show(template)?;
        }
        for finding in &findings {
            let place = match (finding.line, finding.column) {
                (Some(line), Some(column)) => format!("{}:{line}:{column}: ", finding.path.display()),
                _ => String::new(),
            };
            output::line(format_args!("{}: {place}{}", finding.severity.as_str(), finding.message))?;
            if let Some(suggestion) = &finding.suggestion {
                output::line(format_args!("  hint: {suggestion}"))?;
            }
        }
        if !wrong {
            output::line("ok")?;
        }
    }
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

pub(crate) fn schema() -> anyhow::Result<ExitCode> {
    output::line(serde_json::to_string_pretty(&template::json_schema())?)?;
    Ok(ExitCode::SUCCESS)
}

/// The image that it is made of unless the host's configuration names another for its type; none: the core image.
fn image(template: &Template) -> Option<&str> {
    template.image.as_deref().or_else(|| template.project?.default_image())
}

fn show(template: &Template) -> anyhow::Result<()> {
    output::line(format_args!("{} ({})", template.name, template.folder.display()))?;
    if let Some(project) = template.project {
        output::line(format_args!("  project {project}"))?;
    }
    if let Some(image) = image(template) {
        output::line(format_args!("  image   {image}"))?;
    }
    for line in &template.setup {
        output::line(format_args!("  setup   {line}"))?;
    }
    match &template.dev {
        Some(dev) => output::line(format_args!("  dev     {dev}"))?,
        None => output::line("  dev     none")?,
    }
    output::line(format_args!("  preview port {}, ready when {} answers", template.port, template.ready_path))?;
    Ok(())
}

fn describe(template: &Template) -> serde_json::Value {
    json!({
        "name": template.name,
        "description": template.description,
        "folder": template.folder,
        "image": template.image,
        "project": template.project,
        "setup": template.setup,
        "dev": template.dev,
        "port": template.port,
        "readyPath": template.ready_path,
        "inferred": template.inferred,
    })
}
