//! The steps themselves, in order.

use std::{future::pending, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use super::{
    CreateEvent, CreateWorkspace, Made, Step,
    agent::{self, DeathWatch},
    plan::Plan,
    report::{Ending, Reporter},
    reservation::Reservation,
    serve, ship,
};
use crate::{
    error::{Error, ErrorKind, Result},
    host::HostInner,
    pack::PackedArchive,
    pool::{Outcome, Pool, Pools, Wish},
    workspace::{Labelled, Workspace},
};

/// Does it all, and leaves nothing behind if it fails.
pub(super) async fn run(
    host: Arc<HostInner>,
    pools: Arc<Pools>,
    request: CreateWorkspace,
    events: mpsc::Sender<CreateEvent>,
) -> Result<Made> {
    let plan = Plan::new(&host, request)?;
    let reporter = Reporter::new(events, host.events.clone(), plan.labelled.id.clone());
    let ending = Ending::new(host.events.clone(), plan.labelled.id.clone());
    match attempt(&host, &pools, &plan, &reporter).await {
        Ok((workspace, place)) => Ok(Made { workspace, place, ending }),
        Err(error) => {
            ending.failed(&error);
            Err(error)
        }
    }
}

async fn attempt(
    host: &Arc<HostInner>,
    pools: &Pools,
    plan: &Plan,
    reporter: &Reporter,
) -> Result<(Workspace, Reservation)> {
    let pool = pools.meeting(plan);
    let mut place = Reservation::new(host.runtime.clone(), host.cleanups.clone());
    let error = match build(host, plan, pool, &mut place, reporter).await {
        Ok(workspace) => return Ok((workspace, place)),
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

async fn build(
    host: &Arc<HostInner>,
    plan: &Plan,
    pool: Option<&Arc<Pool>>,
    place: &mut Reservation,
    reporter: &Reporter,
) -> Result<Workspace> {
    // Packing needs the disk, starting needs the engine: neither waits for the other.
    let (arrived, arrival) = oneshot::channel();
    let fill = async {
        let Some(archive) = pack(host, plan, reporter).await? else { return Ok(()) };
        match arrival.await {
            Ok(workspace) => send(&workspace, archive, reporter).await,
            // It did not come up, which is told instead.
            Err(_) => pending().await,
        }
    };
    let (workspace, ()) = tokio::try_join!(bring_up(host, plan, pool, place, reporter, arrived), fill)?;
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
    pool: Option<&Arc<Pool>>,
    place: &mut Reservation,
    reporter: &Reporter,
    arrived: oneshot::Sender<Workspace>,
) -> Result<Workspace> {
    if let Some(pool) = pool
        && let Some(workspace) = take_over(host, plan, pool, place, reporter).await?
    {
        // It can be filled while the engine still takes note of whose it is.
        let _ = arrived.send(workspace.clone());
        let named = host.runtime.rename(workspace.container(), &plan.spec.name).await;
        return match named {
            Ok(()) => Ok(workspace),
            Err(error) => Err(refused(error, plan, host).in_step(Step::Claim)),
        };
    }
    let workspace = make(host, plan, place, reporter).await?;
    let _ = arrived.send(workspace.clone());
    Ok(workspace)
}

/// Takes a container from a pool, if one is ready in time.
async fn take_over(
    host: &Arc<HostInner>,
    plan: &Plan,
    pool: &Arc<Pool>,
    place: &mut Reservation,
    reporter: &Reporter,
) -> Result<Option<Workspace>> {
    let wish = Wish {
        workspace: plan.labelled.id.clone(),
        template: plan.labelled.template.clone(),
        created: plan.labelled.created,
        env: plan.own_env.clone(),
    };
    let work = async {
        let deadline = pool.deadline();
        while let Some(member) = pool.take(deadline).await {
            match place.claim(&host.records, pool.clone().claim(member, wish.clone())).await {
                Some(Outcome::Won(won)) => {
                    let labelled = Labelled { instance: won.instance, ..plan.labelled.clone() };
                    let detail = Some(won.container.0.clone());
                    return Ok((Some(Workspace::over(host.clone(), won.container, labelled, won.client)), detail));
                }
                Some(Outcome::Refused(error)) => {
                    tracing::warn!(%error, "a container of a pool could not be claimed; one is made");
                    return Ok((None, Some(format!("refused ({error}), one is made"))));
                }
                Some(Outcome::Lost) | None => {}
            }
        }
        pool.missed();
        Ok((None, Some("none was ready, one is made".to_owned())))
    };
    reporter.step(Step::Claim, None, work).await
}

/// Makes a container and waits for its agent.
async fn make(host: &Arc<HostInner>, plan: &Plan, place: &mut Reservation, reporter: &Reporter) -> Result<Workspace> {
    let image = &plan.spec.image;
    let work = async {
        let container = place.create(plan.spec.clone()).await.map_err(|error| refused(error, plan, host))?;
        Ok((container, Some(plan.spec.name.clone())))
    };
    let container = reporter.step(Step::Create, Some(image.clone()), work).await?;
    let mut watch = DeathWatch::new(host.runtime.as_ref(), &plan.labelled.instance);
    let start = async { Ok((watch.during(host.runtime.start(&container)).await?, None)) };
    reporter.step(Step::Start, None, start).await?;
    let workspace = Workspace::new(host.clone(), container, plan.labelled.clone());
    let waiting = agent::wait(workspace.client(), &mut watch, plan.agent_timeout, host.runtime.as_ref());
    reporter.step(Step::Agent, None, async { Ok((waiting.await?, None)) }).await?;
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

/// Sends the archive to the agent itself, which extracts it as it comes: an agent that answers can be sent to, and the engine's own way
/// in costs five times what the agent needs.
async fn send(workspace: &Workspace, archive: PackedArchive, reporter: &Reporter) -> Result<()> {
    let detail = Some(format!("{} bytes", archive.size));
    let work = async {
        let (hash, size) = (archive.hash.clone(), archive.size);
        let done = workspace.extract(&hash, size, ship::content(archive)).await?;
        Ok(((), Some(format!("{} files, {} bytes", done.files, done.bytes))))
    };
    reporter.step(Step::Ship, detail, work).await
}
