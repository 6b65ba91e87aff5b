//! `find`: runs the engine beside the server's threads.

use std::sync::Arc;

use corehold_types::{
    NoEvent, Problem,
    tools::{Find, FindRequest, FindResponse},
};

use super::search::{failed, turn};
use crate::{
    audit::Touched,
    handler::{Call, Events, Handler},
    search::{
        Control, Stop,
        control::StopOnDrop,
        find,
        plan::{FindPlan, timeout},
    },
};

impl Handler for Find {
    async fn handle(call: Call, request: FindRequest, _events: Events<NoEvent>) -> Result<FindResponse, Problem> {
        let timeout = timeout(&call.agent.config.limits, request.timeout_ms)?;
        let permit = turn(&call.agent).await?;
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
