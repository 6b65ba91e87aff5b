//! `find`: runs the engine beside the server's threads.

use std::sync::Arc;

use corehold_types::{
    NoEvent, Problem,
    tools::{Find, FindRequest, FindResponse},
};

use super::search::{failed, turn};
use crate::{
    audit::Touched,
    config::Limits,
    handler::{Call, Events, Handler},
    search::{
        Control, Stop,
        control::StopOnDrop,
        find,
        plan::{self, FindPlan, timeout},
    },
};

/// Bytes of the agent's memory that an entry takes, with a path of some length.
const ENTRY_MEMORY: usize = 256;

impl Handler for Find {
    async fn handle(call: Call, request: FindRequest, _events: Events<NoEvent>) -> Result<FindResponse, Problem> {
        let timeout = timeout(&call.agent.config.limits, request.timeout_ms)?;
        let permit = turn(&call.agent).await?;
        // Not before: others need it while this one waits for its turn.
        call.share.gather(memory_of(&request, &call.agent.config.limits)).await?;
        let control = Arc::new(Control::new(u64::MAX));
        let _stops = StopOnDrop(control.clone());
        let mut find = {
            let (agent, control) = (call.agent.clone(), control.clone());
            tokio::task::spawn_blocking(move || {
                let _permit = permit;
                let plan = FindPlan::new(&agent.root, &agent.config.limits, &request)?;
                find::run(&agent.root, &plan.start, &plan.wanted, &plan.filter, &plan.options, &control)
            })
        };
        let finished = match tokio::time::timeout(timeout, &mut find).await {
            Ok(finished) => finished,
            Err(_) => {
                control.stop(Stop::Timeout);
                find.await
            }
        };
        finished.map_err(|error| failed(&error))?
    }

    fn touches(request: &FindRequest, touched: &mut Touched) {
        touched.paths(&request.path);
    }
}

/// Bytes of memory that the entries take which are asked for: each thread has its best ones.
fn memory_of(request: &FindRequest, limits: &Limits) -> usize {
    let entries = request.limit.map_or(plan::FOUND, u64::from).min(limits.list_entries.value);
    let positions = if request.positions == Some(true) {
        request.query.as_ref().map_or(0, |query| size_of::<u32>() * query.chars().count())
    } else {
        0
    };
    let each = plan::threads() * ENTRY_MEMORY + positions;
    usize::try_from(entries).unwrap_or(usize::MAX).saturating_mul(each)
}
