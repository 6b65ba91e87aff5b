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
        let labels = labels.clone();
        self.connection
            .client
            .events(Some(options))
            .map(|event| event.map_err(|error| translate("following events", error)))
            .chain(stream::iter([Err(hung_up("following events"))]))
            .filter_map(move |event| {
                let event = event.map(|event| container_event(event, &labels)).transpose();
                async { event }
            })
            .boxed()
    }
}

/// The event, if its container carries the labels. Podman tells of those that carry any of them.
fn container_event(event: EventMessage, labels: &BTreeMap<String, String>) -> Option<ContainerEvent> {
    let actor = event.actor?;
    let mut attributes = actor.attributes.unwrap_or_default();
    if labels.iter().any(|(name, value)| attributes.get(name) != Some(value)) {
        return None;
    }
    // Podman's word is `containerExitCode`, of which it has one before the end too.
    let exit_code = attributes.remove("exitCode").or_else(|| attributes.remove("containerExitCode"));
    let mut action = event.action?;
    if action == "remove" {
        // Podman's word.
        "destroy".clone_into(&mut action);
    }
    Some(ContainerEvent {
        id: ContainerId(actor.id?),
        name: attributes.remove("name").unwrap_or_default(),
        exit_code: exit_code.filter(|_| action == "die").and_then(|code| code.parse().ok()),
        action,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str, attributes: serde_json::Value) -> EventMessage {
        let actor = serde_json::json!({"ID": "ab", "Attributes": attributes});
        serde_json::from_value(serde_json::json!({"Type": "container", "Action": action, "Actor": actor})).unwrap()
    }

    #[test]
    fn podmans_events_are_told_in_dockers_words() {
        // As 4.3 writes them: with an exit code before there is one, and its own word for the removal.
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let of = |action, code: &str| {
            let attributes = serde_json::json!({"name": "corehold-w", "a": "1", "containerExitCode": code});
            container_event(event(action, attributes), &labels).unwrap()
        };
        assert_eq!((of("create", "0").exit_code, of("die", "137").exit_code), (None, Some(137)));
        assert_eq!((of("remove", "0").action.as_str(), of("remove", "0").name.as_str()), ("destroy", "corehold-w"));
    }

    #[test]
    fn events_of_containers_with_some_of_the_labels_only_are_not_told() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        let told = |attributes| container_event(event("start", attributes), &labels).is_some();
        assert!(told(serde_json::json!({"a": "1", "b": "2", "c": "3"})));
        assert!(!told(serde_json::json!({"a": "1"})));
        assert!(!told(serde_json::json!({"a": "1", "b": "3"})));
    }
}
