//! Which engine answers, and whether this library can work with it: looked at once, when the connection is opened.

use bollard::{ClientVersion, models::SystemVersion};

use crate::error::{Error, ErrorKind, Result};

/// The oldest API that is spoken: that of Docker 20.10, and of Podman 4.
const OLDEST_API: ClientVersion = ClientVersion { major_version: 1, minor_version: 41 };

/// What tells engines apart where they differ behind the same API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    /// Docker, or one that can't be told from it.
    Docker,
    /// Podman's compatible socket.
    Podman,
}

impl Engine {
    /// Its name in small letters.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// What it can't do of what this runtime offers, for people.
    pub(super) fn lacks(self) -> &'static [&'static str] {
        match self {
            Self::Docker => &[],
            Self::Podman => &[
                "changing the limits of a running workspace",
                "publishing ports from a range",
                "telling that memory ran out (with control groups v1)",
            ],
        }
    }

    /// Whether it may have a resolver of its own at a network's gateway. Docker's is in each container, at an address of its loopback.
    pub(super) fn has_resolver_at_gateway(self) -> bool {
        self == Self::Podman
    }

    /// Which one answered with this, if it can be worked with.
    ///
    /// # Errors
    /// `Unsupported` for an engine that is too old, or whose containers are no Linux ones.
    pub(super) fn admitted(version: &SystemVersion, negotiated: ClientVersion) -> Result<Self> {
        let components = version.components.iter().flatten();
        let podman = components.into_iter().any(|component| component.name == "Podman Engine");
        let engine = if podman { Self::Podman } else { Self::Docker };
        let written = format!("{} {}", engine.name(), version.version.as_deref().unwrap_or("of an unknown version"));
        if negotiated < OLDEST_API {
            let message =
                format!("{written} speaks API {negotiated}, and {OLDEST_API} is the oldest that is supported");
            return Err(Error::new(ErrorKind::Unsupported, message)
                .hint("use Docker 20.10, Podman 4, or a newer one; DOCKER_HOST names another engine"));
        }
        match version.os.as_deref() {
            None | Some("" | "linux") => Ok(engine),
            Some(system) => {
                let message = format!("{written} runs containers of {system}, and workspaces are Linux containers");
                Err(Error::new(ErrorKind::Unsupported, message)
                    .hint("switch the engine to Linux containers, or name another one by DOCKER_HOST"))
            }
        }
    }
}

/// The profile of the filter of system calls, of what an engine says of its security (`name=seccomp,profile=default`).
pub(super) fn system_call_filter<'a>(options: impl IntoIterator<Item = &'a String>) -> Option<String> {
    options.into_iter().find_map(|option| {
        let mut fields = option.split(',');
        // Podman 4 has the name alone for its own.
        let profile = match (fields.next()?, fields.next()) {
            ("name=seccomp" | "seccomp", profile) => profile.and_then(|field| field.strip_prefix("profile=")),
            _ => return None,
        };
        Some(profile.unwrap_or("default").to_owned()).filter(|profile| profile != "unconfined")
    })
}

#[cfg(test)]
mod tests {
    use bollard::models::SystemVersionComponents;

    use super::*;

    fn version(version: &str, os: Option<&str>, components: &[&str]) -> SystemVersion {
        let component = |name: &&str| SystemVersionComponents { name: (*name).to_owned(), ..Default::default() };
        SystemVersion {
            version: Some(version.to_owned()),
            os: os.map(ToOwned::to_owned),
            components: Some(components.iter().map(component).collect()),
            ..SystemVersion::default()
        }
    }

    fn api(minor_version: usize) -> ClientVersion {
        ClientVersion { major_version: 1, minor_version }
    }

    #[test]
    fn docker_and_podman_are_told_apart() {
        let docker = version("20.10.24", Some("linux"), &["Engine", "containerd"]);
        assert_eq!(Engine::admitted(&docker, api(41)).unwrap(), Engine::Docker);
        let podman = version("4.3.1", Some("linux"), &["Podman Engine", "Conmon"]);
        assert_eq!(Engine::admitted(&podman, api(41)).unwrap(), Engine::Podman);
        // Who says nothing of itself is taken for what it acts as.
        assert_eq!(Engine::admitted(&SystemVersion::default(), api(52)).unwrap(), Engine::Docker);
    }

    #[test]
    fn an_engine_without_a_filter_of_system_calls_is_known() {
        let filter = |options: &[&str]| {
            let options: Vec<String> = options.iter().map(ToString::to_string).collect();
            system_call_filter(&options)
        };
        for (options, profile) in [
            (&["name=seccomp,profile=default"][..], Some("default")),
            (&["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"], Some("builtin")),
            (&["name=seccomp,profile=/etc/docker/seccomp.json"], Some("/etc/docker/seccomp.json")),
            (&["seccomp"], Some("default")),
            (&["name=seccomp,profile=unconfined"], None),
            (&["name=apparmor", "name=rootless"], None),
            (&[], None),
        ] {
            assert_eq!(filter(options).as_deref(), profile, "{options:?}");
        }
    }

    #[test]
    fn what_is_too_old_or_no_linux_is_refused_with_its_version() {
        let error = Engine::admitted(&version("19.03.15", Some("linux"), &[]), api(40)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.to_string(), "docker 19.03.15 speaks API 1.40, and 1.41 is the oldest that is supported");
        assert!(error.hint_text().unwrap().contains("Docker 20.10"));
        let error = Engine::admitted(&version("3.0.1", None, &["Podman Engine"]), api(40)).unwrap_err();
        assert!(error.to_string().starts_with("podman 3.0.1 speaks API 1.40"), "{error}");
        let error = Engine::admitted(&version("28.0.0", Some("windows"), &[]), api(48)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("containers of windows"), "{error}");
    }
}
