//! The template's own commands: set-up, then the dev server, then its first answer.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use corehold_types::tools::{Command, CommandEvent, CommandExit, CommandOutput, CommandOutputRequest, CommandRequest};
use futures_util::StreamExt as _;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Notify,
};

use super::{
    DEV, SETUP, Step,
    report::{Output, Reporter},
};
use crate::{
    client::{Frame, root_cause},
    error::{Error, ErrorKind, Result},
    state::Dev,
    template::Template,
    workspace::Workspace,
};

/// The agent ends a set-up command that takes too long; it has this much more time to say so.
const GRACE: Duration = Duration::from_secs(30);
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Between attempts at the preview: an output line of the dev server brings the next one forward.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// An attempt that takes longer is begun anew: a server may drop what it got before it was ready.
const ATTEMPT: Duration = Duration::from_secs(15);

/// Runs one set-up line to its end.
pub(super) async fn set_up(workspace: &Workspace, template: &Template, line: &str, reporter: &Reporter) -> Result<()> {
    let request = CommandRequest {
        line: Some(line.to_owned()),
        timeout_ms: Some(u64::try_from(template.setup_timeout.as_millis()).unwrap_or(u64::MAX)),
        label: Some(SETUP.to_owned()),
        ..Default::default()
    };
    let mut output = Output::new(reporter, Step::Setup);
    let work = async {
        let mut frames = workspace.stream::<Command>(&request).await?;
        let mut exit = None;
        while let Some(frame) = frames.next().await {
            match frame? {
                Frame::Event(CommandEvent::Exit { exit: how, .. }) => exit = Some(how),
                Frame::Event(event) => {
                    output.take(&event).await;
                }
                Frame::End(response) => exit = response.exit.or(exit.take()),
            }
        }
        Ok(exit)
    };
    let limit = template.setup_timeout;
    let exit = match tokio::time::timeout(limit.saturating_add(GRACE), work).await {
        Ok(result) => result,
        Err(_) => Err(took_too_long(line, limit)),
    };
    match exit {
        Ok(Some(exit)) if exit.code == Some(0) && !exit.timed_out => {
            // Says what is still to be said: a last line without its end.
            output.tail().await;
            Ok(())
        }
        Ok(Some(exit)) if exit.timed_out => Err(took_too_long(line, limit).with_output(output.tail().await)),
        Ok(exit) => {
            Err(Error::new(ErrorKind::CommandFailed, format!("the set-up command `{line}` {}", how(exit.as_ref())))
                .with_output(output.tail().await))
        }
        Err(error) => Err(error.with_output(output.tail().await)),
    }
}

/// Starts the dev server; returns the command's id.
pub(crate) async fn start_dev(workspace: &Workspace, dev: &Dev) -> Result<String> {
    let request = CommandRequest {
        line: Some(dev.line.clone()),
        env: dev.env.clone(),
        detach: Some(true),
        label: Some(DEV.to_owned()),
        ..Default::default()
    };
    Ok(workspace.call::<Command>(&request).await?.id)
}

/// Waits until the preview answers, or the dev server ends, or its time is up.
pub(super) async fn wait_ready(
    workspace: &Workspace,
    template: &Template,
    command: String,
    published: Option<SocketAddr>,
    reporter: &Reporter,
) -> Result<StatusCode> {
    let request = CommandOutputRequest { id: command, follow: Some(true), ..Default::default() };
    let mut frames = workspace.stream::<CommandOutput>(&request).await?;
    let mut output = Output::new(reporter, Step::Ready);
    let probe = Probe {
        workspace,
        port: template.port,
        published,
        path: template.ready_path.clone(),
        wake: Notify::new(),
        last: Mutex::default(),
    };
    let mut answer = std::pin::pin!(probe.until_answered());
    let mut deadline = std::pin::pin!(tokio::time::sleep(template.ready_timeout));
    let ended = loop {
        tokio::select! {
            frame = frames.next() => match frame {
                Some(Ok(Frame::Event(CommandEvent::Exit { exit, .. }))) => break Some(exit),
                Some(Ok(Frame::Event(event))) => {
                    if output.take(&event).await {
                        probe.wake.notify_one();
                    }
                }
                Some(Ok(Frame::End(response))) => break response.exit,
                Some(Err(error)) => return Err(error.with_output(output.tail().await)),
                None => break None,
            },
            status = &mut answer => return Ok(status),
            () = &mut deadline => {
                let seconds = template.ready_timeout.as_secs_f64();
                let message = format!("the preview was not ready within {seconds} s: {}", probe.last());
                let on = if published.is_some() { "on 0.0.0.0 (not on localhost) and " } else { "" };
                return Err(Error::new(ErrorKind::Timeout, message).hint(format!(
                    "the dev server must listen {on}on port {}; ready.timeoutSeconds in template.json gives it more time",
                    template.port
                )).with_output(output.tail().await));
            }
        }
    };
    Err(Error::new(
        ErrorKind::CommandFailed,
        format!("the dev command {} before its preview answered", how(ended.as_ref())),
    )
    .with_output(output.tail().await))
}

/// Asks the preview until it answers.
struct Probe<'a> {
    workspace: &'a Workspace,
    port: u16,
    /// Where the engine publishes the port; else a tunnel leads there.
    published: Option<SocketAddr>,
    path: String,
    wake: Notify,
    last: Mutex<String>,
}

impl Probe<'_> {
    async fn until_answered(&self) -> StatusCode {
        let mut pause = FIRST_PAUSE;
        loop {
            let outcome = match tokio::time::timeout(ATTEMPT, self.attempt()).await {
                // Any answer but a server's own failure: an API may well have nothing at its root.
                Ok(Ok(status)) if !status.is_server_error() => return status,
                Ok(Ok(status)) => format!("{} answers {status}", self.path),
                Ok(Err(error)) => format!("{} does not answer ({})", self.path, root_cause(error.as_ref())),
                Err(_) => format!("{} takes the request and does not answer", self.path),
            };
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
            // No event tells when a port inside opens; what a dev server writes is the nearest to it.
            pause = tokio::select! {
                () = self.wake.notified() => FIRST_PAUSE,
                () = tokio::time::sleep(pause) => (pause * 3 / 2).min(LONGEST_PAUSE),
            };
        }
    }

    async fn attempt(&self) -> Result<StatusCode, BoxError> {
        match self.published {
            Some(address) => self.ask(TcpStream::connect(address).await?, &address.to_string()).await,
            None => self.ask(self.workspace.tunnel(self.port).await?, &format!("127.0.0.1:{}", self.port)).await,
        }
    }

    async fn ask(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        host: &str,
    ) -> Result<StatusCode, BoxError> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::get(&self.path)
            .header(header::HOST, host)
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())?;
        let mut answer = std::pin::pin!(sender.send_request(request));
        // The connection is driven here and dropped with this attempt. It may end in the moment its answer is there.
        tokio::select! {
            biased;
            response = &mut answer => Ok(response?.status()),
            ended = connection => {
                ended?;
                Ok(answer.await?.status())
            }
        }
    }

    fn last(&self) -> String {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn took_too_long(line: &str, limit: Duration) -> Error {
    let message = format!("the set-up command `{line}` was not done within {} s", limit.as_secs_f64());
    Error::new(ErrorKind::Timeout, message).hint("setupTimeoutSeconds in template.json gives it more time")
}

/// How a command ended, as the end of a sentence.
fn how(exit: Option<&CommandExit>) -> String {
    let Some(exit) = exit else { return "ended, nobody knows how,".to_owned() };
    let memory = if exit.oom_killed == Some(true) { " (the workspace ran out of memory)" } else { "" };
    match (exit.code, &exit.signal) {
        _ if exit.stalled => format!("was ended since it wrote nothing any more{memory}"),
        (Some(code), _) => format!("ended with exit code {code}{memory}"),
        (None, Some(signal)) => format!("was ended by {signal}{memory}"),
        (None, None) => format!("ended{memory}"),
    }
}
