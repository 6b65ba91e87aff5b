//! The one place where the engine's errors become this library's.

use std::{error::Error as StdError, io};

use bollard::errors::Error as BollardError;

use crate::error::{Error, ErrorKind};

/// What an engine's error means, said about what was being done.
pub(super) fn translate(what: &str, error: BollardError) -> Error {
    let translated = match &error {
        BollardError::DockerResponseServerError { status_code, message } => answered(*status_code, message),
        BollardError::DockerStreamError { error } => answered(500, error),
        BollardError::DockerContainerWaitError { error, code } => answered(500, &format!("{error} (code {code})")),
        BollardError::RequestTimeoutError => timed_out(),
        BollardError::SocketNotFoundError(path) => unavailable(format!("there is no socket at {path}"))
            .hint("start the engine (`systemctl start docker`), or set DOCKER_HOST"),
        // bollard's own variants are transparent: their `source` leaves out the error they wrap.
        BollardError::IOError { err } => broken_connection(err),
        BollardError::HyperResponseError { err } => broken_connection(err),
        BollardError::HyperLegacyError { err } => broken_connection(err),
        BollardError::UnsupportedURISchemeError { uri } => {
            Error::new(ErrorKind::Invalid, format!("{uri} is not an engine's address"))
        }
        BollardError::InvalidURIError { .. }
        | BollardError::InvalidURIPartsError { .. }
        | BollardError::URLParseError { .. }
        | BollardError::URLEncodedError { .. }
        | BollardError::HttpClientError { .. } => Error::new(ErrorKind::Invalid, error.to_string()),
        _ => Error::new(ErrorKind::Engine, format!("the engine's answer was not understood: {error}"))
            .hint("`corehold doctor` shows the engine's version; Docker 20.10 (API 1.41) or newer is supported"),
    };
    translated.caused_by(error).context(what)
}

/// The engine took longer than it may.
pub(super) fn timed_out() -> Error {
    Error::new(ErrorKind::Timeout, "the engine did not answer in time")
        .hint("look whether the engine is alive: `docker info`")
}

/// A stream of the engine that has no end came to one.
pub(super) fn hung_up(what: &str) -> Error {
    unavailable(format!("{what}: the engine closed the connection"))
        .hint("look whether the engine is alive: `docker info`")
}

fn unavailable(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::EngineUnavailable, message)
}

/// The engine answered with a status of failure.
fn answered(status: u16, message: &str) -> Error {
    let message = message.trim();
    let lower = message.to_lowercase();
    let says = |text: &str| lower.contains(text);
    if says("no space left on device") || says("disk quota exceeded") {
        return Error::new(ErrorKind::DiskFull, format!("the engine's disk is full: {message}"))
            .hint("free some disk where the engine keeps its data: `docker system df`, `docker system prune`");
    }
    let (kind, hint) = if says("resource temporarily unavailable") {
        (
            ErrorKind::Engine,
            Some(
                "the engine can't start one more process or thread: end what isn't needed on its machine, or raise its limit \
                 (`TasksMax=` of its services, `pids.max` of its control group, `ulimit -u`)",
            ),
        )
    } else if says("non-overlapping ipv4 address pool") || says("address pools have been fully subnetted") {
        (
            ErrorKind::Conflict,
            Some(
                "the engine has no free subnet for one more network: remove unused ones (`docker network prune`), \
                 or add default-address-pools to the engine's daemon.json",
            ),
        )
    // Of control groups v1, where the kernel refuses to take away what is in use. With v2 it takes it.
    } else if says("unable to set memory limit") || (says("memory.limit_in_bytes") && says("device or resource busy")) {
        (ErrorKind::Conflict, Some("more memory is in use: end what uses it, or stop the workspace first"))
    } else if says("port is already allocated") || says("address already in use") {
        (ErrorKind::Conflict, Some("another process has this port; let the engine choose one"))
    } else if says("no matching manifest") {
        (
            ErrorKind::Unsupported,
            Some("the registry has that image for other machines only; use another, or build it here"),
        )
    } else if says("no such image") || (says("image") && says("not found")) || says("manifest unknown") {
        (ErrorKind::NotFound, Some("build the core image with `corehold image build`, or pull the one that is named"))
    } else if says("range of cpus") || says("minimum memory limit") {
        (ErrorKind::Invalid, Some("change the limit in the template's resources"))
    } else if says("oci runtime create failed") || says("failed to create shim") || says("failed to create task") {
        (
            ErrorKind::Engine,
            Some(
                "the image has not what it says it starts, or is for another machine; a core image has the agent (`corehold image build`)",
            ),
        )
    // Docker goes on with "container", and Podman, whose status is 500, with an id.
    } else if says("is already in use by ")
        || says("volume already exists")
        || (status == 409 && says("already exists"))
    {
        (ErrorKind::AlreadyExists, None)
    } else {
        let kind = match status {
            400 => ErrorKind::Invalid,
            404 => ErrorKind::NotFound,
            409 => ErrorKind::Conflict,
            501 => ErrorKind::Unsupported,
            // A proxy in front of the engine says that the engine is away.
            502..=504 => ErrorKind::EngineUnavailable,
            _ => ErrorKind::Engine,
        };
        let own_fault = status >= 500 && status != 501;
        (
            kind,
            own_fault.then_some("the engine's own log says more: `journalctl -u docker`, or where dockerd was started"),
        )
    };
    let error = if message.is_empty() {
        Error::new(kind, format!("the engine answered with status {status}"))
    } else {
        Error::new(kind, message)
    };
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// No connection, or one that ended before the answer did.
fn broken_connection(error: &(dyn StdError + 'static)) -> Error {
    let refused = |kind| chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|io| io.kind() == kind);
    if refused(io::ErrorKind::PermissionDenied) {
        unavailable("permission to use the engine's socket is denied").hint(
            "add yourself to the group that owns the socket (`sudo usermod -aG docker $USER`, then log in again), \
             or use a rootless engine",
        )
    } else if refused(io::ErrorKind::NotFound) {
        unavailable("there is no such socket").hint("start the engine (`systemctl start docker`), or set DOCKER_HOST")
    } else if refused(io::ErrorKind::ConnectionRefused) {
        unavailable("nobody listens there").hint("start the engine (`systemctl start docker`), or set DOCKER_HOST")
    } else {
        let cause = chain(error).last().map_or_else(|| error.to_string(), ToString::to_string);
        unavailable(format!("the connection to the engine broke: {cause}"))
            .hint("look whether the engine is alive: `docker info`")
    }
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status_code: u16, message: &str) -> Error {
        translate("creating x", BollardError::DockerResponseServerError { status_code, message: message.to_owned() })
    }

    #[test]
    fn engines_own_words_become_kinds_that_a_caller_can_decide_by() {
        // Messages as Docker 20.10, 28 and 29 and Podman 4.3 write them.
        for (status, message, kind, hinted) in [
            (404, "No such container: abc", ErrorKind::NotFound, false),
            (404, "No such image: workspace-core:latest", ErrorKind::NotFound, true),
            (
                409,
                "Conflict. The container name \"/x\" is already in use by container \"0f\".",
                ErrorKind::AlreadyExists,
                false,
            ),
            (
                500,
                "container create: creating container storage: the container name \"x\" is already in use by 0f. You have to \
                 remove that container to be able to reuse that name: that name is already in use",
                ErrorKind::AlreadyExists,
                false,
            ),
            (
                500,
                "adding volume to state: name corehold-ca-00 is in use: volume already exists",
                ErrorKind::AlreadyExists,
                false,
            ),
            (409, "network with name x already exists", ErrorKind::AlreadyExists, false),
            (409, "network name x already used: network already exists", ErrorKind::AlreadyExists, false),
            (409, "removal of container 0f is already in progress", ErrorKind::Conflict, false),
            // What an engine forgot to take away when a container ended: nobody's name.
            (403, "endpoint with name x already exists in network corehold", ErrorKind::Engine, false),
            (400, "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", ErrorKind::Invalid, true),
            (400, "Minimum memory limit allowed is 6MB", ErrorKind::Invalid, true),
            (
                404,
                "could not find an available, non-overlapping IPv4 address pool among the defaults to assign",
                ErrorKind::Conflict,
                true,
            ),
            (500, "all predefined address pools have been fully subnetted", ErrorKind::Conflict, true),
            (
                500,
                "Cannot update container 0f: runc did not terminate successfully: exit status 1: unable to set memory limit to 67108864 (current usage: 213590016, peak usage: 213852160)",
                ErrorKind::Conflict,
                true,
            ),
            (500, "write /x: no space left on device", ErrorKind::DiskFull, true),
            (500, "write /x: disk quota exceeded", ErrorKind::DiskFull, true),
            (
                500,
                "OCI runtime create failed: unable to start container process: fork/exec /proc/self/exe: resource temporarily unavailable",
                ErrorKind::Engine,
                true,
            ),
            (500, "driver failed: Bind for 127.0.0.1:80 failed: port is already allocated", ErrorKind::Conflict, true),
            (501, "nope", ErrorKind::Unsupported, false),
            (503, "", ErrorKind::EngineUnavailable, true),
            (500, "", ErrorKind::Engine, true),
        ] {
            let error = of(status, message);
            assert_eq!(error.kind(), kind, "{message}");
            assert_eq!(error.hint_text().is_some(), hinted, "{message}");
            assert!(error.to_string().starts_with("creating x: "), "{error}");
        }
        let starved = of(500, "failed to create shim: fork/exec /usr/bin/runc: resource temporarily unavailable");
        assert!(starved.hint_text().unwrap().contains("pids.max"), "nothing is wrong with the image");
        assert_eq!(of(500, "").to_string(), "creating x: the engine answered with status 500");
    }

    #[test]
    fn an_engine_that_died_is_told_from_one_that_refused() {
        let broken = |kind| translate("x", BollardError::IOError { err: io::Error::from(kind) });
        for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::PermissionDenied, io::ErrorKind::ConnectionRefused]
        {
            assert_eq!(broken(kind).kind(), ErrorKind::EngineUnavailable);
            assert!(broken(kind).hint_text().is_some());
        }
        assert!(broken(io::ErrorKind::PermissionDenied).hint_text().unwrap().contains("group"));
        assert_eq!(translate("x", BollardError::RequestTimeoutError).kind(), ErrorKind::Timeout);
    }
}
