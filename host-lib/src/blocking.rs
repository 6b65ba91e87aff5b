//! Work that blocks, off the runtime's threads.

use tokio::task::{JoinError, spawn_blocking};

use crate::error::{Error, ErrorKind, Result};

/// Does work that blocks. Dropping the future abandons the wait, not the work.
///
/// # Errors
/// `Io` when the work was cut off: it panicked, or its runtime ended. `what` names it then.
pub(crate) async fn blocking<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.map_err(|error| cut_off(what, error))
}

/// That such work came to no end.
pub(crate) fn cut_off(what: &str, error: JoinError) -> Error {
    Error::new(ErrorKind::Io, format!("{what} was cut off")).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_panics_is_an_error_that_names_it() {
        assert_eq!(blocking("counting", || 1 + 1).await.unwrap(), 2);
        let error = blocking("counting", || panic!("no")).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Io, "counting was cut off"));
    }
}
