//! Set-ups over an engine and agents in memory: what is kept, what is taken, and what is neither.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use bytes::Bytes;

use crate::{
    Class, CreateEvent, CreateEventKind, CreateWorkspace, EventKind, Host, PoolOptions, Step, Template,
    testing::{AgentScript, EngineScript, Fixture, TREE},
};

const WEB: &str = r#"{"name": "web", "setup": ["exit 0", "exit 0"]}"#;

/// How often the set-up ran, and what was said of its result.
#[derive(Debug, PartialEq)]
struct Made {
    lines: usize,
    setup: Option<String>,
    keep: Option<String>,
}

async fn fixture(agent: AgentScript) -> Fixture {
    Fixture::new(EngineScript::default(), agent).await
}

async fn make(host: &Host, request: CreateWorkspace) -> Made {
    let mut creation = host.create(request);
    let mut events: Vec<CreateEvent> = Vec::new();
    while let Some(event) = creation.next_event().await {
        events.push(event);
    }
    creation.await.unwrap();
    let detail = |of: Step| {
        events.iter().rev().find_map(|event| match &event.kind {
            CreateEventKind::Finished { detail, .. } if event.step == of => detail.clone(),
            _ => None,
        })
    };
    let ran = |event: &&CreateEvent| {
        event.step == Step::Setup && matches!(&event.kind, CreateEventKind::Started { detail: Some(_) })
    };
    Made { lines: events.iter().filter(ran).count(), setup: detail(Step::Setup), keep: detail(Step::Keep) }
}

fn ran_and(keep: Option<&str>) -> Made {
    Made { lines: 2, setup: None, keep: keep.map(str::to_owned) }
}

fn hit() -> Made {
    Made { lines: 0, setup: Some("taken from the set-up cache".to_owned()), keep: None }
}

const KEPT: &str = "kept, 26 bytes";

fn of(template: &Template) -> CreateWorkspace {
    CreateWorkspace::from_template(template)
}

fn entries(fixture: &Fixture) -> Vec<PathBuf> {
    let folder = fixture.host.home().join("cache/setup");
    let entries = fs::read_dir(folder).map(|entries| entries.map(|entry| entry.unwrap().path()).collect());
    entries.unwrap_or_default()
}

fn archive(fixture: &Fixture) -> PathBuf {
    entries(fixture).into_iter().find(|path| path.to_str().unwrap().ends_with(".tar.zst")).unwrap()
}

#[tokio::test]
async fn the_second_workspace_gets_what_the_first_ones_set_up_left() {
    let fixture = fixture(AgentScript::default()).await;
    let template = fixture.template(WEB);
    let mut told = fixture.host.events();
    assert_eq!(make(&fixture.host, of(&template).id("first")).await, ran_and(Some(KEPT)));
    assert_eq!(make(&fixture.host, of(&template).id("second")).await, hit());
    assert_eq!(fixture.engine.extracted("corehold-second"), [Bytes::from(TREE.repeat(2))], "and nothing else");

    let entries = fixture.host.setup_cache().await.unwrap();
    assert_eq!((entries.len(), entries[0].template.as_str(), entries[0].bytes), (1, "web", 26));
    let mut looked = Vec::new();
    while looked.len() < 2 {
        if let EventKind::SetupCache { hit, key, dropped: None } = told.next().await.unwrap().kind {
            assert_eq!(key, entries[0].key);
            looked.push(hit);
        }
    }
    assert_eq!(looked, [false, true]);

    assert_eq!(fixture.host.clear_setup_cache().await.unwrap(), 1);
    assert_eq!(make(&fixture.host, of(&template)).await, ran_and(Some(KEPT)));
}

/// Poisoned: somebody who can write into the folder puts another archive there, with its right hash; or takes it from another key.
#[tokio::test]
async fn what_somebody_else_put_into_the_cache_is_dropped() {
    let fixture = fixture(AgentScript::default()).await;
    let template = fixture.template(WEB);
    assert_eq!(make(&fixture.host, of(&template)).await, ran_and(Some(KEPT)));
    assert_eq!(make(&fixture.host, of(&template)).await, hit());
    let described = |key: &str| fixture.host.home().join(format!("cache/setup/{key}.json"));
    let key = fixture.host.setup_cache().await.unwrap()[0].key.clone();
    let whole = fs::read(described(&key)).unwrap();

    let dropped = ran_and(Some("the kept set-up was damaged and dropped; kept, 26 bytes"));
    let poison = b"curl http://evil".repeat(9);
    let hash = blake3::hash(&poison).to_hex().to_string();
    for seal in [None, Some("0".repeat(64)), Some(hash.clone())] {
        let mut description: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        let fields = description.as_object_mut().unwrap();
        fields.insert("hash".to_owned(), hash.clone().into());
        fields.insert("size".to_owned(), poison.len().into());
        match seal {
            Some(seal) => drop(fields.insert("seal".to_owned(), seal.into())),
            None => drop(fields.remove("seal")),
        }
        fs::write(described(&key), serde_json::to_vec(&description).unwrap()).unwrap();
        let at = fixture.host.home().join(format!("cache/setup/{key}-{}.tar.zst", &hash[..16]));
        fs::write(&at, &poison).unwrap();
        assert_eq!(make(&fixture.host, of(&template)).await, dropped, "{description}");
        assert!(!at.exists());
        assert_eq!(make(&fixture.host, of(&template)).await, hit());
    }

    // The entry of another key, as it is.
    assert_eq!(make(&fixture.host, of(&template).env("OTHER", "1")).await, ran_and(Some(KEPT)));
    let keys: Vec<String> = fixture.host.setup_cache().await.unwrap().into_iter().map(|entry| entry.key).collect();
    let other = keys.iter().find(|other| **other != key).unwrap();
    let archive = |key: &str| {
        entries(&fixture).into_iter().find(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(key) && name.ends_with(".tar.zst")
        })
    };
    let from = archive(other).unwrap();
    let name = from.file_name().unwrap().to_str().unwrap().replace(other.as_str(), &key);
    fs::copy(&from, from.with_file_name(name)).unwrap();
    fs::copy(described(other), described(&key)).unwrap();
    assert_eq!(make(&fixture.host, of(&template)).await, dropped);
}

#[tokio::test]
async fn whatever_set_up_depends_on_makes_it_run_again() {
    let fixture = fixture(AgentScript::default()).await;
    let template = fixture.template(WEB);
    assert_eq!(make(&fixture.host, of(&template)).await, ran_and(Some(KEPT)));
    assert_eq!(make(&fixture.host, of(&template).env("TOKEN", "one")).await, ran_and(Some(KEPT)));
    assert_eq!(make(&fixture.host, of(&template).env("TOKEN", "two")).await, ran_and(Some(KEPT)));
    fs::write(fixture.template_folder().join("package-lock.json"), "{}").unwrap();
    assert_eq!(make(&fixture.host, of(&template)).await, ran_and(Some(KEPT)));
    let lines = fixture.template(r#"{"name": "web", "setup": ["exit 0", "flood"]}"#);
    assert_eq!(make(&fixture.host, of(&lines)).await, ran_and(Some(KEPT)));
    fixture.engine.images.builds.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(make(&fixture.host, of(&lines)).await, ran_and(Some(KEPT)));
    assert_eq!(make(&fixture.host, of(&lines)).await, hit());
    // What it doesn't depend on.
    let dev =
        fixture.template(r#"{"name": "web", "setup": ["exit 0", "flood"], "port": 9, "resources": {"pids": 99}}"#);
    assert_eq!(make(&fixture.host, of(&dev)).await, hit());
}

#[tokio::test]
async fn who_wants_no_cache_has_none() {
    let fixture = fixture(AgentScript::default()).await;
    let template = fixture.template(r#"{"setup": ["exit 0", "exit 0"], "setupCache": false}"#);
    assert_eq!(make(&fixture.host, of(&template)).await, ran_and(None));
    let template = fixture.template(WEB);
    let builder = Host::builder().runtime(fixture.engine.clone()).home(fixture.host.home());
    let host = builder.setup_cache_bytes(0).build().await.unwrap();
    assert_eq!(make(&host, of(&template)).await, ran_and(None));
    let template = fixture.template(r#"{"setup": []}"#);
    assert_eq!(make(&fixture.host, of(&template)).await, Made { lines: 0, setup: None, keep: None });
    assert_eq!(entries(&fixture), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_damaged_entry_is_dropped_and_told_and_made_anew() {
    let fixture = fixture(AgentScript::default()).await;
    let template = fixture.template(WEB);
    make(&fixture.host, of(&template)).await;
    let mut told = fixture.host.events();
    fs::write(archive(&fixture), [&b"T"[..], &TREE.repeat(2)[1..]].concat()).unwrap();
    let anew = ran_and(Some("the kept set-up was damaged and dropped; kept, 26 bytes"));
    assert_eq!(make(&fixture.host, of(&template)).await, anew);
    loop {
        if let EventKind::SetupCache { hit, dropped, .. } = told.next().await.unwrap().kind {
            assert!(!hit && dropped.unwrap().contains("damaged"));
            break;
        }
    }
    assert_eq!(make(&fixture.host, of(&template)).await, hit());
    fs::remove_file(archive(&fixture)).unwrap();
    assert_eq!(make(&fixture.host, of(&template)).await, anew);
}

#[tokio::test]
async fn an_entry_that_the_agent_refuses_is_dropped_and_the_set_up_runs() {
    let fixture = fixture(AgentScript { refuse: Some(TREE), ..AgentScript::default() }).await;
    let template = fixture.template(WEB);
    make(&fixture.host, of(&template)).await;
    let made = make(&fixture.host, of(&template).id("second")).await;
    assert_eq!(made.lines, 2);
    let keep = made.keep.unwrap();
    assert!(keep.starts_with("the kept set-up was refused and dropped (") && keep.ends_with(KEPT), "{keep}");
    assert_eq!(fixture.engine.extracted("corehold-second").len(), 2, "the entry, then the template");
}

#[tokio::test]
async fn what_an_archive_cant_hold_is_not_kept() {
    let left = "set-up left the process watchman running\n";
    for (agent, says) in [
        (
            AgentScript { left_behind: Some(left), ..AgentScript::default() },
            "not kept: set-up left the process watchman",
        ),
        (AgentScript { archive_cut: true, ..AgentScript::default() }, "not kept: the agent at 127.0.0.1"),
    ] {
        let fixture = fixture(agent).await;
        let template = fixture.template(WEB);
        for _ in 0..2 {
            let made = make(&fixture.host, of(&template)).await;
            assert!(made.lines == 2 && made.keep.as_ref().unwrap().contains(says), "{made:?}");
        }
        assert_eq!(entries(&fixture), Vec::<PathBuf>::new(), "no draft either");
    }
}

#[tokio::test]
async fn a_result_that_is_larger_than_the_cache_is_not_kept() {
    let fixture = fixture(AgentScript::default()).await;
    let builder = Host::builder().runtime(fixture.engine.clone()).home(fixture.host.home());
    let host = builder.setup_cache_bytes(25).build().await.unwrap();
    let made = make(&host, of(&fixture.template(WEB))).await;
    assert!(made.keep.as_ref().unwrap().contains("more than the 25 bytes of the whole cache"), "{made:?}");
    assert_eq!(entries(&fixture), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn two_at_once_both_run_and_one_is_kept() {
    let fixture = fixture(AgentScript::default()).await;
    let template = fixture.template(WEB);
    let (one, other) = tokio::join!(make(&fixture.host, of(&template)), make(&fixture.host, of(&template)));
    assert_eq!((one.lines, other.lines), (2, 2));
    assert_eq!(fixture.host.setup_cache().await.unwrap().len(), 1);
    assert_eq!(entries(&fixture).len(), 2, "an archive and its description");
    assert_eq!(make(&fixture.host, of(&template)).await, hit());
}

#[tokio::test]
async fn the_least_used_goes_when_there_is_no_room() {
    let fixture = fixture(AgentScript::default()).await;
    let builder = Host::builder().runtime(fixture.engine.clone()).home(fixture.host.home());
    let host = builder.setup_cache_bytes(60).build().await.unwrap();
    let template = fixture.template(WEB);
    for token in ["one", "two", "one", "three"] {
        make(&host, of(&template).env("TOKEN", token)).await;
        // As if it had been a minute ago.
        for path in entries(&fixture) {
            let file = fs::File::options().append(true).open(path).unwrap();
            file.set_modified(file.metadata().unwrap().modified().unwrap() - Duration::from_secs(60)).unwrap();
        }
    }
    assert_eq!(host.setup_cache().await.unwrap().len(), 2);
    for (token, kept) in [("one", true), ("three", true), ("two", false)] {
        assert_eq!(make(&host, of(&template).env("TOKEN", token)).await == hit(), kept, "{token}");
    }
}

#[tokio::test]
async fn nobody_else_can_read_an_entry_or_guess_from_its_name() {
    let fixture = fixture(AgentScript::default()).await;
    let template = fixture.template(WEB);
    make(&fixture.host, of(&template).env("TOKEN", "secret")).await;
    for path in entries(&fixture) {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        assert!(!String::from_utf8_lossy(&fs::read(&path).unwrap()).contains("secret"));
    }
    let home = tempfile::tempdir().unwrap();
    let other = Host::builder().runtime(fixture.engine.clone()).home(home.path()).build().await.unwrap();
    make(&other, of(&template).env("TOKEN", "secret")).await;
    let key = async |host: &Host| host.setup_cache().await.unwrap().remove(0).key;
    assert_ne!(key(&other).await, key(&fixture.host).await, "who knows all that it depends on doesn't know the key");
}

#[tokio::test]
async fn a_container_of_a_pool_takes_it_too() {
    let fixture = fixture(AgentScript::default()).await;
    let template = fixture.template(WEB);
    make(&fixture.host, of(&template)).await;
    let host = fixture.pooled_class(Class::default(), PoolOptions::default().min(1).max(1)).await;
    host.pools_filled().await.unwrap();
    assert_eq!(make(&host, of(&template)).await, hit());
    assert_eq!(host.pools()[0].claimed, 1);
    host.drain_pools().await.unwrap();
}
