//! A workspace: the thing a user has, reached through the agent inside it.

mod command;
mod forward;
mod id;
mod info;
mod preview;
mod weak;

use std::{fmt, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use corehold_types::{
    Scopes, Tool,
    tools::{CommandInfo, CommandList, CommandListRequest, ExtractResponse},
    wire::FileWritten,
};
use futures_util::Stream;

pub use self::{
    command::{CommandOutcome, RunCommand},
    forward::{Forward, ForwardOptions},
    id::WorkspaceId,
    info::{WorkspaceInfo, WorkspaceStatus},
    preview::{Preview, PreviewStatus, PreviewUse},
};
pub(crate) use self::{
    id::random_word,
    info::{Labelled, describe},
    preview::{BeforeConnect, Previews},
    weak::WeakWorkspace,
};
use crate::{
    client::{AgentClient, ArchiveFormat, ArchiveInto, FileStream, Patience, TokenSource, ToolStream, Tunnel},
    error::{Error, ErrorKind, Result},
    events::{EventKind, Events},
    host::{AGENT_PORT, HostInner},
    logs::LogRooms,
    runtime::{BoxStream, ContainerId, Endpoint},
    stats::Monitor,
};

/// A handle to one workspace. Clones are cheap and share their connections; every method may be called concurrently.
///
/// Dropping a handle changes nothing about the workspace. Dropping a future of a method abandons the wait, not the work:
/// a command that was started goes on, and a file is either written whole or not at all.
#[derive(Clone)]
pub struct Workspace {
    host: Arc<HostInner>,
    container: ContainerId,
    labelled: Arc<Labelled>,
    client: Arc<AgentClient>,
    tokens: Arc<TokenSource>,
}

impl Workspace {
    pub(crate) fn new(host: Arc<HostInner>, container: ContainerId, labelled: Labelled) -> Self {
        let client = AgentClient::new(host.runtime.clone(), container.clone(), AGENT_PORT, Patience::default());
        Self::over(host, container, labelled, Arc::new(client))
    }

    /// Over a client that has its connections already.
    pub(crate) fn over(
        host: Arc<HostInner>,
        container: ContainerId,
        labelled: Labelled,
        client: Arc<AgentClient>,
    ) -> Self {
        let tokens = TokenSource::new(
            host.key.clone(),
            labelled.instance.clone(),
            labelled.id.to_string(),
            host.subject.clone(),
        );
        Self { host, container, labelled: Arc::new(labelled), client, tokens: Arc::new(tokens) }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &WorkspaceId {
        &self.labelled.id
    }

    /// The same workspace, used in the name of somebody: `subject` is written into the agent's log and audit records.
    #[must_use]
    pub fn for_subject(&self, subject: impl Into<String>) -> Self {
        Self { tokens: Arc::new(self.tokens.for_subject(subject.into())), ..self.clone() }
    }

    /// What is known about it now.
    ///
    /// # Errors
    /// `NotFound` when it was removed meanwhile.
    pub async fn info(&self) -> Result<WorkspaceInfo> {
        let state = self.host.runtime.inspect(&self.container).await.map_err(|error| self.gone(error))?;
        Ok(info::describe(&self.host, &state, (*self.labelled).clone()))
    }

    /// Where its preview answers on this machine: `http://127.0.0.1:<port>`. Where the port was
    /// [published](crate::CreateWorkspace::publish), that is where the engine publishes it, another port after each restart; else it
    /// is the address of a [preview](Self::preview), which lasts as long as this host. [`preview`](Self::preview) says too whether
    /// something listens.
    ///
    /// # Errors
    /// `NotFound` when it is gone, `Unsupported` when nobody said which port it is; as [`preview`](Self::preview).
    pub async fn preview_url(&self) -> Result<String> {
        let port = self.labelled.preview_port.ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("workspace {} has no preview port", self.id()))
                .hint("name the port: `Workspace::preview`")
        })?;
        let state = self.host.runtime.inspect(&self.container).await.map_err(|error| self.gone(error))?;
        match state.published.get(&port) {
            Some(address) => Ok(format!("http://{address}")),
            None => self.host.previews.address(self, port),
        }
    }

    /// Calls a tool of the agent and waits for its whole answer.
    ///
    /// There is no time-out but the tool's own; an agent that can't answer any more is noticed after some ten seconds.
    ///
    /// # Errors
    /// `Agent` with the agent's [`problem`](Error::problem), `AgentUnavailable` when it can't be reached.
    pub async fn call<T: Tool>(&self, request: &T::Request) -> Result<T::Response> {
        self.client.call::<T>(&self.tokens, request).await
    }

    /// Calls a tool of the agent and returns its events as they come.
    ///
    /// # Errors
    /// As [`call`](Self::call), here or later in the stream.
    pub async fn stream<T: Tool>(&self, request: &T::Request) -> Result<ToolStream<T>> {
        self.client.stream::<T>(&self.tokens, request).await
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
    /// the last set-up command.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn latest_command(&self, label: &str) -> Result<Option<CommandInfo>> {
        let request = CommandListRequest { label: Some(label.to_owned()), limit: Some(1), ..Default::default() };
        Ok(self.call::<CommandList>(&request).await?.commands.into_iter().next())
    }

    /// Reads a whole file of at most 64 MiB; [`open_file`](Self::open_file) has no such limit.
    ///
    /// # Errors
    /// `Agent` with the agent's problem when there is no such file, or it isn't one.
    pub async fn read_file(&self, path: impl AsRef<Path>) -> Result<Bytes> {
        self.client.read_file(&self.tokens, path.as_ref()).await
    }

    /// Reads a file as a stream.
    ///
    /// # Errors
    /// As [`read_file`](Self::read_file).
    pub async fn open_file(&self, path: impl AsRef<Path>) -> Result<FileStream> {
        self.client.open_file(&self.tokens, path.as_ref()).await
    }

    /// Writes a file, atomically: readers see the old content or the new one. Missing folders are made.
    ///
    /// # Errors
    /// `Agent` with the agent's problem: the path leads outside, the disk is full, …
    pub async fn write_file(&self, path: impl AsRef<Path>, content: impl Into<Bytes>) -> Result<FileWritten> {
        self.client.write_file(&self.tokens, path.as_ref(), content.into()).await
    }

    /// Writes a file from a stream of any length, atomically.
    ///
    /// # Errors
    /// As [`write_file`](Self::write_file), and what the stream itself fails with.
    pub async fn upload_file(
        &self,
        path: impl AsRef<Path>,
        content: impl Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Result<FileWritten> {
        self.client.upload_file(&self.tokens, path.as_ref(), Box::pin(content)).await
    }

    /// Opens a connection to whatever listens on a port inside, on the container's own loopback included. Cancel-safe: a
    /// connection that nobody waits for any more is closed.
    ///
    /// # Errors
    /// `Agent` with the agent's problem: `NOT_LISTENING` (retryable) when nothing listens there, `LIMIT_EXCEEDED` when too
    /// many are open; `AgentUnavailable` when the agent can't be reached.
    pub async fn tunnel(&self, port: u16) -> Result<Tunnel> {
        self.client.tunnel(&self.tokens, port).await
    }

    /// Has a port of this machine lead to a port inside, until the [`Forward`] is dropped. It needs no port that was
    /// published when the container was made. Nothing has to listen inside yet. Cancel-safe.
    ///
    /// # Errors
    /// `Conflict` when the port of this machine is in use, `Io` when it can't be had otherwise, `Invalid` for port 0 inside.
    pub async fn forward(&self, port: u16, options: ForwardOptions) -> Result<Forward> {
        forward::start(self.clone(), port, options)
    }

    /// A token by which somebody else may talk to the agent for a while: a browser, a coding agent.
    #[must_use]
    pub fn mint_token(&self, subject: &str, scopes: &Scopes, lifetime: Duration) -> String {
        self.tokens.mint(subject, scopes, lifetime)
    }

    /// How this machine reaches the agent, for a client of one's own.
    ///
    /// # Errors
    /// `NotFound` when the workspace is gone or doesn't run.
    pub async fn agent_endpoint(&self) -> Result<Endpoint> {
        let endpoint = self.host.runtime.endpoint(&self.container, AGENT_PORT).await;
        endpoint.map_err(|error| self.gone(error))
    }

    /// What the agent itself has logged, from the beginning, then on while `follow`.
    #[must_use]
    pub fn agent_logs(&self, follow: bool) -> BoxStream<Bytes> {
        self.host.runtime.logs(&self.container, follow)
    }

    /// Removes it and all it held, running or not. Removing what is gone already is no error.
    ///
    /// # Errors
    /// `Engine` or `EngineUnavailable`; it may be tried again.
    pub async fn remove(&self) -> Result<()> {
        self.host.runtime.remove(&self.container).await?;
        self.host.previews.close(self.id());
        self.host.records.forget(&self.container, self.id()).await;
        self.host.events.emit_by(Some(self.tokens.subject()), Some(self.id()), EventKind::Removed);
        Ok(())
    }

    /// Extracts an archive into the root.
    pub(crate) async fn extract(&self, hash: &str, size: u64, archive: BoxStream<Bytes>) -> Result<ExtractResponse> {
        self.client.upload_archive(&self.tokens, hash, size, ArchiveInto::Merged, archive).await
    }

    /// Makes the files those of an archive: what is not in it goes. All or nothing.
    pub(crate) async fn replace_files(
        &self,
        hash: &str,
        size: u64,
        archive: BoxStream<Bytes>,
    ) -> Result<ExtractResponse> {
        self.client.upload_archive(&self.tokens, hash, size, ArchiveInto::Replaced, archive).await
    }

    /// All that is in the root, but for what these patterns, as in .gitignore, match.
    pub(crate) async fn archive(&self, format: ArchiveFormat, exclude: &[String]) -> Result<BoxStream<Bytes>> {
        self.client.download_archive(&self.tokens, format, exclude).await
    }

    pub(crate) fn host(&self) -> &Arc<HostInner> {
        &self.host
    }

    /// The template it was made from.
    pub(crate) fn template(&self) -> Option<&str> {
        self.labelled.template.as_deref()
    }

    /// Calls a tool as [`call`](Self::call) does, for this library's own sake: nothing is woken for it.
    pub(crate) async fn ask<T: Tool>(&self, request: &T::Request) -> Result<T::Response> {
        self.client.call::<T>(&self.tokens, request).await
    }

    /// The same for [`stream`](Self::stream).
    pub(crate) async fn ask_stream<T: Tool>(&self, request: &T::Request) -> Result<ToolStream<T>> {
        self.client.stream::<T>(&self.tokens, request).await
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

    pub(crate) fn client(&self) -> &AgentClient {
        &self.client
    }

    pub(crate) fn container(&self) -> &ContainerId {
        &self.container
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
        formatter.debug_struct("Workspace").field("id", self.id()).field("container", &self.container.0).finish()
    }
}
