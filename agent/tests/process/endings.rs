//! Time-outs, signals, survivors, shutdown.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use corehold_agent::process::{Processes, StartError};
use rustix::process::Signal;

use crate::support::*;

#[tokio::test]
async fn a_child_that_holds_the_pipe_does_not_hold_up_the_exit() {
    let began = Instant::now();
    let command = begin(line("sleep 1000 & echo started")).await;
    let ran = end_of(Arc::clone(&command)).await;
    assert_eq!((ran.stdout.as_str(), ran.exit.code), ("started\n", Some(0)));
    assert!(began.elapsed() < Duration::from_secs(5));
    let [survivor] = ran.exit.survivors[..] else { panic!("{:?}", ran.exit.survivors) };
    assert!(lives(survivor));
    assert_eq!(room().signal(command, Signal::KILL).await, 1);
}

#[tokio::test]
async fn survivors_are_found_in_other_sessions_and_without_pipes() {
    let command = begin(line(
        "setsid sh -c 'sleep 1000; :' >/dev/null 2>&1 </dev/null & wait_for_it() { sleep 0.1; }; wait_for_it",
    ))
    .await;
    let ran = end_of(Arc::clone(&command)).await;
    assert_eq!(ran.exit.survivors.len(), 2, "the shell of the new session and its sleep");
    assert_eq!(room().signal(Arc::clone(&command), Signal::KILL).await, 2);
    assert_eq!(run(argv(&["true"])).await.exit.survivors, [0_u32; 0], "they were not this one's");
}

#[tokio::test]
async fn a_time_out_ends_leaders_groups_and_those_who_fled() {
    let mut start = line(
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo fled $$; while :; do sleep 1; done' & \
                          (sh -c 'echo orphan $$; exec sleep 1000' &) ; while :; do sleep 1; done",
    );
    start.timeout = Some(Duration::from_millis(500));
    let command = begin(start).await;
    let ran = end_of(command).await;
    assert!(ran.exit.timed_out && !ran.exit.stalled);
    assert_eq!(ran.exit.signal.as_deref(), Some("SIGKILL"), "it didn't listen to TERM");
    assert_eq!(ran.exit.survivors, [0_u32; 0]);
    let pids: Vec<u32> = ran.stdout.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert_eq!(pids.len(), 2, "{}", ran.stdout);
    assert!(pids.into_iter().all(|pid| !lives(pid)));
    assert!(ran.exit.duration_ms >= 500 && ran.exit.duration_ms < 5_000);
}

#[tokio::test]
async fn one_that_listens_ends_at_once_and_in_its_own_way() {
    let mut start = line("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.02; done");
    start.timeout = Some(Duration::from_millis(300));
    let ran = run(start).await;
    assert_eq!((ran.stdout.as_str(), ran.exit.code, ran.exit.timed_out), ("ready\nbye\n", Some(7), true));
}

#[tokio::test]
async fn a_stopped_command_is_ended_too() {
    let mut start = line("kill -STOP $$");
    start.timeout = Some(Duration::from_millis(200));
    let ran = run(start).await;
    assert_eq!((ran.exit.signal.as_deref(), ran.exit.timed_out), (Some("SIGTERM"), true));
}

#[tokio::test]
async fn silence_is_a_stall_and_steady_output_is_none() {
    let mut silent = line("echo once; sleep 1000");
    silent.stall_timeout = Some(Duration::from_millis(300));
    let ran = run(silent).await;
    assert!(ran.exit.stalled && !ran.exit.timed_out);
    assert_eq!(ran.stdout, "once\n");

    let mut steady = line("for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.1; done");
    steady.stall_timeout = Some(Duration::from_millis(600));
    let ran = run(steady).await;
    assert!(!ran.exit.stalled);
    assert_eq!(ran.exit.code, Some(0));
}

#[tokio::test]
async fn a_signal_reaches_all_of_a_command_and_nobody_else() {
    // One process: of several that are killed together, the leader may be gone a little before the others.
    let other = begin(line("echo up; exec sleep 1000")).await;
    let command = begin(line("setsid sleep 1000 & sleep 1000 & echo up; wait")).await;
    wait_for(&other, "up").await;
    wait_for(&command, "up").await;
    // The two children may still be shells that are about to become `sleep`; either way there are three.
    assert_eq!(room().signal(Arc::clone(&command), Signal::TERM).await, 3);
    let ran = end_of(command).await;
    assert_eq!(ran.exit.signal.as_deref(), Some("SIGTERM"));
    assert!(other.exit().is_none());
    room().signal(Arc::clone(&other), Signal::KILL).await;
    assert_eq!(end_of(Arc::clone(&other)).await.exit.signal.as_deref(), Some("SIGKILL"));
    assert_eq!(room().signal(other, Signal::KILL).await, 0, "nobody is left");
}

#[tokio::test]
async fn commands_can_signal_each_other() {
    let one = begin(argv(&["sleep", "1000"])).await;
    assert_eq!(run(line(&format!("kill -USR1 {}", one.pid()))).await.exit.code, Some(0));
    assert_eq!(end_of(one).await.exit.signal.as_deref(), Some("SIGUSR1"));
}

#[tokio::test]
async fn usage_is_told_where_it_is_known() {
    let ran = run(line(
        "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; head -c 410000000 /dev/zero | tail -c 400000000 | wc -c",
    ))
    .await;
    assert!(ran.exit.cpu_ms.unwrap() > 0);
    assert!(ran.exit.peak_memory_bytes.unwrap() > 400_000_000);
    assert_ne!(ran.exit.oom_killed, Some(true));
}

/// With a counter of the test's own, which commands write in the kernel's place.
#[tokio::test]
async fn a_kill_for_want_of_memory_is_told_of_whom_it_befell() {
    let folder = tempfile::tempdir().unwrap();
    let counter = folder.path().join("memory.events");
    std::fs::write(&counter, "oom 0\noom_kill 0\n").unwrap();
    let mut counted = config();
    counted.kill_counter = Some(counter.clone());
    let counted = Processes::start(counted).unwrap();
    let start = async |text: &str| counted.start_command(line(text)).await.unwrap();
    let counts = |kills: u32| format!("echo oom_kill {kills} > {}", counter.display());
    let oom_killed = async |command| end_of(command).await.exit.oom_killed;
    let beside = start("sleep 1000").await;
    let spared = start("sleep 1000").await;

    let leader = start(&format!("{}; kill -KILL $$", counts(1))).await;
    assert_eq!(oom_killed(leader).await, Some(true));
    counted.signal(Arc::clone(&spared), Signal::TERM).await;
    assert_eq!(oom_killed(spared).await, Some(false), "it was the other one");
    assert_eq!(oom_killed(start("kill -KILL $$").await).await, Some(false), "nothing was counted");
    let child = start(&counts(2)).await;
    assert_eq!(oom_killed(child).await, None, "it may have been a child of either");
    let ended = start(&format!("{}; echo up; sleep 1000", counts(3))).await;
    wait_for(&ended, "up").await;
    counted.signal(Arc::clone(&ended), Signal::KILL).await;
    assert_eq!(oom_killed(ended).await, None, "the agent has killed it");
    counted.signal(Arc::clone(&beside), Signal::TERM).await;
    assert_eq!(oom_killed(beside).await, None, "some of it may have been its");
    counted.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn no_more_run_at_a_time_than_may() {
    let mut small = config();
    small.commands.value = 2;
    let small = Processes::start(small).unwrap();
    let one = small.start_command(argv(&["sleep", "1000"])).await.unwrap();
    let _two = small.start_command(argv(&["sleep", "1000"])).await.unwrap();
    let refused = small.start_command(argv(&["sleep", "1000"])).await.unwrap_err();
    assert!(matches!(refused, StartError::Limit { limit, .. } if limit.variable == "COREHOLD_LIMIT_COMMANDS"));
    small.signal(Arc::clone(&one), Signal::KILL).await;
    end_of(one).await;
    small.start_command(argv(&["sleep", "1000"])).await.unwrap();
    small.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_shutdown_ends_everything_and_starts_nothing() {
    let small = Processes::start(config()).unwrap();
    let polite =
        small.start_command(line("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.02; done")).await.unwrap();
    let deaf = small.start_command(line("trap '' TERM; echo up; while :; do sleep 0.02; done")).await.unwrap();
    wait_for(&polite, "up").await;
    wait_for(&deaf, "up").await;
    small.shutdown(Duration::from_millis(500)).await;
    assert_eq!(polite.exit().unwrap().code, Some(0));
    assert_eq!(deaf.exit().unwrap().signal.as_deref(), Some("SIGKILL"));
    assert!(matches!(small.start_command(argv(&["true"])).await, Err(StartError::ShuttingDown)));
    small.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn listings_are_newest_first_and_go_on_where_they_ended() {
    let small = Processes::start(config()).unwrap();
    for number in 0..5 {
        let mut start = line(&format!("echo {number}"));
        start.label = Some(if number % 2 == 0 { "even" } else { "odd" }.into());
        end_of(small.start_command(start).await.unwrap()).await;
    }
    let (page, next) = small.list(None, None, 3);
    let lines =
        |page: &[corehold_types::tools::CommandInfo]| page.iter().map(|info| info.line.clone()).collect::<Vec<_>>();
    assert_eq!(lines(&page), ["echo 4", "echo 3", "echo 2"]);
    let (rest, end) = small.list(None, next, 3);
    assert_eq!((lines(&rest), end), (vec!["echo 1".into(), "echo 0".into()], None));
    assert_eq!(lines(&small.list(Some("odd"), None, 9).0), ["echo 3", "echo 1"]);
}
