//! The steps themselves, in order.

use std::{sync::Arc, time::Duration};

use corehold_types::tools::{ArchiveSource, Extract, ExtractRequest};

use super::{
    CreateWorkspace, Made, Step,
    agent::{self, DeathWatch},
    plan::Plan,
    report::Reporter,
    reservation::Reservation,
    serve, ship,
};
use crate::{
    archive::PackedArchive,
    error::{Error, ErrorKind, Result},
    host::HostInner,
    workspace::Workspace,
};

/// Does it all, and leaves nothing behind if it fails.
pub(super) async fn run(host: Arc<HostInner>, request: CreateWorkspace, reporter: Reporter) -> Result<Made> {
    let plan = Plan::new(&host, request)?;
    let mut place = Reservation::new(host.runtime.clone(), host.cleanups.clone());
    let error = match build(&host, &plan, &mut place, &reporter).await {
        Ok(workspace) => return Ok(Made { workspace, place }),
        Err(error) => error,
    };
    let (name, id) = (&plan.spec.name, &plan.labelled.id);
    if !place.is_something() {
        return Err(error);
    }
    if plan.keep_on_failure {
        place.keep();
        return Err(error.also_hint(&format!("its container {name} was kept; `corehold down {id}` removes it")));
    }
    match place.discard().await {
        Ok(()) => Err(error),
        Err(removal) => Err(error.also_hint(&format!(
            "its container {name} could not be removed ({removal}); `corehold down {id}` tries again"
        ))),
    }
}

async fn build(host: &Arc<HostInner>, plan: &Plan, place: &mut Reservation, reporter: &Reporter) -> Result<Workspace> {
    // Packing needs the disk, starting needs the engine: neither waits for the other.
    let (archive, workspace) = tokio::try_join!(pack(host, plan, reporter), bring_up(host, plan, place, reporter))?;
    if let Some(archive) = archive {
        deliver(host, &workspace, archive, reporter).await?;
    }
    if let Some(template) = &plan.template {
        for line in &template.setup {
            let work = async { Ok((serve::set_up(&workspace, template, line, reporter).await?, None)) };
            reporter.step(Step::Setup, Some(line.clone()), work).await?;
        }
        if let Some(line) = &template.dev {
            let work = async { Ok((serve::start_dev(&workspace, template, line, plan.port).await?, None)) };
            let command = reporter.step(Step::Dev, Some(line.clone()), work).await?;
            let work = async {
                let preview = host.runtime.endpoint(workspace.container(), plan.port).await?;
                let status = serve::wait_ready(&workspace, template, command, preview, reporter).await?;
                Ok(((), Some(format!("{} answered {}", template.ready_path, status.as_u16()))))
            };
            reporter.step(Step::Ready, Some(template.ready_path.clone()), work).await?;
        }
    }
    Ok(workspace)
}

async fn pack(host: &Arc<HostInner>, plan: &Plan, reporter: &Reporter) -> Result<Option<PackedArchive>> {
    let Some(template) = &plan.template else { return Ok(None) };
    let (packer, folder, exclude) = (host.packer.clone(), template.folder.clone(), template.exclude.clone());
    let work = async {
        let packing = tokio::task::spawn_blocking(move || packer.pack(&folder, &exclude));
        let archive =
            packing.await.map_err(|error| Error::new(ErrorKind::Io, "packing was cut off").caused_by(error))??;
        let cached = if archive.cached { ", packed already" } else { "" };
        let detail = format!("{} files, {} bytes{cached}", archive.files, archive.content_bytes);
        Ok((archive, Some(detail)))
    };
    reporter.step(Step::Pack, Some(template.folder.display().to_string()), work).await.map(Some)
}

async fn bring_up(
    host: &Arc<HostInner>,
    plan: &Plan,
    place: &mut Reservation,
    reporter: &Reporter,
) -> Result<Workspace> {
    let image = &plan.spec.image;
    let work = async {
        let container = place.create(plan.spec.clone()).await.map_err(|error| refused(error, plan, host))?;
        Ok((container, Some(plan.spec.name.clone())))
    };
    let container = reporter.step(Step::Create, Some(image.clone()), work).await?;
    let mut watch = DeathWatch::new(host, plan);
    let start = async { Ok((watch.during(host.runtime.start(&container)).await?, None)) };
    reporter.step(Step::Start, None, start).await?;
    let workspace = Workspace::new(host.clone(), container, plan.labelled.clone());
    let wait = async { Ok((agent::wait(&workspace, &mut watch, plan.agent_timeout, host).await?, None)) };
    reporter.step(Step::Agent, None, wait).await?;
    Ok(workspace)
}

/// Says what the engine's refusal to create means to whoever asked for a workspace.
fn refused(error: Error, plan: &Plan, host: &HostInner) -> Error {
    let image = &plan.spec.image;
    match error.kind() {
        ErrorKind::NotFound => {
            let next = if *image == host.image {
                "`corehold image build` makes it".to_owned()
            } else {
                match &plan.template {
                    Some(template) if template.image.as_ref() == Some(image) => format!(
                        "template {:?} needs it and its README may say how to get it; else pull or build it",
                        template.name
                    ),
                    _ => "pull or build it".to_owned(),
                }
            };
            Error::new(ErrorKind::NotFound, format!("the image {image} is not there"))
                .hint(next)
                .caused_by(error)
                .in_step(Step::Image)
        }
        ErrorKind::Conflict => {
            let id = &plan.labelled.id;
            Error::new(ErrorKind::Conflict, format!("there is a container named {} already", plan.spec.name))
                .hint(format!("choose another id, or remove the other by `corehold down {id}`"))
                .caused_by(error)
        }
        _ => error,
    }
}

/// The agent's own limit on an extraction is the bound here; this only keeps an engine that hangs from being waited for.
const SHIP_TIMEOUT: Duration = Duration::from_secs(600);

async fn deliver(host: &HostInner, workspace: &Workspace, archive: PackedArchive, reporter: &Reporter) -> Result<()> {
    let request = ExtractRequest {
        archive: ArchiveSource::Inbox(ship::name(&archive)),
        destination: None,
        expected_hash: Some(archive.hash.clone()),
        remove: Some(true),
    };
    let detail = Some(format!("{} bytes", archive.size));
    let work = async {
        let tar = ship::wrap(archive)?;
        let putting = host.runtime.put_archive(workspace.container(), ship::INBOX, tar);
        match tokio::time::timeout(SHIP_TIMEOUT, putting).await {
            Ok(result) => Ok((result?, None)),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("the engine did not take the archive within {} s", SHIP_TIMEOUT.as_secs()),
            )),
        }
    };
    reporter.step(Step::Ship, detail, work).await?;
    let work = async {
        let done = workspace.call::<Extract>(&request).await?;
        Ok(((), Some(format!("{} files, {} bytes", done.files, done.bytes))))
    };
    reporter.step(Step::Extract, None, work).await
}
