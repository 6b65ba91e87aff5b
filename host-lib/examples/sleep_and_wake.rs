//! A workspace that nobody uses is paused, then saved and its container removed; whoever comes back finds it as it was:
//! `cargo run -p corehold-host --example sleep_and_wake`.
//!
//! It is made, worked in, paused after a second of idleness, woken by a call, put to sleep after three, and woken by a request to its
//! preview. What it prints are the host's events, which tell of all that. A backend gives minutes and hours where this
//! gives seconds. It needs an engine and the core image, and a home (`COREHOLD_HOME`) at which no other host is: each tells what it does itself;
//! `COREHOLD_TEMPLATES` says where the templates are.

use std::time::Duration;

use corehold_host::{CreateWorkspace, EventKind, Events, Host, IdlePolicy, Workspace, WorkspaceState};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome {
    let host = Host::builder().build().await?;
    let mut events = host.events();
    let template = host.catalog().find("node-api")?;
    let idle = IdlePolicy::default().pause_after(Duration::from_secs(1)).archive_after(Duration::from_secs(3));
    let workspace = host.create(CreateWorkspace::from_template(&template).idle(idle)).await?;
    let lived = live(&workspace, template.port, &mut events).await;
    workspace.remove().await?;
    lived
}

async fn live(workspace: &Workspace, port: u16, events: &mut Events) -> Outcome {
    workspace.write_file("notes.txt", "as I left it").await?;

    until(events, WorkspaceState::Paused).await;
    // Every call wakes it, in some ten milliseconds. Nothing says that it has to.
    println!("a call reads: {}", notes(workspace).await?);
    until(events, WorkspaceState::Ready).await;

    // The address stays the same, whatever happens to the workspace behind it.
    let preview = workspace.preview(port).await?;
    until(events, WorkspaceState::Asleep).await;

    match status_of(&preview.url).await {
        Ok(status) => println!("{} answers: {status}", preview.url),
        // A connection that can't be carried is reset; the preview knows why.
        Err(error) => return Err(format!("{error}: {:?}", workspace.preview(port).await?.failure).into()),
    }
    until(events, WorkspaceState::Ready).await;
    println!("and there is still: {}", notes(workspace).await?);
    Ok(())
}

async fn notes(workspace: &Workspace) -> corehold_host::Result<String> {
    Ok(String::from_utf8_lossy(&workspace.read_file("notes.txt").await?).into_owned())
}

/// Prints what happens, until the workspace has come into a state.
async fn until(events: &mut Events, state: WorkspaceState) {
    while let Some(event) = events.next().await {
        match event.kind {
            EventKind::Created { duration } => println!("  created in {} ms", duration.as_millis()),
            EventKind::Expired { because, .. } => println!("  its time was up: {because}"),
            EventKind::Saved { archive, written_bytes, duration } => {
                println!("  saved as {archive}: {written_bytes} bytes, {} ms", duration.as_millis());
            }
            EventKind::Loaded { archive, duration } => {
                println!("  loaded from {archive}: {} ms", duration.as_millis());
            }
            EventKind::Transition { from, to, cause } => {
                println!("  {from} -> {to} ({cause:?})");
                if to == state {
                    return;
                }
            }
            _ => {}
        }
    }
}

/// What a browser would get; `HTTP/1.1 200 OK`, for example.
async fn status_of(url: &str) -> Result<String, std::io::Error> {
    let address = url.trim_start_matches("http://");
    let mut answer = String::new();
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET / HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    stream.read_to_string(&mut answer).await?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}
