//! What containers write, and what happens to them, as streams.

use std::{
    collections::{BTreeMap, HashMap},
    time::{SystemTime, UNIX_EPOCH},
};

use bollard::{
    container::LogOutput,
    models::EventMessage,
    query_parameters::{EventsOptions, LogsOptions},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::{
    Docker,
    containers::label_filters,
    errors::{hung_up, translate},
    specification::checked_name,
};
use crate::runtime::{BoxStream, ContainerEvent, ContainerId};

impl Docker {
    /// Both outputs in the order in which the engine kept them.
    pub(super) fn log_stream(&self, id: &ContainerId, follow: bool) -> BoxStream<Bytes> {
        let name = match checked_name(&id.0) {
            Ok(name) => name,
            Err(error) => return stream::iter([Err(error)]).boxed(),
        };
        let options =
            LogsOptions { follow, stdout: true, stderr: true, tail: "all".to_owned(), ..LogsOptions::default() };
        self.connection
            .client
            .logs(name, Some(options))
            .map(|output| output.map(LogOutput::into_bytes).map_err(|error| translate("reading the log", error)))
            .boxed()
    }

    /// Events from the moment of this call, not of the first poll: on a socket of this host the engine is told the time
    /// of the call and replays what happened since. Elsewhere clocks may differ, and it begins with the first poll.
    ///
    /// It has no end of its own, so its end is an error.
    pub(super) fn event_stream(&self, labels: &BTreeMap<String, String>) -> BoxStream<ContainerEvent> {
        let since = self.connection.is_local_socket().then(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
        });
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("label".to_owned(), label_filters(labels)),
        ]);
        let options = EventsOptions { since, until: None, filters: Some(filters) };
        self.connection
            .client
            .events(Some(options))
            .map(|event| event.map_err(|error| translate("following events", error)))
            .chain(stream::iter([Err(hung_up("following events"))]))
            .filter_map(|event| async { event.map(container_event).transpose() })
            .boxed()
    }
}

fn container_event(event: EventMessage) -> Option<ContainerEvent> {
    let actor = event.actor?;
    let mut attributes = actor.attributes.unwrap_or_default();
    Some(ContainerEvent {
        id: ContainerId(actor.id?),
        action: event.action?,
        name: attributes.remove("name").unwrap_or_default(),
        // Podman's word is `containerExitCode`.
        exit_code: attributes
            .remove("exitCode")
            .or_else(|| attributes.remove("containerExitCode"))
            .and_then(|code| code.parse().ok()),
    })
}
