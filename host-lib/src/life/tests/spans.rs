//! What a host does is told to `tracing` as spans: whose work a line of the log belongs to.

use std::fmt::Debug;

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use super::*;
use crate::{Class, PoolOptions};

/// The spans of this library, as `name field=value …`.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<String>>>);

impl Visit for Collected {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut spans = self.0.lock().unwrap();
        let span = spans.last_mut().unwrap();
        *span += &format!(" {field}={value:?}");
    }
}

impl Subscriber for Collected {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target().starts_with("corehold_host")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.0.lock().unwrap().push(span.metadata().name().to_owned());
        span.record(&mut self.clone());
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn each_kind_of_work_has_its_span() {
    let collected = Collected::default();
    // Where there is but one, what another test's thread comes to first is off for this one too: tracing asks that thread's own.
    let _second = tracing::Dispatch::new(collected.clone());
    let _collecting = tracing::subscriber::set_default(collected.clone());
    let fixture = fixture().await;
    let host = fixture.pooled_class(Class::default(), PoolOptions::default().min(1).max(1)).await;
    host.pools_filled().await.unwrap();
    let spans = || std::mem::take(&mut *collected.0.lock().unwrap());
    let has = |spans: &[String], wanted: &str| {
        assert!(spans.iter().any(|span| span.contains(wanted)), "{wanted}: {spans:#?}")
    };
    spans();

    let workspace = host.create(CreateWorkspace::empty().id("w")).await.unwrap();
    let made = spans();
    has(&made, "creation workspace=w");
    has(&made, "claim workspace=w container=c");
    workspace.sleep(GRACE).await.unwrap();
    let slept = spans();
    has(&slept, "transition workspace=w from=ready to=archiving cause=Asked");
    has(&slept, "save workspace=w to_sleep=true");
    workspace.wake().await.unwrap();
    let woke = spans();
    has(&woke, "transition workspace=w from=asleep to=waking cause=Asked");
    has(&woke, "load workspace=w archive=w/");
    host.reconcile().await.unwrap();
    has(&spans(), "reconcile");
    workspace.remove().await.unwrap();
    has(&spans(), "removal workspace=w from=ready");
}
