//! The tools with their types erased, for surfaces that learn a tool's name only with the call.

use bytes::Bytes;
use corehold_types::{Event, EventBytes, Problem, Scope, for_each_tool};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::{Json, SMALL};
use crate::{
    handler::{Call, Events, Handler},
    server::body,
};

/// One tool.
pub struct Entry {
    /// Its word on the wire.
    pub name: &'static str,
    /// One sentence about it.
    pub summary: &'static str,
    /// What a caller must be allowed, see [`Caller::need`](crate::access::Caller::need).
    pub scope: Scope,
    /// Whether calls of it may change something.
    pub changes: bool,
    /// See [`Handler::EVENTS`].
    pub events: usize,
    call: CallFn,
}

type CallFn = fn(Call, Bytes, Option<mpsc::Sender<ErasedEvent>>) -> BoxFuture<'static, Result<Json, Problem>>;

/// An event as a surface sends it.
#[derive(Debug)]
pub struct ErasedEvent {
    /// Its `type`.
    pub kind: &'static str,
    /// Where a reader stands after it, if the stream can be resumed from there.
    pub offset_after: Option<u64>,
    /// The event as JSON; empty where there are bytes.
    pub json: Vec<u8>,
    /// The bytes that it carries, where a surface sends those by themselves.
    pub bytes: Option<EventBytes>,
}

impl Entry {
    /// Whether the caller may call the tool; a refusal is recorded.
    ///
    /// # Errors
    /// `FORBIDDEN` names the scope that is lacking.
    pub fn allow(&self, call: &Call) -> Result<(), Problem> {
        call.caller.need(self.scope).inspect_err(|problem| super::refused(call, self.name, problem))
    }

    /// Calls the tool with a request in JSON, and returns its response in JSON. With a sender for events the answer is a
    /// streamed one: what the events carry is left out of the response.
    ///
    /// Dropping the future ends the call, as a caller who goes away does.
    ///
    /// # Errors
    /// `FORBIDDEN` when the caller may not, `INVALID_REQUEST` when the request isn't one, else the tool's own problem.
    pub fn call(
        &self,
        call: Call,
        request: Bytes,
        events: Option<mpsc::Sender<ErasedEvent>>,
    ) -> BoxFuture<'static, Result<Json, Problem>> {
        // Here again, so that no surface can forget it.
        match self.allow(&call) {
            Ok(()) => (self.call)(call, request, events),
            Err(problem) => Box::pin(std::future::ready(Err(problem))),
        }
    }
}

/// Every tool, in the order of [`for_each_tool!`].
#[must_use]
pub fn entries() -> &'static [Entry] {
    macro_rules! table {
        ($($tool:ident),*) => { &[$(of::<corehold_types::tools::$tool>()),*] };
    }
    static ENTRIES: &[Entry] = for_each_tool!(table);
    ENTRIES
}

/// The tool of this name.
#[must_use]
pub fn entry(name: &str) -> Option<&'static Entry> {
    entries().iter().find(|entry| entry.name == name)
}

const fn of<T: Handler>() -> Entry {
    Entry {
        name: T::NAME,
        summary: T::SUMMARY,
        scope: T::SCOPE,
        changes: T::CHANGES,
        events: T::EVENTS,
        call: call::<T>,
    }
}

fn call<T: Handler>(
    call: Call,
    request: Bytes,
    events: Option<mpsc::Sender<ErasedEvent>>,
) -> BoxFuture<'static, Result<Json, Problem>> {
    Box::pin(async move {
        let share = call.share.clone();
        let text = request;
        let request: T::Request = body::parse(&text).inspect_err(|problem| super::refused(&call, T::NAME, problem))?;
        drop(text);
        let response = match events {
            None => super::run::<T>(call, request, Events::none()).await?,
            Some(out) => {
                let (sender, receiver) = mpsc::channel(T::EVENTS);
                // Dropping the forwarder's receiver tells the handler that its caller is gone.
                let (response, ()) =
                    tokio::join!(super::run::<T>(call, request, Events::into_channel(sender)), forward(receiver, out));
                response?
            }
        };
        Json::of::<T>(response, &share).await
    })
}

async fn forward<E: Event>(mut receiver: mpsc::Receiver<E>, out: mpsc::Sender<ErasedEvent>) {
    while let Some(event) = receiver.recv().await {
        let (kind, offset_after) = (event.kind(), event.offset_after());
        let (json, bytes) = match event.into_bytes() {
            Ok(bytes) => (Vec::new(), Some(bytes)),
            Err(event) => match serde_json::to_vec(&event) {
                Ok(json) => (json, None),
                Err(_) => return,
            },
        };
        let is_large = json.len() > SMALL;
        let erased = ErasedEvent { kind, offset_after, json, bytes };
        if out.send(erased).await.is_err() {
            return;
        }
        // Not several of them wait.
        if is_large && out.reserve_many(out.max_capacity()).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use corehold_types::{Code, tools::InfoResponse};

    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn a_tool_is_found_by_name_and_called_with_json() {
        let agent = testing::agent();
        let info = entry("info").unwrap();
        let answer = info.call(testing::call(&agent), Bytes::from_static(b"{}"), None).await.unwrap();
        let answer: InfoResponse = serde_json::from_slice(&answer.into_contiguous()).unwrap();
        assert_eq!(answer.tools.len(), entries().len());
        assert!(entry("telepathy").is_none());
    }

    #[tokio::test]
    async fn a_caller_without_the_scope_is_refused_and_that_is_recorded() {
        use corehold_types::tools::{AuditOutcome, AuditReadRequest};

        let agent = testing::agent();
        let mut call = testing::call(&agent);
        let mut reader = crate::access::Caller::with_every_scope("reader");
        reader.scopes = [Scope::Read].into_iter().collect();
        call.caller = std::sync::Arc::new(reader);
        let remove = entry("remove").unwrap();
        let problem = remove.call(call, Bytes::from_static(br#"{"path":"a"}"#), None).await.unwrap_err();
        assert_eq!(problem.code, Code::Forbidden);
        let records =
            agent.audit.page(&crate::access::Caller::with_every_scope("x"), &AuditReadRequest::default(), 0, 9).records;
        assert_eq!((records[0].outcome, records[0].code), (AuditOutcome::Refused, Some(Code::Forbidden)));
        assert_eq!((records[0].subject.as_deref(), records.len()), (Some("reader"), 1));
    }

    #[tokio::test]
    async fn a_request_that_is_none_is_refused_before_the_handler() {
        let agent = testing::agent();
        let problem = entry("read")
            .unwrap()
            .call(testing::call(&agent), Bytes::from_static(br#"{"nonsense":1}"#), None)
            .await
            .unwrap_err();
        assert_eq!(problem.code, Code::InvalidRequest);
    }
}
