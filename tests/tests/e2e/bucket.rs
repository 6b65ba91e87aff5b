//! Sleeping, waking and copying with the archives in a bucket of a real server that speaks S3, with real workspaces, as the command line
//! does it: a host process for each command, that knows nothing but the store and the bucket.

use corehold_e2e::{
    command_line::{err, out},
    corehold::Corehold,
    s3::Server,
};
use corehold_host::runtime::Runtime as _;

/// The command line, with its archives in the bucket.
struct Bucketed<'a> {
    corehold: &'a Corehold,
    server: &'a Server,
}

impl Bucketed<'_> {
    fn done(&self, arguments: &[&str]) -> String {
        let mut command = self.corehold.cli(arguments);
        let endpoint = format!("http://127.0.0.1:{}", self.server.port);
        command.env("COREHOLD_ARCHIVES", "s3://archives/of/e2e").env("AWS_ENDPOINT_URL", endpoint);
        command.env("AWS_ALLOW_HTTP", "true").env("AWS_REGION", "us-east-1");
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
        let output = command.output().expect("the command line starts");
        assert!(output.status.success(), "{arguments:?}: {}{}", out(&output), err(&output));
        out(&output)
    }

    fn shell(&self, workspace: &str, line: &str) -> String {
        self.done(&["exec", workspace, "--", "sh", "-c", line])
    }

    fn archives(&self) -> usize {
        let all: serde_json::Value = serde_json::from_str(&self.done(&["archives", "ls", "--json"])).unwrap();
        all.as_array().expect("a list").len()
    }
}

/// What tells two trees apart.
const TELL: &str = "find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum; stat -c '%a %y' tool";

#[tokio::test(flavor = "multi_thread")]
async fn who_sleeps_in_a_bucket_wakes_as_it_was_and_is_copied_through_it() {
    let corehold = Corehold::start().await;
    let server = Server::start().await;
    let cli = Bucketed { corehold: &corehold, server: &server };
    cli.done(&["up", "node-api", "--name", "bucketed"]);
    cli.shell("bucketed", "head -c 9000000 /dev/urandom > large; echo '#!/bin/sh' > tool; chmod 750 tool");
    let before = cli.shell("bucketed", TELL);
    for round in 0..2 {
        cli.done(&["sleep", "bucketed", "--grace", "1s"]);
        let labels = [("dev.corehold.workspace".to_owned(), "bucketed".to_owned())].into();
        assert!(corehold.docker.list(&labels).await.unwrap().is_empty(), "round {round}: it has no container");
        assert_eq!(cli.archives(), 1, "round {round}");
        // Once it is asked for, once by the way.
        if round == 0 {
            cli.done(&["wake", "bucketed"]);
        }
        assert_eq!(cli.shell("bucketed", TELL), before, "round {round}");
    }
    let copies = cli.done(&["fork", "bucketed", "2", "--json"]);
    let copies: Vec<serde_json::Value> = copies.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(copies.len(), 2);
    for copy in &copies {
        assert_eq!(cli.shell(copy["id"].as_str().unwrap(), TELL), before, "{copy}");
    }
    assert_eq!(cli.archives(), 1, "what copies were made from is gone, what it woke from is kept");
    cli.done(&["down", "--all"]);
    assert_eq!(cli.archives(), 0);
    assert!(!corehold.host.home().join("archives/chunks").exists(), "nothing of it was kept on this machine");
}
