//! `corehold-agent relay`, as an engine starts it: what a port says and is told, over pipes.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use corehold_types::relay::{END, FRAME_BYTES, GREETING, header};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::AsFd as _,
    net::sockopt,
    process::{Pid, PidfdFlags, pidfd_open},
};

/// Only a broken relay is waited for so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A relay to a listener of the test's, with both of its ends.
struct Relayed {
    process: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    port: TcpStream,
}

fn start(agent: &mut Command, port: &str) -> Child {
    let agent = agent.args(["relay", port]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    agent.spawn().unwrap()
}

fn agent() -> Command {
    Command::new(env!("CARGO_BIN_EXE_corehold-agent"))
}

fn relayed() -> Relayed {
    relayed_by(&mut agent())
}

fn relayed_by(agent: &mut Command) -> Relayed {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut process = start(agent, &listener.local_addr().unwrap().port().to_string());
    let mut output = process.stdout.take().unwrap();
    let mut greeting = vec![0; GREETING.len()];
    output.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting, GREETING);
    let port = listener.accept().unwrap().0;
    port.set_read_timeout(Some(PATIENCE)).unwrap();
    Relayed { input: process.stdin.take(), output, process, port }
}

impl Relayed {
    fn say(&mut self, frames: &[u8]) {
        self.input.as_mut().unwrap().write_all(frames).unwrap();
    }

    /// All frames that come, up to the end of the direction.
    fn hear(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        loop {
            let mut length = [0; 2];
            self.output.read_exact(&mut length).unwrap();
            if length == END {
                return heard;
            }
            let mut frame = vec![0; u16::from_be_bytes(length).into()];
            self.output.read_exact(&mut frame).unwrap();
            heard.extend(frame);
        }
    }

    fn ended(&mut self) -> (ExitStatus, String) {
        ended(&mut self.process)
    }
}

fn ended(process: &mut Child) -> (ExitStatus, String) {
    let ends = pidfd_open(Pid::from_child(process), PidfdFlags::empty()).unwrap();
    let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    if poll(&mut [PollFd::new(&ends, PollFlags::IN)], Some(&patience)).unwrap() == 0 {
        process.kill().unwrap();
        panic!("it goes on");
    }
    let status = process.wait().unwrap();
    let mut said = String::new();
    process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (status, said)
}

/// A frame with this in it.
fn frame(content: &[u8]) -> Vec<u8> {
    [&header(content.len()).unwrap(), content].concat()
}

#[test]
fn either_side_may_end_first_and_hear_the_other_out() {
    for caller_first in [true, false] {
        let mut relayed = relayed();
        let mut heard = String::new();
        if caller_first {
            relayed.say(&[frame(b"what "), frame(b"now?"), END.to_vec()].concat());
            relayed.port.read_to_string(&mut heard).unwrap();
            relayed.port.write_all(b"this").unwrap();
            relayed.port.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(relayed.hear(), b"this");
        } else {
            relayed.port.write_all(b"this").unwrap();
            relayed.port.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(relayed.hear(), b"this");
            relayed.say(&[frame(b"what "), frame(b"now?"), END.to_vec()].concat());
            relayed.port.read_to_string(&mut heard).unwrap();
        }
        assert_eq!(heard, "what now?");
        let (status, said) = relayed.ended();
        assert!(status.success() && said.is_empty(), "{status}: {said}");
    }
}

#[test]
fn much_goes_both_ways_at_once() {
    let mut relayed = relayed();
    let content: Vec<u8> = (0..8 << 20).map(|number: u32| (number % 251) as u8).collect();
    let mut port = relayed.port.try_clone().unwrap();
    let mut input = relayed.input.take().unwrap();
    let echoed = thread::spawn(move || {
        let mut buffer = vec![0; 100_000];
        loop {
            let read = port.read(&mut buffer).unwrap();
            if read == 0 {
                return port.shutdown(std::net::Shutdown::Write).unwrap();
            }
            port.write_all(&buffer[..read]).unwrap();
        }
    });
    let said = content.clone();
    let saying = thread::spawn(move || {
        for piece in said.chunks(FRAME_BYTES) {
            input.write_all(&frame(piece)).unwrap();
        }
        input.write_all(&END).unwrap();
        input
    });
    assert!(relayed.hear() == content);
    echoed.join().unwrap();
    relayed.input = Some(saying.join().unwrap());
    assert!(relayed.ended().0.success());
}

#[test]
fn a_caller_who_goes_takes_the_connection_along_and_the_port_is_not_told_that_it_ended() {
    // Also while the port reads nothing and everything in between is full.
    for full in [false, true] {
        let mut relayed = relayed();
        relayed.say(&frame(b"half of some"));
        if full {
            let mut input = relayed.input.take().unwrap();
            rustix::io::ioctl_fionbio(&input, true).unwrap();
            let piece = frame(&[7; FRAME_BYTES]);
            let mut last = Instant::now();
            while last.elapsed() < Duration::from_millis(300) {
                if input.write(&piece).is_ok() {
                    last = Instant::now();
                }
            }
            relayed.input = Some(input);
        }
        relayed.input = None;
        let (status, said) = relayed.ended();
        assert_eq!((status.code(), said.as_str()), (Some(1), "corehold-agent: the caller has gone\n"));
        let error = relayed.port.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_port_that_breaks_off_is_no_end_to_the_caller() {
    let mut relayed = relayed();
    sockopt::set_socket_linger(relayed.port.as_fd(), Some(Duration::ZERO)).unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    drop(std::mem::replace(&mut relayed.port, TcpStream::connect(other.local_addr().unwrap()).unwrap()));
    let mut heard = Vec::new();
    relayed.output.read_to_end(&mut heard).unwrap();
    assert!(heard.is_empty(), "{heard:?}");
    let (status, said) = relayed.ended();
    assert!(status.code() == Some(1) && said.contains("the connection broke"), "{said}");
}

#[test]
fn what_cannot_be_carried_is_told_in_one_line() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    for (port, says) in [
        (free.as_str(), "nothing listens on port"),
        ("0", "is no port"),
        ("+1", "is no port"),
        ("65536", "is no port"),
        ("", "is no port"),
        ("http", "is no port"),
    ] {
        let mut process = start(&mut agent(), port);
        let (status, said) = ended(&mut process);
        assert_eq!((status.code(), said.lines().count()), (Some(1), 1), "{port}: {said}");
        assert!(said.starts_with("corehold-agent: ") && said.contains(says), "{port}: {said}");
        let mut output = String::new();
        process.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        assert_eq!(output, "", "no greeting");
    }
    let mut relayed = relayed();
    relayed.say(&[&END[..], &frame(b"and yet")].concat());
    assert!(relayed.ended().1.contains("after the end"));
}

/// What passes has tokens in it, and commands of the workspace run as the same user.
#[test]
fn its_own_user_cannot_look_into_it_and_one_thread_is_all_it_has() {
    // A copy where that user can run it, since cargo's folder may be closed to others.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let binary = folder.path().join("corehold-agent");
    fs::copy(env!("CARGO_BIN_EXE_corehold-agent"), &binary).unwrap();
    let mut command = Command::new(binary);
    let mut relayed = relayed_by(command.uid(1000).gid(1000));
    let process = format!("/proc/{}", relayed.process.id());
    let own = fs::metadata(format!("{process}/environ")).unwrap();
    assert_eq!(own.uid(), 0, "the files of a process that can't be looked into are root's (proc_pid(5))");
    assert_eq!(fs::read_dir(format!("{process}/task")).unwrap().count(), 1);
    relayed.input = None;
    relayed.ended();
}
