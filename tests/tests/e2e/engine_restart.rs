//! An engine that is started anew, with all that runs in it. It is one of the test's own: the machine's has other users.

use std::process::{Command, Stdio};

use corehold_e2e::command_line::{err, out};
use corehold_host::config::DEFAULT_IMAGE;

#[test]
fn hosts_find_what_was_there_and_claim_nothing_that_was_restarted() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let save = Command::new("docker").args(["save", "--output"]).arg(path("image.tar")).arg(DEFAULT_IMAGE).output();
    let save = save.expect("the docker command is there");
    assert!(save.status.success(), "{}", err(&save));
    let mut command = Command::new("unshare");
    // With the first of its processes all of them end, and with the last its networks and mounts go.
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    // The engine tries its containers' agents by ports that it publishes on the loopback.
    command.args(["sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]);
    command.arg(env!("CARGO_BIN_EXE_restarted_engine")).arg(folder.path()).arg(path("image.tar"));
    command.env("DOCKER_HOST", format!("unix://{}", path("docker.sock").display())).stdin(Stdio::null());
    let output = command.output().expect("unshare (of Debian's util-linux) starts");
    let log = || {
        let log = std::fs::read_to_string(path("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(50)..].join("\n")
    };
    assert!(
        output.status.success() && out(&output).ends_with("all are there\n"),
        "this needs root, dockerd and ip; `-- --skip engine_restart` leaves it out: {}{}\nits engine's log ends with:\n{}",
        out(&output),
        err(&output),
        log()
    );
}
