//! Templates: folders that become workspaces.
//!
//! A folder says what it needs in a `template.json`; where there is none, or where it is silent, sensible defaults are
//! inferred from what it holds, see [`ProjectType`].

mod catalog;
mod check;
mod file;
mod infer;
mod near;
mod project;
mod unpack;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::unpack::fuzz::archive as fuzz_archive;
pub use self::{
    catalog::{Catalog, InvalidTemplate, Listing},
    check::{Finding, Severity, check},
    file::FILE_NAME,
    project::ProjectType,
};
use self::{
    file::{Mistake, TemplateFile},
    infer::Inferred,
};
pub(crate) use self::{
    file::{check_variable, variable_bytes},
    near::nearest,
    project::parse_images as parse_project_images,
};
use crate::{
    error::{Error, ErrorKind, Result},
    runtime::Resources,
    workspace::WorkspaceId,
};

/// Port of a dev server whose template names none.
pub const DEFAULT_PORT: u16 = 4321;
/// A `template.json` is a page, not a book.
const FILE_BYTES: u64 = 1 << 20;

/// A folder, and how it becomes a running workspace.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Template {
    /// The word by which it is asked for.
    pub name: String,
    /// One sentence for people who choose.
    pub description: Option<String>,
    /// The folder itself, absolute.
    pub folder: PathBuf,
    /// The image it needs; absent: that of its type of project, else the host's.
    pub image: Option<String>,
    /// Of which type it is, as `template.json` says or its files do.
    pub project: Option<ProjectType>,
    /// Shell lines that are run one after the other before the dev command.
    pub setup: Vec<String>,
    /// Time that each set-up line may take.
    pub setup_timeout: Duration,
    /// Whether the set-up's result may be kept for the next workspace.
    pub setup_cache: bool,
    /// The shell line of the dev server; absent: there is none.
    pub dev: Option<String>,
    /// Variables of the dev command alone.
    pub dev_env: BTreeMap<String, String>,
    /// Port inside on which the dev server listens.
    pub port: u16,
    /// Path that answers when the dev server is ready.
    pub ready_path: String,
    /// Time that the dev server may take to get there.
    pub ready_timeout: Duration,
    /// Variables for every command in the workspace.
    pub env: BTreeMap<String, String>,
    /// What isn't packed, as in a .gitignore file, after the defaults.
    pub exclude: Vec<String>,
    /// Limits; absent: the host's.
    pub resources: Resources,
    /// What was inferred and why, one sentence each; empty when `template.json` said it all.
    pub inferred: Vec<String>,
    /// Keeps the folder of one that came as an archive.
    unpacked: Option<Arc<unpack::Unpacked>>,
}

impl Template {
    /// Reads the template in a folder.
    ///
    /// # Errors
    /// `NotFound` when there is no such folder, `Invalid` when its `template.json` can't be used, with line and column.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        Self::load_named(folder.as_ref(), None)
    }

    /// The same, under another name than the folder's where its `template.json` says none.
    fn load_named(asked: &Path, name: Option<String>) -> Result<Self> {
        let shown = asked.display();
        let folder = fs::canonicalize(asked).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::new(ErrorKind::NotFound, format!("there is no folder {shown}")),
            _ => Error::new(ErrorKind::Io, format!("can't read {shown}: {error}")).caused_by(error),
        })?;
        if !folder.is_dir() {
            return Err(Error::new(ErrorKind::Invalid, format!("{shown} is not a folder"))
                .hint("a template is a folder; give the one that holds the project"));
        }
        let path = folder.join(FILE_NAME);
        let file = match read_file(&path)? {
            Some(content) => Some(file::parse(&content).map_err(|mistake| invalid(&path, &mistake))?),
            None => None,
        };
        // A link to a folder is asked for by its own name; `.` has none.
        let name = name.unwrap_or_else(|| name_of(if asked.file_name().is_some() { asked } else { &folder }));
        Self::assemble(folder, name, file)
    }

    fn assemble(folder: PathBuf, name: String, file: Option<TemplateFile>) -> Result<Self> {
        // Someone who wrote a template.json decides about commands; a folder without one gets our best guess.
        let inferred = match &file {
            Some(file) if file.dev.is_some() || file.setup.is_some() => Inferred::default(),
            file => infer::infer(&folder, file.as_ref().and_then(|file| file.port).unwrap_or(DEFAULT_PORT))?,
        };
        let file = file.unwrap_or_default();
        let setup_timeout = file.setup_timeout();
        let ready = file.ready.unwrap_or_default();
        let limits = file.resources.unwrap_or_default();
        let setup = match file.setup {
            Some(lines) => lines.into_iter().map(|line| line.0).collect(),
            None => inferred.setup,
        };
        Ok(Self {
            name: file.name.unwrap_or(name),
            description: file.description,
            folder,
            image: file.image,
            project: file.project.or(inferred.project),
            setup,
            setup_timeout,
            setup_cache: file.setup_cache.unwrap_or(true),
            dev: file.dev.map(|line| line.0).or(inferred.dev),
            dev_env: inferred.dev_env,
            port: file.port.unwrap_or(DEFAULT_PORT),
            ready_path: ready.path.unwrap_or_else(|| "/".to_owned()),
            ready_timeout: Duration::from_secs(ready.timeout_seconds.unwrap_or(120)),
            env: file.env,
            exclude: file.exclude.into_iter().map(|pattern| pattern.0).collect(),
            resources: Resources {
                memory_bytes: limits.memory.map(|memory| memory.0),
                // Checked to be at most 1024 when it was read.
                cpu_millis: limits.cpus.map(|cpus| (cpus * 1000.0).round() as u64),
                pids: limits.pids,
                disk_bytes: None,
            },
            inferred: inferred.reasons,
            unpacked: None,
        })
    }
}

/// Reads an amount of memory as `template.json` writes it, such as `512MiB`, into bytes.
///
/// # Errors
/// `Invalid` for anything else, and for less than an agent can live in.
pub fn parse_memory(text: &str) -> Result<u64> {
    file::MemorySize::try_from(text.to_owned())
        .map(|memory| memory.0)
        .map_err(|why| Error::new(ErrorKind::Invalid, why))
}

/// The published JSON Schema of `template.json`, for editors and for CI.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(TemplateFile).to_value();
    drop_null_defaults(&mut schema);
    schema
}

/// A field without a default is simply absent; null is not allowed for it.
fn drop_null_defaults(schema: &mut serde_json::Value) {
    match schema {
        serde_json::Value::Object(fields) => {
            if fields.get("default").is_some_and(serde_json::Value::is_null) {
                fields.remove("default");
            }
            fields.values_mut().for_each(drop_null_defaults);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(drop_null_defaults),
        _ => {}
    }
}

/// A file of the template's own making: bounded, never a pipe that hangs. Absent: `None`.
fn read_file(path: &Path) -> Result<Option<Vec<u8>>> {
    let fail = |error: io::Error| {
        Error::new(ErrorKind::Io, format!("can't read {}: {error}", path.display())).caused_by(error)
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    if !metadata.is_file() {
        return Err(Error::new(ErrorKind::Invalid, format!("{} is not a regular file", path.display())));
    }
    if metadata.len() > FILE_BYTES {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("{} has {} bytes; at most {FILE_BYTES} are read", path.display(), metadata.len()),
        ));
    }
    fs::read(path).map(Some).map_err(fail)
}

fn invalid(path: &Path, mistake: &Mistake) -> Error {
    let place = match (mistake.line, mistake.column) {
        (Some(line), Some(column)) => format!("{}:{line}:{column}", path.display()),
        _ => path.display().to_string(),
    };
    let error = Error::new(ErrorKind::Invalid, format!("{place}: {}", mistake.message));
    match &mistake.suggestion {
        Some(suggestion) => error.hint(suggestion.clone()),
        None => error,
    }
}

/// The folder's name, made fit to be asked for and shown.
fn name_of(folder: &Path) -> String {
    let name = folder.file_name().map_or_else(|| "root".to_owned(), |name| name.to_string_lossy().into_owned());
    WorkspaceId::nearest_fit(&name).map_or_else(|| "workspace".to_owned(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: Option<&str>, files: &[(&str, &str)]) -> Result<Template> {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("My Web");
        fs::create_dir(&folder).unwrap();
        for (name, content) in files.iter().copied().chain(json.map(|json| (FILE_NAME, json))) {
            fs::write(folder.join(name), content).unwrap();
        }
        Template::load(folder)
    }

    #[test]
    fn what_is_said_is_taken_and_the_rest_has_defaults() {
        let template = of(Some(r#"{"dev": "x", "resources": {"cpus": 0.5}}"#), &[("package.json", "{}")]).unwrap();
        assert_eq!((template.name.as_str(), template.port, template.ready_path.as_str()), ("my-web", 4321, "/"));
        assert_eq!(template.resources, Resources { cpu_millis: Some(500), ..Resources::default() });
        assert_eq!(
            (template.ready_timeout, template.setup_timeout),
            (Duration::from_secs(120), Duration::from_secs(600))
        );
        assert!(template.inferred.is_empty(), "nothing is guessed where something was said");
    }

    #[test]
    fn commands_are_inferred_where_nothing_is_said_about_them() {
        let package = [("package.json", r#"{"scripts": {"dev": "vite"}, "devDependencies": {"vite": "*"}}"#)];
        let template = of(Some(r#"{"port": 5173}"#), &package).unwrap();
        assert_eq!(template.dev.as_deref(), Some("npm run dev -- --host 0.0.0.0 --port 5173 --strictPort"));
        assert_eq!(of(Some(r#"{"setup": []}"#), &package).unwrap().dev, None);
    }

    #[test]
    fn a_file_in_place_of_a_folder_and_a_folder_in_place_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(FILE_NAME)).unwrap();
        assert!(Template::load(folder.path()).unwrap_err().to_string().contains("not a regular file"));
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(Template::load(file).unwrap_err().to_string().contains("not a folder"));
    }
}
