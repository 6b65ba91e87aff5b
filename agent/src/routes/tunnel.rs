//! `GET /v1/tunnel/{port}`: a connection to whatever listens on a port inside, on the container's own loopback included.
//!
//! An upgrade of HTTP/1.1 (RFC 9110, 7.8) with the name `corehold-tunnel`: after `101 Switching Protocols` the connection
//! carries the port's bytes as they are, an end in one direction included. All that can fail fails before, as a problem.
//! The token is judged when the tunnel is opened; the tunnel then lasts as long as both ends keep it, idle or not.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    extract::{Path, Request, State},
    response::{IntoResponse as _, Response},
};
use corehold_types::{Code, Problem, Scope, Timestamp, tools::ActivitySource};
use http::{HeaderMap, Method, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes},
    net::TcpStream,
    time::timeout,
};
use tokio_util::io::InspectReader;

use crate::{
    agent::Agent,
    audit::Pending,
    handler::Surface,
    routes::audited::Asked,
    server::{problem::Failure, upgrade},
};

/// What the connection is upgraded to.
const PROTOCOL: &str = "corehold-tunnel";

/// Bytes that each direction of a tunnel holds back at most; beyond them a slow reader slows its writer.
const BUFFER: usize = 16 << 10;

/// A caller who has vanished without a word is noticed by probes: after a minute of silence, and four without an answer.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;

pub(crate) async fn get(State(agent): State<Arc<Agent>>, Path(port): Path<String>, request: Request) -> Response {
    open(agent, &port, request).await.unwrap_or_else(|problem| Failure(problem).into_response())
}

async fn open(agent: Arc<Agent>, port: &str, mut request: Request) -> Result<Response, Problem> {
    // As `command`: whoever reaches a dev server can do with it what it lets anybody do.
    let asked = Asked::with(request.extensions(), Scope::Command)?.clone();
    if request.method() != Method::GET {
        return Err(Problem::new(Code::MethodNotAllowed, "a tunnel is opened with GET"));
    }
    let port = parse(port)?;
    if port == agent.port() {
        return Err(Problem::new(Code::Forbidden, format!("port {port} is the agent's own"))
            .with("port", port)
            .suggest("call the agent directly"));
    }
    let upgraded = wanted(request.headers()).and_then(|()| {
        upgrade::take(&mut request).ok_or_else(|| refused("the connection can't be upgraded: HTTP/1.1 is needed"))
    })?;
    if agent.is_shutting_down() {
        return Err(Problem::new(Code::ShuttingDown, "the agent is shutting down and opens no tunnel"));
    }
    let permit = Arc::clone(&agent.tunnels).try_acquire_owned();
    let permit = permit.map_err(|_| agent.config.limits.tunnels.exceeded("the number of open tunnels"))?;
    let inner = connect(&agent, port).await?;
    tracing::info!(port, subject = asked.caller.subject, "tunnel opened");
    let began = (Timestamp::now(), Instant::now());
    let ended = Pending::new(&agent.audit, Some(asked.caller), Surface::Http, &asked.request_id, "GET /v1/tunnel");
    ended.note(|touched| touched.detail(request.uri().path()));
    let held = agent.activity.request(ActivitySource::Tunnel, format!("port {port}"));
    tokio::spawn(async move {
        let carried = Carried::default();
        tokio::select! {
            () = agent.shutting_down() => {}
            () = carry(upgraded, inner, &carried) => {}
        }
        ended.note(|touched| {
            touched.came_in(carried.into_port.load(Ordering::Relaxed));
            touched.went_out(carried.out_of_port.load(Ordering::Relaxed));
        });
        ended.end(began.0, began.1.elapsed());
        drop((permit, held));
    });
    Ok(upgrade::granted(PROTOCOL))
}

/// Digits only: `u16` would take a sign too.
fn parse(text: &str) -> Result<u16, Problem> {
    let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).filter(|port| *port != 0).ok_or_else(|| {
        Problem::new(Code::InvalidRequest, "the path's last part is no port: a number from 1 to 65535 was expected")
            .with("field", "port")
    })
}

/// Whether the headers ask for the upgrade, and for nothing else.
fn wanted(headers: &HeaderMap) -> Result<(), Problem> {
    if !upgrade::asks_for(headers, PROTOCOL) {
        return Err(refused("the request doesn't ask for the upgrade"));
    }
    // Where a body ends and the tunnel begins would be anybody's guess.
    let empty = headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == "0");
    if !empty || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Problem::new(Code::InvalidRequest, "a request that opens a tunnel has no body"));
    }
    Ok(())
}

fn refused(detail: &str) -> Problem {
    let how = format!("send `Connection: Upgrade` and `Upgrade: {PROTOCOL}` over HTTP/1.1");
    Problem::new(Code::InvalidRequest, detail).suggest(how)
}

/// Connects to a port of the container's own loopback: development servers listen on IPv4, on IPv6, or on both.
async fn connect(agent: &Agent, port: u16) -> Result<TcpStream, Problem> {
    let mut reasons = Vec::new();
    for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))] {
        match timeout(agent.config.limits.tunnel_connect_ms.as_duration(), connect_to(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => reasons.push(format!("{address}: {}", error.kind())),
            Err(_) => {
                let limit = &agent.config.limits.tunnel_connect_ms;
                let detail = format!("what listens on {address} took no connection within {} ms", limit.value);
                return Err(Problem::new(Code::Timeout, detail).with("port", port).with("variable", limit.variable));
            }
        }
    }
    Err(Problem::new(Code::NotListening, format!("nothing listens on port {port} ({})", reasons.join(", ")))
        .with("port", port)
        .suggest("start a server on the port and try again"))
}

async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Where nobody listens the kernel may choose that very port for our end, and connect us with ourselves (RFC 9293, 3.5:
    // simultaneous open).
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Carries bytes until both directions have ended, or one end is gone.
async fn carry(upgrade: OnUpgrade, mut inner: TcpStream, carried: &Carried) {
    let outer = match upgrade.await {
        Ok(outer) => outer,
        Err(error) => {
            tracing::debug!(%error, "a tunnel's caller went away before it was open");
            return;
        }
    };
    let result = match outer.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => {
            let mut outer = parts.io.into_inner();
            notice_loss(&outer);
            // What came with the request's head lies in `read_buf`; without any, the bare socket saves a layer.
            let result = if parts.read_buf.is_empty() {
                copy(&mut outer, &mut inner, carried).await
            } else {
                let (reader, writer) = outer.split();
                let reader = tokio::io::AsyncReadExt::chain(io::Cursor::new(parts.read_buf), reader);
                copy(tokio::io::join(reader, writer), &mut inner, carried).await
            };
            if result.is_err() {
                break_off(&outer);
            }
            result
        }
        Err(outer) => copy(TokioIo::new(outer) as TokioIo<Upgraded>, &mut inner, carried).await,
    };
    if let Err(error) = result {
        break_off(&inner);
        tracing::debug!(%error, "a tunnel broke");
    }
}

/// Lets a connection be reset when it is dropped: what was cut off must not look as if it had ended.
fn break_off(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "a tunnel's end can't be told from a proper one");
    }
}

async fn copy(outer: impl AsyncRead + AsyncWrite + Unpin, inner: &mut TcpStream, carried: &Carried) -> io::Result<()> {
    let mut outer = InspectReader::new(outer, |bytes: &[u8]| count(&carried.into_port, bytes));
    let mut inner = InspectReader::new(inner, |bytes: &[u8]| count(&carried.out_of_port, bytes));
    copy_bidirectional_with_sizes(&mut outer, &mut inner, BUFFER, BUFFER).await.map(|_| ())
}

fn count(total: &AtomicU64, bytes: &[u8]) {
    total.fetch_add(bytes.len() as u64, Ordering::Relaxed);
}

/// What a tunnel has taken in by now, however it ends.
#[derive(Debug, Default)]
struct Carried {
    into_port: AtomicU64,
    out_of_port: AtomicU64,
}

/// Without probes, a caller whose machine is gone would hold an idle tunnel for ever. One who is there and doesn't read is waited
/// for, as by any connection to the port itself.
fn notice_loss(socket: &TcpStream) {
    let set = sockopt::set_tcp_user_timeout(socket, 0)
        .and_then(|()| sockopt::set_socket_keepalive(socket, true))
        .and_then(|()| sockopt::set_tcp_keepidle(socket, PROBE_AFTER))
        .and_then(|()| sockopt::set_tcp_keepintvl(socket, PROBE_EVERY))
        .and_then(|()| sockopt::set_tcp_keepcnt(socket, PROBES));
    if let Err(error) = set {
        tracing::debug!(%error, "a tunnel's caller can't be probed");
    }
}
