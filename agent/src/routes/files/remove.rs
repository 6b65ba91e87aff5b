//! `DELETE`: one file. A symbolic link is deleted itself; a directory is not a file.

use std::{fs::File, os::fd::AsFd as _, sync::Arc};

use axum::{
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use corehold_types::{Problem, Scope, WorkspacePath};
use http::StatusCode;
use rustix::{
    fs::{AtFlags, FileType, OFlags},
    io::Errno,
};

use super::{conditions::Conditions, path_of};
use crate::{
    agent::Agent,
    audit::Notes,
    blocking,
    root::{self, FinalLink, mark, os_problem},
    routes::audited::Asked,
    server::problem::Failure,
};

pub(super) async fn delete(State(agent): State<Arc<Agent>>, request: Request) -> Response {
    match answer(agent, request).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(problem) => Failure(problem).into_response(),
    }
}

async fn answer(agent: Arc<Agent>, request: Request) -> Result<(), Problem> {
    let notes = Asked::with(request.extensions(), Scope::Write)?.notes.clone();
    let path = path_of(request.uri())?;
    let conditions = Conditions::of(request.headers())?;
    blocking::run(move |_| remove(&agent, &path, &conditions, &notes)).await
}

fn remove(agent: &Agent, path: &WorkspacePath, conditions: &Conditions, notes: &Notes) -> Result<(), Problem> {
    let place = agent.root.place(path, FinalLink::Keep)?;
    let failed = |errno: Errno| os_problem(errno, "delete", path);
    let _held = agent.edits.hold(&place).map_err(failed)?;
    let directory = place.directory.as_fd();
    let stat = root::stat_at(directory, &place.name).map_err(failed)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Directory {
        return Err(failed(Errno::ISDIR));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match kind {
        FileType::RegularFile => root::openat(directory, &place.name, flags).ok().map(File::from),
        _ => None,
    };
    conditions.check_change(path, file.as_ref())?;
    let before = file.as_ref().and_then(|file| mark(file, agent.config.limits.audit_hash_bytes.value));
    rustix::fs::unlinkat(directory, &place.name, AtFlags::empty()).map_err(failed)?;
    notes.note(|touched| touched.changed(path, before.as_deref(), None));
    Ok(())
}
