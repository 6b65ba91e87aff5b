//! One backend, several tenants: `cargo run -p corehold-host --example multi_tenant`.
//!
//! Each tenant gets a workspace from a pool, with a secret that no other sees, and a token by which its own people may read and
//! run commands, and nothing else. No tenant may have more than its plan says. It needs an engine and the core image; `COREHOLD_TEMPLATES` says where the templates are.

use std::time::{Duration, Instant};

use corehold_host::{
    Class, CreateWorkspace, ErrorKind, Host, PoolOptions, Workspace,
    policy::{Plan, Policy, Totals},
    types::{Scope, Scopes},
};

const TENANTS: [&str; 3] = ["ada", "grace", "linus"];

#[tokio::main]
async fn main() -> corehold_host::Result<()> {
    let one_each = Policy::new().plan(Plan::new("small").totals(Totals::unlimited().workspaces(1)));
    let pool = PoolOptions::default().min(TENANTS.len());
    let host = Host::builder().policy(one_each).pool(Class::default(), pool).build().await?;
    host.pools_filled().await?;
    let served = serve(&host).await;
    // Whatever happened: what waits in the pool goes; a backend that is only restarted would leave it to the next one.
    host.drain_pools().await?;
    host.settled().await;
    served
}

async fn serve(host: &Host) -> corehold_host::Result<()> {
    let template = host.catalog().find("node-api")?;
    let began = Instant::now();
    let creations = TENANTS.map(|tenant| {
        let secret = format!("the secret of {tenant}");
        host.create(CreateWorkspace::from_template(&template).owner(tenant).env("TENANT_SECRET", secret))
    });
    let workspaces = futures_util::future::join_all(creations).await;
    println!("{} workspaces after {:.0} ms", TENANTS.len(), began.elapsed().as_secs_f64() * 1e3);
    match host.create(CreateWorkspace::from_template(&template).owner(TENANTS[0])).await {
        Err(error) if error.kind() == ErrorKind::Quota => println!("one more for {}: {error}", TENANTS[0]),
        other => println!("one more for {}: {:?}", TENANTS[0], other.map(|workspace| workspace.id().clone())),
    }
    for (tenant, workspace) in TENANTS.iter().zip(workspaces) {
        let workspace = workspace?;
        let shown = show(tenant, &workspace).await;
        workspace.remove().await?;
        shown?;
    }
    Ok(())
}

async fn show(tenant: &str, workspace: &Workspace) -> corehold_host::Result<()> {
    // In the agent's audit log it is the tenant who ran this.
    let theirs = workspace.for_subject(tenant);
    let outcome = theirs.command("echo \"$COREHOLD_OWNER_ID has $TENANT_SECRET\"").run().await?;
    print!("{} on {}: {}", workspace.id(), workspace.preview_url().await?, outcome.stdout_text());
    let scopes: Scopes = [Scope::Read, Scope::Command].into_iter().collect();
    let token = workspace.mint_token(tenant, &scopes, Duration::from_secs(600));
    println!("  a token for {tenant}'s own client: {}...", &token[..16]);
    Ok(())
}
