//! Runs searches on a folder and collects what they deliver.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use corehold_agent::{
    calls::Loan,
    config::Limits,
    root::Root,
    search::{
        Control, find,
        plan::{FindPlan, SearchPlan, max_matches},
        run,
    },
};
use corehold_types::{
    Problem,
    tools::{FindRequest, FindResponse, SearchEvent, SearchRequest, SearchResponse},
};

/// A request for a pattern, with everything else as it is by default.
pub(crate) fn pattern(pattern: &str) -> SearchRequest {
    SearchRequest { pattern: pattern.to_owned(), ..SearchRequest::default() }
}

/// Searches a folder to the end.
pub(crate) fn search(folder: &Path, request: &SearchRequest) -> Result<(SearchResponse, Vec<SearchEvent>), Problem> {
    let control = Control::new(max_matches(&Limits::default(), request.max_matches)?);
    let events = Mutex::new(Vec::new());
    let response = search_with(folder, request, &control, &|batch| {
        events.lock().unwrap().extend(batch);
        true
    })?;
    Ok((response, events.into_inner().unwrap()))
}

/// Searches a folder under somebody's control.
pub(crate) fn search_with(
    folder: &Path,
    request: &SearchRequest,
    control: &Control,
    deliver: &run::Deliver<'_>,
) -> Result<SearchResponse, Problem> {
    let root = Root::open(folder).unwrap();
    let plan = SearchPlan::new(&root, &Limits::default(), request)?;
    run::run(&root, &plan, None, control, deliver, &|_| Ok(Loan::default()))
}

/// Finds in a folder.
pub(crate) fn find(folder: &Path, request: &FindRequest) -> Result<FindResponse, Problem> {
    let root = Root::open(folder).unwrap();
    let plan = FindPlan::new(&root, &Limits::default(), request)?;
    let control = Arc::new(Control::new(u64::MAX));
    find::run(&root, &plan.start, &plan.wanted, &plan.filter, &plan.options, &control)
}

/// The paths of the lines that were found, in their order.
pub(crate) fn paths(events: &[SearchEvent]) -> Vec<String> {
    events
        .iter()
        .map(|event| match event {
            SearchEvent::Match(hit) | SearchEvent::Context(hit) => hit.path.to_string(),
            SearchEvent::File { path, .. } | SearchEvent::Binary { path, .. } => path.to_string(),
        })
        .collect()
}
