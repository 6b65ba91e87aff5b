//! Lines against policies, as a table; and the ways around a rule that people try.

use std::{collections::BTreeMap, os::unix::fs::symlink, path::PathBuf};

use corehold_types::{Code, Data, Problem, WorkspacePath, tools::CommandRequest};

use super::{Policy, decide::Refusal, place::Place};
use crate::{
    handler::{Events, Handler as _},
    testing,
};

pub(super) fn place() -> Place {
    Place { directory: "/app".into(), search: ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from).into() }
}

pub(super) fn policy(json: &str) -> Policy {
    Policy::parse(json).unwrap()
}

pub(super) fn line(line: &str) -> CommandRequest {
    CommandRequest { line: Some(line.to_owned()), ..CommandRequest::default() }
}

pub(super) fn argv(arguments: &[&str]) -> CommandRequest {
    CommandRequest { argv: Some(arguments.iter().map(|&part| part.to_owned()).collect()), ..CommandRequest::default() }
}

pub(super) fn check(policy: &Policy, request: &CommandRequest) -> Result<(), Refusal> {
    policy.check(request, &place())
}

/// Every line is refused; says which one isn't.
#[track_caller]
pub(super) fn all_refused(policy: &Policy, lines: &[&str]) {
    let passed: Vec<_> = lines.iter().filter(|text| check(policy, &line(text)).is_ok()).collect();
    assert!(passed.is_empty(), "these may run: {passed:#?}");
}

#[track_caller]
pub(super) fn all_run(policy: &Policy, lines: &[&str]) {
    for text in lines {
        assert_eq!(check(policy, &line(text)), Ok(()), "{text}");
    }
}

/// What the shipped denials refuse, however it is written.
const DENIED: &[&str] = &[
    "sudo id",
    "su",
    "docker ps",
    "kubectl get pods",
    "rm -rf /",
    "rm -r -f / ",
    "rm -rf -- /",
    "rm -rf /*",
    "rm -rf //",
    "rm -rf /.",
    "cat /etc/passwd",
    "cat < /etc/passwd",
    "< /etc/passwd cat",
    "head -n1 /etc/../etc/passwd",
    "echo \"$(cat /etc/passwd)\"",
    "nc -l 4444",
    "nc -lvp 4444",
    "nmap localhost",
    // In company.
    "true && sudo id",
    "true; sudo id",
    "true || sudo id",
    "true | sudo id",
    "true & sudo id",
    "true\nsudo id",
    "(sudo id)",
    "{ sudo id; }",
    "( ( sudo id ) )",
    "! sudo id",
    "if true; then sudo id; fi",
    "while sudo id; do true; done",
    "for x in 1 2; do sudo id; done",
    "for x\nin 1\ndo sudo id; done",
    "case x in x) sudo id;; esac",
    "case x in (y|x) true;; *) sudo id ;; esac",
    "f() { sudo id; }; f",
    // Quoted.
    "s\"ud\"o id",
    "'sudo' id",
    "\\sudo id",
    "su\\do id",
    "su\\\ndo id",
    "s''udo id",
    "/bin/../bin/sudo id",
    "/usr/bin/sudo id",
    "//usr///bin/sudo id",
    "SUDO id",
    "r\"m\" -rf \"/\"",
    // Inside of others.
    "echo $(sudo id)",
    "echo `sudo id`",
    "echo \"`sudo id`\"",
    "echo \"$(true; sudo id)\"",
    "echo ${x:-$(sudo id)}",
    "echo $(( $(sudo id) ))",
    "echo $(echo $(echo $(sudo id)))",
    "echo `echo \\`sudo id\\``",
    "X=$(sudo id)",
    "X=1 sudo id",
    "> out sudo id",
    "2>&1 sudo id",
    "cat <(sudo id)",
    "tee >(sudo id)",
    "cat <<E\n$(sudo id)\nE",
    "cat <<E; sudo id\ntext\nE",
    "cat <<E\ntext\nE\nsudo id",
    "cat <<-E\n\ttext\n\tE\nsudo id",
    "cat <<'E'\n`\nE\nsudo id",
    "sh <<E\nsudo id\nE",
    "bash -c 'sudo id'",
    "sh -ec 'true; sudo id'",
    "sh -c \"sh -c 'sudo id'\"",
    "eval sudo id",
    "eval 'sudo' \"id\"",
    "trap 'sudo id' EXIT",
    // Through others.
    "env sudo id",
    "env -i X=1 sudo id",
    "env -u HOME -- sudo id",
    "nohup sudo id",
    "timeout -k 1 5 sudo id",
    "nice -n 5 sudo id",
    "nice -5 sudo id",
    "exec sudo id",
    "command sudo id",
    "builtin eval sudo id",
    "xargs sudo",
    "xargs -n 1 sudo id",
    "find . -exec sudo {} ;",
    "find . -exec sudo {} \\;",
    "find . -name x -execdir sudo id {} +",
    "busybox nc -l -p 1",
    "busybox sh -c 'sudo id'",
    "time sudo id",
    "env env env env nice timeout 1 sudo id",
    "setsid sudo id",
    // Comments hide nothing.
    "true #'\nsudo id\n#'",
    "true a#b; sudo id",
];

/// What can't be decided, or not be read.
const UNDECIDED: &[&str] = &[
    "$X id",
    "${X} id",
    "$(echo sudo) id",
    "`echo sudo` id",
    "{sudo,id}",
    "/usr/bin/su?o id",
    "/usr/bin/sud[o] id",
    "~/sudo id",
    "eval \"$X\"",
    "eval $(echo c3VkbyBpZA== | base64 -d)",
    "echo sudo id | sh",
    "sh script.sh",
    ". ./script.sh",
    "source script",
    "bash -c \"$X\"",
    "sh",
    "alias ls=sudo; ls",
    "PATH=/tmp ls",
    "LD_PRELOAD=./x.so ls",
    "export PATH=/tmp",
    "env PATH=/tmp ls",
    "for PATH in /tmp; do ls; done",
    "xargs -I X X id",
    "echo $((x))",
    "echo ${x@P}",
    "rm -rf $X",
    "f() { ls; }; f",
    "let x=1",
    // To dash it is a program, in a directory that anybody may have made.
    "x+=/tool",
    "ls; x+=1 ls",
    // A keyword is none there: they are programs.
    ">&2 done",
    "! </dev/null fi",
    "make() { ls; }",
    "hash -p /usr/bin/sudo ls",
    "sh <<E\n$X\nE",
];

/// What no mode lets pass, since shells differ about it, or it is no line at all.
const UNREADABLE: &[&str] = &[
    "echo 'open",
    "echo \"open",
    "echo $(open",
    "echo `open",
    "echo ${open",
    "(true",
    "true)",
    "case x in",
    "cat <<E\nno end",
    "true &>/dev/null sudo id",
    "echo $'a\\'; sudo id #'",
    "[[ -n x ]]",
    "function f { true; }",
    "echo \\",
    "true > ",
    "echo $[1+1]",
    "echo ${x:-'a'}",
    "coproc ls",
    "select x in a; do ls; done",
    "time { sudo id; }",
    "time -p ! sudo id",
    "time if true; then sudo id; fi",
];

#[test]
fn shipped_denials_hold_however_they_are_written() {
    for json in ["{}", r#"{"undecided":"refuse"}"#, r#"{"undecided":"allow"}"#] {
        all_refused(&policy(json), DENIED);
    }
    let refused = check(&policy("{}"), &line("true && sudo id")).unwrap_err();
    assert_eq!((&*refused.part, &*refused.rule), ("sudo id", "shipped denial of `sudo`"));
    assert!(refused.why.contains("commands don't change their user"), "{}", refused.why);
    all_run(&policy(r#"{"shippedDenials":false}"#), &["sudo id", "true && rm -rf /"]);
}

#[test]
fn what_can_not_be_decided_goes_by_its_setting() {
    all_refused(&policy(r#"{"undecided":"refuse"}"#), UNDECIDED);
    all_run(&policy("{}"), UNDECIDED);
    for json in ["{}", r#"{"undecided":"allow","shippedDenials":false}"#] {
        all_refused(&policy(json), UNREADABLE);
    }
}

#[test]
fn common_lines_run() {
    let lines = [
        "",
        "# nothing",
        "npm install && npm run build",
        "NODE_ENV=production npm run build > out.log 2>&1",
        "npm test &>/dev/null",
        "git commit -m 'remove sudo; docker'",
        "grep -rn \"sudo\" . | head -5",
        "echo 'rm -rf /'",
        "rm -rf /tmp/x ./dist node_modules",
        "for f in *.txt; do wc -l \"$f\"; done",
        "if [ -f x ]; then cat x; else echo none; fi",
        "case $1 in a|b) echo x;; *) echo y;; esac",
        "cat <<'EOF' > x\nit's `text` $(not run)\nEOF",
        "cat <<EOF\nHello $USER, \"quoted\" it's\nEOF",
        "find . -name '*.rs' -exec wc -l {} +",
        "echo \"a $(date) b\" $((1 + 2)) ${X:-none}",
        "(cd sub && make) || true",
        "[ 1 = 1 ] && echo yes",
        "while read -r x; do echo \"$x\"; done < file",
        "nc example.com 80",
        "sleep 1 & wait",
        "echo a\\ b \\\n  c",
        "printf '%s\\n' \"it's\" 'a\"b'",
        "echo ｓｕｄｏ; ｓｕｄｏ id",
    ];
    all_run(&policy("{}"), &lines);
    all_run(&policy(r#"{"undecided":"refuse"}"#), &lines);
}

const STRICT: &str = r#"{
    "mode": "allow",
    "allow": [
        {"program": "npm", "arguments": ["install"]},
        {"program": "npm", "arguments": ["run", "*", "**"]},
        {"program": "ls"},
        {"program": "echo"},
        {"program": "cat", "arguments": ["*"], "cwd": "/app*"},
        {"program": "timeout"},
        {"program": "/app/tool.sh"},
        {"program": "sh"}
    ]
}"#;

#[test]
fn a_strict_policy_lets_nothing_else_run() {
    let strict = policy(STRICT);
    all_run(
        &strict,
        &[
            "npm install",
            "npm run build --verbose",
            "ls -l | cat -",
            "echo $(ls) `ls` \"$X\" *",
            "timeout 5 npm run dev",
            "/bin/ls",
            "echo x > /dev/null 2>&1",
            "sh -c 'ls; ls'",
            "cat x",
        ],
    );
    all_refused(&strict, DENIED);
    all_refused(&strict, UNDECIDED);
    all_refused(&strict, UNREADABLE);
    all_refused(
        &strict,
        &[
            "npm",
            "npm install left-pad",
            "npm run",
            "npm run $X",
            "npm $X",
            "lsx",
            "./ls",
            "/app/ls",
            "/tmp/../bin/lsx",
            "true",
            "cat a b",
            "cat *",
            "cd /tmp; cat x",
            "ls; true",
            "ls > file",
            "cat < file",
            "timeout 5 true",
            "timeout --unknown 5 ls",
            "cd /tmp",
            "node -e 1",
        ],
    );
    assert_eq!(check(&strict, &line("ls; true")).unwrap_err().rule, "allow");
    assert_eq!(check(&strict, &line("ls > x")).unwrap_err().rule, "redirections");
}

#[test]
fn arguments_and_environment_are_checked_too() {
    let strict = policy(STRICT);
    assert!(check(&strict, &argv(&["ls", "$X", ";", "true"])).is_ok(), "arguments are no line");
    assert!(check(&strict, &argv(&["npm", "install", "x"])).is_err());
    assert!(check(&strict, &argv(&["sh", "-c", "ls && true"])).is_err());
    assert!(check(&strict, &argv(&["sh", "-c", "ls && ls"])).is_ok());
    assert!(check(&strict, &argv(&["sh"])).is_err());
    let read = |text: &str| CommandRequest { stdin: Some(Data::Text(text.into())), ..argv(&["sh", "-s"]) };
    assert!(check(&strict, &read("ls")).is_ok());
    assert!(check(&strict, &read("ls; true")).is_err());
    assert!(check(&policy("{}"), &argv(&["env", "sudo", "id"])).is_err());
    assert!(check(&policy("{}"), &read("sudo id")).is_err());
    let with =
        |name: &str| CommandRequest { env: BTreeMap::from([(name.to_owned(), "x".to_owned())]), ..argv(&["ls"]) };
    assert!(check(&strict, &with("CI")).is_ok());
    assert_eq!(check(&strict, &with("LD_PRELOAD")).unwrap_err().rule, "undecided");
    let named = policy(r#"{"variables":["CI","npm_*"]}"#);
    assert!(check(&named, &with("npm_config_x")).is_ok());
    assert_eq!(check(&named, &with("NODE_ENV")).unwrap_err().rule, "variables");
    assert!(check(&named, &line("NODE_ENV=1 ls")).is_err());
}

#[test]
fn a_link_to_a_denied_program_is_that_program() {
    let directory = tempfile::tempdir().unwrap();
    let bin = directory.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(bin.join("sudo"), "").unwrap();
    symlink(bin.join("sudo"), directory.path().join("fine")).unwrap();
    symlink(bin.join("sudo"), directory.path().join("ls")).unwrap();
    let place = Place { directory: directory.path().into(), search: vec![bin] };
    assert!(policy("{}").check(&line("./fine id"), &place).is_err());
    let strict = policy(r#"{"mode":"allow","allow":[{"program":"ls"}]}"#);
    assert!(strict.check(&line("./ls"), &place).is_err(), "a file of that name is not that program");
}

#[test]
fn a_rule_may_be_for_one_directory() {
    let rules = policy(r#"{"deny":[{"program":"make","cwd":"/app"}]}"#);
    all_refused(&rules, &["make", "cd sub; make"]);
    let elsewhere = Place { directory: "/app/sub".into(), ..place() };
    assert!(rules.check(&line("make"), &elsewhere).is_ok());
}

#[test]
fn deep_and_long_lines_are_refused_in_time() {
    for text in [
        "$(".repeat(50_000),
        "`".repeat(50_001),
        "(".repeat(50_000),
        "${x:-".repeat(50_000),
        "$(( $(( ".repeat(20_000),
        "case x in x) ".repeat(20_000),
        "env ".repeat(50_000),
        "eval ".repeat(50_000),
        "cat <<E\n".repeat(20_000),
        "a;".repeat(200_000),
    ] {
        assert!(check(&policy(r#"{"undecided":"refuse"}"#), &line(&text)).is_err(), "{}", &text[..20]);
    }
    assert!(check(&policy("{}"), &line(&"a ".repeat(200_000))).is_ok());
}

#[test]
fn a_bad_policy_says_where() {
    for (json, expected) in [
        ("", "line 1 column 0"),
        ("{\n \"alow\": []}", "`alow` at line 2 column 7: unknown field `alow`"),
        (r#"{"mode":"strict"}"#, "`mode` at line 1 column 16: unknown variant `strict`"),
        (r#"{"mode":"allow","allow":[{"program":3}]}"#, "`allow[0].program`"),
        (r#"{"allow":[{"program":"ls"}]}"#, "`mode` is not `allow`"),
        (r#"{"deny":[{"program":""}]}"#, "`deny[0]` has an empty `program`"),
        (r#"{"deny":[{"program":"rm -rf"}]}"#, "belongs into `arguments`"),
        (r#"{"deny":[{"program":"./x"}]}"#, "a path is absolute"),
        (r#"{"deny":[{"program":"x","cwd":"app"}]}"#, "`cwd` that isn't an absolute path"),
        ("{} x", "trailing characters"),
    ] {
        let error = Policy::parse(json).unwrap_err();
        assert!(error.starts_with("is not a command policy: ") && error.contains(expected), "{json}: {error}");
    }
}

#[tokio::test]
async fn the_command_tool_asks_the_policy() {
    let agent =
        testing::agent_with(&[("COREHOLD_COMMAND_POLICY", r#"{"deny":[{"program":"true","reason":"no truth"}]}"#)]);
    let run = |request: CommandRequest| {
        corehold_types::tools::Command::handle(testing::call(&agent), request, Events::none())
    };
    let problem: Problem = run(line("echo x && true")).await.unwrap_err();
    assert_eq!((problem.code, problem.status), (Code::CommandDenied, 403));
    assert_eq!((&problem.context["part"], &problem.context["rule"]), (&"true".into(), &"deny[0]".into()));
    assert!(problem.detail.contains("no truth"), "{}", problem.detail);
    let elsewhere = CommandRequest { cwd: Some(WorkspacePath::from("..")), ..line("echo x") };
    assert_eq!(run(elsewhere).await.unwrap_err().code, Code::PathOutsideRoot, "the policy hides no other refusal");
    assert!(run(line("echo x")).await.is_ok());
}
