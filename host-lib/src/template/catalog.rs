//! The templates there are: folders of folders, looked at anew each time, so that a new one is there at once.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{FILE_NAME, Template, name_of, nearest};
use crate::error::{Error, ErrorKind, Result};

/// Folders whose sub-folders are templates. Holds no state but their paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    folders: Vec<PathBuf>,
    archive_bytes: Option<u64>,
}

/// What a catalogue holds at one moment.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Listing {
    /// The templates that can be used, sorted by name.
    pub templates: Vec<Template>,
    /// Those that can't, and why. They never hide the others.
    pub invalid: Vec<InvalidTemplate>,
}

/// A folder of the catalogue that can't be used.
#[derive(Debug)]
#[non_exhaustive]
pub struct InvalidTemplate {
    /// Its name, as far as it is known: the folder's.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
    /// Why.
    pub error: Error,
}

impl Catalog {
    /// A catalogue over folders; where two have a template of one name, the earlier wins.
    pub fn new(folders: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self { folders: folders.into_iter().map(Into::into).collect(), archive_bytes: None }
    }

    /// Bytes that the files of a template may have together that comes as an archive. Default: 1 GiB; a host's catalogue has the host's
    /// ([`HostBuilder::archive_bytes`](crate::HostBuilder::archive_bytes)).
    #[must_use]
    pub fn archive_bytes(mut self, bytes: u64) -> Self {
        self.archive_bytes = Some(bytes);
        self
    }

    /// The folders it looks into.
    #[must_use]
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// All that is there now. A sub-folder that is hidden (begins with a dot) is left out.
    #[must_use]
    pub fn list(&self) -> Listing {
        let mut listing = Listing::default();
        for parent in &self.folders {
            let found = match sub_folders(parent) {
                Ok(found) => found,
                Err(error) => {
                    let error = Error::new(
                        ErrorKind::Io,
                        format!("the folder of templates {} can't be read: {error}", parent.display()),
                    );
                    listing.invalid.push(InvalidTemplate { name: name_of(parent), folder: parent.clone(), error });
                    continue;
                }
            };
            for folder in found {
                match Template::load(&folder) {
                    Ok(template) => match listing.templates.iter().find(|other| other.name == template.name) {
                        None => listing.templates.push(template),
                        Some(first) => {
                            let error = Error::new(
                                ErrorKind::Conflict,
                                format!("{} has the name {:?} too and comes first", first.folder.display(), first.name),
                            )
                            .hint(format!("give one of them another \"name\" in its {FILE_NAME}"));
                            listing.invalid.push(InvalidTemplate { name: template.name, folder, error });
                        }
                    },
                    Err(error) => listing.invalid.push(InvalidTemplate { name: name_of(&folder), folder, error }),
                }
            }
        }
        listing.templates.sort_by(|one, other| one.name.cmp(&other.name));
        listing
    }

    /// The template of a name.
    ///
    /// # Errors
    /// `NotFound` with the near names in its hint; what is wrong with it when it is there and can't be used.
    pub fn find(&self, name: &str) -> Result<Template> {
        let listing = self.list();
        if let Some(template) = listing.templates.iter().find(|template| template.name == name) {
            return Ok(template.clone());
        }
        if let Some(broken) = listing.invalid.into_iter().find(|broken| broken.name == name) {
            return Err(broken.error.context(format_args!("template {name:?} can't be used")));
        }
        let names: Vec<&str> = listing.templates.iter().map(|template| template.name.as_str()).collect();
        let near = nearest(name, names.iter().copied());
        let error = Error::new(ErrorKind::NotFound, format!("there is no template {name:?}"));
        Err(if !near.is_empty() {
            error.hint(format!("did you mean {}?", near.join(" or ")))
        } else if !names.is_empty() {
            error.hint(format!("there are: {}", names.join(", ")))
        } else if self.folders.is_empty() {
            error.hint("no folder of templates is configured: set COREHOLD_TEMPLATES, or give a path such as ./my-app")
        } else {
            let shown: Vec<String> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
            error.hint(format!("no template is in {}", shown.join(", ")))
        })
    }

    /// What somebody typed: a path if it looks like one (`.`, `..`, or with a slash), of a folder or an archive; else a name.
    ///
    /// # Errors
    /// As [`find`](Self::find), [`Template::load`] and [`Template::from_archive`].
    pub fn resolve(&self, name_or_path: &str) -> Result<Template> {
        if name_or_path == "." || name_or_path == ".." || name_or_path.contains('/') {
            return if Path::new(name_or_path).is_file() {
                match self.archive_bytes {
                    Some(bytes) => Template::from_archive_within(name_or_path, bytes),
                    None => Template::from_archive(name_or_path),
                }
            } else {
                Template::load(name_or_path)
            };
        }
        self.find(name_or_path).map_err(|error| {
            if error.kind() == ErrorKind::NotFound && Path::new(name_or_path).is_dir() {
                return error.also_hint(&format!("to use the folder of that name, write ./{name_or_path}"));
            }
            if error.kind() == ErrorKind::NotFound && Path::new(name_or_path).is_file() {
                return error.also_hint(&format!("to use the archive of that name, write ./{name_or_path}"));
            }
            error
        })
    }
}

fn sub_folders(parent: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let path = entry.path();
        if !hidden && path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(parent: &Path, name: &str, json: &str) {
        fs::create_dir_all(parent.join(name)).unwrap();
        fs::write(parent.join(name).join(FILE_NAME), json).unwrap();
    }

    #[test]
    fn a_new_folder_is_there_at_once_and_a_broken_one_hides_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let catalog = Catalog::new([parent.path()]);
        assert!(catalog.list().templates.is_empty());
        add(parent.path(), "broken", "{");
        add(parent.path(), "web", r#"{"dev": "x"}"#);
        let listing = catalog.list();
        assert_eq!(listing.templates.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["web"]);
        assert_eq!(listing.invalid[0].name, "broken");
        let error = catalog.find("broken").unwrap_err();
        assert!(error.to_string().contains("broken/template.json:1:1: this is not JSON"), "{error}");
        fs::remove_dir_all(parent.path().join("web")).unwrap();
        assert_eq!(catalog.find("web").unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn an_unknown_name_comes_with_the_near_ones() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["vite-react", "node-api"] {
            add(parent.path(), name, "{}");
        }
        let catalog = Catalog::new([parent.path()]);
        let hint = |name: &str| catalog.find(name).unwrap_err().hint_text().unwrap().to_owned();
        assert_eq!(hint("vite-raect"), "did you mean vite-react?");
        assert_eq!(hint("rails"), "there are: node-api, vite-react");
        let nowhere = Catalog::new(Vec::<PathBuf>::new()).find("x").unwrap_err();
        assert!(nowhere.hint_text().unwrap().contains("COREHOLD_TEMPLATES"));
    }

    #[test]
    fn the_earlier_of_two_names_wins_and_the_other_is_reported() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        add(first.path(), "web", r#"{"description": "one"}"#);
        add(second.path(), "other", r#"{"name": "web", "description": "two"}"#);
        let listing = Catalog::new([first.path(), second.path()]).list();
        assert_eq!(listing.templates[0].description.as_deref(), Some("one"));
        assert_eq!(listing.invalid[0].error.kind(), ErrorKind::Conflict);
    }

    #[test]
    fn a_link_to_a_template_has_its_own_name() {
        let (parent, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        add(elsewhere.path(), "original", "{}");
        std::os::unix::fs::symlink(elsewhere.path().join("original"), parent.path().join("linked")).unwrap();
        assert_eq!(Catalog::new([parent.path()]).find("linked").unwrap().name, "linked");
    }

    #[test]
    fn a_missing_folder_of_templates_is_reported_beside_the_others() {
        let parent = tempfile::tempdir().unwrap();
        add(parent.path(), "web", "{}");
        let listing = Catalog::new([Path::new("/nowhere"), parent.path()]).list();
        assert_eq!((listing.templates.len(), listing.invalid.len()), (1, 1));
    }

    #[test]
    fn paths_and_names_are_told_apart() {
        let parent = tempfile::tempdir().unwrap();
        add(parent.path(), "web", "{}");
        let catalog = Catalog::new([parent.path()]);
        assert_eq!(catalog.resolve("web").unwrap().name, "web");
        let path = parent.path().join("web");
        assert_eq!(catalog.resolve(path.to_str().unwrap()).unwrap().folder, fs::canonicalize(path).unwrap());
        assert_eq!(catalog.resolve("./nowhere-at-all").unwrap_err().kind(), ErrorKind::NotFound);
    }
}
