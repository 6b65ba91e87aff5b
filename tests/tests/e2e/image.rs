//! The core image: built, found again, measured, and what people and tools find in it.

use std::{path::Path, sync::Mutex, time::Duration};

use bytes::Bytes;
use corehold_e2e::{
    engine::Engine,
    registry::{Mood, Registry},
    stand_in,
};
use corehold_host::{
    ErrorKind,
    image::{self, Base, ImageBuild, ImageEvent, ImageEventKind, ImageStep},
    runtime::{CaBundle, ContainerSpec, Runtime as _, docker::Docker},
    types::env_vars,
};

fn silent(_: ImageEvent) {}

fn core_image(engine: &Engine) -> ImageBuild {
    ImageBuild { tag: engine.core_image(), ..ImageBuild::new(stand_in::binary()) }
}

/// One test, since the build that all of it is about takes half a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_core_image() {
    let engine = Engine::start().await;
    let build = core_image(&engine);
    let events = Mutex::new(Vec::new());
    let record = |event: ImageEvent| events.lock().unwrap().push(event);
    let built = image::build(&engine.docker, &build, &record).await.unwrap();
    assert!(!built.cached);
    let events = events.into_inner().unwrap();
    let finished = events.iter().filter(|event| matches!(event.kind, ImageEventKind::Finished { .. }));
    assert!(finished.count() > 10, "each step says that it is done: {events:?}");

    an_unchanged_source_never_rebuilds(&engine, &build, &built).await;
    what_people_and_tools_find_in_it(&engine).await;
    packages_install_with_the_hosts_ca_bundle(&engine).await;
    it_is_within_its_size(&engine).await;
}

async fn an_unchanged_source_never_rebuilds(engine: &Engine, build: &ImageBuild, built: &image::ImageInfo) {
    let again = image::build(&engine.docker, build, &silent).await.unwrap();
    assert!(again.cached && again.id == built.id && again.key == built.key, "{again:?}");
    assert!(again.duration < Duration::from_secs(1), "{:?}", again.duration);

    // A build that was killed before it named its image is found by its content.
    engine.docker.remove_image(&build.tag).await.unwrap();
    assert!(image::build(&engine.docker, build, &silent).await.unwrap().cached);
    let by_key = build.tag.replace("latest", &built.key[..12]);
    assert_eq!(engine.docker.image(&by_key).await.unwrap().unwrap().id, built.id);
}

async fn what_people_and_tools_find_in_it(engine: &Engine) {
    let mut subject = engine.subject();
    subject.image = engine.core_image();
    let id = subject.started(&subject.spec("core")).await;
    for (line, expected) in [
        ("id -u; id -un; pwd; echo $HOME", "1000\nworkspace\n/app\n/home/workspace\ncode 0"),
        (
            "stat -c '%n %u:%g %a' /app /tools /tools/inbox /tools/corehold-agent",
            "/app 1000:1000 755\n/tools 0:0 755\n/tools/inbox 1000:1000 700\n/tools/corehold-agent 0:0 755\ncode 0",
        ),
        ("ls -A /app", "code 0"),
        ("/tools/corehold-agent health", "code 0"),
        ("node --print 'process.versions.node.split(`.`)[0]'", "24\ncode 0"),
        ("touch /tools/x /tools/corehold-agent 2>/dev/null", "code 1"),
        (
            "for tool in npm npx corepack pnpm git curl less nano ssh rg jq ps file patch zip unzip xz bzip2; do \
             command -v $tool >/dev/null || echo $tool; done",
            "code 0",
        ),
        (
            "git init -q . && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x && git log --format=%s && git branch --show-current",
            "x\nmain\ncode 0",
        ),
        ("npm --version >/dev/null && npm config get prefix", "/home/workspace/.local\ncode 0"),
    ] {
        assert_eq!(subject.ask_text(&id, &format!("run {line}")).await, expected, "{line}");
    }
    subject.runtime.remove(&id).await.unwrap();
}

async fn packages_install_with_the_hosts_ca_bundle(engine: &Engine) {
    let bundle = std::env::var("SSL_CERT_FILE").unwrap_or_else(|_| "/etc/ssl/certs/ca-certificates.crt".to_owned());
    let path = "/tools/ca/bundle.pem";
    let mut subject = engine.subject();
    subject.image = engine.core_image();
    let spec = ContainerSpec {
        ca_bundle: Some(CaBundle {
            pem: Bytes::from(std::fs::read(bundle).unwrap()),
            path: path.to_owned(),
            java: None,
        }),
        env: env_vars::CA_BUNDLE_READERS.iter().map(|name| ((*name).to_owned(), path.to_owned())).collect(),
        ..subject.spec("install")
    };
    let id = subject.started(&spec).await;
    let installed = subject
        .ask_text(&id, "run npm install --no-audit ms 2>&1 | tail -20; node --print 'require(`ms`)(`2 days`)'")
        .await;
    assert!(installed.ends_with("172800000\ncode 0"), "{installed}");
}

async fn it_is_within_its_size(engine: &Engine) {
    let report = image::report(&engine.docker, &engine.core_image()).await.unwrap();
    println!("{} MB on disk", report.size_bytes / 1_000_000);
    for layer in &report.layers {
        println!("layer: own {}, {} B, {} B compressed", layer.own, layer.size_bytes, layer.compressed_bytes);
        for portion in &layer.largest {
            println!("    {:>10} B {:>10} B {}", portion.compressed_bytes, portion.size_bytes, portion.path);
        }
    }
    assert!(report.compressed_bytes < 200_000_000, "{}", report.compressed_bytes);
    assert!(report.own_compressed_bytes <= 25_000_000, "{}", report.own_compressed_bytes);
    assert!(report.layers.iter().any(|layer| !layer.own) && report.layers.iter().any(|layer| layer.own));
    assert_eq!(report.layers.iter().map(|layer| layer.compressed_bytes).sum::<u64>(), report.compressed_bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_not_there_or_not_static_builds_nothing() {
    let engine = Engine::start().await;
    for (agent, kind) in [
        (Path::new("/no/agent").to_owned(), ErrorKind::NotFound),
        (std::env::current_exe().unwrap(), ErrorKind::Invalid),
    ] {
        let build = ImageBuild { agent, ..core_image(&engine) };
        let error = image::build(&engine.docker, &build, &silent).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.hint_text().unwrap().contains("cargo xtask agent"));
    }
    assert!(engine.docker.image(&engine.core_image()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_that_cannot_be_had_says_why() {
    let engine = Engine::start().await;
    // Nobody listens on port 1.
    for (base, kind, says) in [
        (Base::Pull("127.0.0.1:1/node:24".to_owned()), ErrorKind::Engine, "pulling 127.0.0.1:1/node:24"),
        (Base::Image("corehold-test/none:1".to_owned()), ErrorKind::NotFound, "corehold-test/none:1"),
        (Base::Image("../x".to_owned()), ErrorKind::Invalid, "../x"),
    ] {
        let build = ImageBuild { base, ..core_image(&engine) };
        let error = image::build(&engine.docker, &build, &silent).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_fails_is_named_and_leaves_no_image() {
    let engine = Engine::start().await;
    // The stand-in's image has no shell.
    let build = ImageBuild { base: Base::Image(engine.image.clone()), ..core_image(&engine) };
    let error = image::build(&engine.docker, &build, &silent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CommandFailed);
    assert!(error.to_string().starts_with("building the image: step 3/"), "{error}");
    assert!(engine.docker.image(&engine.core_image()).await.unwrap().is_none());
    assert!(engine.docker.list(&engine.labels()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_is_pulled_with_progress() {
    let engine = Engine::start().await;
    let registry = Registry::start(Mood::Good, &engine.core_image()).await;
    let reference = registry.reference("image:1");
    // It has no shell, so the build goes no further than its base.
    let build = ImageBuild { base: Base::Pull(reference.clone()), ..core_image(&engine) };
    let events = Mutex::new(Vec::new());
    let record = |event: ImageEvent| {
        if matches!(event.kind, ImageEventKind::Received { received_bytes: 1.., .. }) {
            registry.release();
        }
        events.lock().unwrap().push(event);
    };
    let error = image::build(&engine.docker, &build, &record).await.unwrap_err();
    let pulled = engine.docker.image(&reference).await.unwrap();
    engine.docker.remove_image(&reference).await.unwrap();

    assert_eq!(error.kind(), ErrorKind::CommandFailed, "{error}");
    assert_eq!(pulled.unwrap().tags, std::slice::from_ref(&reference));
    let of_the_pull: Vec<_> = events
        .into_inner()
        .unwrap()
        .into_iter()
        .filter(|event| event.step == ImageStep::Pull { reference: reference.clone() })
        .map(|event| event.kind)
        .collect();
    assert!(matches!(of_the_pull.first(), Some(ImageEventKind::Started)), "{of_the_pull:?}");
    assert!(matches!(of_the_pull.last(), Some(ImageEventKind::Finished { cached: false, .. })), "{of_the_pull:?}");
    assert!(
        of_the_pull.iter().any(|kind| matches!(kind, ImageEventKind::Received { received_bytes, total_bytes }
            if *received_bytes > 0 && *total_bytes == Registry::layer_bytes())),
        "{of_the_pull:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_without_the_base_or_without_an_answer_is_told_apart() {
    let engine = Engine::start().await;
    let registry = Registry::start(Mood::Good, &engine.core_image()).await;
    let error = engine.docker.pull_image(&registry.reference("none:1"), |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");

    let silent = Registry::start(Mood::Hangs, &engine.core_image()).await;
    let mut options = engine.options();
    options.quiet_timeout = Duration::from_secs(1);
    let docker = Docker::connect_with(options).await.unwrap();
    let error = docker.pull_image(&silent.reference("image:1"), |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}
