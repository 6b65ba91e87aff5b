//! `corehold health`: whether workspaces are well, how they are checked, and when they are restarted.

use std::process::ExitCode;

use corehold_host::{Health, HealthPolicy, RestartPolicy};
use serde_json::json;

use super::life::each;
use crate::{
    args::{self, Global},
    output, surroundings,
};

pub(crate) async fn run(global: &Global, asked: &args::Health) -> anyhow::Result<ExitCode> {
    let host = surroundings::host(global).await?;
    each(global, &asked.workspaces, async |name| {
        let workspace = host.workspace(name).await?;
        let own = workspace.health_policy().await?;
        let own = match asked.change(&own.clone().unwrap_or_default()) {
            _ if asked.reset => {
                workspace.set_health(None).await?;
                None
            }
            Some(changed) => {
                workspace.set_health(changed.clone()).await?;
                Some(changed)
            }
            None => own,
        };
        let health = workspace.health().await?;
        match global.json {
            true => output::json(&json!({ "workspace": name, "health": health, "policy": own }))?,
            false => {
                output::line(format_args!("{name}: {}", state(&health)))?;
                output::line(format_args!("  {}", words(own.as_ref())))?;
            }
        }
        Ok(())
    })
    .await
}

/// How it is.
pub(super) fn state(health: &Health) -> String {
    let state = match (health.healthy, &health.reason) {
        (Some(true), _) => "well".to_owned(),
        (Some(false), reason) => {
            format!("not well: {}", reason.as_deref().unwrap_or("it failed its check"))
        }
        // One failure is none yet.
        (None, Some(reason)) => reason.clone(),
        (None, None) => "not checked, since it doesn't run".to_owned(),
    };
    match health.uptime {
        Some(uptime) => format!("{state}; it has run for {}", output::duration(uptime)),
        None => state,
    }
}

/// How it is watched.
fn words(own: Option<&HealthPolicy>) -> String {
    let Some(policy) = own else {
        return "has no policy of its own: watched if the backend that supervises it watches all; `corehold supervise` doesn't".to_owned();
    };
    let mut said = vec![format!(
        "checked every {}, with {} for the answer",
        output::duration(policy.every),
        output::duration(policy.timeout)
    )];
    if let Some(line) = &policy.command {
        said.push(format!("`{line}` must exit with 0"));
    }
    said.push(format!("unhealthy after {} in a row", times(policy.failures, "failure")));
    let most = format!("{} at most before an alert", times(policy.restarts, "restart"));
    said.push(match policy.restart {
        RestartPolicy::No => "never restarted".to_owned(),
        RestartPolicy::Always => format!("restarted always, {most}"),
        RestartPolicy::OnFailure => format!("restarted when it failed, {most}"),
        _ => format!("restarted unless it was stopped on purpose, {most}"),
    });
    said.join("; ")
}

fn times(number: u32, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn how_it_is_watched_is_told_in_words() {
        assert!(words(None).starts_with("has no policy of its own"));
        assert_eq!(
            words(Some(&HealthPolicy::default())),
            "checked every 30.0 s, with 5.0 s for the answer; unhealthy after 3 failures in a row; restarted unless it was stopped on \
             purpose, 3 restarts at most before an alert"
        );
        let policy = HealthPolicy::default().every(Duration::from_secs(600)).failures(1).command("true");
        assert_eq!(
            words(Some(&policy.restart(RestartPolicy::No))),
            "checked every 10 min 0 s, with 5.0 s for the answer; `true` must exit with 0; unhealthy after 1 failure in a row; never \
             restarted"
        );
    }
}
