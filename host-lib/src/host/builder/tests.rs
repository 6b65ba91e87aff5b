//! What a host is configured with, and what its home folder holds.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::{
    CreateWorkspace, Creation, Workspace,
    testing::{AgentScript, EngineScript, FakeEngine},
};

fn builder() -> HostBuilder {
    Host::builder().runtime(Arc::new(FakeEngine::new(EngineScript::default(), AgentScript::default())))
}

#[tokio::test]
async fn the_home_folder_is_made_and_is_nobody_elses() {
    let parent = tempfile::tempdir().unwrap();
    let home = parent.path().join("a/b");
    let host = builder().home(&home).build().await.unwrap();
    assert_eq!(fs::metadata(host.home()).unwrap().permissions().mode() & 0o777, 0o700);
    let error = builder().build_with(Config::default()).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("COREHOLD_HOME"));
    fs::write(parent.path().join("file"), "").unwrap();
    let error = builder().home(parent.path().join("file/home")).build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[tokio::test]
async fn what_is_told_wins_over_the_environment() {
    let home = tempfile::tempdir().unwrap();
    let config = Config {
        image: Some("from-env".into()),
        templates: vec!["/env".into()],
        pass_env: [("A".to_owned(), "env".to_owned()), ("B".to_owned(), "env".to_owned())].into(),
        ..Config::default()
    };
    let host = builder().home(home.path()).templates("/told").env("A", "told").build_with(config).await.unwrap();
    assert_eq!(host.image(), "from-env");
    assert_eq!(host.catalog().folders(), [Path::new("/told"), Path::new("/env")]);
    assert_eq!((host.inner.env["A"].as_str(), host.inner.env["B"].as_str()), ("told", "env"));
    assert_eq!(host.inner.resources.memory_bytes, Some(DEFAULT_MEMORY));
}

#[tokio::test]
async fn a_ca_bundle_that_is_none_is_refused_and_a_good_one_reaches_every_reader() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("ca.pem");
    for content in ["", "no certificate", "-----BEGIN CERTIFICATE-----\ncut off"] {
        fs::write(&file, content).unwrap();
        let error = builder().home(home.path()).ca_bundle(&file).build().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.hint_text().unwrap().contains("BEGIN CERTIFICATE"));
    }
    let error = builder().home(home.path()).ca_bundle("/nowhere.pem").build().await.unwrap_err();
    assert!(error.to_string().contains("/nowhere.pem"));

    fs::write(&file, "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n").unwrap();
    let engine = Arc::new(FakeEngine::new(EngineScript::default(), AgentScript::default()));
    let host = Host::builder().runtime(engine.clone()).home(home.path()).ca_bundle(&file).build().await.unwrap();
    let request = CreateWorkspace::empty().id("w").env("PIP_CERT", "/mine");
    host.create(request).await.unwrap();
    let spec = engine.spec("corehold-w");
    let path = spec.ca_bundle.unwrap().path;
    assert_eq!(
        (spec.env["NODE_EXTRA_CA_CERTS"].as_str(), spec.env["COREHOLD_CA_BUNDLE"].as_str()),
        (path.as_str(), path.as_str())
    );
    assert_eq!(spec.env["PIP_CERT"], "/mine", "who asks for another one gets it");
    assert!(!spec.env.contains_key("JAVA_TOOL_OPTIONS"), "nothing in it is one that Java could read");
    fs::write(&file, "-----BEGIN CERTIFICATE-----\nAQ==\n-----END CERTIFICATE-----\n").unwrap();
    let host = Host::builder().runtime(engine.clone()).home(home.path()).ca_bundle(&file).build().await.unwrap();
    host.create(CreateWorkspace::empty().id("java")).await.unwrap();
    let spec = engine.spec("corehold-java");
    let bundle = spec.ca_bundle.unwrap();
    assert_eq!(spec.env["JAVA_TOOL_OPTIONS"], format!("-Djavax.net.ssl.trustStore={path}.jks"));
    assert!(bundle.java.is_some() && bundle.java_path() == format!("{path}.jks"));
}

#[tokio::test]
async fn a_host_takes_no_label_or_variable_that_is_ours() {
    let home = tempfile::tempdir().unwrap();
    for builder in [builder().label("dev.corehold.kind", "x"), builder().env("COREHOLD_ROOT", "/")] {
        assert_eq!(builder.home(home.path()).build().await.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn what_nobody_limits_has_the_defaults_and_strangers_have_less() {
    let home = tempfile::tempdir().unwrap();
    let engine = Arc::new(FakeEngine::new(EngineScript::default(), AgentScript::default()));
    let made = async |builder: HostBuilder, id: &str| {
        let host = builder.runtime(engine.clone()).home(home.path()).reconciles(false).build().await.unwrap();
        host.create(CreateWorkspace::empty().id(id)).await.unwrap();
        let supervision = &host.inner.supervision;
        (engine.spec(&format!("corehold-{id}")), (supervision.idle.clone(), supervision.health.clone()))
    };
    let (spec, idle) = made(Host::builder(), "default").await;
    let resources = Resources { memory_bytes: Some(2 << 30), pids: Some(2_048), ..Resources::default() };
    assert_eq!((spec.resources, spec.network, idle), (resources, None, (IdlePolicy::default(), None)));
    assert!(!spec.env.contains_key("COREHOLD_LIMIT_COMMAND_MS"), "the agent's own");

    let (spec, idle) = made(Host::builder().for_strangers(), "stranger").await;
    let resources = Resources {
        memory_bytes: Some(536_870_912),
        cpu_millis: Some(500),
        pids: Some(100),
        disk_bytes: Some(1_073_741_824),
    };
    assert_eq!(spec.resources, resources);
    assert_eq!(spec.network.unwrap().egress, Egress::Internet);
    assert_eq!(spec.env["COREHOLD_LIMIT_COMMAND_MS"], "300000");
    let (hour, day) = (Duration::from_secs(3_600), Duration::from_secs(86_400));
    let idle_for_them = IdlePolicy::default().pause_after(hour).max_lifetime(day);
    assert_eq!(idle, (idle_for_them, Some(HealthPolicy::default())));
    // What is said afterwards holds.
    let less = Resources { memory_bytes: Some(64 << 20), ..Resources::default() };
    let (spec, _) = made(Host::builder().for_strangers().resources(less).network(Network::none()), "less").await;
    assert_eq!((spec.resources.memory_bytes, spec.network.unwrap().egress), (Some(64 << 20), Egress::None));
    for wrong in [Duration::ZERO, Duration::from_secs(u64::MAX)] {
        let error = builder().home(home.path()).command_time(wrong).build().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    let absurd = Resources { pids: Some(0), ..Resources::default() };
    assert_eq!(builder().home(home.path()).resources(absurd).build().await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn handles_go_wherever_a_backend_needs_them() {
    fn anywhere<T: Send + Sync + Clone + 'static>() {}
    fn moved<T: Send + 'static>() {}
    anywhere::<Host>();
    anywhere::<Workspace>();
    moved::<Creation>();
    moved::<crate::ToolStream<crate::tools::Command>>();
    moved::<crate::FileStream>();
    moved::<HostBuilder>();
}
