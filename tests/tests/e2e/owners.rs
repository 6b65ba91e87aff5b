//! One workspace for an owner, whichever host process asks for it, over a real engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Stdio,
    time::Duration,
};

use corehold_e2e::corehold::{Corehold, POOL_MARK};
use corehold_host::{
    CreateWorkspace,
    runtime::{BoxStream, ContainerEvent, ContainerId, Runtime as _},
};
use futures_util::StreamExt as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

const ROUNDS: usize = 20;
/// Longer than anything takes; only a broken test waits for it.
const PATIENCE: Duration = Duration::from_secs(120);

fn mark(corehold: &Corehold) -> BTreeMap<String, String> {
    BTreeMap::from([(POOL_MARK.to_owned(), corehold.scratch.path().display().to_string())])
}

/// A host process that answers each line with one.
struct Asking {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    input: ChildStdin,
}

impl Asking {
    fn start(corehold: &Corehold) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_owning_host"));
        command.arg(corehold.host.home()).arg(&mark(corehold)[POOL_MARK]).arg("ada");
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = piped.spawn().expect("it starts");
        let lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let input = process.stdin.take().expect("it is piped");
        Self { process, lines, input }
    }

    async fn say(&mut self, line: &str) -> String {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let answer = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        answer.unwrap_or_else(|_| panic!("no answer to {line}")).unwrap().unwrap_or_else(|| panic!("{line}: it ended"))
    }

    /// The owner's workspace, and what its file says.
    async fn ask(&mut self) -> (String, String) {
        let answer = self.say("ask").await;
        let words: Vec<_> = answer.splitn(3, ' ').collect();
        let ["got", id, content] = words.as_slice() else { panic!("{answer:?}") };
        ((*id).to_owned(), (*content).to_owned())
    }

    async fn end(mut self) {
        drop(self.input);
        assert!(self.process.wait().await.unwrap().success());
    }
}

/// The containers that were made since, up to the one of this name, each with whether another was there when it came.
async fn came(events: &mut BoxStream<ContainerEvent>, last: &str) -> Vec<(ContainerId, bool)> {
    let mut there = BTreeSet::new();
    let mut came = Vec::new();
    loop {
        let next = tokio::time::timeout(PATIENCE, events.next()).await;
        let event = next.expect("it is told").expect("events have no end").expect("events have no error");
        match event.action.as_str() {
            "create" => {
                came.push((event.id.clone(), !there.is_empty()));
                there.insert(event.id.0);
            }
            "destroy" => {
                there.remove(&event.id.0);
                if event.name == last {
                    return came;
                }
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_ask_for_an_owner_always_get_the_same_and_there_is_never_a_second() {
    let corehold = Corehold::start().await;
    let mut events = corehold.docker.events(&mark(&corehold));
    let (mut one, mut other) = (Asking::start(&corehold), Asking::start(&corehold));
    let mut written = "-".to_owned();
    let mut ids = BTreeSet::new();
    for round in 0..ROUNDS {
        // Who changes it between the rounds changes too, and so who knows of it only by the store.
        let changing = if round % 3 == 0 { &mut one } else { &mut other };
        let mut asleep = false;
        match round % 4 {
            // It is there and ready, but for the first time, or was woken.
            0 => {}
            1 => {
                assert_eq!(changing.say("sleep").await, "done");
                asleep = true;
            }
            2 => {
                assert_eq!(changing.say("remove").await, "done");
                "-".clone_into(&mut written);
            }
            // One of them puts it to sleep while the other asks.
            _ => {
                let (slept, (_, content)) = tokio::join!(one.say("sleep"), other.ask());
                assert_eq!((slept.as_str(), &content), ("done", &written), "round {round}");
            }
        }
        if asleep {
            assert!(
                corehold.docker.list(&mark(&corehold)).await.unwrap().is_empty(),
                "round {round}: it has no container"
            );
        }
        let (first, second) = tokio::join!(one.ask(), other.ask());
        assert_eq!(first, second, "round {round}");
        assert_eq!(first.1, written, "round {round}");
        ids.insert(first.0.clone());
        let there = corehold.docker.list(&mark(&corehold)).await.unwrap();
        let names: Vec<_> = there.iter().map(|state| state.name.as_str()).collect();
        assert_eq!(names, [format!("corehold-{}", first.0)], "round {round}");
        written = format!("round {round}");
        let writing = if round % 2 == 0 { &mut one } else { &mut other };
        assert_eq!(writing.say(&format!("write {written}")).await, "done");
    }
    assert_eq!(ids.len(), 1 + ROUNDS / 4, "after each removal another was made, and only then");
    assert_eq!(one.say("remove").await, "done");
    one.end().await;
    other.end().await;
    assert_eq!(corehold.host.list().await.unwrap(), []);

    let (name, value) = mark(&corehold).pop_first().unwrap();
    let host = corehold.builder().label(name, value).build().await.unwrap();
    host.create(CreateWorkspace::empty().id("last")).await.unwrap().remove().await.unwrap();
    let came = came(&mut events, "corehold-last").await;
    assert!(came.len() > ids.len() + ROUNDS / 4, "all were seen: {came:?}");
    assert!(came.iter().all(|(_, second)| !second), "one was made while another was there: {came:?}");
}
