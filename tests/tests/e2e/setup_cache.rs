//! What a template's set-up left is there in the next workspace, without the set-up.

use corehold_e2e::{corehold::Corehold, web::get};
use corehold_host::{
    Class, CreateEvent, CreateEventKind, CreateWorkspace, Host, PoolOptions, Step, Template, Workspace,
};

/// Creates, and returns the set-up lines that ran and what was said of keeping their result.
async fn create(host: &Host, template: &Template) -> (Workspace, Vec<String>, Option<String>) {
    let mut creation = host.create(CreateWorkspace::from_template(template));
    let mut events: Vec<CreateEvent> = Vec::new();
    while let Some(event) = creation.next_event().await {
        events.push(event);
    }
    let workspace = creation.await.unwrap_or_else(|error| panic!("{error}\n{events:#?}"));
    let (mut lines, mut keep) = (Vec::new(), None);
    for event in events {
        match (event.step, event.kind) {
            (Step::Setup, CreateEventKind::Started { detail }) => lines.extend(detail),
            (Step::Keep, CreateEventKind::Finished { detail, .. }) => keep = detail,
            _ => {}
        }
    }
    (workspace, lines, keep)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_vite_react_is_served_without_an_install() {
    let corehold = Corehold::start().await;
    let template = corehold.host.catalog().find("vite-react").unwrap();
    let (first, lines, keep) = create(&corehold.host, &template).await;
    assert_eq!(lines, template.setup);
    assert!(keep.as_ref().is_some_and(|keep| keep.starts_with("kept, ")), "{keep:?}");

    let pooled = corehold.builder().pool(Class::default(), PoolOptions::default().min(1).max(1)).build().await.unwrap();
    pooled.pools_filled().await.unwrap();
    for host in [&corehold.host, &pooled] {
        let (workspace, lines, keep) = create(host, &template).await;
        assert_eq!((lines, keep), (Vec::new(), None), "nothing was installed");
        assert!(get(&workspace.preview_url().await.unwrap(), "/src/App.jsx").await.0 == 200);
        // Without what the dev server, and Node in it, have made since: it is the same tree.
        let tree = "find . \\( -path ./node_modules/.vite -o -path ./node_modules/.cache \\) -prune \\
             -o -type f -exec md5sum {} + -o -printf '%p %m %l\\n' | sort";
        let there = workspace.command(tree).max_output_bytes(4 << 20).run().await.unwrap().stdout_text();
        let before = first.command(tree).max_output_bytes(4 << 20).run().await.unwrap().stdout_text();
        assert!(there.lines().count() > 300, "{there}");
        let only = |these: &str, those: &str| {
            let known: std::collections::HashSet<&str> = those.lines().collect();
            these.lines().filter(|line| !known.contains(line)).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!((only(&there, &before), only(&before, &there)), (vec![], vec![]));
        workspace.remove().await.unwrap();
    }
    assert_eq!(pooled.pools()[0].claimed, 1);

    let (_, lines, keep) = create(&corehold.host, &corehold.host.catalog().find("node-api").unwrap()).await;
    assert_eq!((lines.len(), keep), (0, None), "what has no set-up has nothing to keep");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_of_every_kind_comes_back_and_the_dev_servers_changes_dont() {
    let corehold = Corehold::start().await;
    let setup = "mkdir -p deps/empty && echo one >deps/one && ln deps/one deps/hard && ln -s /usr/bin/env deps/absolute \
        && ln -s one deps/relative && echo run >deps/run && chmod 755 deps/run && echo secret >.npmrc && chmod 600 .npmrc \
        && mkdir -p ~/.npm/_logs && echo log >~/.npm/_logs/1";
    let template = serde_json::json!({
        "setup": [setup],
        "dev": "echo changed >deps/one; rm deps/run; echo late >deps/late; exec node server.js",
    });
    let server = "require('http').createServer((_, answer) => answer.end('hi')).listen(4321, '0.0.0.0')";
    let folder = corehold.folder("kinds", &[("server.js", server), ("template.json", &template.to_string())]);
    let (_, lines, keep) = create(&corehold.host, &Template::load(&folder).unwrap()).await;
    assert_eq!(lines.len(), 1);
    assert!(keep.as_ref().is_some_and(|keep| keep.starts_with("kept, ")), "{keep:?}");

    // The same without the dev command, which the set-up doesn't depend on: what comes is what the set-up left.
    let template = serde_json::json!({ "setup": [setup], "dev": "exec node server.js" });
    std::fs::write(folder.join("template.json"), template.to_string()).unwrap();
    let (second, lines, _) = create(&corehold.host, &Template::load(&folder).unwrap()).await;
    assert!(lines.is_empty());
    let look = "cat deps/one; ls deps; readlink deps/absolute deps/relative; stat -c %a deps/run .npmrc; stat -c %h deps/one; \
        [ deps/one -ef deps/hard ] && echo same";
    let seen = second.command(look).run().await.unwrap().stdout_text();
    assert_eq!(seen, "one\nabsolute\nempty\nhard\none\nrelative\nrun\n/usr/bin/env\none\n755\n600\n2\nsame\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_up_that_leaves_something_elsewhere_is_not_kept() {
    let corehold = Corehold::start().await;
    for (setup, says) in [
        // Seen as `setsid` or as `sleep`, by how far it has come.
        ("setsid sleep 1000 >/dev/null 2>&1 &", "set-up left the process "),
        ("mkdir -p ~/.local/lib/node_modules/tool", "/home/workspace/.local/lib"),
        ("echo 'x' >>~/.bashrc", "/home/workspace/.bashrc"),
        ("rm -f /tmp/.corehold-setup-*", "can't be looked at"),
    ] {
        let folder =
            corehold.folder("elsewhere", &[("template.json", &serde_json::json!({ "setup": [setup] }).to_string())]);
        std::fs::write(folder.join("file"), "").unwrap();
        let template = Template::load(&folder).unwrap();
        for _ in 0..2 {
            let (workspace, lines, keep) = create(&corehold.host, &template).await;
            let keep = keep.unwrap();
            assert!(lines.len() == 1 && keep.starts_with("not kept: ") && keep.contains(says), "{setup}: {keep}");
            let left = workspace.command("ls -A /tmp").run().await.unwrap();
            assert!(!left.stdout_text().contains(".corehold-setup"), "{left:?}");
            workspace.remove().await.unwrap();
        }
    }
    assert_eq!(corehold.host.setup_cache().await.unwrap(), []);
}
