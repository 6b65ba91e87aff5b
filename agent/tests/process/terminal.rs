//! Terminals and input: what callers write arrives, whole and in order, and a terminal is one to the programs in it.

use std::{sync::Arc, time::Duration};

use corehold_agent::process::{Command, InputClosed, Start};
use corehold_types::tools::{CommandLimits, PtySize};

use super::support::{argv, begin, end_of, line, lives, room, run, try_begin, wait_for};

const SIZE: PtySize = PtySize { columns: 80, rows: 24 };

fn in_terminal(start: Start) -> Start {
    Start { terminal: Some(SIZE), ..start }
}

fn interactive(start: Start) -> Start {
    Start { interactive: true, ..start }
}

async fn write(command: &Arc<Command>, bytes: &[u8]) {
    let mut accepted = 0;
    command.write(bytes, false, &mut accepted).await.unwrap();
    assert_eq!(accepted, bytes.len());
}

#[tokio::test]
async fn a_terminal_is_one_stream_that_controls_its_session() {
    let ran =
        run(in_terminal(line("tty -s && echo terminal; stty size; echo error >&2; : </dev/tty && echo own"))).await;
    assert_eq!(ran.stdout, "terminal\r\n24 80\r\nerror\r\nown\r\n");
    assert_eq!((ran.stderr.as_str(), ran.exit.code), ("", Some(0)));
}

#[tokio::test]
async fn nothing_that_the_leader_wrote_last_is_lost() {
    let ran = run(in_terminal(line("seq 1 50000"))).await;
    assert!(ran.stdout.ends_with("\r\n50000\r\n"));
    assert_eq!(ran.stdout.lines().count(), 50_000);
}

#[tokio::test]
async fn what_is_typed_arrives_and_a_resize_is_seen() {
    let command = begin(in_terminal(line(
        "trap 'stty size' WINCH; echo ready; read a; echo got $a; while :; do read b && break; done; echo end $b",
    )))
    .await;
    wait_for(&command, "ready").await;
    write(&command, b"one\r").await;
    wait_for(&command, "got one").await;
    command.resize(PtySize { columns: 132, rows: 50 }).unwrap();
    assert_eq!(command.terminal_size(), Some(PtySize { columns: 132, rows: 50 }));
    wait_for(&command, "50 132").await;
    write(&command, b"two\r").await;
    assert_eq!(end_of(Arc::clone(&command)).await.exit.code, Some(0));
    assert_eq!(command.terminal_size(), None);
    assert_eq!(command.resize(SIZE), Err(InputClosed));
}

#[tokio::test]
async fn control_c_reaches_the_foreground_only() {
    let command = begin(in_terminal(argv(&["/bin/bash", "--norc", "--noprofile", "-i"]))).await;
    // The words are put together by the shell, so that the echo of what is typed isn't taken for an answer.
    write(&command, b"sleep 1000 & echo behind''=$!; sh -c 'echo in''front; exec sleep 1000'\r").await;
    wait_for(&command, "infront").await;
    write(&command, b"\x03").await;
    write(&command, b"echo status''=$?; jobs -r; echo jobs''=shown\r").await;
    wait_for(&command, "status=130").await;
    wait_for(&command, "jobs=shown").await;
    write(&command, b"kill %1; sh -c 'echo third''=here; exec sleep 1000'\r").await;
    wait_for(&command, "third=here").await;
    write(&command, b"\x1a").await;
    wait_for(&command, "Stopped").await;
    write(&command, b"bg; echo back''ground=$?; fg\r").await;
    wait_for(&command, "background=0").await;
    write(&command, b"\x03").await;
    write(&command, b"exit 7\r").await;
    let ran = end_of(command).await;
    assert!(ran.stdout.contains("Running"), "{:?}", ran.stdout);
    assert_eq!(ran.exit.code, Some(7));
}

#[tokio::test]
async fn a_password_is_not_echoed() {
    let command = begin(in_terminal(argv(&[
        "/bin/bash",
        "-c",
        "read -rsp 'Password: ' word; echo; echo length=${#word}; read -r shown; echo end",
    ])))
    .await;
    wait_for(&command, "Password: ").await;
    write(&command, b"secret\r").await;
    wait_for(&command, "length=6").await;
    write(&command, b"visible\r").await;
    let ran = end_of(command).await;
    assert!(!ran.stdout.contains("secret") && ran.stdout.contains("visible"), "{:?}", ran.stdout);
}

#[tokio::test]
async fn whoever_keeps_the_terminal_does_not_keep_the_command() {
    let command = begin(in_terminal(line("trap '' HUP; sleep 1000 & echo child=$!; exit 3"))).await;
    let id = Arc::clone(&command);
    let ran = end_of(command).await;
    let child = ran.stdout.lines().find_map(|line| line.strip_prefix("child=")).unwrap().trim().parse().unwrap();
    assert_eq!((ran.exit.code, ran.exit.survivors.contains(&child)), (Some(3), true));
    assert!(lives(child));
    room().signal(id, rustix::process::Signal::KILL).await;
}

#[tokio::test]
async fn every_byte_passes_a_raw_terminal_both_ways() {
    let command = begin(in_terminal(line("stty raw -echo; echo ready; exec head -c 65536 | od -An -v -tx1"))).await;
    wait_for(&command, "ready").await;
    let bytes: Vec<u8> = (0..65_536_u32).map(|number| (number % 256) as u8).collect();
    write(&command, &bytes).await;
    let ran = end_of(command).await;
    let seen = ran.stdout.split_once("ready").unwrap().1.split_whitespace().map(|byte| u8::from_str_radix(byte, 16));
    assert!(seen.collect::<Result<Vec<_>, _>>().unwrap() == bytes);
}

#[tokio::test]
async fn the_leaders_end_hangs_the_terminal_up() {
    let command = begin(in_terminal(line("sleep 1000 & echo child=$!; read line"))).await;
    wait_for(&command, "child=").await;
    write(&command, b"\r").await;
    let ran = end_of(command).await;
    let child = ran.stdout.lines().find_map(|line| line.strip_prefix("child=")).unwrap().trim().parse().unwrap();
    // The kernel sends SIGHUP before the leader can be reaped.
    assert!(!lives(child) || ran.exit.survivors.contains(&child));
}

#[tokio::test]
async fn end_of_input_ends_a_reader_of_a_terminal_and_of_a_pipe() {
    for start in [in_terminal(argv(&["cat"])), interactive(argv(&["cat"]))] {
        let is_terminal = start.terminal.is_some();
        let command = begin(Start { stdin: b"first\n".to_vec().into(), ..start }).await;
        let mut accepted = 0;
        command.write(b"second\n", true, &mut accepted).await.unwrap();
        let ran = end_of(Arc::clone(&command)).await;
        assert!(ran.stdout.ends_with(if is_terminal { "second\r\n" } else { "first\nsecond\n" }), "{:?}", ran.stdout);
        assert_eq!(command.write(b"x", false, &mut accepted).await, Err(InputClosed));
        assert!(!command.takes_input());
    }
}

#[tokio::test]
async fn a_lot_of_input_arrives_whole_and_after_what_the_command_was_started_with() {
    let command = begin(Start { stdin: vec![b'a'; 1 << 20].into(), ..interactive(argv(&["sha256sum"])) }).await;
    let mut all = vec![b'a'; 1 << 20];
    for number in 0..100_u8 {
        let part = vec![number; 1 << 20];
        let mut accepted = 0;
        command.write(&part, number == 99, &mut accepted).await.unwrap();
        assert_eq!(accepted, part.len());
        all.extend(part);
    }
    let expected = run(Start { stdin: all.into(), ..argv(&["sha256sum"]) }).await.stdout;
    assert_eq!(end_of(command).await.stdout, expected);
}

#[tokio::test]
async fn who_writes_at_once_writes_in_turn() {
    let command = begin(interactive(argv(&["cat"]))).await;
    let writers: Vec<_> = (0..20_u8)
        .map(|number| {
            let command = Arc::clone(&command);
            tokio::spawn(async move { write(&command, &vec![b'a' + number; 200_000]).await })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    command.write(b"", true, &mut 0).await.unwrap();
    let written = end_of(command).await.stdout.into_bytes();
    let mut pieces: Vec<u8> = written
        .chunk_by(|one, next| one == next)
        .map(|piece| {
            assert_eq!(piece.len(), 200_000, "nobody writes into another's piece");
            piece[0]
        })
        .collect();
    pieces.sort_unstable();
    assert_eq!(pieces, (b'a'..b'a' + 20).collect::<Vec<_>>());
}

#[tokio::test]
async fn input_waits_for_a_command_that_does_not_read_and_is_given_up_by_dropping() {
    let command = begin(interactive(argv(&["sleep", "1000"]))).await;
    let bytes = vec![0; 1 << 20];
    let mut accepted = 0;
    let waited = tokio::time::timeout(Duration::from_millis(50), command.write(&bytes, false, &mut accepted)).await;
    assert!(waited.is_err() && accepted > 0 && accepted < bytes.len(), "{accepted}");
    let (mut one, mut two) = (0, 0);
    let writers = async { tokio::join!(command.write(&bytes, false, &mut one), command.write(b"x", false, &mut two)) };
    let killed = async {
        room().signal(Arc::clone(&command), rustix::process::Signal::KILL).await;
    };
    let (results, ()) = tokio::join!(writers, killed);
    assert_eq!(results, (Err(InputClosed), Err(InputClosed)));
}

#[tokio::test]
async fn without_being_asked_for_there_is_no_input_and_no_terminal() {
    let command = begin(argv(&["sleep", "1000"])).await;
    assert_eq!(command.write(b"x", false, &mut 0).await, Err(InputClosed));
    assert_eq!(command.resize(SIZE), Err(InputClosed));
    assert_eq!(command.terminal_size(), None);
    room().signal(Arc::clone(&command), rustix::process::Signal::KILL).await;
    let interactive = begin(interactive(argv(&["sleep", "1000"]))).await;
    assert_eq!(interactive.resize(SIZE), Err(InputClosed), "a pipe");
    room().signal(interactive, rustix::process::Signal::KILL).await;
}

#[tokio::test]
async fn limits_hold_for_the_command() {
    let limits = CommandLimits {
        cpu_ms: Some(1_500),
        memory_bytes: Some(512 << 20),
        open_files: Some(64),
        file_bytes: Some(1 << 20),
        processes: None,
    };
    let ran = run(Start { limits, ..line("ulimit -t; ulimit -d; ulimit -n; ulimit -f") }).await;
    assert_eq!(ran.stdout, "2\n524288\n64\n2048\n");
    let beyond = CommandLimits { open_files: Some(u64::MAX - 1), ..Default::default() };
    assert!(try_begin(Start { limits: beyond, ..argv(&["true"]) }).await.is_err());
}
