//! A workspace: the thing a user has, reached through the agent inside it.

mod command;
mod forward;
mod id;
mod info;
mod place;
mod preview;
mod weak;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use corehold_types::{
    Code, Scopes, Tool,
    tools::{CommandInfo, CommandList, CommandListRequest, ExtractResponse},
    wire::FileWritten,
};
use futures_util::{Stream, stream};

use self::place::Entered;
pub use self::{
    command::{CommandOutcome, RunCommand},
    forward::{Forward, ForwardOptions},
    id::WorkspaceId,
    info::WorkspaceInfo,
    preview::{Preview, PreviewStatus, PreviewUse},
};
pub(crate) use self::{
    id::random_word,
    info::{Described, Labelled, describe},
    place::{Directory, Place, Whereabouts},
    preview::{BeforeConnect, Previews},
    weak::WeakWorkspace,
};
use crate::{
    client::{ArchiveFormat, ArchiveInto, FileStream, TokenSource, ToolStream, Tunnel},
    error::{Error, ErrorKind, Result},
    events::Events,
    host::{AGENT_PORT, HostInner},
    idle,
    life::WorkspaceState,
    logs::LogRooms,
    runtime::{BoxConnection, BoxStream, ContainerId, ContainerState, Endpoint},
    state::Entry,
    stats::Monitor,
};

/// A handle to one workspace. Clones are cheap and share their connections; every method may be called concurrently.
///
/// Dropping a handle changes nothing about the workspace. Dropping a future of a method abandons the wait, not the work:
/// a command that was started goes on, and a file is either written whole or not at all.
///
/// A handle stays valid as long as there is the workspace, also when it was asleep meanwhile and is in another container now.
#[derive(Clone)]
pub struct Workspace {
    host: Arc<HostInner>,
    about: Arc<Whereabouts>,
    subject: Option<Arc<Subject>>,
    /// Whether a call wakes it. Not for those who are at it: they would wait for themselves.
    wakes: bool,
}

/// In whose name a handle is used, if not in the host's.
struct Subject {
    name: String,
    /// For the agent of which instance.
    tokens: Mutex<Option<(String, Arc<TokenSource>)>>,
}

impl Workspace {
    pub(crate) fn new(host: Arc<HostInner>, about: Arc<Whereabouts>) -> Self {
        Self { host, about, subject: None, wakes: false }
    }

    /// Of a workspace that is in a place now, or in none.
    pub(crate) fn at(host: &Arc<HostInner>, labelled: Labelled, place: Option<Place>) -> Self {
        Self::new(host.clone(), host.directory.of(labelled, place.map(Arc::new)))
    }

    /// Of an entry of the store, for those who look after it; none when it has no container.
    pub(crate) fn of_entry(host: &Arc<HostInner>, entry: &Entry) -> Option<Self> {
        let container = entry.container.clone().map(ContainerId)?;
        let place = Place::new(host, &entry.id, container, entry.instance.clone());
        Some(Self::at(host, Labelled::of_entry(host, entry), Some(place)))
    }

    /// As its user has it: a call wakes it.
    pub(crate) fn waking(self) -> Self {
        Self { wakes: true, ..self }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &WorkspaceId {
        &self.about.labelled.id
    }

    /// The same workspace, used in the name of somebody: `subject` is written into the agent's log and audit records.
    #[must_use]
    pub fn for_subject(&self, subject: impl Into<String>) -> Self {
        let subject = Subject { name: subject.into(), tokens: Mutex::default() };
        Self { subject: Some(Arc::new(subject)), ..self.clone() }
    }

    /// What is known about it now. Cancel-safe.
    ///
    /// # Errors
    /// `NotFound` when it was removed meanwhile.
    pub async fn info(&self) -> Result<WorkspaceInfo> {
        let entry = self.host.store.get(self.id()).await?;
        let container = entry.as_ref().map_or_else(
            || self.about.place().map(|place| place.container.clone()),
            |entry| entry.container.clone().map(ContainerId),
        );
        let state = match container {
            Some(container) => match self.host.runtime.inspect(&container).await {
                Err(error) if error.kind() == ErrorKind::NotFound && entry.is_some() => None,
                inspected => Some(inspected.map_err(|error| self.gone(error))?),
            },
            None => None,
        };
        let described = Described { entry, state, labelled: self.about.labelled.clone() };
        describe(&self.host, described)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("workspace {} is no more", self.id())))
    }

    /// Where its preview answers on this machine: `http://127.0.0.1:<port>`. Where the port was
    /// [published](crate::CreateWorkspace::publish), that is where the engine publishes it, another port after each restart; else it
    /// is the address of a [preview](Self::preview), which lasts as long as this host. [`preview`](Self::preview) says too whether
    /// something listens. Cancel-safe.
    ///
    /// # Errors
    /// `NotFound` when it is gone, `Unsupported` when nobody said which port it is; as [`preview`](Self::preview).
    pub async fn preview_url(&self) -> Result<String> {
        let port = self.about.labelled.preview_port.ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("workspace {} has no preview port", self.id()))
                .hint("name the port: `Workspace::preview`")
        })?;
        let state = self.container_state().await?;
        match state.as_ref().and_then(|state| state.published.get(&port)) {
            Some(address) => Ok(format!("http://{address}")),
            None => self.host.previews.address(self, port),
        }
    }

    /// Calls a tool of the agent and waits for its whole answer.
    ///
    /// There is no time-out but the tool's own; an agent that can't answer any more is noticed after some ten seconds. An agent that is
    /// about to end and refuses, since another host is just putting the workspace to sleep, is woken and asked again, once.
    /// Dropping the future abandons the wait, not the work: what the tool was asked to do may be done.
    ///
    /// # Errors
    /// `Agent` with the agent's [`problem`](Error::problem), `AgentUnavailable` when it can't be reached.
    pub async fn call<T: Tool>(&self, request: &T::Request) -> Result<T::Response> {
        let mut place = self.enter().await?;
        loop {
            match place.client.call::<T>(&self.tokens(&place), request).await {
                Err(error) => self.elsewhere(&mut place, error).await?,
                answered => return answered,
            }
        }
    }

    /// Calls a tool of the agent and returns its events as they come.
    /// Dropping the future abandons the wait, not the work; dropping the stream too.
    ///
    /// # Errors
    /// As [`call`](Self::call), here or later in the stream.
    pub async fn stream<T: Tool>(&self, request: &T::Request) -> Result<ToolStream<T>> {
        let mut place = self.enter().await?;
        loop {
            match place.client.stream::<T>(&self.tokens(&place), request).await {
                Err(error) => self.elsewhere(&mut place, error).await?,
                answered => return answered,
            }
        }
    }

    /// A shell line to run in the workspace.
    pub fn command(&self, line: impl Into<String>) -> RunCommand {
        RunCommand::line(self.clone(), line.into())
    }

    /// A program and its arguments to run in the workspace, passed as they are.
    pub fn command_argv(&self, argv: impl IntoIterator<Item = impl Into<String>>) -> RunCommand {
        RunCommand::argv(self.clone(), argv.into_iter().map(Into::into).collect())
    }

    /// The newest command with a label: [`DEV`](crate::create::DEV) is the dev server, [`SETUP`](crate::create::SETUP)
    /// the last set-up command. Cancel-safe.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn latest_command(&self, label: &str) -> Result<Option<CommandInfo>> {
        let request = CommandListRequest { label: Some(label.to_owned()), limit: Some(1), ..Default::default() };
        Ok(self.call::<CommandList>(&request).await?.commands.into_iter().next())
    }

    /// Reads a whole file of at most 64 MiB; [`open_file`](Self::open_file) has no such limit. Cancel-safe.
    ///
    /// # Errors
    /// `Agent` with the agent's problem when there is no such file, or it isn't one.
    pub async fn read_file(&self, path: impl AsRef<Path>) -> Result<Bytes> {
        let mut place = self.enter().await?;
        loop {
            match place.client.read_file(&self.tokens(&place), path.as_ref()).await {
                Err(error) => self.elsewhere(&mut place, error).await?,
                answered => return answered,
            }
        }
    }

    /// Reads a file as a stream. Cancel-safe.
    ///
    /// # Errors
    /// As [`read_file`](Self::read_file).
    pub async fn open_file(&self, path: impl AsRef<Path>) -> Result<FileStream> {
        let mut place = self.enter().await?;
        loop {
            match place.client.open_file(&self.tokens(&place), path.as_ref()).await {
                Err(error) => self.elsewhere(&mut place, error).await?,
                answered => return answered,
            }
        }
    }

    /// Writes a file, atomically: readers see the old content or the new one. Missing folders are made.
    /// Dropping the future leaves the file as it was or written whole.
    ///
    /// # Errors
    /// `Agent` with the agent's problem: the path leads outside, the disk is full, …
    pub async fn write_file(&self, path: impl AsRef<Path>, content: impl Into<Bytes>) -> Result<FileWritten> {
        let (mut place, content) = (self.enter().await?, content.into());
        loop {
            match place.client.write_file(&self.tokens(&place), path.as_ref(), content.clone()).await {
                Err(error) => self.elsewhere(&mut place, error).await?,
                answered => return answered,
            }
        }
    }

    /// Writes a file from a stream of any length, atomically.
    /// Dropping the future leaves the file as it was or written whole.
    ///
    /// # Errors
    /// As [`write_file`](Self::write_file), and what the stream itself fails with.
    pub async fn upload_file(
        &self,
        path: impl AsRef<Path>,
        content: impl Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Result<FileWritten> {
        let place = self.enter().await?;
        place.client.upload_file(&self.tokens(&place), path.as_ref(), Box::pin(content)).await
    }

    /// Opens a connection to whatever listens on a port inside, on the container's own loopback included. Cancel-safe: a
    /// connection that nobody waits for any more is closed.
    ///
    /// # Errors
    /// `Agent` with the agent's problem: `NOT_LISTENING` (retryable) when nothing listens there, `LIMIT_EXCEEDED` when too
    /// many are open; `AgentUnavailable` when the agent can't be reached.
    pub async fn tunnel(&self, port: u16) -> Result<Tunnel> {
        let mut place = self.enter().await?;
        loop {
            match place.client.tunnel(&self.tokens(&place), port).await {
                Err(error) => self.elsewhere(&mut place, error).await?,
                answered => return answered,
            }
        }
    }

    /// Has a port of this machine lead to a port inside, until the [`Forward`] is dropped. It needs no port that was
    /// published when the container was made. Nothing has to listen inside yet. Cancel-safe.
    ///
    /// # Errors
    /// `Conflict` when the port of this machine is in use, `Io` when it can't be had otherwise, `Invalid` for port 0 inside.
    pub async fn forward(&self, port: u16, options: ForwardOptions) -> Result<Forward> {
        forward::start(self.clone(), port, options)
    }

    /// A token by which somebody else may talk to the agent for a while: a browser, a coding agent. It is for the agent as it is
    /// now: who has slept wakes with another one, which doesn't take it.
    #[must_use]
    pub fn mint_token(&self, subject: &str, scopes: &Scopes, lifetime: Duration) -> String {
        match self.about.place() {
            Some(place) => place.tokens.mint(subject, scopes, lifetime),
            None => {
                let labelled = &self.about.labelled;
                let (instance, id) = (labelled.instance.clone(), labelled.id.to_string());
                let tokens = TokenSource::new(self.host.key.clone(), instance, id, self.host.subject.clone());
                tokens.mint(subject, scopes, lifetime)
            }
        }
    }

    /// How this machine reaches the agent, for a client of one's own. Where it is [`Endpoint::ThroughRuntime`], as with an engine on another
    /// machine, [`connect_agent`](Self::connect_agent) is the way there, and a [`forward`](Self::forward) to what else listens inside.
    /// Cancel-safe.
    ///
    /// # Errors
    /// `NotFound` when the workspace is gone or doesn't run.
    pub async fn agent_endpoint(&self) -> Result<Endpoint> {
        self.endpoint(AGENT_PORT).await
    }

    /// A connection to the agent, whichever way it is reached, for a client of one's own that speaks HTTP or its WebSocket
    /// ([`mint_token`](Self::mint_token)). Dropping it closes it. Cancel-safe.
    ///
    /// # Errors
    /// `NotFound` when the workspace is gone or doesn't run, `AgentUnavailable` when its agent isn't reached.
    pub async fn connect_agent(&self) -> Result<BoxConnection> {
        let mut place = Entered::past(self.place().await?);
        loop {
            match place.client.connect().await {
                Err(error) => self.elsewhere(&mut place, error).await?,
                connected => return connected,
            }
        }
    }

    /// What the agent itself has logged, from the beginning, then on while `follow`.
    #[must_use]
    pub fn agent_logs(&self, follow: bool) -> BoxStream<Bytes> {
        match self.about.place() {
            Some(place) => self.host.runtime.logs(&place.container, follow),
            None => Box::pin(stream::iter([Err(self.asleep())])),
        }
    }

    /// Extracts an archive into the root.
    pub(crate) async fn extract(&self, hash: &str, size: u64, archive: BoxStream<Bytes>) -> Result<ExtractResponse> {
        let place = self.place().await?;
        place.client.upload_archive(&self.tokens(&place), hash, size, ArchiveInto::Merged, archive).await
    }

    /// Makes the files those of an archive: what is not in it goes. All or nothing.
    pub(crate) async fn replace_files(
        &self,
        hash: &str,
        size: u64,
        archive: BoxStream<Bytes>,
    ) -> Result<ExtractResponse> {
        let place = self.enter().await?;
        place.client.upload_archive(&self.tokens(&place), hash, size, ArchiveInto::Replaced, archive).await
    }

    /// All that is in the root, but for what these patterns, as in .gitignore, match.
    pub(crate) async fn archive(&self, format: ArchiveFormat, exclude: &[String]) -> Result<BoxStream<Bytes>> {
        let place = self.enter().await?;
        place.client.download_archive(&self.tokens(&place), format, exclude).await
    }

    /// The template it was made from.
    pub(crate) fn template(&self) -> Option<&str> {
        self.about.labelled.template.as_deref()
    }

    /// Calls a tool as [`call`](Self::call) does, for this library's own sake: nothing is woken for it.
    pub(crate) async fn ask<T: Tool>(&self, request: &T::Request) -> Result<T::Response> {
        let place = self.place().await?;
        place.client.call::<T>(&self.tokens(&place), request).await
    }

    /// The same for [`stream`](Self::stream).
    pub(crate) async fn ask_stream<T: Tool>(&self, request: &T::Request) -> Result<ToolStream<T>> {
        let place = self.place().await?;
        place.client.stream::<T>(&self.tokens(&place), request).await
    }

    pub(crate) fn host_events(&self) -> Events {
        self.host.engine.start();
        self.host.events.subscribe()
    }

    pub(crate) fn log_rooms(&self) -> &LogRooms {
        &self.host.log_rooms
    }

    pub(crate) fn monitor(&self) -> &Monitor {
        &self.host.monitor
    }

    /// The container that it is known to be in.
    #[cfg(test)]
    pub(crate) fn container(&self) -> ContainerId {
        self.about.place().expect("it has one").container.clone()
    }

    pub(crate) fn host(&self) -> &Arc<HostInner> {
        &self.host
    }

    /// In whose name this handle is used.
    pub(crate) fn subject(&self) -> &str {
        self.subject.as_ref().map_or(self.host.subject.as_str(), |subject| subject.name.as_str())
    }

    pub(crate) fn about(&self) -> &Arc<Whereabouts> {
        &self.about
    }

    /// Where it is. Everything that needs the container or its agent comes through here.
    ///
    /// # Errors
    /// `Conflict` when it has no container, since it sleeps; `NotFound` when it is no more.
    pub(crate) async fn place(&self) -> Result<Arc<Place>> {
        match self.about.place() {
            Some(place) => Ok(place),
            // Another process may have woken it.
            None => match self.look_up(None).await? {
                Some(place) => Ok(place),
                None if self.host.store.get(self.id()).await?.is_some() => Err(self.asleep()),
                None => Err(Error::new(ErrorKind::NotFound, format!("workspace {} is no more", self.id()))),
            },
        }
    }

    /// Whether it is known to be gone: of what can't be asked now, nobody knows.
    pub(crate) async fn is_no_more(&self) -> bool {
        match self.host.store.get(self.id()).await {
            Ok(Some(entry)) => entry.state == WorkspaceState::Removed || entry.created != self.about.labelled.created,
            // Of another home, or not adopted yet.
            Ok(None) => match self.about.place() {
                Some(place) => {
                    let found = self.host.runtime.inspect(&place.container).await;
                    found.is_err_and(|error| error.kind() == ErrorKind::NotFound)
                }
                None => true,
            },
            Err(_) => false,
        }
    }

    /// Where to try again after an error: where the workspace is, if that is not where it was and nothing was begun there. Who
    /// slept and was woken by another process is in another container. One that another process is just putting to sleep is woken, once;
    /// refused again, the caller is told.
    async fn elsewhere(&self, at: &mut Entered, error: Error) -> Result<()> {
        // The engine didn't find it, so no agent was asked; or the agent took nothing more.
        let nothing_begun = error.kind() == ErrorKind::NotFound
            || error.problem().is_some_and(|problem| problem.code == Code::ShuttingDown);
        if !nothing_begun && error.kind() != ErrorKind::AgentUnavailable {
            return Err(error);
        }
        self.about.gate.close();
        let place = self.look_up(Some(&at.place)).await;
        if !nothing_begun {
            return Err(error);
        }
        if let Ok(Some(place)) = place {
            at.place = place;
            return Ok(());
        }
        if at.again || at.pass.take().is_none() {
            return Err(self.gone(error));
        }
        match self.enter().await {
            Ok(entered) => {
                *at = Entered { again: true, ..entered };
                Ok(())
            }
            Err(_) => Err(self.gone(error)),
        }
    }

    /// Where it is, woken if it was paused or asleep and this handle does that.
    async fn enter(&self) -> Result<Entered> {
        self.own()?;
        let pass = match self.wakes {
            true => {
                let wake = || idle::wake(self.host.clone(), self.id().clone());
                Some(self.about.gate.pass(&self.host.cleanups, wake).await?)
            }
            false => None,
        };
        Ok(Entered { place: self.place().await?, pass, again: false })
    }

    /// Asks the store where it is, and takes note for all handles. None when it is nowhere, or where it was.
    async fn look_up(&self, old: Option<&Place>) -> Result<Option<Arc<Place>>> {
        let Some(entry) = self.host.store.get(self.id()).await? else { return Ok(None) };
        let Some(container) = entry.container.filter(|_| entry.created == self.about.labelled.created) else {
            return Ok(None);
        };
        if old.is_some_and(|old| old.container.0 == container) {
            return Ok(None);
        }
        let place = Arc::new(Place::new(&self.host, self.id(), ContainerId(container), entry.instance));
        self.about.moved(Some(place.clone()));
        Ok(Some(place))
    }

    /// What its container is doing; none while it has none.
    async fn container_state(&self) -> Result<Option<ContainerState>> {
        let mut place = match self.place().await {
            Ok(place) => Entered::past(place),
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(None),
            Err(error) => return Err(error),
        };
        loop {
            match self.host.runtime.inspect(&place.container).await {
                Err(error) => self.elsewhere(&mut place, error).await?,
                found => return found.map(Some),
            }
        }
    }

    async fn endpoint(&self, port: u16) -> Result<Endpoint> {
        let mut place = Entered::past(self.place().await?);
        loop {
            match self.host.runtime.endpoint(&place.container, port).await {
                Err(error) => self.elsewhere(&mut place, error).await?,
                found => return found,
            }
        }
    }

    fn tokens(&self, place: &Place) -> Arc<TokenSource> {
        let Some(subject) = &self.subject else { return place.tokens.clone() };
        let mut tokens = subject.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        match &*tokens {
            Some((instance, tokens)) if *instance == place.instance => tokens.clone(),
            _ => {
                let new = Arc::new(place.tokens.for_subject(subject.name.clone()));
                *tokens = Some((place.instance.clone(), new.clone()));
                new
            }
        }
    }

    fn asleep(&self) -> Error {
        Error::new(ErrorKind::Conflict, format!("workspace {} is asleep", self.id()))
            .hint("`Workspace::wake` brings it back")
    }

    /// An engine speaks of containers; whoever asked knows a workspace.
    fn gone(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::NotFound => error.context(format_args!("workspace {}", self.id())),
            _ => error,
        }
    }
}

impl fmt::Debug for Workspace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Workspace").field("id", self.id()).field("place", &self.about.place()).finish()
    }
}
