//! `corehold policy`: when workspaces are paused, put to sleep or removed by themselves.

use std::process::ExitCode;

use corehold_host::{Expiry, IdlePolicy};
use serde_json::json;

use super::life::each;
use crate::{
    args::{Global, Policy},
    output, surroundings,
};

pub(crate) async fn run(global: &Global, policy: &Policy) -> anyhow::Result<ExitCode> {
    let host = surroundings::host(global).await?;
    each(global, &policy.workspaces, async |name| {
        let workspace = host.workspace(name).await?;
        let own = workspace.idle_policy().await?;
        let own = match policy.change(own.clone().unwrap_or_default()) {
            _ if policy.reset => {
                workspace.set_idle(None).await?;
                None
            }
            Some(changed) => {
                workspace.set_idle(changed.clone()).await?;
                Some(changed)
            }
            None => own,
        };
        match global.json {
            true => output::json(&json!({ "workspace": name, "policy": own }))?,
            false => output::line(format_args!("{name}: {}", words(own.as_ref())))?,
        }
        Ok(())
    })
    .await
}

fn words(own: Option<&IdlePolicy>) -> String {
    let Some(policy) = own else { return "has no policy of its own; that of whoever supervises it holds".to_owned() };
    let gone = match policy.expiry {
        Expiry::Remove => "removed",
        _ => "put to sleep",
    };
    let times = [
        (policy.pause_after, "paused", "without activity"),
        (policy.archive_after, gone, "without activity"),
        (policy.max_lifetime, gone, "of age"),
    ];
    let said = times
        .into_iter()
        .filter_map(|(time, what, of)| time.map(|time| format!("{what} after {} {of}", output::duration(time))));
    let mut said: Vec<String> = said.collect();
    if said.is_empty() {
        said.push("nothing happens by itself".to_owned());
    }
    if let Some(cpu) = policy.cpu_above {
        said.push(format!("{cpu} thousandths of a CPU keep it awake"));
    }
    if policy.wake_stopped {
        said.push("a call starts it when it was stopped".to_owned());
    }
    said.join("; ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_policy_is_told_in_words() {
        assert!(words(None).starts_with("has no policy of its own"));
        assert_eq!(words(Some(&IdlePolicy::default())), "nothing happens by itself");
        let policy = IdlePolicy::default().pause_after(Duration::from_secs(600)).wake_stopped(true);
        assert_eq!(
            words(Some(&policy)),
            "paused after 10 min 0 s without activity; a call starts it when it was stopped"
        );
        let policy = IdlePolicy::default().max_lifetime(Duration::from_secs(172_800)).expiry(Expiry::Remove);
        assert_eq!(
            words(Some(&policy.cpu_above(Some(50)))),
            "removed after 48 h 0 min of age; 50 thousandths of a CPU keep it awake"
        );
    }
}
