//! Pruning by itself, for hosts that look after their home: each sleep gives an archive up, and what only that one needed would stay.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio_util::task::AbortOnDropHandle;

use super::Archives;
use crate::{blocking::blocking, error::Result, events::EventKind, host::HostInner};

/// In the home folder: written to whenever a pruning of its archives begins, by whichever host.
const MARK: &str = "pruned";
/// After a mark that can't be written.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// Prunes each time that so long has gone by since somebody of this home did, or, where nobody ever did, since this was looked at first:
/// nothing is old enough to go before.
pub(crate) async fn keep_pruned(host: Arc<HostInner>) {
    let Some(every) = host.prune_every else { return };
    let mark = host.home.join(MARK);
    loop {
        let wait = match left(mark.clone(), every).await {
            Ok(None) => {
                prune(&host).await;
                continue;
            }
            Ok(Some(wait)) => wait,
            Err(error) => {
                tracing::warn!(%error, mark = %mark.display(), "it can't be said when the archives were pruned");
                LOOK_AGAIN
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn prune(host: &Arc<HostInner>) {
    let archives = Archives::new(host.clone());
    // In a task of its own: much may be there to be read, and the supervisor has more to do.
    let pruning = AbortOnDropHandle::new(tokio::spawn(async move { archives.prune().await }));
    let kind = match pruning.await {
        Ok(Ok(pruned)) => EventKind::Pruned { objects: pruned.objects, bytes: pruned.bytes },
        Ok(Err(error)) => {
            tracing::warn!(%error, "the archives could not be pruned");
            EventKind::NotPruned { error: error.to_string() }
        }
        Err(error) => EventKind::NotPruned { error: error.to_string() },
    };
    host.events.emit(None, kind);
}

/// How long until it is time; none when it is, and then it is marked as done now.
async fn left(mark: PathBuf, every: Duration) -> Result<Option<Duration>> {
    blocking("looking when archives were pruned", move || Ok(look(&mark, every)?)).await?
}

fn look(mark: &Path, every: Duration) -> std::io::Result<Option<Duration>> {
    let marked = match fs::metadata(mark) {
        Ok(about) => Some(about.modified()?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    // One from the future was left before the clock was set back.
    let since = marked.map(|marked| SystemTime::now().duration_since(marked).unwrap_or(every));
    let left = since.map_or(every, |since| every.saturating_sub(since));
    if marked.is_none() || left.is_zero() {
        // Before it begins: other hosts of the home needn't do the same.
        fs::write(mark, "")?;
        fs::File::options().append(true).open(mark)?.set_modified(SystemTime::now())?;
    }
    Ok((!left.is_zero()).then_some(left))
}
