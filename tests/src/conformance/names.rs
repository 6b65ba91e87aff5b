//! Names: a container's, which an engine gives once, and the runtime's own.

use corehold_host::{ErrorKind, runtime::ContainerStatus};
use futures_util::{StreamExt as _, stream};

use super::{Subject, kind};

/// A name is given once, so that creating is a lock; and a removed name is free again.
pub async fn a_name_is_given_once(subject: &Subject) {
    let spec = subject.spec("name");
    let attempts = stream::iter(0..8).map(|_| subject.runtime.create(&spec)).buffer_unordered(8);
    let (made, refused): (Vec<_>, Vec<_>) = attempts.collect::<Vec<_>>().await.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 1);
    assert!(refused.into_iter().all(|result| kind(result) == ErrorKind::AlreadyExists));
    let id = made.into_iter().next().unwrap().unwrap();
    subject.runtime.remove(&id).await.unwrap();
    subject.runtime.create(&spec).await.expect("the name is free again");
}

/// A place gets another name while it runs, and keeps it; a name that another place has is refused.
pub async fn a_name_is_changed(subject: &Subject) {
    let (spec, other) = (subject.spec("before"), subject.spec("taken"));
    let id = subject.started(&spec).await;
    subject.runtime.create(&other).await.unwrap();
    assert_eq!(kind(subject.runtime.rename(&id, &other.name).await), ErrorKind::AlreadyExists);
    assert_eq!(kind(subject.runtime.rename(&id, "a/b").await), ErrorKind::Invalid);
    let after = subject.spec("after").name;
    for _ in 0..2 {
        subject.runtime.rename(&id, &after).await.expect("a name that it has already is no error");
    }
    let listed = subject.runtime.list(&subject.labels).await.unwrap();
    let renamed = listed.iter().find(|state| state.id == id).expect("its labels stay");
    assert_eq!((renamed.name.as_str(), renamed.status), (after.as_str(), ContainerStatus::Running));
    subject.runtime.create(&spec).await.expect("the name before is free again");
}

/// It is told from others, by a name that stays.
pub async fn has_an_identity(subject: &Subject) {
    let identity = subject.runtime.identity().await.unwrap();
    assert!(!identity.is_empty());
    assert_eq!(subject.runtime.identity().await.unwrap(), identity);
}
