//! Totals over several host processes of one home, of which one is killed.

use std::{collections::BTreeMap, process::Stdio};

use corehold_e2e::corehold::{Corehold, POOL_MARK};
use corehold_host::{
    ErrorKind, Host,
    policy::{Policy, Totals},
    runtime::Runtime as _,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// How many there is room for.
const MOST: usize = 37;

fn mark(corehold: &Corehold) -> String {
    corehold.host.home().to_string_lossy().into_owned()
}

/// Starts a process that asks for some.
fn process(corehold: &Corehold, prefix: &str, count: usize) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_counted_host"));
    command.arg(corehold.host.home()).arg(mark(corehold)).arg(MOST.to_string()).arg(prefix).arg(count.to_string());
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

/// Who got one, of the next answers or of all that are left; and how many were refused.
async fn answers(lines: &mut Lines<BufReader<ChildStdout>>, most: usize) -> (Vec<String>, usize) {
    let (mut ready, mut full) = (Vec::new(), 0);
    while ready.len() + full < most
        && let Some(line) = lines.next_line().await.unwrap()
    {
        match line.strip_prefix("ready ") {
            Some(id) => ready.push(id.to_owned()),
            None => full += 1,
        }
    }
    (ready, full)
}

/// Waits until what a killed process had begun is finished or undone: by whichever of the two hosts here came first.
async fn settle(corehold: &Corehold, host: &Host) {
    host.reconcile().await.unwrap();
    corehold.host.settled().await;
    host.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_asked_for_by_processes_of_which_one_is_killed_thirty_seven_are_made() {
    let corehold = Corehold::start().await;
    let (mut killed, mut its_lines) = process(&corehold, "killed", 100);
    let (mut made, refused) = answers(&mut its_lines, 3).await;
    assert_eq!((made.len(), refused), (3, 0));
    // Half-way: it has some, others are on their way, more are to come, and others ask too.
    let (mut first, mut first_lines) = process(&corehold, "first", 50);
    let (mut second, mut second_lines) = process(&corehold, "second", 50);
    let mut of_first = answers(&mut first_lines, 1).await;
    killed.kill().await.unwrap();
    made.extend(answers(&mut its_lines, usize::MAX).await.0);
    let (rest_of_first, of_second) =
        tokio::join!(answers(&mut first_lines, usize::MAX), answers(&mut second_lines, usize::MAX));
    of_first.0.extend(rest_of_first.0);
    of_first.1 += rest_of_first.1;
    for (child, (ready, full)) in [(&mut first, of_first), (&mut second, of_second)] {
        assert!(child.wait().await.unwrap().success());
        assert_eq!(ready.len() + full, 50);
        assert!(full > 0, "there was not room for all");
        made.extend(ready);
    }
    assert!(made.len() <= MOST, "{}", made.len());

    // What the killed one had begun is finished or undone; then there is room for the rest, and for no more.
    let totals = Policy::new().host(Totals::unlimited().workspaces(MOST as u64));
    let host = corehold.builder().label(POOL_MARK, mark(&corehold)).policy(totals).build().await.unwrap();
    settle(&corehold, &host).await;
    let before = host.list().await.unwrap().len();
    assert!((made.len()..=MOST).contains(&before), "{before} of {}", made.len());
    let (mut last, mut last_lines) = process(&corehold, "last", 50);
    let (ready, full) = answers(&mut last_lines, usize::MAX).await;
    assert!(last.wait().await.unwrap().success());
    assert_eq!((before + ready.len(), ready.len() + full), (MOST, 50));
    made.extend(ready);

    settle(&corehold, &host).await;
    let listed: Vec<String> =
        host.list().await.unwrap().into_iter().map(|workspace| workspace.id.as_str().to_owned()).collect();
    assert_eq!(listed.len(), MOST, "{listed:?}");
    assert!(made.iter().all(|id| listed.contains(id)), "what was said to be ready is there");
    let labels = BTreeMap::from([(POOL_MARK.to_owned(), mark(&corehold))]);
    assert_eq!(corehold.docker.list(&labels).await.unwrap().len(), MOST, "and as many in the engine");
    let error = host.create(corehold_host::CreateWorkspace::empty()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Quota, "{error}");
    let removals = listed.iter().map(|id| async { host.workspace(id).await.unwrap().remove().await });
    assert!(futures_util::future::join_all(removals).await.iter().all(Result::is_ok));
}
