//! What can be started, and what is said when it can't.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use corehold_agent::process::StartError;
use corehold_types::{Code, Problem};

use crate::support::*;

fn script(folder: &Path, name: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

async fn problem(start: corehold_agent::process::Start) -> Problem {
    try_begin(start).await.unwrap_err().into()
}

#[tokio::test]
async fn arguments_arrive_as_they_are() {
    let ran = run(argv(&["printf", "<%s>", "a b", "$HOME", "", "žluť", "*"])).await;
    assert_eq!(ran.stdout, "<a b><$HOME><><žluť><*>");
    assert_eq!((ran.exit.code, ran.stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_line_is_the_shells() {
    let ran = run(line("echo out; echo err >&2; exit 3")).await;
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str(), ran.exit.code), ("out\n", "err\n", Some(3)));
}

#[tokio::test]
async fn exit_codes_and_signals_are_told_apart() {
    for code in [0, 1, 255] {
        let ran = run(line(&format!("exit {code}"))).await;
        assert_eq!((ran.exit.code, ran.exit.signal), (Some(code), None));
    }
    for (number, name) in [(9, "SIGKILL"), (15, "SIGTERM"), (11, "SIGSEGV"), (10, "SIGUSR1")] {
        let ran = run(line(&format!("kill -{number} $$"))).await;
        assert_eq!((ran.exit.code, ran.exit.signal.as_deref()), (None, Some(name)));
    }
}

#[tokio::test]
async fn a_command_has_a_session_and_group_of_its_own_and_nothing_of_the_agents() {
    let ran = run(line("cut -d' ' -f5,6 /proc/$$/stat; echo $$; ls /proc/$$/fd")).await;
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[0], format!("{0} {0}", lines[1]));
    assert_eq!(lines[2..], ["0", "1", "2"], "no descriptor of the agent's is inherited");

    let ran = run(argv(&["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"])).await;
    for signals in ran.stdout.lines() {
        assert!(signals.ends_with("\t0000000000000000"), "nothing is ignored or blocked: {signals}");
    }
}

#[tokio::test]
async fn the_limit_of_open_files_is_the_one_that_the_agent_was_given() {
    // Cargo's own; the room raises the agent's to the hard limit.
    let ran = run(line("ulimit -Sn; ulimit -Hn")).await;
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    assert_eq!(own.current, own.maximum);
    assert!(ran.stdout.lines().all(|line| line.parse::<u64>().is_ok() || line == "unlimited"), "{}", ran.stdout);
}

#[tokio::test]
async fn input_ends_whether_there_is_any_or_not() {
    assert_eq!(run(argv(&["cat"])).await.stdout, "");
    let mut start = argv(&["cat"]);
    start.stdin = "in\nput".into();
    assert_eq!(run(start).await.stdout, "in\nput");
}

#[tokio::test]
async fn input_larger_than_a_pipe_is_fed_while_it_is_read() {
    let mut start = argv(&["cksum"]);
    start.stdin = vec![b'x'; 5 << 20].into();
    let cksum = run(start).await.stdout;
    assert!(cksum.ends_with(&format!(" {}\n", 5 << 20)), "{cksum}");
}

#[tokio::test]
async fn input_that_nobody_reads_holds_nobody_up() {
    let mut start = line("echo done");
    start.stdin = vec![b'x'; 5 << 20].into();
    assert_eq!(run(start).await.stdout, "done\n");
    let mut start = line("exec <&-; echo closed; sleep 0.05");
    start.stdin = vec![b'x'; 5 << 20].into();
    let ran = run(start).await;
    assert_eq!((ran.stdout.as_str(), ran.exit.code), ("closed\n", Some(0)));
}

#[tokio::test]
async fn variables_are_added_and_the_path_is_the_commands() {
    let folder = tempfile::tempdir().unwrap();
    script(folder.path(), "greet", "#!/bin/sh\necho \"hello $NAME from $0\"\n", 0o755);
    let mut start = argv(&["greet"]);
    start.environment.insert("NAME".into(), "žluť=1".into());
    start.environment.insert("PATH".into(), format!("/nowhere:{}:/usr/bin:/bin", folder.path().display()));
    assert_eq!(run(start).await.stdout, format!("hello žluť=1 from {}/greet\n", folder.path().display()));

    let mut start = line("echo \"[${EMPTY-unset}]\"");
    start.environment.insert("EMPTY".into(), String::new());
    assert_eq!(run(start).await.stdout, "[]\n");
}

/// By it a command's processes are found, wherever they have gone.
#[tokio::test]
async fn a_commands_own_name_is_not_its_callers_to_give() {
    let other = begin(argv(&["sleep", "1000"])).await;
    let mut start = line("echo $COREHOLD_COMMAND; env | grep -c ^COREHOLD_COMMAND=");
    start.environment.insert("COREHOLD_COMMAND".into(), other.id().into());
    let command = begin(start).await;
    let id = command.id().to_owned();
    assert_eq!(end_of(command).await.stdout, format!("{id}\n1\n"));
    assert_eq!(room().signal(other, rustix::process::Signal::KILL).await, 1);
}

#[tokio::test]
async fn it_runs_where_it_is_told_also_when_the_directory_has_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut start = argv(&["pwd"]);
    start.directory = directory(folder.path());
    assert_eq!(run(start).await.stdout, format!("{}\n", folder.path().display()));

    let mut start = argv(&["/bin/echo", "still"]);
    start.directory = directory(folder.path());
    folder.close().unwrap();
    assert_eq!(run(start).await.stdout, "still\n");
}

#[tokio::test]
async fn a_missing_program_is_named_with_what_may_help() {
    let said = problem(argv(&["no-such-program-here"])).await;
    assert_eq!(said.code, Code::CommandNotStarted);
    assert_eq!(said.detail, "there is no program \"no-such-program-here\"");
    assert!(said.suggestion.unwrap().contains("/bin"));

    assert!(problem(argv(&["npm run dev"])).await.suggestion.unwrap().contains("`line`"));
    assert!(problem(argv(&["/no/such"])).await.detail.contains("/no/such"));

    let folder = tempfile::tempdir().unwrap();
    script(folder.path(), "build", "", 0o755);
    let mut start = argv(&["build"]);
    start.directory = directory(folder.path());
    assert!(problem(start).await.suggestion.unwrap().contains("./build"));
}

#[tokio::test]
async fn what_is_there_but_can_not_be_run_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str, content: &[u8], mode| script(folder.path(), name, content, mode).display().to_string();
    for (program, expected) in [
        (at("plain", b"#!/bin/sh\n", 0o644), "not executable"),
        (folder.path().display().to_string(), "not a regular file"),
        (at("lost", b"#!/no/such/interpreter -x\n", 0o755), "/no/such/interpreter"),
        (at("dos", b"#!/bin/sh\r\necho\r\n", 0o755), "/bin/sh\\r"),
        (at("foreign", b"MZ\0\0\0", 0o755), "no program that this machine can run"),
    ] {
        let said = problem(argv(&[&program])).await;
        assert_eq!(said.code, Code::CommandNotStarted, "{program}");
        assert!(said.detail.contains(expected), "{program}: {}", said.detail);
    }
}

#[tokio::test]
async fn a_script_without_a_first_line_is_the_shells() {
    let folder = tempfile::tempdir().unwrap();
    let path = script(folder.path(), "plain script", "echo \"$0 got $# in $(pwd)\"\n", 0o755);
    let ran = run(argv(&[path.to_str().unwrap(), "a", "b c"])).await;
    assert_eq!(ran.stdout, format!("{} got 2 in /tmp\n", path.display()));
}

#[tokio::test]
async fn nul_bytes_and_impossible_names_are_refused() {
    let mut with_name = argv(&["true"]);
    with_name.environment.insert("A=B".into(), String::new());
    let mut without_name = argv(&["true"]);
    without_name.environment.insert(String::new(), "x".into());
    let mut nul_in_value = argv(&["true"]);
    nul_in_value.environment.insert("A".into(), "a\0b".into());
    for start in [
        argv(&["echo", "a\0b"]),
        line("echo \0"),
        argv(&[]),
        argv(&[""]),
        line(""),
        with_name,
        without_name,
        nul_in_value,
    ] {
        let shown = format!("{start:?}");
        assert!(matches!(try_begin(start).await, Err(StartError::Invalid(_))), "{shown}");
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_by_the_agent_or_the_kernel() {
    let said = problem(line(&format!(": {}", "x".repeat(1 << 20)))).await;
    assert_eq!(said.code, Code::LimitExceeded);
    assert_eq!(said.context["variable"], "COREHOLD_LIMIT_COMMAND_ARGUMENT_BYTES");
    let said = problem(line(&format!(": {}", "x".repeat(200 << 10)))).await;
    assert_eq!(said.code, Code::CommandNotStarted, "the kernel takes at most 128 KiB in one argument");
    assert!(said.suggestion.unwrap().contains("stdin"));
}

#[tokio::test]
async fn failures_leave_no_process_and_no_slot_behind() {
    let folder = tempfile::tempdir().unwrap();
    let lost = script(folder.path(), "lost", "#!/no/such/interpreter\n", 0o755);
    for _ in 0..600 {
        assert!(try_begin(argv(&[lost.to_str().unwrap()])).await.is_err());
    }
    assert_eq!(run(argv(&["true"])).await.exit.code, Some(0), "more failed than may run at a time");
}

#[tokio::test]
async fn when_memory_runs_out_commands_go_before_the_agent() {
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    // It is set right after the start, so the command looks until it is.
    let wait = format!("while s=$(cat /proc/self/oom_score_adj); [ $s = {own} ]; do :; done; echo $s");
    let ran = run(line(&wait)).await;
    assert_eq!(ran.stdout, format!("{}\n", (own + 100).min(1_000)));
}
