//! What commands can't do to an agent that runs as the same user: tried as PID 1 of a pid namespace, as user 1000.
//!
//! The test starts itself again in such a namespace, which needs root, `unshare` and `setpriv` (util-linux).

use std::{os::unix::process::CommandExt as _, process::Command};

use crate::support::*;

#[tokio::test]
async fn commands_can_not_harm_the_agent_that_started_them() {
    if std::process::id() == 1 {
        return as_init().await;
    }
    // A copy where user 1000 can run it, since cargo's folder may be closed to others.
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("tests");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--kill-child", "--mount-proc", "setpriv", "--reuid=1000", "--regid=1000"])
        .args(["--clear-groups", "--bounding-set=-all", "--inh-caps=-all"])
        .arg(&copy)
        .args([
            "--exact",
            "--test-threads=1",
            "--nocapture",
            "guards::commands_can_not_harm_the_agent_that_started_them",
        ])
        .current_dir("/tmp");
    // SAFETY: the closure only makes a system call. The mask is inherited by all threads of the test process inside, as the
    // agent's `main` has it before any thread.
    unsafe {
        command.pre_exec(|| {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT] {
                libc::sigaddset(&raw mut set, signal);
            }
            match libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let output = command.output().unwrap();
    let evidence = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && evidence.contains("1 passed"), "{evidence}");
}

async fn as_init() {
    let guards = room().guards();
    for guard in ["no-new-privileges", "seccomp-prlimit", "not-dumpable", "init"] {
        assert!(guards.iter().any(|active| active == guard), "{guards:?}");
    }
    let scoped = guards.iter().any(|guard| guard == "landlock-signal");
    println!("guards: {guards:?}");

    // Signals: with Landlock they don't even arrive; without, PID 1 doesn't heed them.
    for signal in ["KILL", "STOP", "TERM", "INT", "SEGV", "HUP"] {
        let ran = run(line(&format!("kill -{signal} 1"))).await;
        assert_eq!(ran.exit.code, Some(i32::from(scoped)), "{signal}: {}", ran.stderr);
    }
    // Limits: neither through the agent's pid nor through one of its threads'.
    for limit in ["--cpu=1:1", "--nofile=3:3", "--as=1:1"] {
        let ran = run(line(&format!(
            "for thread in $(ls /proc/1/task); do prlimit --pid $thread {limit} && exit 9; done; exit 1"
        )))
        .await;
        assert_eq!(ran.exit.code, Some(1), "{}", ran.stdout);
        assert!(ran.stderr.contains("Operation not permitted"), "{}", ran.stderr);
    }
    // A command's own limits are its own.
    let ran = run(line("prlimit --nofile=100:100 sh -c 'ulimit -n'; ulimit -n 50; ulimit -n; prlimit --pid 1 --nofile >/dev/null && echo read")).await;
    assert_eq!(ran.stdout, "100\n50\nread\n", "{}", ran.stderr);
    // Secrets: neither memory nor environment, files or program.
    for look in [
        "cat /proc/1/environ",
        "cat /proc/1/mem",
        "ls /proc/1/fd",
        "cat /proc/1/maps",
        "ls -l /proc/1/exe",
        "ls /proc/1/task/1/fd",
        "echo 1000 > /proc/1/oom_score_adj",
    ] {
        let ran = run(line(look)).await;
        assert_ne!(ran.exit.code, Some(0), "{look}: {}", ran.stdout);
        assert!(
            ran.stderr.contains("denied")
                || ran.stderr.contains("not permitted")
                || ran.stderr.contains("cannot create"),
            "{look}: {}",
            ran.stderr
        );
    }
    assert_eq!(trace_the_agent().await, Some(0), "ptrace must be refused");

    // A thousand orphans, each ended after its parent has gone.
    let ran = run(line("i=0; while [ $i -lt 1000 ]; do (sleep 0.01 &); i=$((i+1)); done; echo made")).await;
    assert_eq!((ran.stdout.as_str(), ran.exit.code), ("made\n", Some(0)));
    let left = "for stat in /proc/[0-9]*/stat; do read pid name state rest < $stat 2>/dev/null && echo \"$state $name\"; done | grep -E '^Z|sleep'";
    // Those that were made last may still sleep for a hundredth of a second.
    let mut listing = run(line(left)).await.stdout;
    for _ in 0..100 {
        if listing.is_empty() {
            break;
        }
        listing = run(line(&format!("sleep 0.05; {left}"))).await.stdout;
    }
    assert_eq!(listing, "", "no zombie, no sleeper");

    // And it still does its work.
    assert_eq!(run(argv(&["id", "-u"])).await.stdout, "1000\n");
    for _ in 0..100 {
        assert_eq!(run(argv(&["true"])).await.exit.code, Some(0));
    }
}

/// Exits with 0 if attaching to PID 1 was refused.
async fn trace_the_agent() -> Option<i32> {
    // PTRACE_ATTACH is 16, PTRACE_SEIZE 0x4206; ptrace is system call 101 (x86-64) or 117 (aarch64).
    let number = if cfg!(target_arch = "x86_64") { 101 } else { 117 };
    let perl = format!(
        "my $n = {number}; for my $request (16, 0x4206) {{ my $r = syscall($n, $request, 1, 0, 0); exit 1 if $r == 0; }} exit 0;"
    );
    run(argv(&["perl", "-e", &perl])).await.exit.code
}
