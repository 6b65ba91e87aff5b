//! How a workspace may be held: what a request asks for, and what it gets.

use std::collections::BTreeSet;

use super::Policy;
use crate::{
    error::{Error, ErrorKind, Result},
    runtime::{Capability, Hardening},
};

/// What a request, a class or a recipe says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) read_only_root: Option<bool>,
    pub(crate) capabilities: BTreeSet<Capability>,
    pub(crate) sandbox: Option<String>,
}

/// Those that everybody knows the strength of.
const SANDBOXES: [&str; 2] = ["runc", "runsc"];

/// Whether a sandbox may be named.
pub(super) fn is_known(sandbox: &str, allowed: &BTreeSet<String>) -> bool {
    SANDBOXES.contains(&sandbox) || allowed.contains(sandbox)
}

impl Policy {
    /// What is wanted, if it may be.
    ///
    /// # Errors
    /// `Forbidden`, naming what isn't allowed.
    pub(crate) fn harden(&self, wanted: &Wanted) -> Result<Hardening> {
        if let Some(capability) = wanted.capabilities.difference(&self.capabilities).next() {
            return Err(Error::new(
                ErrorKind::Forbidden,
                format!("this host allows no workspace the capability {capability}"),
            )
            .hint("the host allows capabilities by `Policy::capability`"));
        }
        if let Some(sandbox) = &wanted.sandbox
            && !is_known(sandbox, &self.sandboxes)
        {
            return Err(Error::new(
                ErrorKind::Forbidden,
                format!("this host allows no workspace the sandbox {sandbox:?}"),
            )
            .hint("runc and runsc can be asked for; the host allows others by `Policy::sandbox`"));
        }
        Ok(Hardening {
            read_only_root: wanted.read_only_root.unwrap_or(false),
            capabilities: wanted.capabilities.clone(),
            sandbox: wanted.sandbox.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_policy_does_not_allow_is_named() {
        let wanted = |capabilities: &[Capability], sandbox: Option<&str>| Wanted {
            capabilities: capabilities.iter().copied().collect(),
            sandbox: sandbox.map(str::to_owned),
            ..Wanted::default()
        };
        let policy = Policy::new().capability(Capability::Chown).sandbox("kata");
        assert_eq!(policy.harden(&Wanted::default()).unwrap(), Hardening::default());
        for (wanted, named) in [
            (wanted(&[Capability::Chown, Capability::Kill], None), "KILL"),
            (wanted(&[], Some("sysbox")), "sysbox"),
            (wanted(&[], Some("")), "\"\""),
        ] {
            let error = policy.harden(&wanted).unwrap_err();
            assert!(error.kind() == ErrorKind::Forbidden && error.to_string().contains(named), "{error}");
        }
        for sandbox in ["runc", "runsc", "kata"] {
            assert_eq!(policy.harden(&wanted(&[], Some(sandbox))).unwrap().sandbox.as_deref(), Some(sandbox));
        }
        assert_eq!(policy.harden(&wanted(&[Capability::Chown], None)).unwrap().capabilities.len(), 1);
    }
}
