//! Workspaces of images that know nothing of Corehold: the agent is put into them.

use std::{collections::BTreeMap, time::Duration};

use corehold_e2e::{
    corehold::Corehold,
    images::{Images, Root, busybox, musl, read},
    registry::{Mood, Registry},
    stand_in,
};
use corehold_host::{
    Class, CreateWorkspace, Error, ErrorKind, PoolOptions, Workspace,
    image::BASE_LABEL,
    runtime::{Endpoint, Runtime as _},
    types::Code,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn run(workspace: &Workspace, argv: &[&str]) -> String {
    let outcome = workspace.command_argv(argv.iter().copied()).run().await.unwrap();
    assert!(outcome.success(), "{argv:?}: {outcome:#?}");
    outcome.stdout_text()
}

/// What every workspace can, whatever its image has.
async fn is_whole(workspace: &Workspace) {
    workspace.write_file("folder/greeting.txt", "hello from outside").await.unwrap();
    assert_eq!(workspace.read_file("folder/greeting.txt").await.unwrap(), "hello from outside");
}

/// Nothing is there any more that was only needed while it was created.
async fn is_alone(corehold: &Corehold, workspace: &Workspace) {
    let whose = format!("corehold-{}", workspace.id());
    let labels = BTreeMap::from([("dev.corehold.for".to_owned(), whose)]);
    assert_eq!(corehold.docker.list(&labels).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_image_becomes_a_workspace() {
    let mut images = Images::new().await;
    let corehold = Corehold::start().await;
    let core = corehold.docker.image(corehold.host.image()).await.unwrap().unwrap();
    let debian = core.labels[BASE_LABEL].clone();
    let program = read(&stand_in::binary());
    let busybox = images.make("busybox", busybox(), &[]).await;
    let musl = images.make("musl", musl(), &["ENTRYPOINT [\"/greet\"]"]).await;
    let odd = ["ENTRYPOINT [\"/no/such/program\"]", "CMD [\"x\"]", "WORKDIR /nowhere", "USER 0"];
    let program = images.make("program", Root::empty().file("program", &program), &odd).await;
    let empty = images.make("empty", Root::empty(), &[]).await;
    for (image, argv, says) in [
        (
            &debian,
            &["/bin/sh", "-c", "id -u; pwd; echo $HOME; . /etc/os-release; echo $ID"][..],
            "1000\n/app\n/home/workspace\ndebian\n",
        ),
        (&busybox, &["sh", "-c", "id -u; pwd; echo $HOME"], "1000\n/app\n/home/workspace\n"),
        (&musl, &["/greet"], "musl greets\n"),
        (&program, &[], ""),
        (&empty, &[], ""),
    ] {
        let workspace = corehold.host.create(CreateWorkspace::empty().image(image)).await;
        let workspace = workspace.unwrap_or_else(|error| panic!("{image}: {error:?}"));
        is_whole(&workspace).await;
        is_alone(&corehold, &workspace).await;
        if !argv.is_empty() {
            assert_eq!(run(&workspace, argv).await, says, "{image}");
        }
        if ![&debian, &busybox].contains(&image) {
            let error = workspace.command("echo hello").run().await.unwrap_err();
            let problem = error.problem().unwrap_or_else(|| panic!("{error:?}"));
            assert_eq!(problem.code, Code::CommandNotStarted, "{problem:?}");
            assert!(problem.suggestion.as_deref().unwrap().contains("argv"), "{problem:?}");
        }
        workspace.remove().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_wrote_sleeps_and_wakes_with_it_and_its_volumes_go() {
    let mut images = Images::new().await;
    let corehold = Corehold::start().await;
    let image = images.make("busybox", busybox(), &["ENV FROM_IMAGE=yes"]).await;
    let workspace = corehold.host.create(CreateWorkspace::empty().image(&image).env("GIVEN", "too")).await.unwrap();
    is_whole(&workspace).await;
    workspace.sleep(Duration::from_secs(5)).await.unwrap();
    assert_eq!(
        run(&workspace, &["sh", "-c", "cat folder/greeting.txt; echo $FROM_IMAGE $GIVEN"]).await,
        "hello from outsideyes too\n"
    );
    workspace.stop(Duration::from_secs(5)).await.unwrap();
    workspace.start().await.unwrap();
    assert_eq!(run(&workspace, &["cat", "folder/greeting.txt"]).await, "hello from outside");
    let copies = workspace.fork(1).await.unwrap();
    assert_eq!(run(&copies[0], &["cat", "folder/greeting.txt"]).await, "hello from outside");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_has_them_ready() {
    let mut images = Images::new().await;
    let corehold = Corehold::start().await;
    let image = images.make("busybox", busybox(), &[]).await;
    let options = PoolOptions::default().min(1).max(1);
    let host = corehold.builder().pool(Class::default().image(&image), options).build().await.unwrap();
    host.pools_filled().await.unwrap();
    let claimed = host.create(CreateWorkspace::empty().image(&image)).await.unwrap();
    assert_eq!(host.pools()[0].claimed, 1, "{:?}", host.pools());
    is_whole(&claimed).await;
    assert_eq!(run(&claimed, &["sh", "-c", "id -u; pwd"]).await, "1000\n/app\n");
    // Whose user differs is made anew.
    let request = CreateWorkspace::empty().image(&image).image_user();
    assert_eq!(host.create(request).await.unwrap_err().kind(), ErrorKind::Forbidden, "the image's user is root");
    assert_eq!(host.pools()[0].claimed, 1);
    host.drain_pools().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_as_the_images_own_user_if_that_is_wanted() {
    let mut images = Images::new().await;
    let corehold = Corehold::start().await;
    let passwd = b"root:x:0:0::/:/bin/sh\nweb:x:12345:54321::/srv:/bin/sh\n";
    for (user, is) in [("12345:54321", "12345 54321"), ("web", "12345 54321"), ("4711", "4711 0")] {
        let root = busybox().file("etc/passwd", passwd);
        let image = images.make(&format!("user-{}", user.replace(':', "-")), root, &[&format!("USER {user}")]).await;
        let workspace = corehold.host.create(CreateWorkspace::empty().image(&image).image_user()).await.unwrap();
        is_whole(&workspace).await;
        let who = "echo $(id -u) $(id -g); touch /app/here ~/.local/bin/there /tmp/everywhere; stat -c %u /app ~";
        let uid = is.split(' ').next().unwrap();
        assert_eq!(run(&workspace, &["sh", "-c", who]).await, format!("{is}\n{uid}\n{uid}\n"), "{user}");
        workspace.remove().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_gives_its_author_no_power_over_the_agent() {
    let mut images = Images::new().await;
    let corehold = Corehold::start().await;
    let hostile = [
        // Of the token "mine".
        "ENV COREHOLD_TOKEN_SHA256=3fd30542fe3f61b14bd4a4b2dc0b6fb30fa6f63ebce52dd1778aaa8c4dc02cff",
        "ENV COREHOLD_ROOT=/etc COREHOLD_PORT=1 COREHOLD_LISTEN=127.0.0.1 LD_PRELOAD=/evil.so HARMLESS=kept",
        "USER root",
        "HEALTHCHECK CMD /evil",
    ];
    let image = images.make("hostile", busybox().file("tools/corehold-agent", b"#!/bin/sh\n"), &hostile).await;
    let workspace = corehold.host.create(CreateWorkspace::empty().image(&image)).await.unwrap();
    is_whole(&workspace).await;
    let seen =
        run(&workspace, &["sh", "-c", "env; stat -c '%u %a' /tools/corehold-agent; touch /tools/x || echo read-only"])
            .await;
    assert!(!seen.contains("COREHOLD_TOKEN") && seen.contains("HARMLESS=kept"), "{seen}");
    assert!(seen.contains("\n0 755\nread-only\n"), "{seen}");
    let status = run(&workspace, &["cat", "/proc/self/status"]).await;
    for line in ["CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{status}");
    }
    assert_eq!(status_for_token(&workspace, "mine").await, "401");
}

/// What the agent answers to somebody who has this token.
async fn status_for_token(workspace: &Workspace, token: &str) -> String {
    let Endpoint::Tcp(address) = workspace.agent_endpoint().await.unwrap() else { panic!("it is no address") };
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST /v1/tools/info HTTP/1.0\r\nHost: agent\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn its_root_may_be_read_only() {
    let mut images = Images::new().await;
    let corehold = Corehold::start().await;
    let own = images.make("read-only", busybox(), &["USER 12345:12345"]).await;
    let empty = images.make("empty", Root::empty(), &[]).await;
    for request in [CreateWorkspace::empty().image(&empty), CreateWorkspace::empty().image(&own).image_user()] {
        let workspace = corehold.host.create(request.read_only_root(true)).await.unwrap();
        is_whole(&workspace).await;
        workspace.sleep(Duration::from_secs(5)).await.unwrap();
        assert_eq!(workspace.read_file("folder/greeting.txt").await.unwrap(), "hello from outside");
    }
    let workspace = corehold.host.create(CreateWorkspace::empty().image(&own).read_only_root(true)).await.unwrap();
    let writes = "for folder in /app ~ /tmp; do touch $folder/x || echo $folder; done; touch /x || echo refused";
    assert_eq!(run(&workspace, &["sh", "-c", writes]).await, "refused\n");
}

async fn refusal(corehold: &Corehold, image: &str) -> Error {
    let error = corehold.host.create(CreateWorkspace::empty().image(image)).await.unwrap_err();
    assert_eq!(corehold.host.list().await.unwrap(), [], "something was left behind after {error}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cant_serve_says_why_and_what_to_do() {
    let mut images = Images::new().await;
    let corehold = Corehold::start().await;
    let registry = Registry::start_for(Mood::Good, "arm", "arm64").await;
    registry.release();
    let arm = registry.reference("image:1");
    images.also(&arm);
    corehold.docker.pull_image(&arm, |_| {}).await.unwrap();
    let error = refusal(&corehold, &arm).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("linux/arm64") && error.to_string().contains("linux/amd64"), "{error}");
    assert!(error.hint_text().unwrap().contains("pull"), "{error:?}");

    let liar = images.make("liar", busybox(), &["ENTRYPOINT [\"/tools/corehold-agent\"]"]).await;
    let error = refusal(&corehold, &liar).await;
    assert!(error.to_string().contains("/tools/corehold-agent"), "{error:?}");
    assert!(error.hint_text().unwrap().contains("corehold image build"), "{error:?}");

    // A host whose own image has no agent, and an engine without the core image.
    let foreign = images.make("plain", busybox(), &[]).await;
    let unlent = corehold.docker.image(&foreign).await.unwrap().unwrap();
    assert!(!unlent.has_agent);
    let program = read(std::path::Path::new("/bin/true"));
    let broken = images.make("broken-libc", busybox().file("lonely", &program), &[]).await;
    let workspace = corehold.host.create(CreateWorkspace::empty().image(&broken)).await.unwrap();
    let error = workspace.command_argv(["/lonely"]).run().await.unwrap_err();
    let problem = error.problem().unwrap();
    assert_eq!(problem.code, Code::CommandNotStarted);
    assert!(problem.suggestion.as_deref().unwrap().contains("another C library"), "{problem:?}");
}
