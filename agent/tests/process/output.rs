//! Nothing lost, nothing doubled, nobody slowed down.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use corehold_agent::process::{self, Command, EVENT_BYTES, Processes, Viewer};
use corehold_types::{Data, tools::CommandEvent};

use crate::support::*;

/// A script that writes to both streams in turn, `lines` times; what it writes to each can be told from its length alone.
fn both_streams(lines: usize) -> String {
    format!("i=0; while [ $i -lt {lines} ]; do echo \"out $i\"; echo \"error $i\" >&2; i=$((i+1)); done")
}

/// Everything that a viewer gets, checked for order: offsets go on where they ended, and the exit comes once.
struct Seen {
    bytes: Vec<u8>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    gaps: Vec<(u64, u64)>,
    exits: usize,
}

async fn watch(command: &Arc<Command>, from: u64, follow: bool) -> Seen {
    let mut viewer = Viewer::new(Arc::clone(command), from, follow);
    let mut seen = Seen { bytes: Vec::new(), stdout: Vec::new(), stderr: Vec::new(), gaps: Vec::new(), exits: 0 };
    let mut at = from;
    while let Some(event) = viewer.next().await {
        let (begins, ends) = match event {
            CommandEvent::Stdout { offset, end, ref data } | CommandEvent::Stderr { offset, end, ref data } => {
                let bytes = data.to_bytes().unwrap();
                assert!(bytes.len() <= EVENT_BYTES && bytes.len() as u64 == end - offset && end > offset);
                let stream =
                    if matches!(event, CommandEvent::Stdout { .. }) { &mut seen.stdout } else { &mut seen.stderr };
                stream.extend_from_slice(&bytes);
                seen.bytes.extend_from_slice(&bytes);
                (offset, end)
            }
            CommandEvent::Gap { from, to } => {
                assert!(to > from);
                seen.gaps.push((from, to));
                (from, to)
            }
            CommandEvent::Exit { offset, .. } => {
                seen.exits += 1;
                (offset.max(at), offset.max(at))
            }
            CommandEvent::Status { .. } => unreachable!("the tool's, not the viewer's"),
        };
        assert_eq!(begins, at);
        at = ends;
        assert_eq!(viewer.offset(), at);
    }
    seen
}

#[tokio::test]
async fn a_replay_from_any_offset_is_the_rest_and_nothing_else() {
    let command = begin(line(&both_streams(3_000))).await;
    let live = watch(&command, 0, true).await;
    assert_eq!((live.exits, live.gaps.len()), (1, 0));
    let expected = |name| (0..3_000).map(|i| format!("{name} {i}\n")).collect::<String>();
    assert_eq!(String::from_utf8(live.stdout).unwrap(), expected("out"));
    assert_eq!(String::from_utf8(live.stderr).unwrap(), expected("error"));

    let end = command.end();
    // Offsets that don't look alike: multiples of a prime, the ends, and around them.
    for from in (0..20).map(|i| i * 104_729 % end).chain([0, 1, end - 1, end]) {
        let replayed = watch(&command, from, false).await;
        assert!(replayed.bytes == live.bytes[from as usize..], "from {from}");
        assert_eq!(replayed.exits, 1);
    }
}

#[tokio::test]
async fn many_viewers_each_get_everything() {
    let command = begin(line(&both_streams(500))).await;
    let viewers = (0..20).map(|_| {
        let command = Arc::clone(&command);
        tokio::spawn(async move { watch(&command, 0, true).await.bytes })
    });
    let mut all = Vec::new();
    for viewer in viewers.collect::<Vec<_>>() {
        all.push(viewer.await.unwrap());
    }
    assert!(all.iter().all(|bytes| *bytes == all[0] && bytes.len() as u64 == command.end()));
}

#[tokio::test]
async fn beyond_the_bound_the_oldest_goes_and_a_gap_says_so() {
    let mut small = config();
    small.log_bytes.value = 1 << 20;
    let small = Processes::start(small).unwrap();
    // Eight bytes a number: what is at an offset can be computed.
    let command = small.start_command(argv(&["seq", "-f", "%07.0f", "0", "999999"])).await.unwrap();
    end_without_reading(&command).await;
    assert_eq!(command.end(), 8_000_000);

    let seen = watch(&command, 0, true).await;
    let [(0, to)] = seen.gaps[..] else { panic!("{:?}", seen.gaps) };
    assert!((7_000_000 - 200_000..8_000_000 - 500_000).contains(&to), "about a megabyte is left: {to}");
    assert_eq!(command.info().first_offset, to);
    let expected: String = (0..1_000_000).map(|i| format!("{i:07}\n")).collect();
    assert!(seen.bytes == expected.as_bytes()[to as usize..]);
    assert_eq!(seen.exits, 1);

    let collected = process::collect(command, 0, true, 100).await;
    assert_eq!(collected.stdout.total_bytes, 8_000_000);
    assert_eq!(collected.stdout.head, Data::Text(String::new()), "the beginning is not there any more");
    assert!(matches!(&collected.stdout.tail, Some(Data::Text(tail)) if tail.ends_with("0999999\n")));
    assert_eq!(collected.stdout.omitted_bytes, 8_000_000 - 50);
}

/// A room whose commands keep a megabyte, and wait so long for a viewer. Eight bytes a number: what is at an offset can be computed.
async fn fast_and_small(hold: Duration) -> (Processes, Arc<Command>) {
    let mut small = config();
    small.log_bytes.value = 1 << 20;
    small.hold = hold;
    let small = Processes::start(small).unwrap();
    let command = small.start_command(argv(&["seq", "-f", "%07.0f", "0", "999999"])).await.unwrap();
    (small, command)
}

#[tokio::test]
async fn a_command_waits_for_a_viewer_that_reads_on() {
    let (small, command) = fast_and_small(Duration::from_secs(60)).await;
    let mut viewer = Viewer::new(Arc::clone(&command), 0, true).waited_for();
    let (mut bytes, mut reads, mut exits) = (Vec::new(), 0, 0);
    while let Some(event) = viewer.next().await {
        match event {
            CommandEvent::Stdout { data, .. } => bytes.extend(data.to_bytes().unwrap()),
            CommandEvent::Exit { .. } => exits += 1,
            other => panic!("after {} bytes: {other:?}", bytes.len()),
        }
        reads += 1;
        // Now and then it lets the command run ahead as far as it goes.
        if reads % 16 == 1 && command.exit().is_none() {
            until_still(&small, &command).await;
        }
    }
    assert!(bytes == (0..1_000_000).map(|i| format!("{i:07}\n")).collect::<String>().as_bytes());
    assert_eq!(exits, 1);
}

/// Waits until a command writes no more, or nobody reads it: the keeper has done whatever it can before it answers.
async fn until_still(room: &Processes, command: &Arc<Command>) {
    let mut unchanged = 0;
    while unchanged < 20 && command.exit().is_none() {
        let before = command.end();
        room.signal(Arc::clone(command), rustix::process::Signal::CONT).await;
        unchanged = if before == command.end() && before > 500_000 { unchanged + 1 } else { 0 };
    }
}

#[tokio::test]
async fn a_dead_viewer_is_waited_for_once() {
    let hold = Duration::from_millis(300);
    let (_room, command) = fast_and_small(hold).await;
    let dead = Viewer::new(Arc::clone(&command), 0, true).waited_for();
    let began = Instant::now();
    end_without_reading(&command).await;
    assert_eq!(command.end(), 8_000_000);
    assert!(
        began.elapsed() < hold * 8,
        "there are a hundred reads after which it could be waited for: {:?}",
        began.elapsed()
    );
    drop(dead);
}

#[tokio::test]
async fn who_goes_away_is_not_waited_for() {
    let (small, command) = fast_and_small(Duration::from_secs(60)).await;
    let viewer = Viewer::new(Arc::clone(&command), 0, true).waited_for();
    until_still(&small, &command).await;
    assert!(command.exit().is_none());
    drop(viewer);
    end_without_reading(&command).await;
    assert_eq!(command.end(), 8_000_000);
}

#[tokio::test]
async fn all_logs_together_are_bounded_and_the_oldest_finished_one_goes_first() {
    let mut small = config();
    small.log_bytes.value = 512 << 10;
    small.logs_bytes.value = 1 << 20;
    let small = Processes::start(small).unwrap();
    let mut commands = Vec::new();
    for _ in 0..4 {
        let command = small.start_command(line("head -c 400000 /dev/zero")).await.unwrap();
        end_without_reading(&command).await;
        commands.push(command);
    }
    let kept: Vec<bool> = commands.iter().map(|command| command.info().first_offset == 0).collect();
    assert_eq!(kept, [false, false, true, true]);
    let oldest = watch(&commands[0], 0, true).await;
    assert_eq!((oldest.gaps, oldest.exits), (vec![(0, 400_000)], 1), "its end is still known");
}

#[tokio::test]
async fn the_log_is_on_disk_and_has_no_name_there() {
    // Not `/tmp`, which may be in memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut own = config();
    own.log_directory = Some(folder.path().to_owned());
    let own = Processes::start(own).unwrap();
    let command = own.start_command(line("head -c 3000000 /dev/zero")).await.unwrap();
    end_without_reading(&command).await;
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let files = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| {
        let fd = fd.unwrap().path();
        let is_here = std::fs::read_link(&fd).is_ok_and(|target| target.starts_with(folder.path()));
        is_here.then(|| std::fs::metadata(fd).unwrap().len())
    });
    assert!(files.sum::<u64>() >= 3_000_000);
    assert!(watch(&command, 0, false).await.bytes.len() as u64 == command.end());
}

#[tokio::test]
async fn finished_commands_are_forgotten_beyond_the_bound() {
    let mut small = config();
    small.commands_kept.value = 3;
    let small = Processes::start(small).unwrap();
    let mut ids = Vec::new();
    for _ in 0..5 {
        let command = small.start_command(argv(&["true"])).await.unwrap();
        end_without_reading(&command).await;
        ids.push(command.id().to_owned());
    }
    // The last exit may be told an instant before the oldest is forgotten; another command's start is after both.
    let running = small.start_command(argv(&["sleep", "1000"])).await.unwrap();
    wait_until_adopted(&small, &running).await;
    let known: Vec<bool> = ids.iter().map(|id| small.find(id).is_some()).collect();
    // Which of the older ones goes depends on who holds their pipes: what other tests of this process start does so until it is another
    // program. (`output.rs` has a test of their order.)
    assert_eq!((known.iter().filter(|known| **known).count(), known[4]), (3, true), "{known:?}");
    small.shutdown(Duration::ZERO).await;
}

/// The keeper answers orders in order, so it has done all before.
async fn wait_until_adopted(room: &Processes, command: &Arc<Command>) {
    assert_eq!(room.signal(Arc::clone(command), rustix::process::Signal::CONT).await, 1);
}

async fn end_without_reading(command: &Arc<Command>) {
    let mut viewer = Viewer::new(Arc::clone(command), command.end(), true);
    while viewer.next().await.is_some() {}
}

#[tokio::test]
async fn a_character_that_is_cut_waits_for_its_rest() {
    // The crab's four bytes in two writes; the first alone is no text.
    let command = begin(line(r"printf 'a\360\237'; sleep 0.2; printf '\246\200b'; sleep 0.2; printf '\377'")).await;
    let mut viewer = Viewer::new(command, 0, true);
    let mut data = Vec::new();
    while let Some(event) = viewer.next().await {
        if let CommandEvent::Stdout { data: bytes, .. } = event {
            data.push(bytes);
        }
    }
    let text = |text: &str| Data::Text(text.into());
    assert_eq!(data, [text("a"), text("🦀b"), Data::Base64("/w==".into())]);
}

#[tokio::test]
async fn an_unfinished_character_is_handed_out_when_the_other_stream_or_the_end_comes() {
    let command = begin(line(r"printf '\360\237'; sleep 0.2; printf 'e' >&2; sleep 0.2; printf '\246'")).await;
    let seen = watch(&command, 0, true).await;
    assert_eq!(seen.bytes, b"\xf0\x9fe\xa6");
    assert_eq!(seen.stdout, b"\xf0\x9f\xa6");
}

#[tokio::test]
async fn bytes_that_are_no_text_come_in_base64() {
    let collected = process::collect(begin(line(r"printf '\0\377\376'")).await, 0, true, 100).await;
    assert_eq!(collected.stdout.head, Data::from_bytes(vec![0, 0xff, 0xfe]));
    assert!(matches!(collected.stdout.head, Data::Base64(_)));
}

#[tokio::test]
async fn a_detached_command_is_read_from_later() {
    let command = begin(line("echo first; sleep 0.2; echo second")).await;
    wait_for(&command, "first").await;
    let early = process::collect(Arc::clone(&command), 0, false, 1_000).await;
    assert_eq!((early.exit, early.offset), (None, 6));
    let found = room().find(command.id()).unwrap();
    assert_eq!(watch(&found, 6, true).await.bytes, b"second\n");
}

#[tokio::test]
async fn what_survivors_write_after_the_exit_can_be_read_later() {
    let command = begin(line("(sleep 0.3; echo late; sleep 1000) & echo now")).await;
    let ran = end_of(Arc::clone(&command)).await;
    assert_eq!((ran.stdout.as_str(), ran.exit.code), ("now\n", Some(0)));
    wait_for_log(&command, 9).await;
    let seen = watch(&command, 0, false).await;
    assert_eq!((seen.bytes, seen.exits), (b"now\nlate\n".to_vec(), 1));
    room().signal(command, rustix::process::Signal::KILL).await;
}

/// Waits until the log has this many bytes; viewers end at the exit, so there is no event for a test to wait on.
async fn wait_for_log(command: &Arc<Command>, bytes: u64) {
    while command.end() < bytes {
        tokio::task::yield_now().await;
    }
}
