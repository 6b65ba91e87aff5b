//! `GET /v1/archive`: a directory as tar, tar.gz or tar.zst, made while it is sent.
//!
//! `?path=` is the directory (default: the root), `?format=` one of `tar`, `tar.gz` (default) and `tar.zst`. `?exclude=`, which may be
//! given more than once, is a pattern as in .gitignore of what is left out; `?exactTimes=true` keeps times to the nanosecond, for
//! which an entry takes a kilobyte more before compression. An archive that can't be completed is cut off, which HTTP's framing
//! and the archive's own both tell; where nothing of it was sent yet, the answer is a problem.

use std::{
    io::{self, BufWriter, Write},
    sync::Arc,
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use corehold_types::{Code, Problem, Scope};
use futures_util::stream;
use http::{HeaderValue, header};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use tokio::sync::mpsc;

use super::{flag, parameters, path_or_root};
use crate::{
    agent::Agent,
    archive::{Packing, compress, pack},
    blocking,
    routes::audited::Asked,
    server::problem::Failure,
};

/// Bytes handed to the connection at a time.
const PIECE: usize = 64 << 10;

/// Pieces between the thread that packs and the connection.
const PIECES: usize = 4;

pub(crate) async fn get(State(agent): State<Arc<Agent>>, request: Request) -> Response {
    answer(agent, request).await.unwrap_or_else(|problem| Failure(problem).into_response())
}

async fn answer(agent: Arc<Agent>, request: Request) -> Result<Response, Problem> {
    Asked::with(request.extensions(), Scope::Read)?;
    let [path, mut format, exclude, exact_times] =
        parameters(request.uri(), ["path", "format", "exclude", "exactTimes"])?;
    let (path, format) = (path_or_root(path), Format::of(format.pop().as_deref())?);
    let packing = Packing { exclude: excluded(&exclude)?, exact_times: flag("exactTimes", exact_times)? };
    let permit = Arc::clone(&agent.transfers).acquire_owned().await.ok();
    let directory = blocking::run(move |_| {
        // Nothing of a transaction that could be neither finished nor undone goes out.
        agent.edits.settle(&agent.root)?;
        agent.root.open_directory(&path)
    })
    .await?;
    let (sender, mut receiver) = mpsc::channel(PIECES);
    // Owned by the receiver: when the connection drops that, the next piece can't be sent and the work ends.
    tokio::task::spawn_blocking(move || {
        let pieces = Pieces(sender);
        let result = format.write(directory, &packing, pieces.clone());
        if let Err(error) = &result
            // A piece can't be sent when it is the caller who went away.
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            tracing::warn!(%error, "an archive can't be completed");
        }
        // Received by nobody when the caller went away.
        let _ = pieces.send(result.map(|()| None));
        drop(permit);
    });
    // Nothing is sent before there is a piece, and what fails until then can still be said.
    let first = next(&mut receiver).await.map_err(|error| cannot(&error))?;
    let pieces = stream::try_unfold((Some(first), receiver), async |(first, mut receiver)| {
        let piece = match first {
            Some(first) => first,
            None => next(&mut receiver).await?,
        };
        Ok::<_, io::Error>(piece.map(|piece| (piece, (None, receiver))))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    Ok(response)
}

/// Without a last word the work has panicked: an error then, so that a part is not taken for the whole.
async fn next(receiver: &mut mpsc::Receiver<Piece>) -> Piece {
    receiver.recv().await.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
}

fn cannot(error: &io::Error) -> Problem {
    let code = if error.kind() == io::ErrorKind::PermissionDenied { Code::PermissionDenied } else { Code::Internal };
    Problem::new(code, format!("the archive can't be made: {error}"))
        .suggest("leave out with `exclude` what can't be read")
}

fn excluded(patterns: &[Vec<u8>]) -> Result<Gitignore, Problem> {
    let mut builder = GitignoreBuilder::new("");
    for pattern in patterns {
        let refused = |why: String| {
            Problem::new(
                Code::InvalidRequest,
                format!("exclude: {:?} is no pattern: {why}", pattern.escape_ascii().to_string()),
            )
            .suggest("give a pattern as a line of .gitignore has it")
        };
        let text = std::str::from_utf8(pattern).map_err(|_| refused("it is not UTF-8".to_owned()))?;
        builder.add_line(None, text).map_err(|error| refused(error.to_string()))?;
    }
    builder.build().map_err(|error| Problem::new(Code::InvalidRequest, format!("exclude: {error}")))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Tar,
    Gzip,
    Zstd,
}

impl Format {
    fn of(name: Option<&[u8]>) -> Result<Self, Problem> {
        match name {
            None | Some(b"tar.gz") => Ok(Self::Gzip),
            Some(b"tar") => Ok(Self::Tar),
            Some(b"tar.zst") => Ok(Self::Zstd),
            Some(other) => {
                let other = other.escape_ascii();
                Err(Problem::new(
                    Code::InvalidRequest,
                    format!("format: tar, tar.gz or tar.zst was expected, not {other}"),
                ))
            }
        }
    }

    const fn media_type(self) -> &'static str {
        match self {
            Self::Tar => "application/x-tar",
            Self::Gzip => "application/gzip",
            Self::Zstd => "application/zstd",
        }
    }

    fn write(self, directory: std::os::fd::OwnedFd, packing: &Packing, pieces: Pieces) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(PIECE, pieces);
        let result = match self {
            Self::Tar => pack(directory, packing, &mut out),
            Self::Gzip => compress::gzip(&mut out, |out| pack(directory, packing, out)),
            Self::Zstd => compress::zstd(&mut out, |out| pack(directory, packing, out)),
        };
        let result = result.and_then(|()| out.flush());
        if result.is_err() {
            // Dropped as it is, it would send what is left of it.
            drop(out.into_parts());
        }
        result
    }
}

/// Some of the archive; nothing after its end.
type Piece = io::Result<Option<Bytes>>;

/// Where the packing thread writes. It waits for a caller who takes nothing until his connection is ended for that.
#[derive(Clone)]
struct Pieces(mpsc::Sender<Piece>);

impl Pieces {
    /// # Errors
    /// `BrokenPipe` when the caller went away.
    fn send(&self, piece: Piece) -> io::Result<()> {
        self.0.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(Ok(Some(Bytes::copy_from_slice(bytes))))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use corehold_types::tools::{EditOperation, EditRequest, FileEdit};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::{
        edit::faults::{Fault, inject},
        edit::transact,
        server, testing,
    };

    #[tokio::test]
    async fn a_transaction_that_was_left_half_way_is_undone_before_an_archive_goes_out() {
        let mut left_half_way = 0;
        for step in 0.. {
            let agent = testing::agent();
            let rename = |from: &str, to: &str| FileEdit {
                path: from.into(),
                expected: None,
                operations: vec![EditOperation::Rename { to: to.into(), overwrite: None }],
            };
            for name in ["a", "b"] {
                std::fs::write(agent.root.path().join(name), name).unwrap();
            }
            let files = vec![rename("a", "c"), rename("b", "d")];
            inject(Fault::BrokenFrom(step), true);
            let request = EditRequest { files, ..EditRequest::default() };
            let result = transact(&agent.edits, &agent.root, &agent.config.limits, &request);
            inject(Fault::None, true);
            let names = || std::fs::read_dir(agent.root.path()).unwrap().count();
            left_half_way += u32::from(names() != 2);
            let archive = Request::get("/v1/archive?format=tar").header("authorization", "Bearer token");
            let answer =
                server::router(Arc::clone(&agent)).oneshot(archive.body(Body::empty()).unwrap()).await.unwrap();
            let tar = answer.into_body().collect().await.unwrap().to_bytes();
            let mut archive = tar::Archive::new(&tar[..]);
            let entries = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
            let expected = if result.is_ok() { ["c", "d"] } else { ["a", "b"] };
            assert_eq!(entries.collect::<Vec<_>>(), expected, "broken from step {step}");
            if result.is_ok() {
                break;
            }
        }
        assert!(left_half_way > 3, "only {left_half_way} transactions were left half-way");
    }
}
