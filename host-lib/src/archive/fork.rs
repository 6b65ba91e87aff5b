//! Workspaces from archives, and copies of workspaces as they are.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Archive, Archives, SaveOptions};
use crate::{
    create::{CreateWorkspace, Creation},
    error::{Error, ErrorKind, Result},
    life,
    workspace::{Workspace, WorkspaceId},
};

/// Copies of one call.
const MOST_COPIES: usize = 64;
/// Copies that are made at once: the engine makes no more a second when it is asked for more.
const AT_ONCE: usize = 4;

impl Archives {
    /// Makes a workspace with the files of an archive. With a template in the request it has its variables, limits and preview port,
    /// and its dev server is started; the template's files and its set-up are left out, since the archive has what came of them.
    /// Nothing happens until the [`Creation`] is awaited or asked for its events, and dropping it undoes what it did.
    pub fn create_from(&self, archive: &Archive, request: CreateWorkspace) -> Creation {
        Creation::new(self.host.clone(), self.host.pools(), request.with_archive(archive))
    }
}

impl Workspace {
    /// Makes copies of a running workspace, each with its files as they are, an id, tokens and a state of its own, and with all that
    /// the original was asked for with: image, variables, limits, labels, owner and team, published ports (on ports of this machine of its
    /// own), policies of idleness and health. Commands are not copied; the dev server is started in each, and waited for where the
    /// workspace's template is in the catalogue. One that is paused or asleep is woken. All or none: when one
    /// can't be made, the others are removed. The workspace itself goes on meanwhile; what that means for files that change is
    /// what [`Archives::save`] says. Dropping the future undoes the copies under way; those that are ready by then stay, as
    /// [`Host::list`](crate::Host::list) shows.
    ///
    /// # Errors
    /// As of [`Archives::save`] and [`Host::create`](crate::Host::create); `Invalid` for more than 64 copies.
    pub async fn fork(&self, copies: usize) -> Result<Vec<Workspace>> {
        if copies > MOST_COPIES {
            return Err(Error::new(ErrorKind::Invalid, format!("{copies} copies are more than can be made at once"))
                .hint(format!("ask for {MOST_COPIES} at most, more than once")));
        }
        let archives = Archives::new(self.host().clone());
        let saved = Box::pin(archives.save_parts(self, SaveOptions::default(), None)).await;
        let saved = saved.map_err(|error| error.context(format_args!("workspace {} can't be saved", self.id())))?;
        let made = self.copies(&archives, &saved.archive, copies).await;
        // It was there for the copies only; one that was there before is somebody's.
        if saved.new
            && let Err(error) = archives.delete(&saved.archive.reference()).await
        {
            tracing::warn!(%error, archive = %saved.archive.reference(), "what copies were made from stays");
        }
        made.map_err(|error| error.context(format_args!("workspace {} can't be copied", self.id())))
    }

    async fn copies(&self, archives: &Archives, archive: &Archive, copies: usize) -> Result<Vec<Workspace>> {
        let template = match self.template() {
            Some(name) => self.host().catalog.find(name).ok(),
            None => None,
        };
        let original = life::existing(self.host(), self.id()).await?;
        let requests = (0..copies).map(|_| {
            let request = template.as_ref().map_or_else(CreateWorkspace::empty, CreateWorkspace::from_template);
            let request = request.like(&original);
            Ok(request.id(WorkspaceId::generate(self.id().as_str())?.as_str()))
        });
        let requests: Vec<CreateWorkspace> = requests.collect::<Result<_>>()?;
        let creations = requests.into_iter().map(|request| archives.create_from(archive, request));
        let made: Vec<Result<Workspace>> = stream::iter(creations).buffered(AT_ONCE).collect().await;
        let mut copies = Vec::new();
        let mut failure = None;
        for result in made {
            match result {
                Ok(copy) => copies.push(copy),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let Some(failure) = failure else { return Ok(copies) };
        let removals =
            stream::iter(&copies).map(|copy| async move { copy.remove().await.map_err(|error| (copy, error)) });
        match removals.buffer_unordered(AT_ONCE).try_collect::<()>().await {
            Ok(()) => Err(failure),
            Err((copy, error)) => Err(failure.also_hint(&format!(
                "the copy {} could not be removed ({error}); `corehold down {}` tries again",
                copy.id(),
                copy.id()
            ))),
        }
    }
}
