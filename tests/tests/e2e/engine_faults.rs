//! Every kind of call to the engine fails in every way, for everything that is done with it: what comes of it is told in time, with
//! the call and the next step, and nothing is orphaned or doubled.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use corehold_e2e::{
    corehold::{Corehold, POOL_MARK},
    proxy::{Fault, Proxy},
};
use corehold_host::{
    Class, CreateWorkspace, Error, ErrorKind, Host, PoolOptions,
    runtime::{
        Runtime as _,
        docker::{Docker, DockerAddress, DockerOptions},
    },
};

const SOCKET: &str = "/var/run/docker.sock";
/// What a call may take where the engine is late.
const LIMIT: Duration = Duration::from_secs(2);
/// What a workspace has to end by itself.
const GRACE: Duration = Duration::from_secs(1);
/// What a whole operation may take in which one kind of call fails: a few calls that wait for their limit, and the agent.
const IN_TIME: Duration = Duration::from_secs(60);

/// Of the four, those that tell an engine that says no from one that says nothing: a sleep takes a while.
const REFUSED_OR_LATE: [Fault; 2] = [Fault::Status(500), Fault::Late(Duration::from_secs(10))];
const FAULTS: [Fault; 4] = [Fault::Status(500), Fault::Cut, Fault::Garbage, Fault::Late(Duration::from_secs(10))];

/// A host behind the proxy. It has the usual limits, unless it is to meet an engine that is late: others may keep this one busy.
async fn host(corehold: &Corehold, proxy: &Proxy, fault: Option<Fault>, pool: Option<PoolOptions>) -> Host {
    let mut options = DockerOptions::default();
    options.address = DockerAddress::At(proxy.address());
    if let Some(Fault::Late(_)) = fault {
        (options.call_timeout, options.quiet_timeout, options.lock_timeout) = (LIMIT, LIMIT, LIMIT);
    }
    let docker = Docker::connect_with(options).await.unwrap();
    let mut builder = corehold.builder().label(POOL_MARK, mark(corehold)).runtime(Arc::new(docker));
    if let Some(options) = pool {
        builder = builder.pool(Class::default(), options);
    }
    builder.build().await.unwrap()
}

fn mark(corehold: &Corehold) -> String {
    corehold.scratch.path().display().to_string()
}

/// Names of all containers of this test, as the engine itself has them.
async fn containers(corehold: &Corehold) -> BTreeSet<String> {
    let marked = BTreeMap::from([(POOL_MARK.to_owned(), mark(corehold))]);
    corehold.docker.list(&marked).await.unwrap().into_iter().map(|state| state.name).collect()
}

/// What an error must say, whichever call failed.
fn judge(error: &Error, endpoint: &str, fault: Fault) {
    let kinds = [ErrorKind::EngineUnavailable, ErrorKind::Engine, ErrorKind::Timeout];
    assert!(kinds.contains(&error.kind()), "{endpoint} {fault:?}: {:?}: {error}", error.kind());
    let named = error.to_string();
    // `starting the container: the engine did not answer in time`
    assert!(
        named.split_once(": ").is_some_and(|(call, _)| call.contains(' ')),
        "{endpoint} {fault:?} names no call: {error}"
    );
    assert!(error.hint_text().is_some_and(|hint| !hint.is_empty()), "{endpoint} {fault:?}: no next step: {error}");
}

/// Undoes all that there is, through a host whose engine is well: it finds everything.
async fn clean(corehold: &Corehold, context: &str) {
    for info in corehold.host.list().await.unwrap() {
        corehold.host.workspace(info.id.as_str()).await.unwrap().remove().await.unwrap();
    }
    corehold.host.drain_pools().await.unwrap();
    assert_eq!(containers(corehold).await, BTreeSet::new(), "{context}: something is there that nobody finds");
}

/// The kinds of calls that an operation makes.
async fn calls(proxy: &Proxy, before: &BTreeSet<String>) -> Vec<String> {
    proxy.endpoints().difference(before).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_a_listing_and_a_removal() {
    let corehold = Corehold::start().await;
    let proxy = Proxy::transparent(Path::new(SOCKET)).await;
    let broken = host(&corehold, &proxy, None, None).await;
    let first = broken.create(CreateWorkspace::empty().id("faulty-first")).await.unwrap();
    broken.list().await.unwrap();
    first.remove().await.unwrap();
    let endpoints = calls(&proxy, &BTreeSet::new()).await;
    for needed in
        ["POST /containers/create", "POST /containers/{}/start", "GET /containers/json", "DELETE /containers/{}"]
    {
        assert!(endpoints.iter().any(|endpoint| endpoint == needed), "{needed} is not among {endpoints:?}");
    }
    let mut failed = BTreeMap::new();
    for endpoint in &endpoints {
        for fault in FAULTS {
            let context = format!("{endpoint} {fault:?}");
            // Another host: what the first one knows already it doesn't ask again.
            proxy.heal();
            let broken = host(&corehold, &proxy, Some(fault), None).await;
            proxy.fail(endpoint, fault);
            let began = Instant::now();
            let made = broken.create(CreateWorkspace::empty().id("faulty").agent_timeout(LIMIT * 2)).await;
            broken.settled().await;
            assert!(began.elapsed() < IN_TIME, "{context}: a creation took {:?}", began.elapsed());
            match &made {
                Ok(workspace) => {
                    assert_eq!(
                        containers(&corehold).await,
                        BTreeSet::from(["corehold-faulty".to_owned()]),
                        "{context}"
                    );
                    let listed = broken.list().await;
                    let removed = workspace.remove().await;
                    for error in [listed.err(), removed.err()].into_iter().flatten() {
                        judge(&error, endpoint, fault);
                        *failed.entry(endpoint.clone()).or_insert(0) += 1;
                    }
                    proxy.heal();
                    workspace.remove().await.unwrap_or_else(|error| panic!("{context}: {error}"));
                }
                Err(error) => {
                    judge(error, endpoint, fault);
                    *failed.entry(endpoint.clone()).or_insert(0) += 1;
                }
            }
            assert!(began.elapsed() < IN_TIME, "{context}: {:?}", began.elapsed());
            // A call that came to the engine late may be carried out after it was given up.
            clean(&corehold, &context).await;
            proxy.heal();
            let again = match fault {
                Fault::Late(_) => host(&corehold, &proxy, None, None).await,
                _ => broken,
            };
            let again = again.create(CreateWorkspace::empty().id("faulty")).await;
            again.unwrap_or_else(|error| panic!("{context}, then healed: {error}")).remove().await.unwrap();
        }
    }
    for needed in
        ["POST /containers/create", "POST /containers/{}/start", "GET /containers/json", "DELETE /containers/{}"]
    {
        assert_eq!(failed.get(needed), Some(&FAULTS.len()), "{failed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_filled_and_claimed_from() {
    let corehold = Corehold::start().await;
    let proxy = Proxy::transparent(Path::new(SOCKET)).await;
    let options = PoolOptions::default().min(1).max(1).wait(Duration::from_millis(200));
    let pooled = host(&corehold, &proxy, None, Some(options.clone())).await;
    pooled.pools_filled().await.unwrap();
    pooled.create(CreateWorkspace::empty().id("faulty-pool-first")).await.unwrap();
    pooled.pools_filled().await.unwrap();
    drop(pooled);
    clean(&corehold, "at first").await;
    let endpoints = calls(&proxy, &BTreeSet::new()).await;
    assert!(endpoints.iter().any(|endpoint| endpoint == "POST /containers/{}/rename"), "{endpoints:?}");
    for endpoint in &endpoints {
        for fault in FAULTS {
            let context = format!("{endpoint} {fault:?}");
            proxy.heal();
            let pooled = host(&corehold, &proxy, Some(fault), Some(options.clone())).await;
            proxy.fail(endpoint, fault);
            let began = Instant::now();
            // Filled nevertheless, or told why not.
            let filled = tokio::time::timeout(IN_TIME, pooled.pools_filled()).await;
            if let Err(error) = filled.unwrap_or_else(|_| panic!("{context}: nobody says why it isn't filled")) {
                assert!(error.to_string().contains("the pool can't be filled"), "{context}: {error}");
            }
            let made = pooled.create(CreateWorkspace::empty().id("faulty-pool").agent_timeout(LIMIT * 2)).await;
            assert!(began.elapsed() < IN_TIME * 2, "{context}: {:?}", began.elapsed());
            if let Err(error) = made {
                judge(&error, endpoint, fault);
            }
            proxy.heal();
            tokio::time::timeout(IN_TIME, async {
                while pooled.pools_filled().await.is_err() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            })
            .await
            .unwrap_or_else(|_| {
                panic!("{context}: it isn't filled after the engine is well again: {:?}", pooled.pools())
            });
            pooled.settled().await;
            let names = containers(&corehold).await;
            let waiting = names.iter().filter(|name| name.contains('.')).count();
            assert!(waiting <= 1 && names.len() <= 2, "{context}: {names:?}");
            drop(pooled);
            clean(&corehold, &context).await;
        }
    }
}

/// Neither is its file lost nor is it there twice, and the next call does what the failed one was to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_sleep_a_waking_and_all_that_is_asked_of_a_workspace() {
    let corehold = Corehold::start().await;
    let proxy = Proxy::transparent(Path::new(SOCKET)).await;
    let whole = host(&corehold, &proxy, None, None).await;
    let first = whole.create(CreateWorkspace::empty().id("faulty-sleeper-first")).await.unwrap();
    let created = proxy.endpoints();
    first.pause().await.unwrap();
    first.resume().await.unwrap();
    first.sleep(GRACE).await.unwrap();
    first.wake().await.unwrap();
    first.stats().await.unwrap();
    first.remove().await.unwrap();
    drop(whole);
    let endpoints = calls(&proxy, &BTreeSet::new()).await;
    for needed in ["POST /containers/{}/stop", "POST /containers/{}/pause", "GET /containers/{}/stats"] {
        assert!(endpoints.iter().any(|endpoint| endpoint == needed), "{needed} is not among {endpoints:?}");
    }
    assert!(created.len() < endpoints.len(), "they make calls of their own");
    for endpoint in &endpoints {
        for fault in REFUSED_OR_LATE {
            let context = context_of(endpoint, fault);
            proxy.heal();
            let broken = host(&corehold, &proxy, Some(fault), None).await;
            let workspace = broken.create(CreateWorkspace::empty().id("faulty-sleeper")).await.unwrap();
            workspace.write_file("kept", context.clone()).await.unwrap();
            for verb in ["pause", "sleep", "wake", "stats", "remove"] {
                let context = format!("{context}, {verb}");
                proxy.fail(endpoint, fault);
                let began = Instant::now();
                let done = match verb {
                    "pause" => workspace.pause().await,
                    "sleep" => workspace.sleep(GRACE).await,
                    "wake" => workspace.wake().await,
                    "stats" => workspace.stats().await.map(drop),
                    _ => workspace.remove().await,
                };
                assert!(began.elapsed() < IN_TIME, "{context}: {:?}", began.elapsed());
                if let Err(error) = done {
                    judge(&error, endpoint, fault);
                }
                proxy.heal();
                let again = match verb {
                    "pause" => workspace.resume().await,
                    "sleep" => workspace.sleep(GRACE).await,
                    "wake" => workspace.wake().await,
                    "stats" => workspace.stats().await.map(drop),
                    _ => workspace.remove().await,
                };
                again.unwrap_or_else(|error| panic!("{context}, then healed: {error}"));
                let there = match verb {
                    "sleep" | "remove" => BTreeSet::new(),
                    _ => BTreeSet::from(["corehold-faulty-sleeper".to_owned()]),
                };
                assert_eq!(containers(&corehold).await, there, "{context}");
                if !there.is_empty() {
                    assert_eq!(workspace.read_file("kept").await.unwrap(), context_of(endpoint, fault), "{context}");
                }
            }
            broken.settled().await;
            drop(broken);
            clean(&corehold, &context).await;
        }
    }
}

fn context_of(endpoint: &str, fault: Fault) -> String {
    format!("{endpoint} {fault:?}")
}
