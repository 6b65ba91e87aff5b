//! `corehold exec` with standard input and on a terminal: what is typed goes in, and the terminal is put back.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use corehold_e2e::corehold::Corehold;
use corehold_host::{
    CreateWorkspace, Workspace,
    tools::{CommandList, CommandListRequest},
};
use rustix::{
    process::{Signal, kill_process},
    pty::OpenptFlags,
    termios::{Termios, Winsize, tcgetattr, tcsetwinsize},
};

/// Longer than anything takes; only a broken test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal with a person before it.
struct Terminal {
    ours: OwnedFd,
    theirs: OwnedFd,
    screen: mpsc::Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn new() -> Self {
        let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        rustix::pty::unlockpt(&ours).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags).unwrap();
        let (sender, screen) = mpsc::sync_channel(64);
        let mut reader = File::from(ours.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let terminal = Self { ours, theirs, screen, seen: String::new() };
        terminal.resize(80, 24);
        terminal
    }

    fn resize(&self, columns: u16, rows: u16) {
        tcsetwinsize(&self.ours, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    }

    fn mode(&self) -> Termios {
        tcgetattr(&self.theirs).unwrap()
    }

    /// Starts a program on it, as a shell would: in a session whose terminal this is.
    fn start(&self, command: Command) -> Child {
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        session.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let end = || Stdio::from(self.theirs.as_fd().try_clone_to_owned().unwrap());
        session.stdin(end()).stdout(end()).stderr(end()).spawn().expect("setsid (of Debian's util-linux) starts")
    }

    fn type_in(&self, keys: &str) {
        File::from(self.ours.try_clone().unwrap()).write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen has shown a text.
    fn wait_for(&mut self, text: &str) {
        let end = loop {
            if let Some(at) = self.seen.find(text) {
                break at + text.len();
            }
            match self.screen.recv_timeout(PATIENCE) {
                Ok(more) => self.seen.push_str(&String::from_utf8_lossy(&more)),
                Err(error) => panic!("{text:?} was not shown ({error}); shown was {:?}", self.seen),
            }
        };
        self.seen.drain(..end);
    }
}

/// What compares of a mode: whether lines are made here, keys echoed and signals sent.
fn flags(mode: &Termios) -> String {
    format!("{:?} {:?} {:?}", mode.local_modes, mode.input_modes, mode.output_modes)
}

async fn workspace(corehold: &Corehold) -> Workspace {
    corehold.host.create(CreateWorkspace::empty()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_handed_over_whole_and_put_back() {
    let corehold = Corehold::start().await;
    let workspace = workspace(&corehold).await;
    let mut terminal = Terminal::new();
    let before = flags(&terminal.mode());
    let script = "test -t 0 && test -t 1 && test -t 2 && echo $TERM $(stty size); \
                  trap 'stty size' WINCH; trap 'echo interrupted; exit 42' INT; read line; echo \"got $line\"; \
                  echo ready; while :; do sleep 0.05; done";
    let mut command = corehold.cli(&["exec", "-it", workspace.id().as_str(), "--", "sh", "-c", script]);
    command.env("TERM", "screen");
    let mut child = terminal.start(command);
    terminal.wait_for("screen 24 80\r\n");
    assert_ne!(flags(&terminal.mode()), before, "keys are not acted on here");
    terminal.type_in("häßlich\r");
    terminal.wait_for("got häßlich\r\n");
    terminal.wait_for("ready\r\n");
    terminal.resize(120, 40);
    terminal.wait_for("40 120\r\n");
    // Ctrl-C is the command's.
    terminal.type_in("\u{3}");
    terminal.wait_for("interrupted\r\n");
    assert_eq!(child.wait().unwrap().code(), Some(42));
    assert_eq!(flags(&terminal.mode()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_ended_puts_the_terminal_back_and_hangs_up() {
    let corehold = Corehold::start().await;
    let workspace = workspace(&corehold).await;
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut terminal = Terminal::new();
        let before = flags(&terminal.mode());
        let mut child = terminal.start(corehold.cli(&[
            "exec",
            "-t",
            workspace.id().as_str(),
            "--",
            "sh",
            "-c",
            "echo ready; exec sleep 1000",
        ]));
        terminal.wait_for("ready\r\n");
        // `setsid --wait` is the one we started; what it started is the leader of the terminal's session.
        let leader = rustix::termios::tcgetsid(&terminal.ours).unwrap();
        kill_process(leader, signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert_eq!(flags(&terminal.mode()), before);
    }
    let commands = workspace.call::<CommandList>(&CommandListRequest::default()).await.unwrap().commands;
    assert_eq!(commands.len(), 2);
    for command in commands {
        let id = command.id;
        let request = corehold_host::tools::CommandOutputRequest { id, follow: Some(true), ..Default::default() };
        let ended = workspace.call::<corehold_host::tools::CommandOutput>(&request).await.unwrap();
        assert_eq!(ended.exit.and_then(|exit| exit.signal).as_deref(), Some("SIGHUP"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_tty_is_refused() {
    let corehold = Corehold::start().await;
    let piped = corehold.cli(&["exec", "-t", "nobody", "--", "true"]).output().unwrap();
    assert_eq!(piped.status.code(), Some(125));
    let said = String::from_utf8_lossy(&piped.stderr);
    assert!(said.contains("not a terminal") && said.contains("--stdin"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_goes_in_as_it_comes_and_of_any_length() {
    let corehold = Corehold::start().await;
    let workspace = workspace(&corehold).await;
    let start = |arguments: &[&str]| {
        let mut command = corehold.cli(&["exec", "-i", workspace.id().as_str(), "--"]);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut cat = start(&["cat"]);
    let (mut input, mut output) = (cat.stdin.take().unwrap(), cat.stdout.take().unwrap());
    for line in [&b"one\n"[..], b"\xff\xfe\n"] {
        input.write_all(line).unwrap();
        let mut back = vec![0; line.len()];
        output.read_exact(&mut back).unwrap();
        assert_eq!(back, line);
    }
    drop(input);
    assert_eq!(cat.wait().unwrap().code(), Some(0));

    let content: Vec<u8> = (0..20_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut count = start(&["sha256sum"]);
    count.stdin.take().unwrap().write_all(&content).unwrap();
    let output = count.wait_with_output().unwrap();
    let expected: String = {
        use sha2::Digest as _;
        sha2::Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    assert!(String::from_utf8_lossy(&output.stdout).starts_with(&expected), "{output:?}");

    // Who reads no input ends nevertheless, and so do we.
    let mut deaf = start(&["sh", "-c", "exit 7"]);
    let _open = deaf.stdin.take();
    assert_eq!(deaf.wait().unwrap().code(), Some(7));
}
