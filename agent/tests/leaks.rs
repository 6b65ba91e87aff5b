//! What ten thousand commands leave behind: no process, no zombie, no descriptor, no thread and no task.
//!
//! A process of its own, so that nothing else opens or starts anything while it counts. No test in here may use
//! `std::process::Command`: the room reaps every child of the process.

use std::{fs, fs::File, sync::Arc, time::Duration};

use corehold_agent::{
    config::Limits,
    process::{self, ProcessConfig, Processes, Program, Start, Viewer, environment},
};
use corehold_types::tools::PtySize;

const RUNS: usize = 10_000;
const WORKERS: usize = 8;

#[derive(Debug, PartialEq, Eq)]
struct Held {
    children: usize,
    descriptors: usize,
    threads: usize,
    tasks: usize,
}

/// What this process has now. Zombies are children too.
fn held() -> Held {
    let count = |path: &str| fs::read_dir(path).unwrap().count();
    let children = fs::read_dir("/proc/self/task").unwrap().map(|task| {
        let children = fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        children.split_whitespace().count()
    });
    Held {
        children: children.sum(),
        descriptors: count("/proc/self/fd"),
        threads: count("/proc/self/task"),
        tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
    }
}

fn start(arguments: &[&str]) -> Start {
    let program = Program::Arguments(arguments.iter().map(|argument| (*argument).to_owned()).collect());
    Start { timeout: Some(Duration::from_secs(60)), ..Start::new(program, File::open("/").unwrap().into()) }
}

/// One of each ten is killed, one has a terminal, one has a pipe nobody writes to, one loses its viewer.
async fn one(room: &Processes, round: usize) {
    let begin = async |start| room.start_command(start).await.unwrap();
    let command = match round % 10 {
        0 => {
            let command = begin(start(&["sleep", "1000"])).await;
            room.signal(Arc::clone(&command), rustix::process::Signal::KILL).await;
            command
        }
        1 => begin(Start { terminal: Some(PtySize { columns: 80, rows: 24 }), ..start(&["true"]) }).await,
        2 => begin(Start { interactive: true, ..start(&["true"]) }).await,
        3 => {
            let command = begin(start(&["echo", "unread"])).await;
            let mut viewer = Viewer::new(Arc::clone(&command), 0, true);
            drop(viewer.next().await);
            command
        }
        _ => begin(start(&["true"])).await,
    };
    let exit = process::collect(command, 0, true, 1 << 10).await.exit.unwrap();
    assert_eq!(exit.code, (!round.is_multiple_of(10)).then_some(0), "round {round}");
}

async fn many(room: &Arc<Processes>, runs: usize) {
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let room = Arc::clone(room);
            tokio::spawn(async move {
                for round in (worker..runs).step_by(WORKERS) {
                    one(&room, round).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_commands_leave_nothing_behind() {
    let config = ProcessConfig::from_limits(&Limits::default(), environment::of_commands(std::env::vars_os()));
    let room = Arc::new(Processes::start(config).unwrap());
    // Threads that are kept for the next time are there after this.
    many(&room, 200).await;
    let before = held();
    // The count sees what is there: else it could find nothing.
    let command = room.start_command(start(&["sleep", "1000"])).await.unwrap();
    let with_one = held();
    assert!(
        with_one.children > before.children && with_one.descriptors > before.descriptors,
        "{before:?} {with_one:?}"
    );
    room.signal(Arc::clone(&command), rustix::process::Signal::KILL).await;
    process::collect(command, 0, true, 1 << 10).await;
    many(&room, RUNS).await;
    let after = held();
    assert_eq!(after.children, before.children, "{before:?} {after:?}");
    // The last commands' own ends may still be on their way; a leak would be of thousands.
    let few = 2 * WORKERS;
    assert!(after.descriptors <= before.descriptors + few, "{before:?} {after:?}");
    assert!(after.tasks <= before.tasks + few, "{before:?} {after:?}");
    assert!(after.threads <= before.threads + few, "{before:?} {after:?}");
}
