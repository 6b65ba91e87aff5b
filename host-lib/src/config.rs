//! What this library reads from the environment: all of it, and only here.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `COREHOLD_HOME` | state folder: host key, caches | `$XDG_DATA_HOME/corehold`, else `~/.local/share/corehold` |
//! | `COREHOLD_IMAGE` | the core image | `workspace-core:latest` |
//! | `COREHOLD_TEMPLATES` | folders of templates, separated by `:`; earlier ones win | none |
//! | `COREHOLD_CA_FILE` | PEM bundle handed into every workspace, for people behind proxies | none |
//! | `COREHOLD_ARCHIVE_BYTES` | bytes that a template's files may have together | 1 GiB |
//! | `COREHOLD_CACHE_BYTES` | bytes of packed templates that are kept | 2 GiB |
//! | `COREHOLD_PORT_RANGE` | ports of this machine for previews and published ports: `20000-20099` | any that are free |
//! | `COREHOLD_SETUP_CACHE_BYTES` | bytes of results of set-ups that are kept; 0: none is | 4 GiB |
//! | `COREHOLD_ARCHIVES` | where saved workspaces are kept: a folder, or `s3://bucket/prefix` | `archives` in the state folder |
//! | `COREHOLD_PROJECT_IMAGES` | images of types of projects: `python=python:3.13-slim,go=golang:1.25` | `workspace-python`, `workspace-go`, … |
//! | `COREHOLD_PASS_ENV` | names, separated by commas, of variables handed from here into every workspace | none |
//!
//! What the builder is told explicitly wins over the environment. Variables that cross into the container are in
//! [`corehold_types::env_vars`]; how the engine is found is the runtime's own business.

use std::{collections::BTreeMap, ffi::OsString, ops::RangeInclusive, path::PathBuf};

use crate::{
    archive::ArchiveStore,
    error::{Error, ErrorKind, Result},
    template::{ProjectType, parse_project_images},
};

/// The image of a workspace whose template names none.
pub const DEFAULT_IMAGE: &str = "workspace-core:latest";

/// What the environment says. See the module for the variables.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    pub(crate) home: Option<PathBuf>,
    pub(crate) image: Option<String>,
    pub(crate) templates: Vec<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) archive_bytes: Option<u64>,
    pub(crate) cache_bytes: Option<u64>,
    pub(crate) port_range: Option<RangeInclusive<u16>>,
    pub(crate) setup_cache_bytes: Option<u64>,
    pub(crate) archives: Option<ArchiveStore>,
    pub(crate) project_images: BTreeMap<ProjectType, String>,
    pub(crate) pass_env: BTreeMap<String, String>,
}

impl Config {
    /// Reads the process's environment.
    pub(crate) fn from_env() -> Result<Self> {
        Self::from_lookup(|name| std::env::var_os(name))
    }

    /// Reads an environment given as a function. An empty value counts as absent.
    pub(crate) fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let get = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let text = |name: &str| match get(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(_)) => Err(Error::new(ErrorKind::Invalid, format!("{name} is not UTF-8"))),
        };
        let bytes = |name: &str| match text(name)?.map(|text| text.parse()) {
            None => Ok(None),
            Some(Ok(bytes)) => Ok(Some(bytes)),
            Some(Err(_)) => Err(Error::new(ErrorKind::Invalid, format!("{name} is not a number of bytes"))),
        };
        let home = get("COREHOLD_HOME")
            .map(PathBuf::from)
            .or_else(|| get("XDG_DATA_HOME").map(|base| PathBuf::from(base).join("corehold")))
            .or_else(|| get("HOME").map(|home| PathBuf::from(home).join(".local/share/corehold")));
        let mut pass_env = BTreeMap::new();
        for name in text("COREHOLD_PASS_ENV")?.unwrap_or_default().split(',').map(str::trim) {
            // A listed variable that isn't set here is simply not handed on: one list serves many machines.
            if !name.is_empty()
                && let Some(value) = text(name)?
            {
                pass_env.insert(name.to_owned(), value);
            }
        }
        Ok(Self {
            home,
            image: text("COREHOLD_IMAGE")?,
            templates: get("COREHOLD_TEMPLATES")
                .map(|folders| std::env::split_paths(&folders).filter(|path| !path.as_os_str().is_empty()).collect())
                .unwrap_or_default(),
            ca_file: get("COREHOLD_CA_FILE").map(PathBuf::from),
            archive_bytes: bytes("COREHOLD_ARCHIVE_BYTES")?,
            cache_bytes: bytes("COREHOLD_CACHE_BYTES")?,
            port_range: text("COREHOLD_PORT_RANGE")?.as_deref().map(parse_port_range).transpose()?,
            setup_cache_bytes: bytes("COREHOLD_SETUP_CACHE_BYTES")?,
            archives: text("COREHOLD_ARCHIVES")?.map(|place| place.parse()).transpose()?,
            project_images: text("COREHOLD_PROJECT_IMAGES")?
                .map_or_else(|| Ok(BTreeMap::new()), |text| parse_project_images(&text))
                .map_err(|error| error.context("COREHOLD_PROJECT_IMAGES"))?,
            pass_env,
        })
    }
}

/// Reads `first-last`, both included, or a single port.
fn parse_port_range(text: &str) -> Result<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = first.trim().parse().and_then(|first| Ok(first..=last.trim().parse()?));
    range
        .map_err(|_| Error::new(ErrorKind::Invalid, format!("COREHOLD_PORT_RANGE is no range of ports: {text:?}")))
        .and_then(check_port_range)
        .map_err(|error| error.hint("write it as 20000-20099"))
}

/// A range of which every port can be listened on.
pub(crate) fn check_port_range(ports: RangeInclusive<u16>) -> Result<RangeInclusive<u16>> {
    if ports.is_empty() || *ports.start() == 0 {
        let (first, last) = (ports.start(), ports.end());
        return Err(Error::new(ErrorKind::Invalid, format!("{first}-{last} is no range of ports")));
    }
    Ok(ports)
}

/// Variables by which a host says how it reaches the network; the engine's builder knows each without an `ARG`.
const PROXY_VARIABLES: [&str; 8] =
    ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy"];

/// Those that are set, for a build in the engine, which reaches the network as this host does.
pub(crate) fn proxies() -> impl Iterator<Item = (String, String)> {
    PROXY_VARIABLES.into_iter().filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
}

/// The state folder that the environment names; it need not be there yet.
///
/// # Errors
/// `Invalid` when the environment names none.
pub fn home() -> Result<PathBuf> {
    Config::from_env()?.home.ok_or_else(no_home)
}

pub(crate) fn no_home() -> Error {
    Error::new(ErrorKind::Invalid, "there is no place for the state folder")
        .hint("set COREHOLD_HOME or HOME, or give the builder a home")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Config {
        Config::from_lookup(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
            .unwrap()
    }

    #[test]
    fn the_home_folder_follows_the_documented_order() {
        let all = [("COREHOLD_HOME", "/a"), ("XDG_DATA_HOME", "/b"), ("HOME", "/c")];
        assert_eq!(read(&all).home.as_deref(), Some(Path::new("/a")));
        assert_eq!(read(&all[1..]).home.as_deref(), Some(Path::new("/b/corehold")));
        assert_eq!(read(&all[2..]).home.as_deref(), Some(Path::new("/c/.local/share/corehold")));
        assert_eq!(
            read(&[("COREHOLD_HOME", ""), ("HOME", "/c")]).home.as_deref(),
            Some(Path::new("/c/.local/share/corehold"))
        );
        assert_eq!(read(&[]).home, None);
    }

    #[test]
    fn a_number_that_is_none_is_named() {
        let error = Config::from_lookup(|name| (name == "COREHOLD_CACHE_BYTES").then(|| "2GB".into())).unwrap_err();
        assert!(error.to_string().contains("COREHOLD_CACHE_BYTES"), "{error}");
    }

    #[test]
    fn a_range_of_ports_has_a_first_and_a_last() {
        assert_eq!(read(&[("COREHOLD_PORT_RANGE", "20000-20099")]).port_range, Some(20_000..=20_099));
        assert_eq!(read(&[("COREHOLD_PORT_RANGE", " 8080 ")]).port_range, Some(8080..=8080));
        for wrong in ["20099-20000", "0-100", "1-65536", "-5", "a-b", "1-2-3"] {
            let error = Config::from_lookup(|name| (name == "COREHOLD_PORT_RANGE").then(|| wrong.into())).unwrap_err();
            assert_eq!(error.hint_text(), Some("write it as 20000-20099"), "{wrong}: {error}");
        }
    }

    #[test]
    fn several_template_folders_and_passed_variables() {
        let config = read(&[
            ("COREHOLD_TEMPLATES", "/one::/two"),
            ("COREHOLD_PASS_ENV", "npm_config_registry, NOT_SET,"),
            ("npm_config_registry", "somewhere"),
        ]);
        assert_eq!(config.templates, [Path::new("/one"), Path::new("/two")]);
        assert_eq!(config.pass_env, BTreeMap::from([("npm_config_registry".to_owned(), "somewhere".to_owned())]));
    }
}
