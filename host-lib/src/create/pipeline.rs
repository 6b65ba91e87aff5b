//! The steps themselves, in order.

use std::{future::pending, sync::Arc};

use tokio::sync::{mpsc, oneshot};
use tracing::Instrument as _;

use super::{
    CreateEvent, CreateWorkspace, Made, Step,
    agent::{self, DeathWatch},
    plan::Plan,
    report::{Ending, Reporter},
    reservation::Reservation,
    serve,
    setup_cache::{self, Miss},
    ship,
};
use crate::{
    archive::{Archive, Archives},
    blocking::blocking,
    error::{Error, ErrorKind, Result},
    host::HostInner,
    image::may_be_pulled,
    life::{self, Turn, WorkspaceState},
    network::Allotment,
    pack::{Found, PackedArchive, Stored},
    policy::Isolation,
    pool::{HandOver, Outcome, Pool, Pools, Wish},
    runtime::{Mount, Resources},
    state::{Entry, Taken},
    template::{ProjectType, Template},
    workspace::{Labelled, Place, Workspace},
};

/// Does it all, and leaves nothing behind if it fails.
pub(super) async fn run(
    host: Arc<HostInner>,
    pools: Arc<Pools>,
    request: CreateWorkspace,
    owner: Option<String>,
    events: mpsc::Sender<CreateEvent>,
) -> Result<Made> {
    let (owner_of, team) = (request.owner.as_deref(), request.team.as_deref());
    let permitted = permit(&host, request.mounts.clone(), owner_of, team);
    let ((mounts, isolation), ceiling) = tokio::try_join!(permitted, host.ceiling(owner_of))?;
    let request = CreateWorkspace { mounts, ..request };
    let plan = Plan::new(&host, request, &ceiling, isolation.as_ref())?;
    let reporter = Reporter::new(events, host.events.clone(), plan.labelled.id.clone());
    let ending = Ending::new(host.events.clone(), plan.labelled.id.clone());
    let span = tracing::info_span!("creation", workspace = %plan.labelled.id);
    match Box::pin(attempt(&host, &pools, &plan, owner, &reporter)).instrument(span).await {
        Ok((workspace, place)) => Ok(Made { workspace, place, ending }),
        Err(error) => {
            ending.failed(&error);
            Err(error)
        }
    }
}

/// Looks whether there is room for one more container, and whether it may have these mounts. Returns them as they are to be, and how
/// it is kept apart.
async fn permit(
    host: &Arc<HostInner>,
    mounts: Vec<Mount>,
    owner: Option<&str>,
    team: Option<&str>,
) -> Result<(Vec<Mount>, Option<Isolation>)> {
    let mounts = host.allowed_mounts(mounts).await?;
    // At once: each goes to a thread that may wait, and a claim takes a few milliseconds in all.
    let ((), (), isolation) =
        tokio::try_join!(host.check_floor(), host.check_volumes(&mounts, owner, team), host.isolation_of(team))?;
    Ok((mounts, isolation))
}

async fn attempt(
    host: &Arc<HostInner>,
    pools: &Pools,
    plan: &Plan,
    owner: Option<String>,
    reporter: &Reporter,
) -> Result<(Workspace, Reservation)> {
    let pool = pools.meeting(plan);
    // Before the engine is asked for anything: whoever finds what we leave behind knows what it was to be.
    let turn = enter(host, plan, owner).await?;
    let mut place = Reservation::new(host.runtime.clone(), host.cleanups.clone()).of_workspace(turn);
    let made = async {
        let workspace = Box::pin(build(host, plan, pool, &mut place, reporter)).await?;
        place.ready().await?;
        Ok(workspace)
    };
    let error: Error = match made.await {
        Ok(workspace) => return Ok((workspace, place)),
        Err(error) => host.whose_disk(error).await,
    };
    let (name, id) = (&plan.spec.name, &plan.labelled.id);
    if plan.keep_on_failure && place.is_something() {
        return Err(match place.fail(&error).await {
            Ok(()) => error.also_hint(&format!("its container {name} was kept; `corehold down {id}` removes it")),
            Err(writing) => error.also_hint(&format!("its container {name} could not be kept ({writing})")),
        });
    }
    match place.discard().await {
        Ok(()) => Err(error),
        Err(removal) => Err(error.also_hint(&format!(
            "its container {name} could not be removed ({removal}); `corehold down {id}` tries again"
        ))),
    }
}

/// Takes the workspace's name, and its owner's only place, in the store.
async fn enter(host: &Arc<HostInner>, plan: &Plan, owner: Option<String>) -> Result<Turn> {
    let id = &plan.labelled.id;
    let entry = Entry {
        id: id.clone(),
        owner,
        state: WorkspaceState::Creating,
        reason: None,
        engine: host.engine_identity().await?.to_owned(),
        container: None,
        instance: plan.labelled.instance.clone(),
        recipe: plan.recipe.clone(),
        archive: None,
        created: plan.labelled.created,
        entered_at: plan.labelled.created,
        generation: 0,
        actor: None,
        policy: plan.policy.clone(),
    };
    loop {
        match Turn::begin(host, entry.clone()).await? {
            Ok(turn) => return Ok(turn),
            Err(Taken::Owner) => {
                return Err(
                    Error::new(ErrorKind::AlreadyExists, "the owner has a workspace already").in_step(Step::Create)
                );
            }
            Err(Taken::Id) => {}
        }
        // What was cut off, or is gone with its container, is in nobody's way.
        if !life::is_in_use(host, id).await? {
            continue;
        }
        return Err(Error::new(ErrorKind::AlreadyExists, format!("there is a workspace named {id} already"))
            .hint(format!("take another name, or remove what has it: `corehold down {id}`"))
            .in_step(Step::Create));
    }
}

/// One more container for a workspace that had one, its agent answering; taken from a pool where one has what is needed.
pub(crate) async fn bring_up_again(host: &Arc<HostInner>, entry: &Entry, place: &mut Reservation) -> Result<Workspace> {
    // What was allowed once need not be any more.
    let recipe = &entry.recipe;
    let (mounts, isolation) =
        permit(host, recipe.mounts.clone(), recipe.owner.as_deref(), recipe.team.as_deref()).await?;
    let plan = Plan::again(host, entry, mounts, isolation.as_ref())?;
    let pools = host.pools();
    let pool = pools.meeting(&plan);
    // Nobody reads the steps but the host's events.
    let reporter = Reporter::new(mpsc::channel(1).0, host.events.clone(), entry.id.clone());
    let (arrived, _) = oneshot::channel();
    bring_up(host, &plan, pool, place, &reporter, arrived).await.map(|(workspace, _)| workspace)
}

async fn build(
    host: &Arc<HostInner>,
    plan: &Plan,
    pool: Option<&Arc<Pool>>,
    place: &mut Reservation,
    reporter: &Reporter,
) -> Result<Workspace> {
    // Packing needs the disk, starting needs the engine: neither waits for the other.
    let (arrived, arrival) = oneshot::channel::<Arrival>();
    let fill = async {
        if let Some(archive) = &plan.archive {
            return match arrival.await {
                Ok(arrival) => load(host, &arrival.workspace, archive, reporter).await,
                Err(_) => pending().await,
            };
        }
        let Some(archive) = pack(host, plan, reporter).await? else { return Ok(Filled::Done) };
        match arrival.await {
            Ok(arrival) => send(host, plan, &arrival, archive, reporter).await,
            // It did not come up, which is told instead.
            Err(_) => pending().await,
        }
    };
    let ((workspace, _handing_over), filled) =
        tokio::try_join!(Box::pin(bring_up(host, plan, pool, place, reporter, arrived)), Box::pin(fill))?;
    if let Some(template) = &plan.template {
        Box::pin(set_up(host, &workspace, template, filled, reporter)).await?;
        if let Some(dev) = &plan.recipe.dev {
            let work = async { Ok((serve::start_dev(&workspace, dev).await?, None)) };
            let command = reporter.step(Step::Dev, Some(dev.line.clone()), work).await?;
            let work = async {
                // As people will reach it.
                let at = workspace.place().await?;
                let published = host.runtime.inspect(&at.container).await?.published.get(&plan.port).copied();
                let status = serve::wait_ready(&workspace, template, command, published, reporter).await?;
                Ok(((), Some(format!("{} answered {}", template.ready_path, status.as_u16()))))
            };
            reporter.step(Step::Ready, Some(template.ready_path.clone()), work).await?;
        }
    } else if let Some(dev) = &plan.recipe.dev {
        // A copy, whose template is no more: nobody knows when it is ready.
        let work = async { Ok((serve::start_dev(&workspace, dev).await?, None)) };
        reporter.step(Step::Dev, Some(dev.line.clone()), work).await?;
    }
    Ok(workspace)
}

async fn pack(host: &Arc<HostInner>, plan: &Plan, reporter: &Reporter) -> Result<Option<PackedArchive>> {
    let Some(template) = &plan.template else { return Ok(None) };
    let (packer, folder, exclude) = (host.packer.clone(), template.folder.clone(), template.exclude.clone());
    let work = async {
        let archive = blocking("packing", move || packer.pack(&folder, &exclude)).await??;
        let cached = if archive.cached { ", packed already" } else { "" };
        let detail = format!("{}{cached}", counted(archive.about.files, archive.about.content_bytes));
        Ok((archive, Some(detail)))
    };
    reporter.step(Step::Pack, Some(template.folder.display().to_string()), work).await.map(Some)
}

/// A workspace whose agent answers.
struct Arrival {
    workspace: Workspace,
    /// Id of the image that it is made of; absent when nobody needs it, or it changed its meaning just then.
    image: Option<String>,
    /// Kept until it is ready.
    handing_over: Option<Arc<HandOver>>,
    /// Its limits.
    limits: Resources,
}

async fn bring_up(
    host: &Arc<HostInner>,
    plan: &Plan,
    pool: Option<&Arc<Pool>>,
    place: &mut Reservation,
    reporter: &Reporter,
    arrived: oneshot::Sender<Arrival>,
) -> Result<(Workspace, Option<Arc<HandOver>>)> {
    if let Some(pool) = pool
        && let Some(arrival) = Box::pin(take_over(host, plan, pool, place, reporter)).await?
    {
        let (workspace, handing_over) = (arrival.workspace.clone(), arrival.handing_over.clone());
        // The limit of disk is no container's where the host looks, else the same.
        let limited = Resources { disk_bytes: plan.spec.resources.disk_bytes, ..arrival.limits } == plan.spec.resources;
        // It can be filled while the engine still takes note of whose it is, and of what it may use. None of its commands runs before.
        let _ = arrived.send(arrival);
        let at = workspace.place().await?;
        let limit = async {
            match limited {
                true => Ok(()),
                false => host.runtime.update_limits(&at.container, &plan.spec.resources).await,
            }
        };
        return match tokio::try_join!(host.runtime.rename(&at.container, &plan.spec.name), limit) {
            Ok(_) => Ok((workspace, handing_over)),
            Err(error) => Err(refused(error, plan, host).in_step(Step::Claim)),
        };
    }
    let arrival = Box::pin(make(host, plan, place, reporter)).await?;
    let workspace = arrival.workspace.clone();
    let _ = arrived.send(arrival);
    Ok((workspace, None))
}

/// Takes a container from a pool, if one is ready in time.
async fn take_over(
    host: &Arc<HostInner>,
    plan: &Plan,
    pool: &Arc<Pool>,
    place: &mut Reservation,
    reporter: &Reporter,
) -> Result<Option<Arrival>> {
    let wish = Wish {
        workspace: plan.labelled.id.clone(),
        template: plan.labelled.template.clone(),
        created: plan.labelled.created,
        preview_port: plan.labelled.preview_port,
        env: plan.own_env.clone(),
    };
    let work = async {
        let deadline = pool.deadline();
        while let Some((member, handing_over)) = pool.take(deadline).await {
            match place.claim(&host.records, pool.clone().claim(member, wish.clone())).await {
                Some(Outcome::Won(won)) => {
                    let labelled = Labelled { instance: won.instance.clone(), ..plan.labelled.clone() };
                    let at = Place::over(host, &labelled.id, won.client, won.instance);
                    let workspace = Workspace::at(host, labelled, Some(at));
                    let arrival = Arrival {
                        workspace,
                        image: Some(won.image),
                        handing_over: Some(handing_over.into()),
                        limits: won.limits,
                    };
                    return Ok((Some(arrival), Some(won.container.0)));
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
async fn make(host: &Arc<HostInner>, plan: &Plan, place: &mut Reservation, reporter: &Reporter) -> Result<Arrival> {
    let image = &plan.spec.image;
    fetch(host, image, reporter).await?;
    let work = async {
        let before = image_id(host, plan).await;
        let mut spec = plan.spec.clone();
        Box::pin(Allotment::of(host).ready(&mut spec)).await?;
        let container = place.create(spec).await.map_err(|error| refused(error, plan, host))?;
        // The same before and after: so it is the one that the container is made of.
        let known = before.is_some() && image_id(host, plan).await == before;
        Ok(((container, before.filter(|_| known)), Some(plan.spec.name.clone())))
    };
    let (container, id) = reporter.step(Step::Create, Some(image.clone()), work).await?;
    let mut watch = DeathWatch::new(host.runtime.as_ref(), &plan.labelled.instance);
    let start = async { Ok((watch.during(host.runtime.start(&container)).await?, None)) };
    reporter.step(Step::Start, None, start).await?;
    let at = Place::new(host, &plan.labelled.id, container, plan.labelled.instance.clone());
    let waiting = agent::wait(&at.client, &mut watch, plan.agent_timeout, host.runtime.as_ref());
    reporter.step(Step::Agent, None, async { Ok((waiting.await?, None)) }).await?;
    let workspace = Workspace::at(host, plan.labelled.clone(), Some(at));
    Ok(Arrival { workspace, image: id, handing_over: None, limits: plan.spec.resources })
}

/// Pulls an image that is missing and may be pulled. What else is wrong with it, the engine says when it is used.
async fn fetch(host: &HostInner, image: &str, reporter: &Reporter) -> Result<()> {
    if !may_be_pulled(host, image) {
        return Ok(());
    }
    match host.runtime.image_id(image).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        _ => return Ok(()),
    }
    let work = async {
        host.runtime.pull_image(image, &|progress| reporter.received(Step::Image, progress)).await?;
        Ok(((), Some(format!("{image} is pulled"))))
    };
    reporter.step(Step::Image, Some(format!("pulling {image}")), work).await
}

/// What a plan's image is now, if the set-up cache needs to know. An engine that doesn't say it says no worse than that later.
async fn image_id(host: &HostInner, plan: &Plan) -> Option<String> {
    if !host.setup_cache.serves(plan) {
        return None;
    }
    host.runtime.image_id(&plan.spec.image).await.ok()
}

/// Says what the engine's refusal to create means to whoever asked for a workspace.
fn refused(error: Error, plan: &Plan, host: &HostInner) -> Error {
    let image = &plan.spec.image;
    match error.kind() {
        ErrorKind::NotFound => {
            let next = if *image == host.image {
                "`corehold image build` makes it".to_owned()
            } else {
                let project = plan.template.as_ref().and_then(|template| template.project);
                match &plan.template {
                    _ if project.and_then(ProjectType::default_image) == Some(image) => format!(
                        "`corehold image build --project {}` makes it; COREHOLD_PROJECT_IMAGES may name another",
                        project.map_or("", ProjectType::as_str)
                    ),
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
        ErrorKind::AlreadyExists => {
            // None of this home's, whose workspaces are known by name before.
            Error::new(ErrorKind::AlreadyExists, format!("there is a container named {} already", plan.spec.name))
                .hint("take another name: it is somebody else's, or of another COREHOLD_HOME")
                .caused_by(error)
        }
        _ => error,
    }
}

/// What a workspace was filled with.
enum Filled {
    /// All that it is to have: nothing, or what an earlier set-up left.
    Done,
    /// What was saved of a workspace, which had its set-up.
    Loaded,
    /// The template's files. The set-up is to be run, and its result to be kept, if it may be.
    Template(Option<Miss>),
}

/// Fills it with what was saved of a workspace.
async fn load(host: &Arc<HostInner>, workspace: &Workspace, archive: &Archive, reporter: &Reporter) -> Result<Filled> {
    let work = async {
        let done = Archives::new(host.clone()).load(archive, workspace).await?;
        Ok((Filled::Loaded, Some(counted(done.files, done.bytes))))
    };
    reporter.step(Step::Load, Some(archive.reference().to_string()), work).await
}

/// Sends the agent what an earlier set-up left, or the template's files. It extracts them as they come: an agent that answers can be
/// sent to, and the engine's own way in costs five times what the agent needs.
async fn send(
    host: &HostInner,
    plan: &Plan,
    arrival: &Arrival,
    archive: PackedArchive,
    reporter: &Reporter,
) -> Result<Filled> {
    let (cache, workspace) = (&host.setup_cache, &arrival.workspace);
    let key = arrival.image.as_deref().filter(|_| cache.serves(plan)).map(|image| cache.key(plan, &archive.key, image));
    let detail = Some(format!("{} bytes", archive.size));
    let work = async {
        let mut dropped = None;
        if let Some(key) = &key {
            match cache.get(key).await? {
                Found::Archive(kept) => {
                    let told = setup_cache::describe(&kept);
                    match extract(workspace, kept).await {
                        Ok(_) => {
                            host.events.emit(Some(workspace.id()), setup_cache::event(key, true, None));
                            return Ok((Filled::Done, Some(told)));
                        }
                        Err(error) if setup_cache::is_refused(&error) => {
                            dropped = Some(cache.refused(key, &error).await)
                        }
                        Err(error) => return Err(error),
                    }
                }
                Found::Damaged => dropped = Some("the kept set-up was damaged and dropped".to_owned()),
                Found::Nothing => {}
            }
            host.events.emit(Some(workspace.id()), setup_cache::event(key, false, dropped.clone()));
        }
        let detail = Some(extract(workspace, archive).await?);
        let miss = match key {
            Some(key) => Some(cache.miss(workspace, key, dropped).await),
            None => None,
        };
        Ok((Filled::Template(miss), detail))
    };
    reporter.step(Step::Ship, detail, work).await
}

/// What was packed or laid in, for people.
fn counted(files: u64, bytes: u64) -> String {
    format!("{files} file{}, {bytes} bytes", if files == 1 { "" } else { "s" })
}

async fn extract<A>(workspace: &Workspace, archive: Stored<A>) -> Result<String> {
    let (hash, size) = (archive.hash, archive.size);
    let done = workspace.extract(&hash, size, ship::content(archive.file, size)).await?;
    Ok(counted(done.files, done.bytes))
}

/// Does what the set-up is to do, unless it was done before.
async fn set_up(
    host: &HostInner,
    workspace: &Workspace,
    template: &Template,
    filled: Filled,
    reporter: &Reporter,
) -> Result<()> {
    let miss = match filled {
        Filled::Template(miss) => miss,
        Filled::Loaded => return Ok(()),
        Filled::Done => {
            let work = async { Ok(((), Some("taken from the set-up cache".to_owned()))) };
            return reporter.step(Step::Setup, None, work).await;
        }
    };
    for line in &template.setup {
        let work = async { Ok((serve::set_up(workspace, template, line, reporter).await?, None)) };
        reporter.step(Step::Setup, Some(line.clone()), work).await?;
    }
    let Some(miss) = miss else { return Ok(()) };
    let work = async {
        let kept = match host.setup_cache.keep(workspace, &template.name, &miss).await {
            Ok(bytes) => format!("kept, {bytes} bytes"),
            Err(error) => {
                tracing::info!(workspace = %workspace.id(), %error, "the result of a set-up is not kept");
                format!("not kept: {error}")
            }
        };
        let told = miss.dropped.iter().chain([&kept]).map(String::as_str).collect::<Vec<_>>();
        Ok(((), Some(told.join("; "))))
    };
    reporter.step(Step::Keep, None, work).await
}
