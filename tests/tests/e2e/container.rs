//! What the core container holds a command to.

use corehold_e2e::corehold::Corehold;
use corehold_host::{
    CreateWorkspace, Workspace,
    runtime::Resources,
    tools::{CommandGetRequest, CommandOutputRequest, CommandRequest, CommandSignalRequest, Signal},
    types::Data,
};

async fn workspace(corehold: &Corehold) -> Workspace {
    corehold.host.create(CreateWorkspace::empty()).await.unwrap()
}

async fn output(workspace: &Workspace, line: &str) -> String {
    let outcome = workspace.command(line).run().await.unwrap();
    assert!(outcome.success(), "{line}: {outcome:#?}");
    outcome.stdout_text()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_as_1000_without_capabilities_or_a_way_to_gain_any() {
    let corehold = Corehold::start().await;
    let workspace = workspace(&corehold).await;
    assert_eq!(output(&workspace, "id -u; id -g; pwd; echo $HOME").await, "1000\n1000\n/app\n/home/workspace\n");
    let status = output(&workspace, "cat /proc/self/status").await;
    for line in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| format!("{set}:\t0000000000000000")) {
        assert!(status.contains(&line), "{line} is not in {status}");
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let agent = output(&workspace, "cat /proc/1/status; cat /proc/1/comm").await;
    assert!(agent.contains("Uid:\t1000\t1000\t1000\t1000") && agent.contains("corehold-agent"), "{agent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_orphans_are_reaped() {
    let corehold = Corehold::start().await;
    let workspace = workspace(&corehold).await;
    // Each inner process outlives its parent, so PID 1 inherits it.
    let made = "i=0; while [ $i -lt 1000 ]; do (sh -c 'exec true' & exec true); i=$((i+1)); done; \
        for tries in $(seq 10000); do ps -eo stat= | grep -q Z || exit 0; done; ps -ef; exit 1";
    output(&workspace, made).await;
    let left = output(&workspace, "ps -eo stat= | grep -c Z || true").await;
    assert_eq!(left.trim(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_can_neither_end_nor_stop_nor_limit_nor_read_the_agent() {
    let corehold = Corehold::start().await;
    let workspace = workspace(&corehold).await;
    let before = workspace.call::<corehold_host::tools::Info>(&Default::default()).await.unwrap();
    for attack in [
        "kill -9 1",
        "kill -STOP 1",
        "kill -TERM 1",
        "kill -INT 1",
        "prlimit --pid 1 --cpu=1:1",
        "prlimit --pid 1 --nofile=3:3",
        "prlimit --pid 1 --nproc=1:1",
        "renice -n 19 -p 1",
        "chrt --idle -p 0 1",
        "ionice -c 3 -p 1",
        "cat /proc/1/environ",
        "head -c 1 /proc/1/mem",
        "ls -l /proc/1/fd/",
        "echo evil > /tools/corehold-agent",
        "mv /tools/corehold-agent /tools/old",
        "rm -f /tools/corehold-agent && test ! -e /tools/corehold-agent",
    ] {
        // Whether the attempt says it failed is not the point; `kill -9 1` succeeds and does nothing.
        workspace.command(attack).run().await.unwrap_or_else(|error| panic!("after {attack}: {error}"));
        let after = workspace.call::<corehold_host::tools::Info>(&Default::default()).await;
        assert_eq!(after.unwrap_or_else(|error| panic!("after {attack}: {error}")).boot_id, before.boot_id, "{attack}");
    }
    // It still has its limits: it can open files, start processes and use its processor.
    let limits = output(&workspace, "prlimit --pid 1 --output RESOURCE,SOFT --noheadings --raw || true").await;
    assert!(!limits.contains("CPU 1\n") && !limits.contains("NOFILE 3\n"), "{limits}");
    // And its priority, its nice value and its scheduling class (`proc_pid_stat(5)`, 18, 19 and 41).
    assert_eq!(output(&workspace, "cut -d' ' -f18,19,41 /proc/1/stat").await, "20 0 0\n");
    assert!(before.guards.contains(&"seccomp-priority".to_owned()), "{:?}", before.guards);
    for _ in 0..50 {
        output(&workspace, "true").await;
    }
    for secret in ["cat /proc/1/environ", "head -c 1 /proc/1/mem"] {
        assert!(!workspace.command(secret).run().await.unwrap().success(), "{secret} succeeded");
    }
}

/// The kernel takes a command, says so, and the rest of the workspace lives: the agent, and what ran beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_takes_all_memory_is_killed_and_says_so() {
    let corehold = Corehold::start().await;
    let memory = Resources::default().memory_bytes(200 << 20);
    let workspace = corehold.host.create(CreateWorkspace::empty().resources(memory)).await.unwrap();
    let call = async |line: &str, detach: bool| {
        let request = CommandRequest { line: Some(line.to_owned()), detach: Some(detach), ..CommandRequest::default() };
        workspace
            .call::<corehold_host::tools::Command>(&request)
            .await
            .unwrap_or_else(|error| panic!("{line}: {error}"))
    };
    let before = workspace.call::<corehold_host::tools::Info>(&Default::default()).await.unwrap();
    let modest = call("true", false).await.exit.unwrap();
    assert_eq!((modest.code, modest.oom_killed), (Some(0), Some(false)), "this engine's control group is not seen");
    let alone = call("tail /dev/zero; echo status $?", false).await;
    let exit = alone.exit.unwrap();
    assert_eq!((exit.code, exit.oom_killed), (Some(0), Some(true)), "a child was killed, and nobody else was there");
    assert_eq!(alone.stdout.head, Data::Text("status 137\n".to_owned()));
    let spared = call("mkfifo spared; read word < spared; echo $word", true).await;
    let beside = call("mkfifo go; read word < go; echo $word", true).await;
    let end_of = async |id: &str| {
        let request = CommandOutputRequest { id: id.to_owned(), follow: Some(true), ..CommandOutputRequest::default() };
        workspace.call::<corehold_host::tools::CommandOutput>(&request).await.unwrap()
    };

    // `tail` keeps the last line, and this one never ends.
    let leader = call("exec tail /dev/zero", false).await.exit.unwrap();
    assert_eq!((leader.signal.as_deref(), leader.oom_killed, leader.code), (Some("SIGKILL"), Some(true), None));
    assert!(leader.peak_memory_bytes.is_some_and(|peak| peak > 50 << 20 && peak < 210 << 20), "{leader:?}");
    call("echo on > spared", false).await;
    let exit = end_of(&spared.id).await.exit.unwrap();
    assert_eq!((exit.code, exit.oom_killed), (Some(0), Some(false)), "it was the other one, whose leader was killed");
    let child = call("tail /dev/zero; echo status $?", false).await;
    assert_eq!(child.stdout.head, Data::Text("status 137\n".to_owned()));
    assert_eq!(child.exit.unwrap().oom_killed, None, "the killed child may have been the bystander's");
    assert_eq!(call("true", false).await.exit.unwrap().oom_killed, Some(false), "that was before its time");

    let after = workspace.call::<corehold_host::tools::Info>(&Default::default()).await.unwrap();
    assert_eq!(after.boot_id, before.boot_id, "the agent was not the one");
    call("echo on > go", false).await;
    let beside = end_of(&beside.id).await;
    assert_eq!(beside.stdout.head, Data::Text("on\n".to_owned()));
    assert_eq!(
        beside.exit.map(|exit| (exit.code, exit.oom_killed)),
        Some((Some(0), None)),
        "nobody was told it was this one"
    );
}

/// At the limit of processes the agent still answers, and ends what took them all.
#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_is_ended_by_a_signal() {
    let corehold = Corehold::start().await;
    let few = Resources::default().pids(256);
    let workspace = corehold.host.create(CreateWorkspace::empty().resources(few)).await.unwrap();
    let request = CommandRequest {
        line: Some("bomb() { bomb | bomb & }; bomb; sleep 1000".to_owned()),
        detach: Some(true),
        ..CommandRequest::default()
    };
    let id = workspace.call::<corehold_host::tools::Command>(&request).await.unwrap().id;
    // Its shells say so when they can't fork any more.
    let mut said = String::new();
    for _ in 0..1_000 {
        let request = CommandOutputRequest { id: id.clone(), ..CommandOutputRequest::default() };
        let output = workspace.call::<corehold_host::tools::CommandOutput>(&request).await.unwrap();
        said = format!("{:?}", output.stderr.head).to_lowercase();
        if said.contains("fork") {
            break;
        }
    }
    assert!(said.contains("fork"), "it never came to the limit: {said}");
    workspace.call::<corehold_host::tools::Info>(&Default::default()).await.unwrap();
    let mut left = u32::MAX;
    for _ in 0..20 {
        let signal = CommandSignalRequest { id: id.clone(), signal: Signal::Kill };
        workspace.call::<corehold_host::tools::CommandSignal>(&signal).await.unwrap();
        let request = CommandGetRequest { id: id.clone() };
        left = workspace.call::<corehold_host::tools::CommandGet>(&request).await.unwrap().processes;
        if left == 0 {
            break;
        }
    }
    assert_eq!(left, 0);
    assert_eq!(output(&workspace, "echo alive").await, "alive\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_has_what_projects_need() {
    let corehold = Corehold::start().await;
    let workspace = workspace(&corehold).await;
    let versions =
        output(&workspace, "node --version; npm --version; git --version; test -z \"$(ls -A /app)\" && echo empty")
            .await;
    assert!(versions.starts_with("v24."), "{versions}");
    assert!(versions.contains("git version") && versions.ends_with("empty\n"), "{versions}");
    output(
        &workspace,
        "git init -q . && git -c user.email=a@b -c user.name=a commit -q --allow-empty -m first && git log --oneline",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_finds_the_agent_healthy() {
    let corehold = Corehold::start().await;
    let image = corehold.docker.image(corehold.host.image()).await.unwrap().expect("the core image");
    assert!(image.labels.keys().any(|label| label == "dev.corehold.image-key"), "{:?}", image.labels);
    let workspace = workspace(&corehold).await;
    output(&workspace, "/tools/corehold-agent health").await;
}
