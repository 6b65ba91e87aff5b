//! The library's examples do what they say.

use std::{
    path::Path,
    process::{Command, Output},
};

use corehold_e2e::corehold::{Corehold, clear, templates};

fn run(home: &Path, example: &str) -> Output {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--package", "corehold-host", "--example", example]);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command.env("COREHOLD_HOME", home).env("COREHOLD_TEMPLATES", templates());
    command.output().expect("cargo runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_them_works_and_leaves_nothing() {
    let corehold = Corehold::start().await;
    // No other host's: that would pause and archive too, and tell it itself.
    let home = tempfile::tempdir().unwrap();
    for (example, says) in [
        ("quickstart", "answers on http://127.0.0.1:"),
        ("multi_tenant", "grace has the secret of grace"),
        ("agent_loop", "attempt 2: the test passes"),
        ("sleep_and_wake", "and there is still: as I left it"),
    ] {
        let output = run(home.path(), example);
        let said = String::from_utf8_lossy(&output.stdout);
        let host = corehold.builder().home(home.path()).build().await.unwrap();
        let (left, waiting) = clear(&host).await;
        assert!(output.status.success() && said.contains(says), "{example}: {output:?}");
        assert!(left.is_empty() && waiting == 0, "{example} leaves {left:?}, and {waiting} that wait");
    }
}
