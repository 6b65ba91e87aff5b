//! `auditRead`: the records of calls, page by page or as they are made.

use std::os::unix::ffi::OsStrExt as _;

use corehold_types::{
    Problem, WorkspacePath,
    tools::{ActivitySource, AuditEvent, AuditRead, AuditReadRequest, AuditReadResponse},
};

use super::command::refused;
use crate::handler::{Call, Events, Handler};

/// Records in one answer, when the caller doesn't say.
const DEFAULT_LIMIT: u32 = 100;
/// Records in one answer, at most; and read at a time for a stream.
const MOST: u32 = 1_000;

impl Handler for AuditRead {
    fn keeps_awake(_: &Self::Request, _: bool) -> Option<ActivitySource> {
        None
    }

    async fn handle(
        call: Call,
        request: AuditReadRequest,
        events: Events<AuditEvent>,
    ) -> Result<AuditReadResponse, Problem> {
        let limit = request.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MOST).contains(&limit) {
            return Err(refused("limit", "a limit from 1 to 1,000 is possible"));
        }
        let after = match (&request.cursor, request.after) {
            (Some(_), Some(_)) => return Err(refused("after", "`after` and `cursor` exclude each other")),
            (Some(cursor), None) => {
                cursor.parse().map_err(|_| refused("cursor", "the cursor is not one of this agent's"))?
            }
            (None, after) => after.unwrap_or(0),
        };
        let is_path =
            |path: &WorkspacePath| path.to_path_buf().is_ok_and(|path| !path.as_os_str().as_bytes().contains(&0));
        if !request.path.as_ref().is_none_or(is_path) {
            return Err(refused("path", "the path has a NUL byte, or its base64 form is malformed"));
        }
        if events.wanted() {
            return Ok(stream(call, &request, after, events).await);
        }
        let page = call.agent.audit.page(&call.caller, &request, after, limit as usize);
        let cursor = (page.seen < page.last).then(|| page.seen.to_string());
        Ok(AuditReadResponse { records: page.records, gap: page.gap, cursor, last: page.last })
    }
}

async fn stream(
    call: Call,
    request: &AuditReadRequest,
    mut after: u64,
    events: Events<AuditEvent>,
) -> AuditReadResponse {
    let audit = &call.agent.audit;
    let follow = request.follow.unwrap_or(true);
    let mut told_of = 0;
    loop {
        let mut grown = std::pin::pin!(audit.grown());
        // From here on no record is missed.
        grown.as_mut().enable();
        let page = audit.page(&call.caller, request, after, MOST as usize);
        let end = AuditReadResponse { records: Vec::new(), gap: None, cursor: None, last: page.last };
        let gap = page.gap.filter(|gap| gap.to > told_of).map(|gap| AuditEvent::Gap { gap });
        told_of = page.gap.map_or(told_of, |gap| gap.to);
        let records = page.records.into_iter().map(|record| AuditEvent::Record { record: Box::new(record) });
        for event in gap.into_iter().chain(records) {
            if events.send(event).await.is_err() {
                return end;
            }
        }
        after = page.seen.max(after);
        if after < page.last {
            continue;
        }
        if !follow || call.agent.is_shutting_down() {
            return end;
        }
        tokio::select! {
            () = grown => {}
            () = call.agent.shutting_down() => {}
            () = events.closed() => return end,
        }
    }
}
