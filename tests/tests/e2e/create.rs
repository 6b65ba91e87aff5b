//! A template becomes a workspace, through the host library.

use std::time::Duration;

use corehold_e2e::{
    corehold::Corehold,
    web::{address, get, reload_hot},
};
use corehold_host::{
    Class, CreateEvent, CreateEventKind, CreateWorkspace, ErrorKind, PoolOptions, Step, Template, Workspace,
    runtime::{ContainerId, Resources, Runtime as _},
    template,
};
use tokio::join;

async fn create(corehold: &Corehold, template: &Template) -> (Workspace, Vec<CreateEvent>) {
    let mut creation = corehold.host.create(CreateWorkspace::from_template(template).publish(template.port));
    let mut events = Vec::new();
    while let Some(event) = creation.next_event().await {
        events.push(event);
    }
    match creation.await {
        Ok(workspace) => (workspace, events),
        Err(error) => panic!("{error}\n{}\n{events:#?}", error.output().unwrap_or_default()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vite_react_is_served_and_reloads_hot() {
    let corehold = Corehold::start().await;
    let template = corehold.host.catalog().find("vite-react").unwrap();
    let (workspace, events) = create(&corehold, &template).await;

    for step in [Step::Pack, Step::Create, Step::Start, Step::Agent, Step::Ship, Step::Setup, Step::Dev, Step::Ready] {
        let finished =
            |event: &&CreateEvent| event.step == step && matches!(event.kind, CreateEventKind::Finished { .. });
        assert!(events.iter().any(|event| finished(&event)), "no end of step {step} in {events:#?}");
    }

    let url = workspace.preview_url().await.unwrap();
    assert_eq!(workspace.info().await.unwrap().published[&4321], address(&url), "it is published");
    reload_hot(&url, &workspace).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_do_not_collide() {
    let corehold = Corehold::start().await;
    let api = corehold.host.catalog().find("node-api").unwrap();
    let page = corehold.host.catalog().find("static-site").unwrap();
    let ((api, _), (page, _)) = join!(create(&corehold, &api), create(&corehold, &page));

    let (api_url, page_url) = (api.preview_url().await.unwrap(), page.preview_url().await.unwrap());
    assert_ne!(api_url, page_url);
    assert_eq!(get(&api_url, "/").await.0, 200);
    assert!(get(&page_url, "/").await.1.to_lowercase().contains("<!doctype html>"));

    // Neither sees the other's files, nor reaches its agent or its preview by its address.
    assert!(api.read_file("index.html").await.is_err());
    let script = "const [host] = process.argv.slice(1); for (const port of [3001, 4321]) { \
        const socket = require('net').connect({ host, port, timeout: 1500 }); \
        socket.on('connect', () => { console.log('reached', port); process.exit(1) }); \
        socket.on('timeout', () => socket.destroy()); socket.on('error', () => {}); }";
    let own = page.command("hostname -i").run().await.unwrap();
    assert!(own.success(), "{own:?}");
    let probe = api.command_argv(["node", "-e", script, own.stdout_text().trim()]).run().await.unwrap();
    assert!(probe.success(), "one workspace reached another: {probe:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_dropped_into_the_catalogue_is_there_at_once_and_packed_once() {
    let corehold = Corehold::start().await;
    let folder = corehold.folder("dropped", &[("hello.txt", "hello")]);
    std::fs::write(folder.join("template.json"), r#"{"name": "dropped"}"#).unwrap();
    let host = corehold.builder().templates(corehold.scratch.path()).build().await.unwrap();
    let template = host.catalog().find("dropped").unwrap();
    assert!(template::check(&folder).iter().all(|finding| finding.severity != template::Severity::Error));

    let first = host.create(CreateWorkspace::from_template(&template)).await.unwrap();
    let second = host.create(CreateWorkspace::from_template(&template)).await.unwrap();
    assert_eq!(&first.read_file("hello.txt").await.unwrap()[..], b"hello");
    first.write_file("hello.txt", "changed").await.unwrap();
    assert_eq!(&second.read_file("hello.txt").await.unwrap()[..], b"hello");
    first.remove().await.unwrap();
    second.remove().await.unwrap();
    assert!(host.list().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_on_the_same_home_finds_and_uses_a_workspace() {
    let corehold = Corehold::start().await;
    let made = corehold.host.create(CreateWorkspace::empty().id("shared")).await.unwrap();
    let other = corehold.builder().build().await.unwrap().workspace("shared").await.unwrap();
    assert_eq!(other.command("pwd").run().await.unwrap().stdout_text(), "/app\n");
    made.remove().await.unwrap();

    // A host with another key sees that it isn't its own, and the agent would not listen to it.
    let error = corehold.host.workspace("shared").await.unwrap_err();
    assert_eq!(error.kind(), corehold_host::ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_variables_of_any_text_arrive_as_they_were_given() {
    let corehold = Corehold::start().await;
    let odd = "=\n\r\n\"\\ 😀 \u{feff}\u{2028}\u{1b}[0m\u{7f}";
    let large = "é".repeat(60_000);
    let host = corehold.builder().pool(Class::default(), PoolOptions::default().min(1).max(1)).build().await.unwrap();
    host.pools_filled().await.unwrap();
    let request =
        || CreateWorkspace::empty().env("LARGE", &large).env("ODD", odd).env("NAME 😀\n", "odd").env("EMPTY", "");
    // One is made, since no claim brings that much; the other is claimed.
    let made = host.create(request().label("odd\0=\n😀", format!("{odd}\0")).label("large", &large)).await.unwrap();
    let claimed = CreateWorkspace::empty().env("ODD", odd).env("NAME 😀\n", "odd").env("EMPTY", "");
    let claimed = host.create(claimed).await.unwrap();
    assert_eq!(host.pools()[0].claimed, 1);
    for workspace in [&made, &claimed] {
        let print = workspace.command_argv(["node", "-p", "JSON.stringify(process.env)"]).max_output_bytes(1 << 20);
        let seen: serde_json::Value =
            serde_json::from_slice(print.run().await.unwrap().stdout_text().as_bytes()).unwrap();
        assert_eq!(
            (seen["ODD"].as_str(), seen["NAME 😀\n"].as_str(), seen["EMPTY"].as_str()),
            (Some(odd), Some("odd"), Some(""))
        );
    }
    let length = made.command("printf %s \"$LARGE\" | wc -c").run().await.unwrap();
    assert_eq!(length.stdout_text(), format!("{}\n", large.len()));
    let container = corehold_host::runtime::ContainerId(made.info().await.unwrap().container.expect("it has one"));
    let labels = corehold.docker.inspect(&container).await.unwrap().labels;
    assert_eq!(labels["odd\0=\n😀"], format!("{odd}\0"));
    assert_eq!(labels["large"], large);
    host.drain_pools().await.unwrap();
}

/// What the property test shows of the library, of the engine and the agent behind it: text arrives as it was given.
#[tokio::test(flavor = "multi_thread")]
async fn labels_and_variables_of_any_text_arrive_made_and_handed_over() {
    let corehold = Corehold::start().await;
    let texts =
        ["", "a=b c", "\"'$HOME`\\", "l\ni\r\nnes\n", "ä→😀\u{feff}\u{2028}", "\u{1b}[31m\u{7f}", &"x".repeat(60_000)];
    let pool = PoolOptions::default().min(1).max(1).wait(Duration::from_secs(30));
    let pooled = corehold.builder().pool(Class::default(), pool).build().await.unwrap();
    pooled.pools_filled().await.unwrap();
    for (host, labelled) in [(&corehold.host, true), (&pooled, false)] {
        let mut request = CreateWorkspace::empty();
        for (number, text) in texts.iter().enumerate() {
            request = request.env(format!("TEXT_{number}"), *text);
            if labelled {
                request = request.label(format!("text.{number} ä→=,\""), *text);
            }
        }
        let workspace = host.create(request).await.unwrap();
        for (number, text) in texts.iter().enumerate() {
            let inside = workspace.command(format!("printf %s \"$TEXT_{number}\"")).run().await.unwrap();
            assert_eq!(inside.stdout_text(), *text, "TEXT_{number}");
        }
        let container = ContainerId(workspace.info().await.unwrap().container.unwrap());
        let labels = corehold.docker.inspect(&container).await.unwrap().labels;
        let carried = (0..texts.len()).all(|number| {
            labels.get(&format!("text.{number} ä→=,\"")).map(String::as_str) == labelled.then_some(texts[number])
        });
        assert!(carried, "{labels:?}");
        workspace.remove().await.unwrap();
    }
    assert_eq!(pooled.pools()[0].claimed, 1);
    pooled.drain_pools().await.unwrap();
}

/// Limits under which nothing can run are told in time, and leave nothing.
#[tokio::test(flavor = "multi_thread")]
async fn too_few_processes_for_the_agent_itself_are_told_in_time() {
    let corehold = Corehold::start().await;
    let limits = Resources::default().pids(1);
    let request = CreateWorkspace::empty().resources(limits).agent_timeout(Duration::from_secs(10));
    let error = corehold.host.create(request).await.unwrap_err();
    let kinds = [ErrorKind::AgentUnavailable, ErrorKind::Engine, ErrorKind::Timeout];
    assert!(kinds.contains(&error.kind()), "{:?}: {error}", error.kind());
    assert!(error.hint_text().is_some() || error.output().is_some(), "{error} says nothing of the next step");
    assert!(corehold.host.list().await.unwrap().is_empty());
}
