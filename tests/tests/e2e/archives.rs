//! Archives of real workspaces: what a container holds comes back as it was, in the same one, in another one, and by the command line.

use std::process::Command;

use corehold_e2e::{
    command_line,
    corehold::Corehold,
    tree::{fill, run, tell},
    web::get,
};
use corehold_host::{Change, CreateWorkspace, RemoveOptions, SaveOptions};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_saved_comes_back_as_it_was() {
    let corehold = Corehold::start().await;
    let (host, archives) = (&corehold.host, corehold.host.archives());
    let workspace = host.create(CreateWorkspace::empty().id("one")).await.unwrap();
    let before = fill(&workspace).await;
    // What runs is no obstacle, and isn't saved.
    workspace.command("sleep 300").detach().await.unwrap();
    let archive = archives.save(&workspace, SaveOptions::default()).await.unwrap();
    assert!(archives.diff(&archive, &workspace).await.unwrap().is_empty());

    run(&workspace, "rm -rf a large && echo other > tool && chmod 600 tool && mkdir new").await;
    let changes: Vec<_> = archives.diff(&archive, &workspace).await.unwrap();
    let of = |path: &str| changes.iter().find(|change| change.path.to_string() == path).map(|change| change.change);
    assert_eq!(
        (of("a/b/file"), of("new"), of("tool")),
        (Some(Change::Removed), Some(Change::Added), Some(Change::Content))
    );
    archives.load(&archive, &workspace).await.unwrap();
    assert_eq!(tell(&workspace).await, before);
    assert_eq!(run(&workspace, "stat -c %b sparse").await.trim(), "0", "its hole is a hole again");

    let other = archives.create_from(&archive, CreateWorkspace::empty().id("two")).await.unwrap();
    assert_eq!(tell(&other).await, before);
    let copies = workspace.fork(2).await.unwrap();
    for copy in &copies {
        assert_eq!(tell(copy).await, before);
    }
    run(&copies[0], "echo mine > own").await;
    assert!(!run(&copies[1], "ls").await.contains("own"));

    let without = archives.save(&other, SaveOptions::default().exclude("node_modules").exclude("*arge")).await.unwrap();
    archives.load(&without, &other).await.unwrap();
    let left = run(&other, "ls").await;
    assert!(!left.contains("node_modules") && !left.contains("large") && left.contains("sparse"), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_saves_loads_compares_and_copies() {
    let corehold = Corehold::start().await;
    let cli = |arguments: &[&str]| {
        let output = command_line::run(&corehold, arguments);
        (output.status.code(), command_line::out(&output), command_line::err(&output))
    };
    let up = cli(&["up", "node-api", "--name", "compared"]);
    assert_eq!(up.0, Some(0), "{}", up.2);
    assert_eq!(cli(&["diff", "compared"]).1, "", "it is its template");
    let saved = cli(&["save", "compared"]);
    let archive = saved.1.trim().to_owned();
    assert!(archive.starts_with("compared/"), "{}{}", saved.1, saved.2);
    assert_eq!(cli(&["exec", "compared", "--", "sh", "-c", "echo x > added"]).0, Some(0));
    assert_eq!(cli(&["diff", "compared"]).1, "A added\n");
    assert_eq!(cli(&["diff", "compared", "--against", &archive]).1, "A added\n");
    let forging = "mkdir -p made/deep; touch made/deep/one made/two; touch \"$(printf 'made-up\\nM package.json')\"";
    assert_eq!(cli(&["exec", "compared", "--", "sh", "-c", forging]).0, Some(0));
    let folded = "A added\nA made/ (3 in it)\nA made-up\u{fffd}M package.json\n";
    assert_eq!(
        cli(&["diff", "compared"]).1,
        folded,
        "a directory stands for what is in it, and no name is a line of its own"
    );
    assert_eq!(cli(&["diff", "compared", "--all"]).1.lines().count(), 6);
    assert!(cli(&["archives", "ls", "compared"]).1.contains(&archive));
    assert_eq!(cli(&["archives", "verify", &archive]).0, Some(0));
    assert_eq!(cli(&["load", "compared", "--into", "compared"]).0, Some(0));
    assert_eq!(cli(&["diff", "compared"]).1, "");
    // A new one: with its dev server, without its set-up.
    let load = cli(&["load", &archive, "--name", "again"]);
    assert!(load.0 == Some(0) && load.1.contains("http://"), "{}{}", load.1, load.2);
    assert_eq!(cli(&["diff", "again", "--against", "compared"]).1, "");
    let forked = cli(&["fork", "compared", "2", "--json"]);
    assert_eq!((forked.0, forked.1.lines().count()), (Some(0), 2), "{}", forked.2);
    // Each has its dev server, at an address that outlives the command.
    for copy in forked.1.lines() {
        let copy: serde_json::Value = serde_json::from_str(copy).unwrap();
        assert_eq!(get(copy["previewUrl"].as_str().expect("an address"), "/").await.0, 200, "{copy}");
    }
    let forked = cli(&["fork", "compared"]);
    assert!(forked.0 == Some(0) && forked.1.contains("   http://127.0.0.1:"), "{}{}", forked.1, forked.2);
    assert_eq!(cli(&["archives", "rm", &archive]).0, Some(0));
    assert_eq!(cli(&["archives", "prune", "--json"]).0, Some(0));
    let gone = cli(&["load", &archive]);
    assert!(gone.0 == Some(1) && gone.2.contains(&archive) && gone.2.contains("hint:"), "{}", gone.2);
}

/// What there is to be saved, and what the host may take for it: chunks on their way, some 60 MB of them at most, in a build that isn't
/// optimised.
const LARGE_MIB: u64 = 512;
const FEW: u64 = 160 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_large_goes_through_an_archive_in_little_memory() {
    let corehold = Corehold::start().await;
    let workspace = corehold.host.create(CreateWorkspace::empty().id("large")).await.unwrap();
    // Nothing of it can be compressed, and nothing is there twice.
    run(&workspace, &format!("head -c {LARGE_MIB}M /dev/urandom > large")).await;
    let before = run(&workspace, "sha256sum large").await;
    let mut host = Command::new(env!("CARGO_BIN_EXE_archiving_host"));
    let output = host.arg(corehold.host.home()).arg("large").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    println!("{said}");
    let peaks: Vec<u64> = said.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    let [idle, saved, loaded] = peaks.as_slice() else { panic!("{said}") };
    assert!(saved - idle < FEW && loaded - idle < FEW, "it grew with what went through it: {said}");
    assert_eq!(run(&workspace, "sha256sum large").await, before);
    let archive = corehold.host.archives().list(None).await.unwrap().remove(0);
    assert!(archive.content_bytes >= LARGE_MIB << 20, "{archive:?}");
    workspace.remove_with(RemoveOptions::default().archives(true)).await.unwrap();
}
