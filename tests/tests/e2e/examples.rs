//! The library's examples do what they say.

use std::process::{Command, Output};

use corehold_e2e::corehold::{Corehold, templates};

fn run(corehold: &Corehold, example: &str) -> Output {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--package", "corehold-host", "--example", example]);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command.env("COREHOLD_HOME", corehold.host.home()).env("COREHOLD_TEMPLATES", templates());
    command.output().expect("cargo runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_them_works_and_leaves_nothing() {
    let corehold = Corehold::start().await;
    for (example, says) in [
        ("quickstart", "answers on http://127.0.0.1:"),
        ("multi_tenant", "grace has the secret of grace"),
        ("agent_loop", "attempt 2: the test passes"),
        ("sleep_and_wake", "and there is still: as I left it"),
    ] {
        let output = run(&corehold, example);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains(says), "{example}: {output:?}");
        assert_eq!(corehold.host.list().await.unwrap(), [], "{example} leaves nothing");
        assert_eq!(corehold.host.drain_pools().await.unwrap(), 0, "{example} leaves nothing that waits");
    }
}
