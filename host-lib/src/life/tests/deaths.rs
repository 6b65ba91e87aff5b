//! A host process dies, as by `kill -9`, at every await point of every transition: of the caller's future, and of every task that the
//! host has spawned. After it a new host reconciles, and everything is in order.
//!
//! All of a host runs on one thread here, together with the engine and its agents, and before each poll of any task the test looks at the
//! world outside of the process: the home folder, the engine, the archives. Whenever that has changed, it takes a copy. Each
//! copy is what a process leaves that dies there; it is given to a new host.

use std::{
    fs,
    path::{Path, PathBuf},
    task::Poll,
    time::SystemTime,
};

use super::{
    invariants::{Stage, Step},
    kept::{Kept, Objects},
    *,
};
use crate::testing::EngineCopy;

/// What a process leaves that dies.
struct World {
    folder: tempfile::TempDir,
    engine: EngineCopy,
    kept: Kept,
    /// Whether the step was done by then.
    done: bool,
    /// After which call of the engine, for people.
    after: String,
}

/// Looks at the world, and copies it when it has changed.
struct Watcher<'a> {
    stage: &'a Stage,
    worlds: Vec<World>,
    last: Option<(Files, EngineCopy, Vec<String>)>,
    polls: usize,
}

type Files = Vec<(PathBuf, u64, SystemTime)>;

impl Watcher<'_> {
    fn look(&mut self, done: bool) {
        self.polls += 1;
        let Stage { engine, kept, folder, .. } = self.stage;
        // The one thread for blocking work is done with all of it then: a write that was begun is made. But for one thing nothing
        // that it does waits for a task, and while it does that it writes nothing.
        if !kept.reads_a_tar() {
            let (sender, receiver) = std::sync::mpsc::sync_channel(1);
            tokio::task::spawn_blocking(move || sender.send(()));
            receiver.recv_timeout(PATIENCE).expect("no blocking work waits for anybody");
        }
        let now = (files_in(folder.path()), engine.copy(), kept.content());
        if self.last.as_ref() == Some(&now) && !done {
            return;
        }
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), copy.path());
        let after = format!("poll {}, last call of the engine: {}", self.polls, engine.last_call());
        self.worlds.push(World { folder: copy, engine: engine.copy(), kept: kept.copy(), done, after });
        self.last = Some(now);
    }
}

fn files_in(folder: &Path) -> Files {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let about = entry.metadata().unwrap();
        if about.is_dir() {
            all.extend(files_in(&entry.path()));
        } else if !entry.path().ends_with("state.db-shm") {
            all.push((entry.path(), about.len(), about.modified().unwrap()));
        }
    }
    all.sort();
    all
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Polls the future given to `block_on` before each poll of another task.
fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().event_interval(1).max_blocking_threads(1).build().unwrap()
}

fn worlds_of(step: Step, kept: Kept) -> Vec<World> {
    runtime().block_on(async {
        let stage = Box::pin(Stage::before(step, kept)).await;
        let mut watcher = Watcher { stage: &stage, worlds: Vec::new(), last: None, polls: 0 };
        // In boxes, as below: together they are too large for a test's stack.
        let mut going = Box::pin(step.go(&stage));
        let result = std::future::poll_fn(|context| {
            watcher.look(false);
            match going.as_mut().poll(context) {
                Poll::Ready(result) => Poll::Ready(result),
                Poll::Pending => {
                    watcher.look(false);
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
            }
        });
        result.await.unwrap();
        watcher.look(true);
        watcher.worlds
    })
}

fn dies_everywhere(step: Step, kept: Kept) {
    let worlds = worlds_of(step, kept);
    let count = worlds.len();
    assert!(count > 4, "only {count} moments of {step:?} differ");
    for (number, world) in worlds.into_iter().enumerate() {
        println!("{step:?}: dead at {number} of {count}, after {}; done: {}", world.after, world.done);
        runtime().block_on(async {
            let stage = Box::pin(Stage::after(world.folder, &world.engine, world.kept)).await;
            Box::pin(stage.reconcile()).await;
            Box::pin(stage.holds(step, world.done)).await;
            Box::pin(stage.clear()).await;
        });
    }
}

/// What the method stands on.
#[test]
fn between_two_polls_of_any_task_the_test_looks() {
    let polls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    runtime().block_on(async {
        let tasks = (0..3).map(|_| {
            let polls = polls.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    polls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            })
        });
        let mut tasks = std::pin::pin!(futures_util::future::join_all(tasks.collect::<Vec<_>>()));
        let mut seen = Vec::new();
        let looking = std::future::poll_fn(|context| {
            seen.push(polls.load(std::sync::atomic::Ordering::Relaxed));
            context.waker().wake_by_ref();
            tasks.as_mut().poll(context).map(drop)
        });
        looking.await;
        assert!(seen.windows(2).all(|two| two[1] <= two[0] + 1) && seen.last() == Some(&30), "{seen:?}");
    });
}

macro_rules! every_await_point_of {
    ($($name:ident: $step:ident,)*) => {
        $(#[test]
        fn $name() {
            dies_everywhere(Step::$step, Kept::Bed(Arc::default()));
        })*

        #[test]
        fn each_step_has_its_test() {
            assert_eq!([$(Step::$step),*], Step::ALL);
        }
    };
}

for_each_step!(every_await_point_of);

/// The same over the real archives, of all that has to do with them.
mod with_archives {
    use super::*;

    macro_rules! with_archives {
        ($($name:ident: $step:ident,)*) => {
            $(#[test]
            fn $name() {
                dies_everywhere(Step::$step, Kept::Objects(Arc::new(Objects::default())));
            })*
        };
    }

    with_archives! {
        a_sleep: Sleep,
        a_sleep_of_one_that_slept_before: SleepAgain,
        a_sleep_of_one_that_is_stopped: SleepStopped,
        a_wake: Wake,
        a_wake_from_a_pool: WakeFromPool,
        a_removal: Remove,
        a_removal_of_one_that_sleeps: RemoveAsleep,
        a_removal_with_archives: RemoveArchives,
    }
}
