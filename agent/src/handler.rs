//! The agent's half of the tool seam: what a handler is given and what it gives back.
//!
//! A tool is declared in `corehold_types::tools`; here it gets its [`Handler`], one in each `tools/<tool>.rs`. The router
//! is made from the one list of tools and asks for a handler of each, so a tool without one does not compile.

use std::{future::Future, sync::Arc};

use corehold_types::{Problem, Tool, tools::ActivitySource};
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use crate::{
    access::Caller,
    agent::Agent,
    audit::{Notes, Touched},
    calls::Share,
};

/// Does what a tool promises.
///
/// The returned future is dropped when the caller goes away, so work that must outlive the caller is handed to the agent
/// (a command's process is), and work that must not outlive it ends with the future.
pub trait Handler: Tool {
    /// Events that wait for a reader at a time. Default 16; less where each carries many bytes, since that is what a stream
    /// costs whose reader takes nothing.
    const EVENTS: usize = 16;

    /// Answers one call. Events go out while it runs; whoever doesn't stream gets everything in the response.
    fn handle(
        call: Call,
        request: Self::Request,
        events: Events<Self::Event>,
    ) -> impl Future<Output = Result<Self::Response, Problem>> + Send;

    /// What a call keeps the workspace awake as, streamed or not; nothing for those that only ask how things are.
    /// Default: a call.
    fn keeps_awake(_request: &Self::Request, _streamed: bool) -> Option<ActivitySource> {
        Some(ActivitySource::Call)
    }

    /// For the audit log: the paths that a request names, and a line about it. Never content or other secrets. What is done is
    /// noted in [`Call::notes`] where it is done.
    fn touches(_request: &Self::Request, _touched: &mut Touched) {}

    /// Under an `Idempotency-Key`: for a tool whose answer can be had again from what it made. The request is changed into
    /// one that is answered as soon as that is made; what is returned turns that answer into the one that was asked for,
    /// for the first caller and for those who repeat it. Default: the answer is kept as it is.
    fn resumption(_agent: &Agent, _request: &mut Self::Request) -> Option<Resumption<Self>> {
        None
    }
}

/// See [`Handler::resumption`].
pub type Resumption<T> = Box<
    dyn FnOnce(
            Call,
            <T as Tool>::Response,
            Events<<T as Tool>::Event>,
        ) -> BoxFuture<'static, Result<<T as Tool>::Response, Problem>>
        + Send,
>;

/// Who calls, and what of.
#[derive(Clone)]
pub struct Call {
    /// The agent that is called.
    pub agent: Arc<Agent>,
    /// Who calls, and what they may do.
    pub caller: Arc<Caller>,
    /// Where the call came in.
    pub surface: Surface,
    /// The caller's `Idempotency-Key`: a repeated change with the same one gets the first one's answer.
    pub idempotency_key: Option<Arc<str>>,
    /// The request, as in the log and in problems.
    pub request_id: String,
    /// For the audit log, and for the surface: whether the answer is an earlier call's.
    pub notes: Notes,
    /// Where the call says how far it is.
    pub progress: Progress,
    /// What it holds of the room for large answers: taken before an answer is gathered that may be one.
    pub share: Share,
}

/// How far a call is, in words, for a surface that shows it while it waits for the answer. Only the last word counts.
#[derive(Debug, Clone, Default)]
pub struct Progress(Option<watch::Sender<String>>);

impl Progress {
    /// Somebody hears it.
    #[must_use]
    pub fn heard() -> (Self, watch::Receiver<String>) {
        let (sender, receiver) = watch::channel(String::new());
        (Self(Some(sender)), receiver)
    }

    /// Whether anybody does.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.0.is_some()
    }

    /// Says it, if anybody hears it.
    pub fn say(&self, word: impl FnOnce() -> String) {
        if let Some(sender) = &self.0 {
            sender.send_replace(word());
        }
    }
}

/// The ways into the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// `POST /v1/tools/{name}` and the routes beside it.
    Http,
    /// `GET /v1/ws`.
    WebSocket,
    /// `POST /mcp`.
    Mcp,
}

/// Where a handler's events go: to a stream, or nowhere when the caller wants one answer.
pub struct Events<E> {
    sender: Option<mpsc::Sender<E>>,
    /// Whether the work goes on when nobody reads any more.
    outlives: bool,
}

/// The caller went away while the tool was streaming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerGone;

impl<E> Events<E> {
    /// Events for a caller who wants one answer: none are sent.
    #[must_use]
    pub fn none() -> Self {
        Self { sender: None, outlives: false }
    }

    /// Events into a bounded channel, whose reader sets the pace.
    #[must_use]
    pub fn into_channel(sender: mpsc::Sender<E>) -> Self {
        Self { sender: Some(sender), outlives: false }
    }

    /// The same for work that must not end because nobody reads any more.
    #[must_use]
    pub fn outliving_the_caller(self) -> Self {
        Self { outlives: true, ..self }
    }

    /// Whether the caller streams. If so, what the events carry is left out of the response.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.sender.is_some()
    }

    /// Resolves when nobody reads any more; never when nobody did from the beginning.
    pub async fn closed(&self) {
        match &self.sender {
            Some(sender) => sender.closed().await,
            None => std::future::pending().await,
        }
    }

    /// Waits until all that was sent has been taken.
    ///
    /// # Errors
    /// [`CallerGone`] when nobody reads any more.
    pub async fn taken(&self) -> Result<(), CallerGone> {
        self.places(|sender| sender.max_capacity()).await
    }

    /// Waits until an event could be sent at once.
    ///
    /// # Errors
    /// [`CallerGone`] when nobody reads any more.
    pub async fn ready(&self) -> Result<(), CallerGone> {
        self.places(|_| 1).await
    }

    async fn places(&self, number: impl FnOnce(&mpsc::Sender<E>) -> usize) -> Result<(), CallerGone> {
        match &self.sender {
            Some(sender) => match sender.reserve_many(number(sender)).await {
                Err(_) if !self.outlives => Err(CallerGone),
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// Sends an event, waiting for a slow reader. Does nothing when the caller doesn't stream.
    ///
    /// # Errors
    /// [`CallerGone`] when nobody reads any more; the handler may end then, its answer goes nowhere.
    pub async fn send(&self, event: E) -> Result<(), CallerGone> {
        match &self.sender {
            Some(sender) => match sender.send(event).await {
                Err(_) if !self.outlives => Err(CallerGone),
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }
}
