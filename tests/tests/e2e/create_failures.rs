//! What goes wrong in a creation is told, and nothing is left behind.

use std::{path::Path, time::Duration};

use corehold_e2e::{
    corehold::Corehold,
    proxy::{Fault, Proxy},
};
use corehold_host::{
    CreateWorkspace, Error, ErrorKind, Step, Template,
    runtime::{
        Runtime as _,
        docker::{Docker, DockerAddress},
    },
};

async fn failure(corehold: &Corehold, folder: &Path) -> Error {
    let template = Template::load(folder).unwrap();
    let error = corehold.host.create(CreateWorkspace::from_template(&template)).await.expect_err("it fails");
    assert_eq!(corehold.host.list().await.unwrap(), [], "something was left behind after {error}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_up_command_that_fails_shows_the_end_of_its_output() {
    let corehold = Corehold::start().await;
    let folder = corehold.folder(
        "failing",
        &[("template.json", r#"{"setup": ["echo first; echo the reason >&2; exit 7"], "dev": "sleep 1000"}"#)],
    );
    let error = failure(&corehold, &folder).await;
    assert_eq!(error.kind(), ErrorKind::CommandFailed);
    assert!(error.step() == Some(Step::Setup) && error.to_string().contains('7'), "{error:?}");
    assert!(error.output().unwrap().contains("the reason"), "{:?}", error.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_up_command_that_hangs_is_ended() {
    let corehold = Corehold::start().await;
    let folder = corehold.folder(
        "hanging",
        &[(
            "template.json",
            r#"{"setup": ["echo waiting; sleep 100000"], "setupTimeoutSeconds": 1, "dev": "sleep 1"}"#,
        )],
    );
    let error = failure(&corehold, &folder).await;
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.output().unwrap().contains("waiting"), "{:?}", error.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_up_command_may_print_a_hundred_megabytes() {
    let corehold = Corehold::start().await;
    let folder = corehold.folder(
        "noisy",
        &[("template.json", r#"{"setup": ["yes 0123456789012345678901234567890123456789 | head -c 100000000; echo the end; exit 3"], "dev": "sleep 1"}"#)],
    );
    let error = failure(&corehold, &folder).await;
    assert!(error.output().unwrap().contains("the end"));
    assert!(error.output().unwrap().len() < 100_000, "the tail is a tail");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dev_server_that_never_listens_is_told_with_its_output() {
    let corehold = Corehold::start().await;
    let folder = corehold.folder(
        "deaf",
        &[("template.json", r#"{"dev": "echo starting; sleep 1000", "ready": {"timeoutSeconds": 1}}"#)],
    );
    let error = failure(&corehold, &folder).await;
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.step() == Some(Step::Ready) && error.hint_text().unwrap().contains("4321"), "{error:?}");
    assert!(error.output().unwrap().contains("starting"), "{:?}", error.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dev_server_that_finds_its_port_taken_is_told_at_once() {
    let corehold = Corehold::start().await;
    // The set-up leaves a listener behind that accepts and says nothing, so the port is taken and nothing answers.
    let listener = "require('net').createServer(() => {}).listen(4321, '0.0.0.0', () => console.log('listening'))";
    let server = "require('http').createServer((_, answer) => answer.end('hi')).listen(4321, '0.0.0.0')";
    let folder = corehold.folder(
        "taken",
        &[
            ("listener.js", listener),
            ("server.js", server),
            (
                "template.json",
                r#"{"setup": ["mkfifo up; setsid node listener.js > up & read line < up"], "dev": "node server.js"}"#,
            ),
        ],
    );
    let error = failure(&corehold, &folder).await;
    assert_eq!(error.kind(), ErrorKind::CommandFailed, "{error}");
    assert!(error.output().unwrap().contains("EADDRINUSE"), "{:?}", error.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_there_is_named_with_what_to_do() {
    let corehold = Corehold::start().await;
    // A name that no registry is asked for.
    let folder =
        corehold.folder("elsewhere", &[("template.json", r#"{"image": "workspace-no-such-image:1", "dev": "true"}"#)]);
    let error = failure(&corehold, &folder).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("workspace-no-such-image:1") && error.hint_text().is_some(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_half_way_is_told_as_such() {
    let corehold = Corehold::start().await;
    let template = corehold.host.catalog().find("node-api").unwrap();
    let address = corehold.docker.describe().await.unwrap().address;
    let socket = Path::new(address.strip_prefix("unix://").expect("the proxy stands before a unix socket"));
    // Cut off after ever more calls, until a creation gets through: every call of a creation has failed once by then.
    for calls in 1.. {
        assert!(calls < 100, "a creation makes far fewer calls");
        let engine = Proxy::start(socket, calls, Fault::Cut).await;
        let Ok(docker) = Docker::connect(DockerAddress::At(engine.address())).await else { continue };
        let host = corehold.builder().runtime(std::sync::Arc::new(docker)).build().await.unwrap();
        let request = CreateWorkspace::from_template(&template).agent_timeout(Duration::from_secs(10));
        match host.create(request).await {
            Ok(workspace) => {
                assert!(calls > 3, "a creation makes several calls");
                corehold.host.workspace(workspace.id().as_str()).await.unwrap().remove().await.unwrap();
                break;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::EngineUnavailable, "after {calls} calls: {error:?}"),
        }
        // What could not be removed through the dead engine is still seen, and goes.
        for left in corehold.host.list().await.unwrap() {
            corehold.host.workspace(left.id.as_str()).await.unwrap().remove().await.unwrap();
        }
    }
}
