//! `PUT`: a file, whole or not at all.
//!
//! The body goes into a file without a name; when it is complete that takes the target's name in one step, so a reader
//! sees the old content or the new, and an upload that breaks off leaves nothing behind.

mod unnamed;

use std::{fs::File, io::BufRead as _, io::Write as _, os::fd::AsFd as _, sync::Arc};

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use corehold_types::{Code, Problem, Scope, WorkspacePath, wire::FileWritten};
use http::{StatusCode, header};
use rustix::{
    fs::{FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::{conditions::Conditions, path_of, set_version};
use crate::{
    agent::Agent,
    audit::Notes,
    root::{self, FinalLink, Place, Version, mark, os_problem},
    routes::audited::Asked,
    server::{
        problem::Failure,
        upload::{Upload, problem_of, with_body},
    },
};
use unnamed::Unnamed;

pub(super) async fn put(State(agent): State<Arc<Agent>>, request: Request) -> Response {
    answer(agent, request).await.unwrap_or_else(|problem| Failure(problem).into_response())
}

async fn answer(agent: Arc<Agent>, request: Request) -> Result<Response, Problem> {
    let notes = Asked::with(request.extensions(), Scope::Write)?.notes.clone();
    let path = path_of(request.uri())?;
    let (head, body) = request.into_parts();
    if head.headers.contains_key(header::CONTENT_RANGE) {
        return Err(Problem::new(
            Code::InvalidRequest,
            "Content-Range: a file is written whole (RFC 9110 section 14.5)",
        ));
    }
    let limit = agent.config.limits.file_bytes;
    let announced = axum::body::HttpBody::size_hint(&body).lower();
    if announced > limit.value {
        return Err(limit.exceeded("the file"));
    }
    let conditions = Conditions::of(&head.headers)?;
    let worker = Arc::clone(&agent);
    let (version, written) = with_body(body, &agent, move |upload, _| {
        let result = write(&worker, &path, &conditions, upload, &notes);
        notes.note(|touched| touched.came_in(upload.received()));
        result
    })
    .await?;
    let status = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = (status, Json(written)).into_response();
    set_version(&mut response, &version);
    Ok(response)
}

fn write(
    agent: &Agent,
    path: &WorkspacePath,
    conditions: &Conditions,
    upload: &mut Upload,
    notes: &Notes,
) -> Result<(Version, FileWritten), Problem> {
    let made = agent.root.make_parent(path)?;
    let place = agent.root.place(path, FinalLink::Follow)?;
    // Before the body comes, so that a hopeless upload ends early; and again when it counts.
    Target::look(&place, path)?.check(path, conditions)?;
    let failed = |errno: Errno| os_problem(errno, "write", path);
    let mut file = Unnamed::create(&place.directory).map_err(failed)?;
    let size = fill(file.file(), upload, agent, path)?;
    let most = agent.config.limits.audit_hash_bytes.value;
    let after = mark(file.file(), most);
    let (created, before) = {
        let _held = agent.edits.hold(&place).map_err(failed)?;
        let target = Target::look(&place, path)?;
        target.check(path, conditions)?;
        if let Some(stat) = &target.stat {
            inherit(file.file(), stat).map_err(failed)?;
        }
        let before = target.file.as_ref().and_then(|file| mark(file, most));
        match file.link(&place, target.stat.is_none()) {
            // Somebody who isn't us made it in between.
            Err(Errno::EXIST) if conditions.must_be_new() => {
                return Err(super::conditions::mismatch(path, None).with("exists", true));
            }
            Err(Errno::EXIST) => file.link(&place, false).map_err(failed)?,
            result => result.map_err(failed)?,
        }
        (target.stat.is_none(), before)
    };
    made.keep();
    let version = Version::of(file.file())
        .map_err(|error| Problem::new(Code::Internal, format!("{path} was written, but can't be read: {error}")))?;
    let after = after.as_deref().unwrap_or(version.as_str());
    notes.note(|touched| touched.changed(path, before.as_deref(), Some(after)));
    let written = FileWritten { version: version.as_str().to_owned(), size, created };
    Ok((version, written))
}

/// Writes the body; returns its size.
fn fill(mut file: &File, upload: &mut Upload, agent: &Agent, path: &WorkspacePath) -> Result<u64, Problem> {
    let limit = agent.config.limits.file_bytes;
    let mut size = 0_u64;
    loop {
        let piece = match upload.fill_buf() {
            Ok([]) => return Ok(size),
            Ok(piece) => piece,
            Err(error) => {
                return Err(problem_of(error)
                    .unwrap_or_else(|error| Problem::new(Code::Internal, format!("the body can't be read: {error}"))));
            }
        };
        let length = piece.len();
        size += length as u64;
        if size > limit.value {
            return Err(limit.exceeded("the file"));
        }
        file.write_all(piece)
            .map_err(|error| os_problem(Errno::from_io_error(&error).unwrap_or(Errno::IO), "write", path))?;
        upload.consume(length);
    }
}

/// What is at the place now.
struct Target {
    stat: Option<Stat>,
    file: Option<File>,
}

impl Target {
    fn look(place: &Place, path: &WorkspacePath) -> Result<Self, Problem> {
        let directory = place.directory.as_fd();
        let stat = match root::stat_at(directory, &place.name) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Self { stat: None, file: None }),
            Err(errno) => return Err(os_problem(errno, "look at", path)),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(os_problem(Errno::ISDIR, "write", path)),
            _ => return Err(os_problem(Errno::NXIO, "write", path)),
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Unreadable is no reason not to replace it; only a condition needs its content.
        let file = root::openat(directory, &place.name, flags).ok().map(File::from);
        Ok(Self { stat: Some(stat), file })
    }

    fn check(&self, path: &WorkspacePath, conditions: &Conditions) -> Result<(), Problem> {
        if self.stat.is_some() && conditions.must_be_new() {
            let mut problem = Problem::new(Code::AlreadyExists, format!("{path} exists already"));
            problem.status = StatusCode::PRECONDITION_FAILED.as_u16();
            return Err(problem);
        }
        conditions.check_change(path, self.file.as_ref())
    }
}

/// Mode of the file that is replaced, and its owner where that may be given away. Set-id bits go, as they do when the
/// kernel sees somebody write to a file.
fn inherit(file: &File, replaced: &Stat) -> Result<(), Errno> {
    use rustix::fs::{Gid, Uid};
    let own = rustix::fs::fstat(file)?;
    if (own.st_uid, own.st_gid) != (replaced.st_uid, replaced.st_gid) {
        let (uid, gid) = (Uid::from_raw(replaced.st_uid), Gid::from_raw(replaced.st_gid));
        // Without the capability a file stays its writer's, at most with another of his groups.
        if rustix::fs::fchown(file, Some(uid), Some(gid)).is_err() {
            let _ = rustix::fs::fchown(file, None, Some(gid));
        }
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(replaced.st_mode & 0o777))
}
