//! Makes a base on this machine: runs the repository's `image/make-base.sh` and hands what it writes to the engine.

use std::{process::Stdio, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, Command},
    sync::oneshot,
};
use tokio_util::io::ReaderStream;

use super::{
    event::Running,
    lines::{Lines, Tail},
};
use crate::{
    error::{Error, ErrorKind, Result},
    runtime::docker::{Docker, EngineImage},
};

const SCRIPT: &str = include_str!("../../../image/make-base.sh");
const REPOSITORY: &str = "corehold-base";

/// Making a base downloads 150 MB; whatever takes longer than this hangs.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// The script's exit status when this machine lacks what it needs (`EX_UNAVAILABLE` of sysexits.h).
const LACKING: i32 = 69;

/// The tag of what the script makes: what is in it, and the hash of the script.
fn tag() -> String {
    format!("bookworm-node24-{}", &blake3::hash(SCRIPT.as_bytes()).to_hex()[..12])
}

/// The reference of what the script makes.
pub(super) fn reference() -> String {
    format!("{REPOSITORY}:{}", tag())
}

/// Makes a base and gives it its name. Nothing is left behind when it fails or is cancelled.
pub(super) async fn make(docker: &Docker, running: &Running<'_>) -> Result<EngineImage> {
    match tokio::time::timeout(LIMIT, run(docker, running)).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(ErrorKind::Timeout, format!("making a base took longer than {LIMIT:?}"))),
    }
}

async fn run(docker: &Docker, running: &Running<'_>) -> Result<EngineImage> {
    let script = tempfile::Builder::new().prefix("corehold-make-base").suffix(".sh").tempfile()?;
    tokio::fs::write(script.path(), SCRIPT).await?;
    let mut child = Command::new("bash")
        .arg(script.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that all of it can be ended together.
        .process_group(0)
        .spawn()
        .map_err(|source| Error::from(source).context("starting make-base.sh with bash"))?;
    let group = Group::of(&child);
    let missing = || Error::new(ErrorKind::Io, "make-base.sh has no output");
    let mut root = ReaderStream::with_capacity(child.stdout.take().ok_or_else(missing)?, 64 * 1024).boxed();
    let mut messages = child.stderr.take().ok_or_else(missing)?;

    // The engine must not take the end of a script that failed for the end of an archive.
    let (ended, end) = oneshot::channel::<Result<()>>();
    let watching = async {
        let mut lines = Lines::default();
        let mut tail = Tail::default();
        let mut buffer = vec![0; 8 * 1024];
        let mut keep = |line: &str| {
            tail.push(line);
            running.output(line);
        };
        while let Ok(count @ 1..) = messages.read(&mut buffer).await {
            lines.feed(&buffer[..count], &mut keep);
        }
        lines.end(&mut keep);
        // Nobody waits any more when the import has failed already.
        let _ = ended.send(outcome(child.wait().await, &tail));
        group.leave();
        std::future::pending::<std::convert::Infallible>().await
    };
    let importing = async {
        // Not before there is something to send: the engine would wait for half a minute with an open request.
        let first = root.next().await;
        let rest = stream::iter(first).chain(root).map(|chunk| chunk.map_err(Error::from));
        let verdict = stream::once(end).filter_map(|outcome| async {
            match outcome {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(Err(error)),
                Err(_) => Some(Err(Error::new(ErrorKind::Io, "make-base.sh was not waited for"))),
            }
        });
        let changes = vec![
            "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            "CMD [\"node\"]".to_owned(),
        ];
        let body: crate::runtime::BoxStream<Bytes> = rest.chain(verdict).boxed();
        docker.import_image(REPOSITORY, &tag(), changes, body).await
    };
    tokio::select! {
        image = importing => image,
        never = watching => match never {},
    }
}

fn outcome(status: std::io::Result<std::process::ExitStatus>, tail: &Tail) -> Result<()> {
    let status = status?;
    if status.success() {
        return Ok(());
    }
    if status.code() == Some(LACKING) {
        return Err(Error::new(ErrorKind::Unsupported, tail.last())
            .hint("install what is missing (`cargo xtask setup` does, where it may)"));
    }
    Err(Error::new(ErrorKind::CommandFailed, format!("make-base.sh failed ({status}): {}", tail.last()))
        .with_output(tail.text()))
}

/// The script's process group, asked to end when this is dropped: the script cleans up after itself on TERM.
struct Group(Option<rustix::process::Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw))
    }

    /// It has ended and was waited for; its number may be somebody else's by now.
    fn leave(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn what_is_missing_is_told_from_what_failed() {
        let mut tail = Tail::default();
        tail.push("==> Debian");
        tail.push("making a base needs: root");
        let with = |code: i32| outcome(Ok(std::process::ExitStatus::from_raw(code << 8)), &tail).unwrap_err();
        assert_eq!(
            (with(69).kind(), with(69).to_string().as_str()),
            (ErrorKind::Unsupported, "making a base needs: root")
        );
        assert_eq!(with(1).kind(), ErrorKind::CommandFailed);
        assert_eq!(with(1).output(), Some("==> Debian\nmaking a base needs: root"));
    }

    #[test]
    fn a_base_is_named_by_the_script_that_makes_it() {
        let reference = reference();
        assert!(reference.starts_with("corehold-base:bookworm-node24-") && reference.len() == 30 + 12, "{reference}");
    }
}
