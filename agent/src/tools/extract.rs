//! `extract`: an archive that lies in the container becomes files of the workspace.

use std::{
    ffi::OsStr,
    fs::File,
    io::BufReader,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use corehold_types::{
    Code, Problem, WorkspacePath,
    tools::{ArchiveSource, Extract, ExtractEvent, ExtractRequest, ExtractResponse},
};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags},
    io::Errno,
};

use crate::{
    agent::Agent,
    archive::{Extraction, Progress},
    audit::Touched,
    blocking::{self, Cancelled},
    handler::{Call, CallerGone, Events, Handler},
    root::{FinalLink, os_problem},
};

/// Between two reports of progress.
const REPORT: Duration = Duration::from_millis(300);

impl Handler for Extract {
    async fn handle(
        call: Call,
        request: ExtractRequest,
        events: Events<Self::Event>,
    ) -> Result<ExtractResponse, Problem> {
        let progress = Arc::new(Progress::default());
        let (shared, said) = (Arc::clone(&progress), call.progress.clone());
        let Call { agent, notes, .. } = call;
        let mut work = std::pin::pin!(blocking::run(move |cancelled| {
            let result = extract(&agent, &request, &shared, cancelled);
            notes.of(result, |done, touched| {
                touched.counted(done.files + done.directories + done.symlinks, Some(done.bytes));
            })
        }));
        if !events.wanted() && !said.is_heard() {
            return work.await;
        }
        let mut report = tokio::time::interval(REPORT);
        report.tick().await;
        loop {
            tokio::select! {
                result = &mut work => return result,
                _ = report.tick() => {
                    let entries = progress.entries.load(Ordering::Relaxed);
                    let bytes = progress.bytes.load(Ordering::Relaxed);
                    said.say(|| format!("{entries} entries, {bytes} bytes extracted so far"));
                    let sent = events.send(ExtractEvent::Progress { entries, bytes }).await;
                    sent.map_err(|CallerGone| Cancelled::problem())?;
                }
            }
        }
    }

    fn touches(request: &ExtractRequest, touched: &mut Touched) {
        match &request.archive {
            ArchiveSource::Path(path) => touched.path(path),
            ArchiveSource::Inbox(name) => touched.detail(name),
        }
        touched.paths(&request.destination);
    }
}

fn extract(
    agent: &Agent,
    request: &ExtractRequest,
    progress: &Progress,
    cancelled: &Cancelled,
) -> Result<ExtractResponse, Problem> {
    let root = WorkspacePath::from(".");
    let destination = request.destination.as_ref().unwrap_or(&root);
    let archive = Archive::open(agent, &request.archive)?;
    let extraction = Extraction {
        agent,
        destination,
        expected_hash: request.expected_hash.as_deref(),
        replace: false,
        progress,
        cancelled,
    };
    let result = extraction.run(&mut BufReader::with_capacity(256 << 10, &archive.file));
    if request.remove == Some(true)
        && let Err(error) = archive.remove(agent)
    {
        tracing::warn!(%error, "an archive can't be removed");
    }
    result
}

/// An opened archive, and how to remove it.
struct Archive<'a> {
    file: File,
    source: Source<'a>,
}

enum Source<'a> {
    Inbox(OwnedFd, &'a str),
    Path(&'a WorkspacePath),
}

impl<'a> Archive<'a> {
    fn open(agent: &Agent, source: &'a ArchiveSource) -> Result<Self, Problem> {
        match source {
            ArchiveSource::Path(path) => {
                Ok(Self { file: agent.root.open_file(path)?.file, source: Source::Path(path) })
            }
            ArchiveSource::Inbox(name) => Self::open_in_inbox(agent, name),
        }
    }

    fn open_in_inbox(agent: &Agent, name: &'a str) -> Result<Self, Problem> {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(Problem::new(
                Code::InvalidRequest,
                "archive.inbox: the name of a file was expected, not a path",
            ));
        }
        let shown = WorkspacePath::from(agent.config.inbox.join(name).display().to_string());
        let failed = |errno: Errno| os_problem(errno, "open", &shown);
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inbox = rustix::fs::open(&agent.config.inbox, folder, Mode::empty()).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = crate::root::openat(inbox.as_fd(), OsStr::new(name), flags).map_err(failed)?;
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Problem::new(Code::NotAFile, format!("{shown} is not a regular file")));
        }
        Ok(Self { file: file.into(), source: Source::Inbox(inbox, name) })
    }

    fn remove(&self, agent: &Agent) -> Result<(), Problem> {
        match &self.source {
            Source::Inbox(inbox, name) => rustix::fs::unlinkat(inbox, *name, AtFlags::empty())
                .map_err(|errno| os_problem(errno, "remove", &WorkspacePath::from(*name))),
            Source::Path(path) => {
                let place = agent.root.place(path, FinalLink::Keep)?;
                rustix::fs::unlinkat(&place.directory, &place.name, AtFlags::empty())
                    .map_err(|errno| os_problem(errno, "remove", path))
            }
        }
    }
}
