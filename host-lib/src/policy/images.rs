//! Which images a workspace may be made of.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// The registry of names that have none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Where that has the images without an owner.
const LIBRARY: &str = "library/";

/// The images that a workspace may be made of, by patterns of their names:
///
/// - `node` is `docker.io/library/node`, of any tag or digest; `node:24` of that tag alone; `ghcr.io/acme/tool@sha256:…` is that very image;
/// - `ghcr.io/acme/*` is whatever begins so; `*` is everything that has a name.
///
/// An image is always asked for by a name: what an engine would take for the id of some image it has is refused, since nobody can say whose
/// that is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "it holds for a policy that has it"]
pub struct Images {
    allowed: Vec<Pattern>,
    by_digest: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    /// The beginning of a whole name.
    Prefix(String),
    Exact(Reference),
}

impl Images {
    /// Those that one of the patterns is true of.
    ///
    /// # Errors
    /// `Invalid` for a pattern that no name could be meant by.
    pub fn allow<P: AsRef<str>>(patterns: impl IntoIterator<Item = P>) -> Result<Self> {
        let allowed = patterns.into_iter().map(|pattern| Pattern::parse(pattern.as_ref())).collect::<Result<_>>()?;
        Ok(Self { allowed, by_digest: false })
    }

    /// Only by digest: what a tag means, somebody else can change.
    pub fn by_digest(mut self) -> Self {
        self.by_digest = true;
        self
    }

    pub(super) fn check(&self, reference: &str) -> Result<()> {
        let image = Reference::parse(reference)?;
        if !self.allowed.iter().any(|pattern| pattern.is_true_of(&image)) {
            return Err(Error::new(ErrorKind::Forbidden, format!("the image {image} is not allowed here"))
                .hint("use one that the host's policy allows, or have it allowed there"));
        }
        if self.by_digest && image.digest.is_none() {
            return Err(Error::new(ErrorKind::Forbidden, format!("the image {image} is asked for without a digest"))
                .hint("name it as NAME@sha256:…; `docker image inspect` says its digest"));
        }
        Ok(())
    }
}

impl Pattern {
    fn parse(pattern: &str) -> Result<Self> {
        match pattern.strip_suffix('*') {
            None => Reference::parse(pattern).map(Self::Exact),
            Some("") => Ok(Self::Prefix(String::new())),
            // Of `node*` nobody can say whether `node-evil/x` is meant.
            Some(prefix) if prefix.ends_with('/') && !prefix.contains(['*', '@', ' ']) => {
                let (registry, path) = split_registry(prefix);
                Ok(Self::Prefix(format!("{registry}/{path}")))
            }
            Some(_) => Err(Error::new(ErrorKind::Invalid, format!("{pattern:?} is no pattern of images"))
                .hint("`*` stands alone or after a slash, as in `ghcr.io/acme/*`")),
        }
    }

    fn is_true_of(&self, image: &Reference) -> bool {
        match self {
            Self::Prefix(prefix) => image.name.starts_with(prefix),
            Self::Exact(Reference { name, tag, digest }) => {
                *name == image.name
                    && (digest.is_none() || *digest == image.digest)
                    // With a digest a tag is only a remark.
                    && (tag.is_none() || digest.is_some() || (*tag == image.tag && image.digest.is_none()))
            }
        }
    }
}

/// An image's name as engines understand it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reference {
    /// Registry and path.
    name: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    fn parse(reference: &str) -> Result<Self> {
        let invalid = || Error::new(ErrorKind::Invalid, format!("{reference:?} is no name of an image"));
        let (rest, digest) = match reference.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_owned())),
            None => (reference, None),
        };
        let is_digest = |digest: &str| {
            let hex = digest.strip_prefix("sha256:").unwrap_or_default();
            hex.len() == 64 && hex.bytes().all(is_lower_hex)
        };
        if digest.as_deref().is_some_and(|digest| !is_digest(digest)) {
            return Err(invalid());
        }
        // A colon before the last slash belongs to the registry's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (rest, None),
        };
        let is_tag = |tag: &str| {
            !tag.is_empty()
                && tag.len() <= 128
                && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid());
        }
        if name == "sha256" || (!name.is_empty() && name.bytes().all(is_lower_hex)) {
            return Err(Error::new(ErrorKind::Forbidden, format!("{reference:?} may be the id of any image")).hint(
                format!("say its name; one that looks like an id is written {DEFAULT_REGISTRY}/{LIBRARY}{name}"),
            ));
        }
        let (registry, path) = split_registry(name);
        let is_part = |part: &str| {
            part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte))
                && part.starts_with(|first: char| first.is_ascii_alphanumeric())
                && part.ends_with(|last: char| last.is_ascii_alphanumeric())
        };
        let is_registry = registry.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
        if !is_registry || path.is_empty() || !path.split('/').all(is_part) {
            return Err(invalid());
        }
        let library = if registry == DEFAULT_REGISTRY && !path.contains('/') { LIBRARY } else { "" };
        Ok(Self { name: format!("{registry}/{library}{path}"), tag, digest })
    }
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// What stands before the first slash is a registry if it looks like a host, as engines decide it.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((registry, path)) if registry.contains(['.', ':']) || registry == "localhost" => match registry {
            // Its older name.
            "index.docker.io" => (DEFAULT_REGISTRY, path),
            _ => (registry, path),
        },
        _ => (DEFAULT_REGISTRY, name),
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(formatter, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn allows(patterns: &[&str], image: &str) -> bool {
        match Images::allow(patterns).unwrap().check(image) {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Forbidden, "{image}: {error}");
                false
            }
        }
    }

    #[test]
    fn a_name_is_allowed_as_the_engine_would_understand_it() {
        let by_digest = format!("node@{DIGEST}");
        for image in [
            "node",
            "node:24",
            "library/node",
            "docker.io/library/node:x",
            "docker.io/node",
            "index.docker.io/library/node",
            &by_digest,
        ] {
            assert!(allows(&["node"], image), "{image}");
        }
        for image in [
            "nodes",
            "node/x",
            "evil.example/node",
            "localhost/node",
            "localhost:5000/node:24",
            "evil.example/library/node",
        ] {
            assert!(!allows(&["node"], image), "{image}");
        }
        assert!(allows(&["node:24"], "docker.io/library/node:24"));
        assert!(!allows(&["node:24"], "node") && !allows(&["node:24"], "node:25") && !allows(&["node:24"], &by_digest));
        assert!(allows(&[&by_digest], &by_digest) && allows(&[&by_digest], &format!("node:24@{DIGEST}")));
        assert!(!allows(&[&by_digest], "node:24"));
    }

    #[test]
    fn a_pattern_with_a_star_stands_for_what_begins_so() {
        let acme = ["ghcr.io/acme/*"];
        assert!(allows(&acme, "ghcr.io/acme/tool:1") && allows(&acme, "ghcr.io/acme/deep/er"));
        assert!(
            !allows(&acme, "ghcr.io/acme-evil/tool")
                && !allows(&acme, "acme/tool")
                && !allows(&acme, "ghcr.io/other/acme/tool")
        );
        assert!(allows(&["library/*"], "node") && !allows(&["library/*"], "acme/node"));
        assert!(allows(&["acme/*"], "docker.io/acme/x"));
        assert!(allows(&["*"], "anything.example:5000/at/all"));
        assert!(!allows(&[], "node"));
        for pattern in ["no*de", "node*", "a b/*", "", "/", "node:*", "UPPER", "x@sha256:1"] {
            assert_eq!(Images::allow([pattern]).unwrap_err().kind(), ErrorKind::Invalid, "{pattern}");
        }
    }

    #[test]
    fn what_an_engine_would_take_for_an_id_is_refused_whatever_is_allowed() {
        let id = &DIGEST["sha256:".len()..];
        for image in [id, &id[..12], "cafe", DIGEST] {
            assert!(!allows(&["*"], image), "{image}");
        }
        assert!(allows(&["*"], "docker.io/library/cafe"));
    }

    #[test]
    fn where_only_digests_are_allowed_a_tag_is_not() {
        let images = Images::allow(["node"]).unwrap().by_digest();
        assert!(images.check(&format!("node:24@{DIGEST}")).is_ok());
        assert_eq!(images.check("node:24").unwrap_err().kind(), ErrorKind::Forbidden);
    }

    proptest! {
        #[test]
        fn any_name_gets_an_answer(image in any::<String>(), dense in "[a-f0-9:/@.*_-]{0,20}") {
            let images = Images::allow(["ghcr.io/acme/*"]).unwrap();
            for image in [image, dense] {
                prop_assert!(images.check(&image).is_err());
                let _ = Images::allow([&image]);
                let prefixed = images.check(&format!("ghcr.io/acme/{image}"));
                // What is let through stays below it.
                prop_assert!(prefixed.is_err() || !image.contains(".."), "{image}");
            }
        }
    }
}
