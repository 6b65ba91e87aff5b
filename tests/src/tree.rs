//! A workspace's files of every kind, and how they are told apart: what archives are tried on.

use corehold_host::Workspace;

/// Files of every kind that an archive promises to keep: modes, times, links, holes, names that are no text or look like options, a
/// file that ignore rules leave out elsewhere.
const FILL: &str = r"mkdir -p a/b empty closed node_modules .git && echo text > a/b/file && printf '#!/bin/sh\n' > tool && chmod 750 tool \
    && ln tool linked && ln -s a/b way && ln -s /nowhere dangling && echo x > closed/in && chmod 500 closed \
    && head -c 3000000 /dev/urandom > large && truncate -s 20M sparse && touch -d '2001-02-03 04:05:06.123456789' a/b/file \
    && touch -h -d '1969-12-31 23:59:58.5' way && touch -d @4000000000 empty && printf x > $(printf 'caf\351') \
    && echo x > ./-rf && echo x > 'two words' && mkdir $(printf 'd%.0s' $(seq 200)) && echo y > node_modules/z && echo .env > .gitignore \
    && echo SECRET=1 > .env && echo ref > .git/HEAD && chmod 000 .env && chmod 644 .env && chmod 400 large";

/// Everything that an archive promises to keep, as the shell tells it.
const TELL: &str = r"find . -mindepth 1 -printf '%P %y %m %T@ %l %n\n' | LC_ALL=C sort && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum";

/// Runs a line and returns what it wrote.
///
/// # Panics
/// When it fails.
pub async fn run(workspace: &Workspace, line: &str) -> String {
    let outcome = workspace.command(line).run().await.expect("it runs");
    assert!(outcome.success(), "{line}: {}{}", outcome.stdout_text(), outcome.stderr_text());
    outcome.stdout_text()
}

/// Makes files of every kind, and returns what [`tell`] says of them.
///
/// # Panics
/// When they can't be made.
pub async fn fill(workspace: &Workspace) -> String {
    run(workspace, FILL).await;
    tell(workspace).await
}

/// Kind, mode, time, target, links and content of everything there is.
///
/// # Panics
/// When something can't be read.
pub async fn tell(workspace: &Workspace) -> String {
    run(workspace, TELL).await
}
