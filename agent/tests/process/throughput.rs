//! Thousands of commands, and 100 MB of output.

use std::sync::Arc;

use corehold_agent::process::{Processes, Viewer};
use corehold_types::tools::CommandEvent;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_status_of_two_thousand_quick_commands_is_lost() {
    let workers: Vec<_> = (0..16)
        .map(|worker| {
            tokio::spawn(async move {
                for round in 0..125 {
                    let code = (worker * 125 + round) % 256;
                    let ran = run(line(&format!("echo {code}; exit {code}"))).await;
                    assert_eq!((ran.exit.code, ran.stdout), (Some(code), format!("{code}\n")));
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
}

#[tokio::test]
async fn a_viewer_that_never_reads_slows_nobody_and_loses_nothing_of_the_others() {
    const BYTES: u64 = 100_000_000;
    let command = begin(line(&format!("head -c {BYTES} /dev/zero"))).await;
    let _asleep = Viewer::new(Arc::clone(&command), 0, true);
    let mut viewer = Viewer::new(Arc::clone(&command), 0, true);
    let (mut seen, mut dropped) = (0, 0);
    while let Some(event) = viewer.next().await {
        match event {
            CommandEvent::Stdout { offset, end, .. } => seen += end - offset,
            CommandEvent::Gap { from, to } => dropped += to - from,
            CommandEvent::Exit { exit, offset } => assert_eq!((exit.code, offset), (Some(0), BYTES)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen + dropped, BYTES);
    let left = command.end() - command.info().first_offset;
    assert!(left <= 64 << 20 && left > (64 << 20) - (256 << 10), "as much as the bound allows is left: {left}");
}

#[tokio::test]
async fn finished_commands_hold_no_descriptors() {
    let small = Processes::start(config()).unwrap();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for round in 0..300 {
        let mut start = line("echo some output; cat >/dev/null");
        start.stdin = vec![b'x'; 100_000].into();
        end_of(small.start_command(start).await.unwrap()).await;
        // Others of this process run beside: they open less than would be left behind.
        assert!(open() < before + 250, "round {round}: {before} before, {} now", open());
    }
}
