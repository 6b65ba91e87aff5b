//! The command line as a person or a script uses it.

use corehold_e2e::{
    command_line::{err, out, run},
    corehold::Corehold,
    web::get,
};
use corehold_host::{
    create::DEV,
    tools::{CommandSignal, CommandSignalRequest, Signal},
};

/// In seconds on a busy machine.
fn has_duration(line: &str) -> bool {
    line.split_whitespace().any(|word| matches!(word, "ms" | "s"))
}

#[tokio::test(flavor = "multi_thread")]
async fn up_use_and_down() {
    let corehold = Corehold::start().await;
    let up = run(&corehold, &["up", "node-api", "--name", "used-up"]);
    assert!(up.status.success(), "{}", err(&up));
    let url = out(&up).split_whitespace().last().expect("an address").to_owned();
    assert_eq!(get(&url, "/").await.0, 200);
    // Plain lines when piped: every step with its duration, no control characters.
    for step in ["pack", "create", "start", "agent", "ship", "dev", "ready"] {
        assert!(err(&up).lines().any(|line| line.starts_with(step) && has_duration(line)), "{step}: {}", err(&up));
    }
    assert!(!err(&up).contains('\u{1b}'), "{}", err(&up));

    let listed: serde_json::Value = serde_json::from_slice(&run(&corehold, &["ls", "--json"]).stdout).unwrap();
    assert_eq!(listed[0]["id"], "used-up");
    assert_eq!(listed[0]["state"], "ready");
    assert_eq!(listed[0]["previewUrl"], url.trim_end_matches('/'));
    assert!(out(&run(&corehold, &["ls"])).contains("used-up"));

    let exec = run(&corehold, &["exec", "used-up", "--env", "A=b", "--", "sh", "-c", "echo $A; echo err >&2; exit 42"]);
    assert_eq!((exec.status.code(), out(&exec).as_str(), err(&exec).as_str()), (Some(42), "b\n", "err\n"));
    assert_eq!(run(&corehold, &["exec", "used-up", "--", "sh", "-c", "kill -9 $$"]).status.code(), Some(137));
    assert_eq!(run(&corehold, &["exec", "used-up", "--timeout", "1", "--", "sleep", "100"]).status.code(), Some(124));
    let missing = run(&corehold, &["exec", "used-up", "--", "no-such-program"]);
    assert_eq!(missing.status.code(), Some(125));
    assert!(err(&missing).contains("no-such-program"), "{}", err(&missing));

    assert!(out(&run(&corehold, &["logs", "used-up"])).contains("4321"));
    let agent = run(&corehold, &["logs", "used-up", "--agent"]);
    assert!(agent.status.success() && !out(&agent).is_empty(), "{}{}", out(&agent), err(&agent));

    // Who follows learns of the end, and ends then.
    let workspace = corehold.host.workspace("used-up").await.unwrap();
    let dev = workspace.latest_command(DEV).await.unwrap().expect("it runs");
    let kill = CommandSignalRequest { id: dev.id, signal: Signal::Kill };
    workspace.call::<CommandSignal>(&kill).await.unwrap();
    let followed = run(&corehold, &["logs", "used-up", "--follow"]);
    assert!(out(&followed).contains("4321"), "{}{}", out(&followed), err(&followed));
    assert!(err(&followed).ends_with("the dev server has ended: SIGKILL\n"), "{}", err(&followed));

    let twice = run(&corehold, &["up", "node-api", "--name", "used-up"]);
    assert_eq!(twice.status.code(), Some(1));
    assert!(err(&twice).contains("used-up") && err(&twice).contains("hint:"), "{}", err(&twice));

    let down = run(&corehold, &["down", "used-up"]);
    assert_eq!((down.status.code(), out(&down).as_str()), (Some(0), "removed used-up\n"));
    assert_eq!(out(&run(&corehold, &["ls", "--json"])), "[]\n");
    assert_eq!(run(&corehold, &["exec", "used-up", "--", "true"]).status.code(), Some(125));
}

/// Regression: colours of the log, asked for on a terminal only, ended every command there with a panic.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_steps_are_shown_as_they_end() {
    let corehold = Corehold::start().await;
    let command = corehold.cli(&["up", "node-api", "--name", "seen"]);
    let line = format!("{} up node-api --name seen", command.get_program().to_str().unwrap());
    // `script` gives its command a terminal.
    let mut script = std::process::Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).stdin(std::process::Stdio::null());
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let seen = script.output().expect("script (of Debian's bsdutils) starts");
    assert!(seen.status.success(), "{}", out(&seen));
    for step in ["create", "start", "ship", "ready"] {
        assert!(out(&seen).lines().any(|line| line.contains(step) && has_duration(line)), "{step}: {}", out(&seen));
    }
    assert!(out(&seen).contains("seen is ready: http://127.0.0.1:"), "{}", out(&seen));
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told_with_what_to_do() {
    let corehold = Corehold::start().await;
    let unknown = run(&corehold, &["up", "vite-raect"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(err(&unknown).contains("vite-react"), "{}", err(&unknown));

    let folder = corehold.folder("wrong", &[("template.json", "{\n  \"setpu\": []\n}")]);
    for arguments in [["template", "check", folder.to_str().unwrap()].as_slice(), &["up", folder.to_str().unwrap()]] {
        let wrong = run(&corehold, arguments);
        let said = out(&wrong) + &err(&wrong);
        assert_eq!(wrong.status.code(), Some(1), "{said}");
        assert!(said.contains("template.json:2:") && said.contains("setpu") && said.contains("setup"), "{said}");
    }
    let archive = corehold.scratch.path().join("odd.tar.gz");
    std::fs::write(&archive, "no tar").unwrap();
    for arguments in [["template", "check"].as_slice(), &["up"]] {
        let odd = run(&corehold, &[arguments, &[archive.to_str().unwrap()]].concat());
        assert_eq!(odd.status.code(), Some(1), "{}", err(&odd));
        assert!(err(&odd).contains("odd.tar.gz can't be used") && err(&odd).contains("hint:"), "{}", err(&odd));
    }
    let empty = corehold.folder("empty", &[]);
    let error = run(&corehold, &["up", empty.to_str().unwrap()]);
    assert_eq!(error.status.code(), Some(1));
    assert!(err(&error).contains("empty"), "{}", err(&error));

    assert_eq!(run(&corehold, &["up"]).status.code(), Some(2));
    let engine = corehold.cli(&["ls"]).env("DOCKER_HOST", "unix:///nowhere/docker.sock").output().unwrap();
    assert_eq!(engine.status.code(), Some(1));
    assert!(err(&engine).contains("/nowhere/docker.sock") && err(&engine).contains("hint:"), "{}", err(&engine));
    assert_eq!(out(&run(&corehold, &["ls", "--json"])), "[]\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_what_is_there_and_what_is_missing() {
    let corehold = Corehold::start().await;
    let well = run(&corehold, &["doctor"]);
    assert!(well.status.success(), "{}", out(&well));
    for what in ["engine", "can be closed", "image", "certificates", "templates", "API 1."] {
        assert!(out(&well).contains(what), "{}", out(&well));
    }
    let ill = corehold.cli(&["doctor", "--json"]).env("COREHOLD_IMAGE", "no-such-image:1").output().unwrap();
    assert_eq!(ill.status.code(), Some(1));
    let findings: serde_json::Value = serde_json::from_slice(&ill.stdout).unwrap();
    let image = findings.as_array().unwrap().iter().find(|finding| finding["what"] == "image").unwrap();
    assert_eq!((image["state"].as_str(), image["mend"].as_str()), (Some("broken"), Some("corehold image build")));
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_are_listed_and_all_that_ship_are_right() {
    let corehold = Corehold::start().await;
    let listed: serde_json::Value =
        serde_json::from_slice(&run(&corehold, &["template", "ls", "--json"]).stdout).unwrap();
    let names: Vec<_> =
        listed["templates"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["node-api", "python-web", "static-site", "vite-react"]);
    for name in names {
        let check = run(&corehold, &["template", "check", name]);
        assert!(check.status.success() && out(&check).ends_with("ok\n"), "{name}: {}", out(&check));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_a_template_too() {
    let corehold = Corehold::start().await;
    let folder = corehold.folder("site", &[("site/index.html", "<p>hello</p>"), ("site/run.sh", "#!/bin/sh")]);
    let archive = corehold.scratch.path().join("my-site.tar.gz");
    let status =
        std::process::Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(&folder).arg("site").status();
    assert!(status.expect("tar is there").success());
    let temporary = corehold.folder("temporary", &[]);
    let path = archive.to_str().unwrap();
    let up = corehold.cli(&["up", path, "--name", "unpacked"]).env("TMPDIR", &temporary).output().unwrap();
    assert!(up.status.success(), "{}", err(&up));
    assert_eq!(get(out(&up).split_whitespace().last().unwrap(), "/").await.1, "<p>hello</p>");
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "what it was unpacked into is gone");
    assert_eq!(out(&run(&corehold, &["exec", "unpacked", "--", "ls"])), "index.html\nrun.sh\n");
    let listed: serde_json::Value = serde_json::from_slice(&run(&corehold, &["ls", "--json"]).stdout).unwrap();
    assert_eq!(listed[0]["template"], "my-site");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_set_ups_left_is_listed_and_cleared() {
    let corehold = Corehold::start().await;
    let folder = corehold.folder("kept", &[("template.json", r#"{"setup": ["echo made >made"]}"#), ("file", "")]);
    let up = run(&corehold, &["up", folder.to_str().unwrap()]);
    assert!(up.status.success() && err(&up).contains("kept, "), "{}", err(&up));
    let listed = run(&corehold, &["cache", "ls"]);
    assert!(out(&listed).lines().nth(1).is_some_and(|line| line.starts_with("kept ")), "{}", out(&listed));
    let again = run(&corehold, &["up", folder.to_str().unwrap()]);
    assert!(err(&again).contains("taken from the set-up cache"), "{}", err(&again));
    assert!(err(&run(&corehold, &["cache", "clear"])).contains("removed 1"));
    assert_eq!(out(&run(&corehold, &["cache", "ls", "--json"])), "[]\n");
}
