//! From a template to a running workspace: `cargo run -p corehold-host --example quickstart -- vite-react`.
//!
//! It needs an engine and the core image; `COREHOLD_TEMPLATES` says where the templates are.

use corehold_host::{CreateEventKind, CreateWorkspace, Host};

#[tokio::main]
async fn main() -> corehold_host::Result<()> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "node-api".to_owned());
    let host = Host::builder().build().await?;
    let template = host.catalog().resolve(&name)?;

    let mut creation = host.create(CreateWorkspace::from_template(&template));
    while let Some(event) = creation.next_event().await {
        match event.kind {
            CreateEventKind::Output { line, .. } => println!("{:>8}  {line}", event.step),
            CreateEventKind::Finished { duration, detail, .. } => {
                println!("{:>8}  {:.1} ms  {}", event.step, duration.as_secs_f64() * 1e3, detail.unwrap_or_default());
            }
            _ => {}
        }
    }
    let workspace = creation.await?;
    println!("{} answers on {}", workspace.id(), workspace.preview_url().await?);

    let outcome = workspace.command("ls -l && cat /proc/self/status | grep -E 'Uid|CapEff'").run().await?;
    print!("{}", outcome.stdout_text());
    workspace.remove().await
}
