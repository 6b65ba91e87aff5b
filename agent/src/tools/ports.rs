//! `ports`: lists what listens, or looks again and again and tells what changed.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use corehold_types::{
    Code, Problem,
    tools::{ActivitySource, ListeningPort, Ports, PortsEvent, PortsRequest, PortsResponse},
};
use tokio::time::{Instant, MissedTickBehavior};

use super::command::refused;
use crate::{
    agent::Agent,
    handler::{Call, Events, Handler},
    ports::{self, Listener},
};

const DEFAULT_LIMIT: u32 = 1_000;
const MOST: u32 = 10_000;
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT_MS: u64 = 600_000;
const DEFAULT_INTERVAL_MS: u64 = 250;

/// Everything that listens, by port and address, each with its socket.
type Table = BTreeMap<Listener, (u64, ListeningPort)>;

impl Handler for Ports {
    fn keeps_awake(_: &Self::Request, streamed: bool) -> Option<ActivitySource> {
        Some(if streamed { ActivitySource::Watch } else { ActivitySource::Call })
    }

    async fn handle(call: Call, request: PortsRequest, events: Events<PortsEvent>) -> Result<PortsResponse, Problem> {
        let plan = Plan::new(&request, events.wanted())?;
        let mut table = look(&call.agent, Table::new()).await?;
        if events.wanted() {
            let opened = stream(&call.agent, table, &plan, &events).await?;
            return Ok(PortsResponse { opened, ..PortsResponse::default() });
        }
        let mut looks = plan.looks();
        while let Some(port) = plan.wait_for
            && !has(&table, port)
            && !plan.is_over()
        {
            tokio::select! {
                _ = looks.tick() => {}
                () = plan.over() => {}
                () = call.agent.shutting_down() => return Err(ending()),
            }
            table = look(&call.agent, table).await?;
        }
        let opened = plan.wait_for.map(|port| has(&table, port));
        let rest = table.into_iter().filter(|(listener, _)| plan.after.is_none_or(|after| *listener > after));
        let mut page: Vec<(Listener, ListeningPort)> =
            rest.take(plan.limit + 1).map(|(listener, (_, port))| (listener, port)).collect();
        let more = page.len() > plan.limit;
        page.truncate(plan.limit);
        let last = page.last().filter(|_| more);
        let cursor = last.map(|(listener, _)| format!("{}/{}", listener.port, listener.address));
        Ok(PortsResponse { ports: page.into_iter().map(|(_, port)| port).collect(), opened, cursor })
    }
}

/// Tells what listens and what changes, until the time is over, the port that is waited for opens, or the caller leaves.
async fn stream(
    agent: &Arc<Agent>,
    mut table: Table,
    plan: &Plan,
    events: &Events<PortsEvent>,
) -> Result<Option<bool>, Problem> {
    let mut told = differences(&Table::new(), &table);
    told.push(PortsEvent::Ready);
    let mut looks = plan.looks();
    loop {
        for event in told {
            if events.send(event).await.is_err() {
                return Ok(None);
            }
        }
        let opened = plan.wait_for.map(|port| has(&table, port));
        if opened == Some(true) || plan.is_over() {
            return Ok(opened);
        }
        tokio::select! {
            _ = looks.tick() => {}
            () = plan.over() => {}
            () = agent.shutting_down() => return Err(ending()),
        }
        let now = look(agent, table.clone()).await?;
        told = differences(&table, &now);
        table = now;
    }
}

fn ending() -> Problem {
    Problem::new(Code::ShuttingDown, "the agent is shutting down")
}

fn has(table: &Table, port: u16) -> bool {
    table.keys().any(|listener| listener.port == port)
}

/// What closed, then what opened. A socket that took another's place is both.
fn differences(before: &Table, now: &Table) -> Vec<PortsEvent> {
    let gone = before.iter().filter(|(listener, (inode, _))| now.get(listener).is_none_or(|(other, _)| other != inode));
    let new = now.iter().filter(|(listener, (inode, _))| before.get(listener).is_none_or(|(other, _)| other != inode));
    gone.map(|(_, (_, port))| PortsEvent::Closed { address: port.address.clone(), port: port.port })
        .chain(new.map(|(_, (_, port))| PortsEvent::Opened(port.clone())))
        .collect()
}

/// Reads the tables. Whose a socket is gets looked up once, when it is new: that takes a look at every process.
async fn look(agent: &Arc<Agent>, before: Table) -> Result<Table, Problem> {
    let agent = Arc::clone(agent);
    let looked = tokio::task::spawn_blocking(move || {
        let mut listeners = ports::listeners()?;
        listeners.retain(|listener, _| listener.port != agent.port());
        let known = |listener: &Listener, inode: &u64| before.get(listener).is_some_and(|(other, _)| other == inode);
        let new: HashSet<u64> =
            listeners.iter().filter(|(listener, inode)| !known(listener, inode)).map(|(_, inode)| *inode).collect();
        let holders = ports::holders(&new);
        let described = listeners.into_iter().map(|(listener, inode)| {
            if let Some(old) = before.get(&listener).filter(|(other, _)| *other == inode) {
                return (listener, old.clone());
            }
            let pid = holders.get(&inode).copied();
            let port = ListeningPort {
                address: listener.address.to_string(),
                port: listener.port,
                loopback: listener.is_loopback(),
                pid,
                command: pid.and_then(|pid| agent.processes.command_of(pid)),
            };
            (listener, (inode, port))
        });
        Ok::<Table, std::io::Error>(described.collect())
    });
    looked
        .await
        .map_err(|error| error.to_string())
        .and_then(|table| table.map_err(|error| error.to_string()))
        .map_err(|error| Problem::new(Code::Internal, format!("the kernel's tables can't be read: {error}")))
}

/// What a request asks for, checked.
#[derive(Debug)]
struct Plan {
    wait_for: Option<u16>,
    end: Option<Instant>,
    interval: Duration,
    limit: usize,
    after: Option<Listener>,
}

impl Plan {
    fn new(request: &PortsRequest, streams: bool) -> Result<Self, Problem> {
        if request.wait_for == Some(0) {
            return Err(refused("waitFor", "nothing listens on port 0; a port from 1 to 65,535 is possible"));
        }
        if request.timeout_ms.is_some_and(|timeout| timeout > LONGEST_WAIT_MS) {
            return Err(refused("timeoutMs", "a wait of at most 600,000 ms is possible"));
        }
        let interval = request.interval_ms.unwrap_or(DEFAULT_INTERVAL_MS);
        if !(100..=60_000).contains(&interval) {
            return Err(refused("intervalMs", "an interval from 100 to 60,000 ms is possible"));
        }
        let limit = request.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MOST).contains(&limit) {
            return Err(refused("limit", "a limit from 1 to 10,000 is possible"));
        }
        let after = match &request.cursor {
            Some(cursor) => {
                Some(parse_cursor(cursor).ok_or_else(|| refused("cursor", "the cursor is not one of this agent's"))?)
            }
            None => None,
        };
        let wait = request.timeout_ms.map(Duration::from_millis).or((!streams).then_some(DEFAULT_WAIT));
        Ok(Self {
            wait_for: request.wait_for,
            end: wait.map(|wait| Instant::now() + wait),
            interval: Duration::from_millis(interval),
            limit: limit as usize,
            after,
        })
    }

    fn is_over(&self) -> bool {
        self.end.is_some_and(|end| end <= Instant::now())
    }

    async fn over(&self) {
        match self.end {
            Some(end) => tokio::time::sleep_until(end).await,
            None => std::future::pending().await,
        }
    }

    /// The kernel has no event for `listen(2)`, so this is a poll, as long as somebody waits.
    fn looks(&self) -> tokio::time::Interval {
        let mut looks = tokio::time::interval_at(Instant::now() + self.interval, self.interval);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks
    }
}

fn parse_cursor(cursor: &str) -> Option<Listener> {
    let (port, address) = cursor.split_once('/')?;
    Some(Listener { port: port.parse().ok()?, address: address.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio::sync::mpsc;

    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn a_stream_tells_what_opens_and_closes() {
        let agent = testing::agent();
        let (sender, mut receiver) = mpsc::channel(1);
        let call = testing::call(&agent);
        let request = PortsRequest { interval_ms: Some(100), ..PortsRequest::default() };
        let streaming = tokio::spawn(Ports::handle(call, request, Events::into_channel(sender)));
        while receiver.recv().await.unwrap() != PortsEvent::Ready {}
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let opened = loop {
            match receiver.recv().await.unwrap() {
                PortsEvent::Opened(opened) if opened.port == port => break opened,
                _ => {}
            }
        };
        assert_eq!((opened.address.as_str(), opened.loopback), ("127.0.0.1", true));
        assert_eq!(opened.pid, Some(std::process::id()));
        drop(listener);
        let closed = PortsEvent::Closed { address: "127.0.0.1".to_owned(), port };
        while receiver.recv().await.unwrap() != closed {}
        streaming.abort();
    }

    #[tokio::test]
    async fn a_wait_ends_when_the_port_opens_or_the_time_is_over() {
        let agent = testing::agent();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let wait = |timeout_ms| {
            let request =
                PortsRequest { wait_for: Some(port), timeout_ms: Some(timeout_ms), ..PortsRequest::default() };
            Ports::handle(testing::call(&agent), request, Events::none())
        };
        let answer = wait(60_000).await.unwrap();
        assert_eq!(answer.opened, Some(true));
        assert!(answer.ports.iter().any(|listening| listening.port == port));
        drop(listener);
        assert_eq!(wait(0).await.unwrap().opened, Some(false));
    }

    #[tokio::test]
    async fn pages_go_on_where_the_one_before_ended() {
        let agent = testing::agent();
        let _listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let page = |cursor| {
            let request = PortsRequest { limit: Some(1), cursor, ..PortsRequest::default() };
            Ports::handle(testing::call(&agent), request, Events::none())
        };
        let first = page(None).await.unwrap();
        let second = page(first.cursor.clone()).await.unwrap();
        assert_eq!((first.ports.len(), second.ports.len()), (1, 1));
        assert_ne!(first.ports, second.ports);
    }

    #[test]
    fn what_can_not_be_is_refused_by_its_field() {
        let requests = [
            ("waitFor", r#"{"waitFor":0}"#),
            ("timeoutMs", r#"{"timeoutMs":600001}"#),
            ("intervalMs", r#"{"intervalMs":1}"#),
            ("limit", r#"{"limit":0}"#),
            ("cursor", r#"{"cursor":"80"}"#),
            ("cursor", r#"{"cursor":"99999/::"}"#),
        ];
        for (field, request) in requests {
            let problem = Plan::new(&serde_json::from_str(request).unwrap(), false).unwrap_err();
            assert_eq!((problem.code, &problem.context["field"]), (Code::InvalidRequest, &field.into()));
        }
    }
}
