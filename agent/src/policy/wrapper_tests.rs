//! Programs that run other programs, and the ways past the policy that its page admits.

use std::os::unix::fs::symlink;

use corehold_types::tools::{CommandList, CommandListRequest};

use super::{
    known,
    place::Place,
    tests::{all_refused, all_run, argv, check, line, policy},
};
use crate::{
    handler::{Events, Handler as _},
    testing,
};

/// Each runs `ls`, or would if it were installed; `ls` stands where another program may.
const WRAPPED: &[&str] = &[
    "env -a zero -u HOME -C sub ls",
    "env --chdir=sub --unset HOME ls",
    "catchsegv ls",
    "nice --adjustment 5 ls",
    "stdbuf -o L --error=0 ls",
    "timeout --kill-after 1 -s TERM 5 ls",
    "zsh -c 'noglob ls'",
    "- ls",
    "choom -n 500 -- ls",
    "chrt -r 10 ls",
    "chrt --sched-runtime 1 -d 0 ls",
    "chrt -o ls",
    "flock /tmp/lock ls",
    "flock -xw 5 /tmp/lock ls -x",
    "flock /tmp/lock -c 'ls; ls'",
    "ionice -c2 -n 7 ls",
    "ionice -t --class idle ls",
    "prlimit --nofile=100 --cpu ls",
    "prlimit -n100 -c ls",
    "setarch x86_64 -R ls",
    "setarch -R ls",
    "setarch i386 ls",
    "linux32 --4gb ls",
    "linux64 ls",
    "i386 -B ls",
    "x86_64 ls",
    "setpriv --reuid 1000 --clear-groups ls",
    "setsid --fork ls",
    "taskset 0x3 ls",
    "taskset -c 0,1 ls",
    "taskset --cpu-list 0 ls",
    "xargs -i ls",
    "xargs -i{} -t ls",
    "xargs -0rn 1 --max-procs 4 ls",
    "xargs --replace=X ls",
    "xargs -I X ls X",
    "watch ls",
    "watch -n 1 -d ls -x",
    "watch --differences=permanent -x ls",
    "watch 'ls; ls'",
    "entr -rc ls /_",
    "entr -s 'ls /_'",
    "strace -f -e trace=openat ls",
    "strace -ff --seccomp-bpf -s 100 ls",
    "ltrace -S -o trace.txt -e malloc ls",
    "unbuffer -p ls",
    "busybox ls",
    "toybox ls",
    "busybox timeout 5 ls",
    "bash -euo pipefail -c 'ls | ls'",
    "bash -o errexit -lc ls",
    "sh +o noglob -c ls",
    "su -c ls",
    "su - somebody -c 'ls; ls'",
    "runuser somebody --command 'ls'",
    "find . -execdir ls {} +",
];

/// These may run `ls` too. What else they may run isn't told apart.
const OPAQUE: &[&str] = &[
    "ltrace -u somebody ls",
    "strace -o '|ls' ls",
    "strace -E X=1 ls",
    "gdb --args ls",
    "chroot . ls",
    "unshare -r ls",
    "nsenter -t 7 -m ls",
    "script -c ls out",
    "script -cls out",
    "script -c 'true;ls' out",
    "script --command='ls; ls' out",
    "capsh -- -c 'ls; ls'",
    "parallel ls ::: a b",
    "parallel 'ls {}' ::: a",
    "start-stop-daemon --start --exec /usr/bin/ls -- -l",
    "start-stop-daemon --start --exec=ls",
    "systemd-run --user --scope -p X=1 ls",
    "runuser -u somebody -- ls",
    "timeout $X ls",
    "nice --unknown ls",
    "env -S 'ls -l'",
    "env --split-string='ls -l'",
    "bash --rcfile x -c 'ls; ls'",
    "sh -c -$X 'ls; ls'",
    "perf stat -e cycles ls",
    "valgrind --tool=memcheck ls",
    "/lib64/ld-linux-x86-64.so.2 --argv0 x /usr/bin/ls",
    "fakeroot -- ls",
    "tini -s -- ls",
];

fn each_with(program: &str) -> Vec<String> {
    WRAPPED.iter().chain(OPAQUE).map(|text| text.replace("ls", program)).collect()
}

#[test]
fn a_denial_counts_behind_every_known_wrapper() {
    let lines = each_with("sudo");
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    all_refused(&policy("{}"), &lines);
    for wrapper in known::WRAPPERS.iter().flat_map(|wrapper| wrapper.names.iter().map(|name| (name, wrapper.operands)))
    {
        let (name, operands) = wrapper;
        all_refused(&policy("{}"), &[&format!("{name} {} sudo id", &"1 1"[..(2 * operands).saturating_sub(1)])]);
    }
    for name in known::OPAQUE {
        all_refused(&policy("{}"), &[&format!("{name} --some thing sudo id")]);
    }
    // It is the program behind that is denied, not something about the wrapper.
    let lines = each_with("ls");
    let lines: Vec<&str> = lines.iter().map(String::as_str).filter(|line| !line.starts_with("su ")).collect();
    all_run(&policy("{}"), &lines);
    // Nor is what only looks like one.
    all_run(
        &policy("{}"),
        &[
            "strace -e sudo -s 1 ls docker",
            "taskset -c 0 ls sudo",
            "ltrace -o sudo ls",
            "flock sudo ls",
            "chrt -r 10 echo sudo",
            "xargs -I sudo echo sudo",
            "env -C docker ls",
            "gdb --docker ls",
            "tmux new -s docker",
            "timeout -s sudo 5 ls",
        ],
    );
}

#[test]
fn a_strict_policy_knows_the_wrapped_program_and_nothing_opaque() {
    let allowed = |programs: &[&str]| {
        let rules: Vec<_> = programs.iter().map(|program| serde_json::json!({"program": program})).collect();
        policy(&serde_json::json!({"mode": "allow", "allow": rules, "shippedDenials": false}).to_string())
    };
    // Every wrapper is allowed; `ls` is or isn't.
    let mut programs: Vec<&str> = WRAPPED.iter().chain(OPAQUE).filter_map(|line| line.split(' ').next()).collect();
    programs.extend(["timeout", "-", "noglob"]);
    all_refused(&allowed(&programs), WRAPPED);
    programs.push("ls");
    let strict = allowed(&programs);
    all_run(&strict, WRAPPED);
    all_refused(&strict, OPAQUE);
    // What starts a shell when it is given no program.
    all_refused(&strict, &["linux32", "setarch x86_64", "su", "bash -o", "unshare", "chroot ."]);
    all_run(&strict, &["env -0", "nice", "linux32 --help"]);
}

#[test]
fn what_xargs_replaces_is_not_written_out() {
    let rules = policy(r#"{"undecided":"refuse","deny":[{"program":"ls","arguments":["secret"]}]}"#);
    all_refused(&rules, &["xargs -I X X", "xargs -i {}", "xargs -I X sh -c X", "xargs --replace=X env X"]);
    all_refused(&policy("{}"), &["xargs -I X sudo X", "xargs -n 1 -I{} sh -c 'sudo id'"]);
    all_run(&policy(r#"{"undecided":"refuse"}"#), &["xargs -I X echo X", "xargs -i cp {} /tmp", "xargs wc -l"]);
}

#[test]
fn a_wrapper_that_changes_the_directory_is_a_change_of_it() {
    let rules = policy(
        r#"{"mode":"allow","undecided":"allow","allow":[{"program":"env"},{"program":"find"},{"program":"cat","cwd":"/app"}]}"#,
    );
    all_run(&rules, &["env cat x", "find . -exec cat {} ;"]);
    all_refused(&rules, &["env -C /etc cat x", "env --chdir=/etc cat x", "find /etc -execdir cat x ;"]);
    let rules = policy(r#"{"deny":[{"program":"make","cwd":"/secret"}]}"#);
    all_run(&rules, &["make"]);
    all_refused(&rules, &["env -C /secret make", "cd /secret && make"]);
}

#[test]
fn guesses_are_bounded() {
    let long = format!("parallel {}", "'a;b' ".repeat(100_000));
    assert!(check(&policy("{}"), &line(&long)).is_ok());
    let nested = "gdb ".repeat(50_000);
    assert!(check(&policy("{}"), &line(&nested)).is_ok());
    let many = format!("gdb {}", format!("'{}' ", "a;".repeat(900)).repeat(60));
    assert_eq!(check(&policy("{}"), &line(&many)).unwrap_err().rule, "unreadable");
}

#[test]
fn each_shipped_denial_holds() {
    for program in ["sudo", "su", "doas", "pkexec", "docker", "podman", "nerdctl", "ctr", "crictl", "kubectl", "nmap"] {
        all_refused(&policy("{}"), &[program, &format!("{program} x"), &format!("/usr/bin/{program} x")]);
    }
    for program in ["nc", "ncat", "netcat", "nc.openbsd", "nc.traditional"] {
        all_refused(&policy("{}"), &[&format!("{program} -l 80"), &format!("{program} -nvlp 80")]);
        all_run(&policy("{}"), &[&format!("{program} localhost 80")]);
    }
    all_refused(&policy("{}"), &["grep x /etc/shadow", "cp x > /etc/shadow", "cat /etc/passwd-", "rm /", "rm -r /*"]);
    all_run(&policy("{}"), &["rm -r ./*", "cat /etc/hostname"]);
}

/// `docs/command-policy.md` says that these get past it. If one doesn't any more, the page is to say so.
#[test]
fn what_the_page_admits_is_true() {
    all_run(
        &policy("{}"),
        &[
            // Interpreters and others that run programs.
            "python3 -c 'import os; os.system(\"sudo id\")'",
            "node -e 'require(\"child_process\").execSync(\"sudo id\")'",
            "perl -e 'exec \"sudo\", \"id\"'",
            "awk 'BEGIN { system(\"sudo id\") }'",
            "make sudo",
            "npm run sudo",
            "git -c alias.x='!sudo id' x",
            "vim -c '!sudo id'",
            "tar -cf x.tar x --to-command='sudo id'",
            // A wrapper that nobody told it of.
            "somewrapper sudo id",
            // A script that is written first.
            "echo 'sudo id' > run.sh; sh run.sh",
            // Text that is compared.
            "cd /etc; cat passwd",
            // What can't be decided.
            "x=sudo; $x id",
        ],
    );
    // The same where nothing runs that isn't allowed.
    all_refused(&policy(r#"{"mode":"allow"}"#), &["somewrapper sudo id", "python3 x", "x=sudo; $x id"]);

    let directory = tempfile::tempdir().unwrap();
    let bin = directory.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(bin.join("sudo"), "").unwrap();
    std::fs::copy(bin.join("sudo"), directory.path().join("copy")).unwrap();
    std::fs::hard_link(bin.join("sudo"), directory.path().join("hard")).unwrap();
    symlink(bin.join("sudo"), directory.path().join("soft")).unwrap();
    let place = Place { directory: directory.path().into(), search: vec![bin] };
    let run = |text: &str| policy("{}").check(&line(text), &place).is_ok();
    assert_eq!([run("./copy id"), run("./hard id"), run("./soft id")], [true, true, false]);
}

#[test]
fn rules_mean_what_the_page_says() {
    // A path is a path, a name is one wherever it is called from.
    let tool = policy(r#"{"deny":[{"program":"/app/tools/*"},{"program":"x?z"}]}"#);
    all_refused(&tool, &["/app/tools/a", "./tools/a/b", "xyz", "./xyz", "/opt/xyz"]);
    all_run(&tool, &["a", "/tools/a", "xyyz", "toolsa"]);
    // An allowance by name counts in a directory of programs only, a denial beats it.
    let both = policy(
        r#"{"mode":"allow","allow":[{"program":"ls"},{"program":"*","arguments":["one"]}],"deny":[{"program":"ls","arguments":["**","-l","**"]}]}"#,
    );
    all_run(&both, &["ls", "ls -a", "/usr/bin/ls", "anything one"]);
    all_refused(
        &both,
        &["./ls", "/tmp/ls", "ls -l", "ls a -l b", "anything two", "anything one two", "cd x; ./ls one"],
    );
    // Settings that replace a mode's own.
    all_run(&policy(r#"{"mode":"allow","allow":[{"program":"ls"}],"redirections":true}"#), &["ls > x", "ls < x"]);
    all_refused(&policy(r#"{"redirections":false}"#), &["ls > x", "ls 2>> x", "> x"]);
    all_run(&policy(r#"{"redirections":false}"#), &["ls > /dev/null 2>&1"]);
    all_run(&policy(r#"{"mode":"allow","undecided":"allow","allow":[{"program":"ls"}]}"#), &["ls; $X"]);
    assert!(
        check(&policy(r#"{"mode":"allow","allow":[{"program":"ls","arguments":[]}]}"#), &argv(&["ls", "-l"])).is_err()
    );
    // Bounds.
    let many = |count: usize| vec![r#"{"program":"x"}"#; count].join(",");
    assert!(super::Policy::parse(&format!(r#"{{"deny":[{}]}}"#, many(1_000))).is_ok());
    assert!(super::Policy::parse(&format!(r#"{{"deny":[{}]}}"#, many(1_001))).unwrap_err().contains("1000 rules"));
}

#[tokio::test]
async fn a_refused_command_is_not_started_and_input_is_not_checked() {
    let agent = testing::agent_with(&[("COREHOLD_COMMAND_POLICY", r#"{"deny":[{"program":"printf"}]}"#)]);
    let run = |request| corehold_types::tools::Command::handle(testing::call(&agent), request, Events::none());
    assert!(run(line("echo x; printf y")).await.is_err());
    let list = || CommandList::handle(testing::call(&agent), CommandListRequest::default(), Events::none());
    assert_eq!(list().await.unwrap().commands, []);
    let mut shell = argv(&["sh"]);
    shell.stdin = Some(corehold_types::Data::Text("printf y".into()));
    assert!(run(shell.clone()).await.is_err(), "what it is started with is");
    shell.stdin = None;
    shell.interactive = Some(true);
    shell.detach = Some(true);
    let id = run(shell).await.unwrap().id;
    let request = corehold_types::tools::CommandInputRequest {
        id: id.clone(),
        data: Some(corehold_types::Data::Text("printf y".into())),
        end: Some(true),
        ..Default::default()
    };
    corehold_types::tools::CommandInput::handle(testing::call(&agent), request, Events::none()).await.unwrap();
    let request = corehold_types::tools::CommandOutputRequest { id, follow: Some(true), ..Default::default() };
    let output =
        corehold_types::tools::CommandOutput::handle(testing::call(&agent), request, Events::none()).await.unwrap();
    assert_eq!(output.stdout.head, corehold_types::Data::Text("y".into()));
    assert_eq!(agent.config.command_policy.as_ref().unwrap().guard(), "command-policy-deny");
    assert_eq!(policy(r#"{"mode":"allow"}"#).guard(), "command-policy-allow");
}
