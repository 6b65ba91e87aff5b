//! `claim`: takes an agent that serves no workspace yet.

use std::ffi::OsStr;

use corehold_types::{
    Code, Problem, env_vars,
    tools::{Claim, ClaimRequest, ClaimResponse},
};

use rustix::process::Resource;

use crate::{
    config::Limits,
    handler::{Call, Events, Handler},
    process::environment,
    server::body,
};

/// The variables beginning with `COREHOLD_` that a claim may bring: they are the workspace's, not the agent's.
const OWNERS: [&str; 3] = [env_vars::OWNER_ID, env_vars::TEAM_ID, env_vars::API_URL];

/// Longest variable that `execve(2)` takes, its name, `=` and NUL included: 32 pages of 4 KiB.
const VARIABLE_BYTES: usize = 32 * 4_096;

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
        let bytes = name.len() + value.len() + 2;
        if bytes > VARIABLE_BYTES {
            let what = format!(
                "{name} takes {bytes} bytes; the kernel gives no program a variable of more than {VARIABLE_BYTES}"
            );
            return Err(
                refused("env", &what).suggest("write what is large to a file, and name the file in the variable")
            );
        }
    }
    // As the kernel counts: an equals sign and a NUL come to each.
    let bytes: usize = request.env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if bytes > limits.claim_environment_bytes.as_usize() {
        return Err(limits.claim_environment_bytes.exceeded("the claim's environment"));
    }
    let most = room_for_variables();
    if bytes > most {
        let what = format!(
            "the claim's environment takes {bytes} bytes; of what the kernel gives a program for its arguments and \
             variables a claim may use half, here {most}"
        );
        return Err(refused("env", &what).suggest(
            "write what is large to a file, or raise the stack limit (RLIMIT_STACK) that the agent starts with",
        ));
    }
    Ok(())
}

/// Half of what `execve(2)` takes for arguments and variables together: a quarter of the stack's limit, at least 128 KiB and at
/// most three quarters of 8 MiB. The other half is for a command's own. Refused here, since later no command would start.
fn room_for_variables() -> usize {
    let stack = rustix::process::getrlimit(Resource::Stack).current.unwrap_or(u64::MAX);
    let room = (stack / 4).clamp(128 << 10, 6 << 20);
    // At most 3 MiB: it fits.
    (room / 2) as usize
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
    fn what_no_command_could_be_started_with_is_refused_whatever_the_limit_says() {
        let mut limits = Limits::default();
        limits.claim_environment_bytes.value = 1 << 30;
        let fits = "x".repeat(VARIABLE_BYTES - 3);
        // As much as fits into the smallest room that there can be would be half of this already.
        if room_for_variables() >= VARIABLE_BYTES {
            check(&request(&[("A", &fits)]), &limits).unwrap();
        }
        let problem = check(&request(&[("A", &format!("{fits}x"))]), &limits).unwrap_err();
        assert!(
            problem.detail.contains("131072") && problem.suggestion.unwrap().contains("file"),
            "{}",
            problem.detail
        );
        let names: Vec<String> = (0..64).map(|number| format!("V{number}")).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), &fits[..120_000])).collect();
        let problem = check(&request(&many), &limits).unwrap_err();
        assert!(problem.detail.contains("may use half"), "{}", problem.detail);
    }

    #[test]
    fn a_claims_values_are_in_no_debug_output() {
        let shown = format!("{:?}", request(&[("TOKEN", "hunter2")]));
        assert!(shown.contains("TOKEN") && !shown.contains("hunter2"), "{shown}");
    }
}
