//! Making a workspace: what is asked for, what is said meanwhile, and what comes of it.

pub(crate) mod agent;
mod events;
mod pipeline;
pub(crate) mod plan;
mod report;
pub(crate) mod reservation;
pub(crate) mod serve;
pub(crate) mod setup_cache;
mod ship;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::sync::mpsc;

pub use self::events::{CreateEvent, CreateEventKind, OutputStream, Step};
use self::reservation::Reservation;
pub(crate) use self::{events::milliseconds, pipeline::bring_up_again};
use crate::{
    archive::Archive,
    error::Result,
    health::HealthPolicy,
    host::HostInner,
    idle::{IdlePolicy, Stored},
    policy::Wanted,
    pool::Pools,
    runtime::{Capability, Mount, Network, Resources},
    state::{Entry, Recipe},
    template::Template,
    workspace::Workspace,
};

/// Label of the command that is a workspace's dev server.
pub const DEV: &str = "dev";
/// Label of a workspace's set-up commands.
pub const SETUP: &str = "setup";

/// Time that an agent may take to answer after its container was started. It needs milliseconds; machines can be busy.
pub(crate) const AGENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Events that wait for whoever reads them; the work waits when they are this many.
const EVENTS: usize = 64;

/// What a new workspace should be.
#[derive(Debug, Clone)]
#[must_use = "it is made by `Host::create`"]
pub struct CreateWorkspace {
    pub(crate) template: Option<Template>,
    pub(crate) archive: Option<Archive>,
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) owner: Option<String>,
    pub(crate) team: Option<String>,
    pub(crate) image: Option<String>,
    pub(crate) image_user: bool,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) resources: Resources,
    pub(crate) publish: BTreeSet<u16>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) hardening: Wanted,
    pub(crate) network: Option<Network>,
    pub(crate) agent_timeout: Duration,
    pub(crate) keep_on_failure: bool,
    pub(crate) idle: Option<IdlePolicy>,
    pub(crate) health: Option<HealthPolicy>,
    /// By what the workspace was made of which this is to be a copy. It goes before the template.
    pub(crate) original: Option<Box<Recipe>>,
}

impl CreateWorkspace {
    /// A workspace with a template's files, its set-up done and its dev server answering.
    pub fn from_template(template: &Template) -> Self {
        Self { template: Some(template.clone()), ..Self::empty() }
    }

    /// A workspace with nothing in it. Its preview port is 4321.
    pub fn empty() -> Self {
        Self {
            template: None,
            archive: None,
            id: None,
            name: None,
            owner: None,
            team: None,
            image: None,
            image_user: false,
            env: BTreeMap::new(),
            labels: BTreeMap::new(),
            resources: Resources::default(),
            publish: BTreeSet::new(),
            mounts: Vec::new(),
            hardening: Wanted::default(),
            network: None,
            agent_timeout: AGENT_TIMEOUT,
            keep_on_failure: false,
            idle: None,
            health: None,
            original: None,
        }
    }

    /// Its name: at most 32 lower-case letters, digits and inner hyphens. Default: the template's name and eight random
    /// characters.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// What people call it: any text of 1 to 100 characters without control characters; nothing is found by it, and others may have the
    /// same. It stays over sleep and waking; copies have it too. Default: none.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Whose it is: any text of at most 256 bytes, such as a user's id. An owner may have any number of workspaces. Commands see it
    /// as `COREHOLD_OWNER_ID`. Default: nobody's; with [`Host::get_or_create`](crate::Host::get_or_create), its owner's.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    /// The owner's team, or organization: any text of at most 256 bytes. Commands see it as `COREHOLD_TEAM_ID`. Default: none.
    pub fn team(mut self, team: impl Into<String>) -> Self {
        self.team = Some(team.into());
        self
    }

    /// With an archive's files, instead of its template's and what set-up would make of them.
    pub(crate) fn with_archive(mut self, archive: &Archive) -> Self {
        self.archive = Some(archive.clone());
        self
    }

    /// With all that another workspace was asked for with, but for its name.
    pub(crate) fn like(mut self, original: &Entry) -> Self {
        let (recipe, stored) = (original.recipe.clone(), Stored::of(original));
        self.image.clone_from(&recipe.image);
        self.image_user = recipe.image_user;
        self.env.clone_from(&recipe.env);
        self.labels.clone_from(&recipe.labels);
        self.name.clone_from(&recipe.name);
        self.publish.clone_from(&recipe.publish);
        (self.owner, self.team) = (recipe.owner.clone(), recipe.team.clone());
        self.resources = recipe.resources();
        self.mounts.clone_from(&recipe.mounts);
        self.hardening = recipe.hardening();
        // What is absent was that of all, whatever the host's default is now.
        self.network = Some(recipe.network.clone().unwrap_or_default());
        (self.idle, self.health) = (stored.idle, stored.health);
        self.original = Some(Box::new(recipe));
        self
    }

    /// Its image, instead of the template's or the host's: any Linux image for the agent's processors. One without an agent gets it on
    /// a read-only volume; `/app`, the home folder and `/tmp` are then volumes of the workspace's own, whatever the image has there,
    /// and `/tools` is the agent's.
    pub fn image(mut self, reference: impl Into<String>) -> Self {
        self.image = Some(reference.into());
        self
    }

    /// Runs everything as the image's own user instead of user 1000, whom most images don't know by name. It must not be root. Of core
    /// images it is user 1000 anyway. A pool has no such containers. Default: no.
    pub fn image_user(mut self) -> Self {
        self.image_user = true;
        self
    }

    /// Sets a variable for all its commands; it wins over the template's and the host's.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Puts a label on its container. It may not begin with `dev.corehold.`.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Its limits; each that is given wins over the template's and the host's.
    pub fn resources(mut self, resources: Resources) -> Self {
        self.resources = resources;
        self
    }

    /// Publishes a TCP port on 127.0.0.1 of this machine, so that it is reached there for as long as the workspace runs,
    /// whether or not this program does; it may be called for several. The engine chooses a port of the host's
    /// [range](crate::HostBuilder::port_range) at each start; [`WorkspaceInfo::published`](crate::WorkspaceInfo::published)
    /// says which. Only what listens on all addresses inside is reached. With Docker each costs a proxy process of 3.3 MB, and
    /// a pool has such containers only if its [class](crate::Class::publish) says so. Where the engine publishes on
    /// another machine's loopback, the creation is `Unsupported`. Default: none; [`Workspace::preview`](crate::Workspace::preview) reaches
    /// every port without.
    pub fn publish(mut self, port: u16) -> Self {
        self.publish.insert(port);
        self
    }

    /// Mounts something; it may be called for several. Folders only where the host's policy allows them
    /// ([`Policy::mount_root`](crate::policy::Policy::mount_root)), and where the library can see in the container that it is the folder
    /// that was allowed: on the engine's machine, as root or as the engine's user. What is mounted is not the workspace's: it is in no
    /// archive, stays when the workspace goes, and its copies have the same. A pool has such containers only if its
    /// [class](crate::Class::mount) says the same. Default: none.
    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// Whether nothing of the image can be written. What can be then: `/app`, the home folder `/home/workspace` and `/var/tmp`, on disk and
    /// gone with the container, `/tmp`, which is 100 MB of the workspace's memory, and what is mounted. Default: it can, by root.
    pub fn read_only_root(mut self, read_only: bool) -> Self {
        self.hardening.read_only_root = Some(read_only);
        self
    }

    /// Gives it a capability that no workspace has by default, where the host's policy allows it
    /// ([`Policy::capability`](crate::policy::Policy::capability)); it may be called for several. It is for processes of root, so for images
    /// whose user is root. Default: none.
    pub fn capability(mut self, capability: Capability) -> Self {
        self.hardening.capabilities.insert(capability);
        self
    }

    /// The engine's runtime that it runs in: `runsc` is gVisor, where it is installed. Where it isn't, the creation fails; nothing weaker
    /// is used instead. Default: the engine's default, usually `runc`.
    pub fn sandbox(mut self, name: impl Into<String>) -> Self {
        self.hardening.sandbox = Some(name.into());
        self
    }

    /// Its network: whose it is, whether its members may reach each other, and what it may reach outside. It stays the same over sleeps,
    /// restarts and copies, unless its team comes into a stricter isolation mode. One by which more is reached than its owner's plan or its
    /// team's mode allows is refused as `Forbidden`. Default: the host's, which is [`Network::shared`] unless it says otherwise.
    pub fn network(mut self, network: Network) -> Self {
        self.network = Some(network);
        self
    }

    /// Time that the agent may take to answer after the start. Default: 30 seconds.
    pub fn agent_timeout(mut self, timeout: Duration) -> Self {
        self.agent_timeout = timeout;
        self
    }

    /// When it is paused, archived or removed by itself. Default: as the host's policy says.
    pub fn idle(mut self, policy: IdlePolicy) -> Self {
        self.idle = Some(policy);
        self
    }

    /// How its health is watched. Default: as the host's policy says.
    pub fn health(mut self, policy: HealthPolicy) -> Self {
        self.health = Some(policy);
        self
    }

    /// Whether its container stays when a step fails, for looking at. Default: it is removed.
    pub fn keep_on_failure(mut self, keep: bool) -> Self {
        self.keep_on_failure = keep;
        self
    }
}

/// A workspace in the making. Await it for the [`Workspace`]; ask for [`next_event`](Self::next_event) before, if you
/// want to know how it goes.
///
/// It does nothing unless it is polled, in either way. Dropping it undoes what it did: the container is removed by a task
/// on the tokio runtime, for which [`Host::settled`](crate::Host::settled) waits. If the process ends before that, the next
/// [`Host::reconcile`](crate::Host::reconcile) does it.
#[must_use = "nothing happens until it is awaited or asked for events"]
pub struct Creation {
    work: Pin<Box<dyn Future<Output = Result<Made>> + Send>>,
    events: mpsc::Receiver<CreateEvent>,
    /// What came of it, until somebody takes it: a workspace that nobody took is removed like one that was not finished.
    done: Option<Result<Made>>,
}

/// A workspace whose container is still removed unless somebody takes it.
struct Made {
    workspace: Workspace,
    place: Reservation,
    ending: report::Ending,
}

impl Creation {
    pub(crate) fn new(host: Arc<HostInner>, pools: Arc<Pools>, request: CreateWorkspace) -> Self {
        Self::for_owner(host, pools, request, None)
    }

    /// The workspace of an owner: `Conflict` if that has one.
    pub(crate) fn for_owner(
        host: Arc<HostInner>,
        pools: Arc<Pools>,
        request: CreateWorkspace,
        owner: Option<String>,
    ) -> Self {
        let (sender, events) = mpsc::channel(EVENTS);
        let work = Box::pin(pipeline::run(host, pools, request, owner, sender));
        Self { work, events, done: None }
    }

    /// What happens next; `None` when the creation is over, one way or the other. Cancel-safe: no event is lost when the
    /// future is dropped.
    pub async fn next_event(&mut self) -> Option<CreateEvent> {
        std::future::poll_fn(|context| {
            // The work first: it is what makes events.
            self.advance(context);
            match self.events.poll_recv(context) {
                Poll::Ready(Some(event)) => Poll::Ready(Some(event)),
                // All senders are gone with the work.
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Pending if self.done.is_some() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    fn advance(&mut self, context: &mut Context<'_>) {
        if self.done.is_none()
            && let Poll::Ready(result) = self.work.as_mut().poll(context)
        {
            self.done = Some(result);
        }
    }
}

impl Future for Creation {
    type Output = Result<Workspace>;

    /// # Panics
    /// When it is polled again after it was ready, as futures may.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            self.advance(context);
            if let Some(result) = self.done.take() {
                return Poll::Ready(result.map(|made| {
                    made.place.keep();
                    made.ending.created();
                    made.workspace.waking()
                }));
            }
            // Whoever awaits the workspace doesn't read events: they are dropped, so that the work never waits for room.
            match self.events.poll_recv(context) {
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}
