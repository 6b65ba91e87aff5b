//! What a workspace may use, as a command inside sees it, and changed while it is used.

use std::time::Duration;

use corehold_e2e::corehold::Corehold;
use corehold_host::{
    CreateWorkspace, DiskPolicy, ErrorKind, EventKind, Network, Workspace, WorkspaceState,
    runtime::{ContainerId, Egress, Resources, Runtime as _},
    tools::{Info, InfoRequest},
};

/// Of a control group, by the names of versions 1 and 2: memory, processes, and thousandths of a CPU, of a quota in each period.
const LIMITS: &str = "cd /sys/fs/cgroup
cat memory/memory.limit_in_bytes memory.max 2>/dev/null
cat pids/pids.max pids.max 2>/dev/null
if [ -f cpu.max ]; then read -r quota period <cpu.max; else read -r quota <cpu/cpu.cfs_quota_us; read -r period <cpu/cpu.cfs_period_us; fi
case $quota in max | -1) echo all ;; *) echo $((quota * 1000 / period)) ;; esac";

/// As a command inside reads them.
async fn limits(workspace: &Workspace) -> String {
    let said = workspace.command(LIMITS).run().await.unwrap().stdout_text();
    said.lines().collect::<Vec<_>>().join(" ")
}

/// After how long a command ends that was given no time.
async fn command_ms(workspace: &Workspace) -> u64 {
    let info = workspace.call::<Info>(&InfoRequest::default()).await.unwrap();
    info.limits.iter().find(|limit| limit.name == "commandMs").unwrap().value
}

fn memory(mib: u64) -> Resources {
    Resources::default().memory_bytes(mib << 20)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_limits_has_the_defaults_inside_and_strangers_have_less() {
    let corehold = Corehold::start().await;
    let workspace = corehold.host.create(CreateWorkspace::empty()).await.unwrap();
    assert_eq!(limits(&workspace).await, "2147483648 2048 all");
    assert_eq!(command_ms(&workspace).await, 600_000);
    workspace.remove().await.unwrap();

    let host = corehold.builder().for_strangers().build().await.unwrap();
    let workspace = host.create(CreateWorkspace::empty()).await.unwrap();
    assert_eq!(limits(&workspace).await, "536870912 100 500");
    assert_eq!(command_ms(&workspace).await, 300_000);
    assert_eq!(workspace.info().await.unwrap().resources.unwrap().disk_bytes, Some(1 << 30));
    // At the hundredth process, not before.
    let line = "for i in $(seq 150); do sleep 60 & done 2>/dev/null; jobs -r | wc -l; kill $(jobs -p)";
    let begun = workspace.command(line).run().await.unwrap();
    let begun = begun.stdout_text().trim().parse::<u64>().unwrap_or(0);
    assert!(begun < 100, "{begun}");
    workspace.remove().await.unwrap();
    host.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_has_it_for_strangers_too_and_other_flags_go_before() {
    let corehold = Corehold::start().await;
    let folder = corehold.folder("page", &[("index.html", "<p>a page")]);
    let up = async |name: &str, flags: &[&str]| {
        let arguments = ["up", folder.to_str().unwrap(), "--name", name];
        let up = corehold.cli(&[&arguments[..], flags].concat()).output().unwrap();
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        corehold.host.workspace(name).await.unwrap()
    };
    let hours = |hours: u64| Some(Duration::from_secs(hours * 3_600));

    let workspace = up("strange", &["--for-strangers"]).await;
    assert_eq!(limits(&workspace).await, "536870912 100 500");
    assert_eq!(command_ms(&workspace).await, 300_000);
    let info = workspace.info().await.unwrap();
    assert_eq!(info.resources.unwrap().disk_bytes, Some(1 << 30));
    assert_eq!(info.network, Some(Network::shared().egress(Egress::Internet)));
    // Its own, since nothing else of the command stays.
    let idle = workspace.idle_policy().await.unwrap().unwrap();
    assert_eq!((idle.pause_after, idle.archive_after, idle.max_lifetime), (hours(1), None, hours(24)));
    workspace.remove().await.unwrap();

    let flags = ["--for-strangers", "--memory", "1GiB", "--network", "none", "--pause-after", "2h"];
    let workspace = up("less-strange", &flags).await;
    assert_eq!(limits(&workspace).await, "1073741824 100 500");
    assert_eq!(workspace.info().await.unwrap().network, Some(Network::shared().egress(Egress::None)));
    let idle = workspace.idle_policy().await.unwrap().unwrap();
    assert_eq!((idle.pause_after, idle.max_lifetime), (hours(2), hours(24)));
    workspace.remove().await.unwrap();

    // Of one's own there is no more than ever.
    let workspace = up("own", &[]).await;
    assert_eq!(workspace.info().await.unwrap().network, Some(Network::shared()));
    assert_eq!(workspace.idle_policy().await.unwrap(), None);
    workspace.remove().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_given_no_limit_of_disk_has_the_hosts() {
    let corehold = Corehold::start().await;
    let policy = DiskPolicy::default().every(Duration::from_millis(200)).bytes(30 << 20);
    let host = corehold.builder().disk(policy).build().await.unwrap();
    let workspace = host.create(CreateWorkspace::empty()).await.unwrap();
    assert_eq!(workspace.info().await.unwrap().resources.unwrap().disk_bytes, None);
    let mut events = host.events();
    let writing = tokio::spawn({
        let workspace = workspace.clone();
        async move { workspace.command("head -c 60m /dev/zero >/app/large; sync; sleep 600").run().await.map(|_| ()) }
    });
    let mut told = false;
    loop {
        let event = events.next().await.unwrap();
        match event.kind {
            EventKind::DiskExceeded { bytes, limit_bytes, .. } => {
                assert!(bytes > 30 << 20 && limit_bytes == Some(30 << 20), "{bytes} {limit_bytes:?}");
                told = true;
            }
            EventKind::Transition { to: WorkspaceState::Paused, .. } => break,
            _ => {}
        }
    }
    assert!(told);
    writing.abort();
    workspace.remove().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_not_taken_from_who_uses_it_and_more_of_it_holds() {
    let corehold = Corehold::start().await;
    let workspace = corehold.host.create(CreateWorkspace::empty().resources(memory(512))).await.unwrap();
    let hold = "node -e \"const held = Buffer.alloc(200 << 20, 1); console.log('held'); setInterval(() => held, 1e9)\" \
                >/tmp/said & until grep -q held /tmp/said; do sleep 0.05; done";
    assert_eq!(workspace.command(hold).run().await.unwrap().exit.code, Some(0));
    let before = limits(&workspace).await;
    assert!(before.starts_with("536870912 "), "{before}");

    let error = workspace.set_resources(memory(64)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.hint_text().is_some());
    let said = error.to_string();
    let used: u64 = said.split("uses ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(used > 200 << 20 && used < 512 << 20 && said.contains("67108864"), "{said}");
    // Whoever asks the engine without looking first is told the same, where its kernel refuses.
    let container = ContainerId(workspace.info().await.unwrap().container.unwrap());
    if workspace.command("test -d /sys/fs/cgroup/memory").run().await.unwrap().exit.code == Some(0) {
        let error = corehold.docker.update_limits(&container, &memory(64)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.hint_text().unwrap().contains("in use"), "{error}");
    }
    // By the command line too, in words.
    let id = workspace.id().as_str();
    let told = corehold.cli(&["limits", id, "--memory", "64MiB"]).output().unwrap();
    let words = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(!told.status.success() && words.contains(" bytes of memory, more than 67108864"), "{words}");
    assert_eq!(limits(&workspace).await, before, "those of before are in force");
    assert_eq!(workspace.info().await.unwrap().resources.unwrap().memory_bytes, Some(512 << 20), "and written down");
    let alive = workspace.command("pgrep -c node || cat /tmp/said").run().await.unwrap();
    assert_eq!(alive.exit.code, Some(0), "nobody was killed for it");

    let raised = corehold.cli(&["limits", id, "--memory", "1GiB", "--json"]).output().unwrap();
    assert!(raised.status.success(), "{}", String::from_utf8_lossy(&raised.stderr));
    assert!(limits(&workspace).await.starts_with("1073741824 "));
    workspace.restart(Duration::ZERO).await.unwrap();
    assert!(limits(&workspace).await.starts_with("1073741824 "), "in the next start too");
    // Nobody uses it any more.
    workspace.set_resources(memory(64)).await.unwrap();
    assert!(limits(&workspace).await.starts_with("67108864 "));
}
