//! `claim`: takes an agent that serves no workspace yet.

use std::ffi::OsStr;

use corehold_types::{
    Code, Problem, env_vars,
    tools::{Claim, ClaimRequest, ClaimResponse},
};

use crate::{
    config::Limits,
    handler::{Call, Events, Handler},
    process::environment,
    server::body,
};

/// The variables beginning with `COREHOLD_` that a claim may bring: they are the workspace's, not the agent's.
const OWNERS: [&str; 3] = [env_vars::OWNER_ID, env_vars::TEAM_ID, env_vars::API_URL];

impl Handler for Claim {
    async fn handle(call: Call, request: ClaimRequest, _: Events<Self::Event>) -> Result<ClaimResponse, Problem> {
        let agent = &call.agent;
        check(&request, &agent.config.limits)?;
        if call.caller.workspace.as_ref().is_some_and(|own| *own != request.workspace) {
            return Err(Problem::new(Code::Forbidden, "the token is for another workspace than the claim")
                .with("field", "workspace"));
        }
        let digest = blake3::hash(&body::to_json(&request)?);
        let claimed = agent.ownership.claim(&request.workspace, digest, || {
            agent.audit.begin_for_owner();
            let mut variables = request.env.clone();
            variables.insert(env_vars::WORKSPACE_ID.to_owned(), request.workspace.clone());
            agent.processes.hand_over(variables);
        });
        // Not whose it is: that is nobody's business but the owner's.
        let owner = claimed.ok_or_else(|| {
            // For the pool's operator: the owner isn't told who else tried.
            tracing::info!(workspace = request.workspace, subject = call.caller.subject, "claimed too late");
            Problem::new(Code::AlreadyClaimed, "the agent serves a workspace already")
                .suggest("claim another one; a repeated claim must be the same in every field")
        })?;
        tracing::info!(workspace = owner.workspace, subject = call.caller.subject, "claimed");
        Ok(ClaimResponse {
            workspace: owner.workspace.clone(),
            claimed: owner.since,
            instance: agent.config.instance.clone(),
            boot_id: agent.boot_id.clone(),
        })
    }
}

fn check(request: &ClaimRequest, limits: &Limits) -> Result<(), Problem> {
    if !is_workspace_id(&request.workspace) {
        return Err(refused(
            "workspace",
            "a workspace's name has lower-case letters, digits and inner hyphens, at most 32",
        ));
    }
    let sane = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !(8..=64).contains(&request.claim_id.len()) || !request.claim_id.bytes().all(sane) {
        return Err(refused("claimId", "a claim's id has 8 to 64 letters, digits, `.`, `_` and `-`"));
    }
    for (name, value) in &request.env {
        if !environment::is_valid_name(OsStr::new(name)) {
            return Err(refused("env", &format!("{name:?} can't name a variable")));
        }
        if name.starts_with("COREHOLD_") && !OWNERS.contains(&name.as_str()) {
            let allowed = OWNERS.join(", ");
            return Err(refused(
                "env",
                &format!("{name} is reserved; of the names that begin with COREHOLD_ only {allowed} may be given"),
            ));
        }
        if value.contains('\0') {
            return Err(refused("env", &format!("the value of {name} has a NUL byte")));
        }
    }
    // As the kernel counts: an equals sign and a NUL come to each.
    let bytes: usize = request.env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if bytes > limits.claim_environment_bytes.as_usize() {
        return Err(limits.claim_environment_bytes.exceeded("the claim's environment"));
    }
    Ok(())
}

fn is_workspace_id(text: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let edges = bytes.first().copied().is_some_and(fine) && bytes.last().copied().is_some_and(fine);
    edges && bytes.len() <= 32 && bytes.iter().all(|byte| fine(*byte) || *byte == b'-')
}

fn refused(field: &str, what: &str) -> Problem {
    Problem::new(Code::InvalidRequest, what).with("field", field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(env: &[(&str, &str)]) -> ClaimRequest {
        ClaimRequest {
            workspace: "shop-1".to_owned(),
            claim_id: "abcdefgh".to_owned(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    fn refusal(request: &ClaimRequest) -> String {
        check(request, &Limits::default()).unwrap_err().detail
    }

    #[test]
    fn names_that_could_mislead_are_refused() {
        check(&request(&[("A", ""), (env_vars::OWNER_ID, "me"), ("npm_config_x", "=")]), &Limits::default()).unwrap();
        for workspace in ["", "-a", "a-", "A", "a_b", "ä", "a b", &"x".repeat(33)] {
            assert!(refusal(&ClaimRequest { workspace: workspace.to_owned(), ..request(&[]) }).contains("workspace's"));
        }
        for claim_id in ["", "short", "with space", &"x".repeat(65)] {
            assert!(refusal(&ClaimRequest { claim_id: claim_id.to_owned(), ..request(&[]) }).contains("claim's id"));
        }
        for name in ["", "A=B", "A\0"] {
            assert!(refusal(&request(&[(name, "x")])).contains("can't name"), "{name:?}");
        }
        for name in [env_vars::WORKSPACE_ID, env_vars::PUBLIC_KEY, env_vars::CA_BUNDLE, "COREHOLD_COMMAND", "COREHOLD_"]
        {
            assert!(refusal(&request(&[(name, "x")])).contains("reserved"), "{name}");
        }
        assert!(refusal(&request(&[("A", "x\0")])).contains("NUL"));
        let large = "x".repeat(64 << 10);
        assert!(refusal(&request(&[("A", &large)])).contains("the claim's environment"));
    }

    #[test]
    fn a_claims_values_are_in_no_debug_output() {
        let shown = format!("{:?}", request(&[("TOKEN", "hunter2")]));
        assert!(shown.contains("TOKEN") && !shown.contains("hunter2"), "{shown}");
    }
}
