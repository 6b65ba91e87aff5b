//! What a request of `edit` means: which files, which content, in which place; then the transaction and its answer.
//!
//! All entries speak of the files as they are before. So the plan is made in passes over all entries: where they lead, who
//! claims which file, what becomes of each content, and at last who fills which name. Nothing is touched before `commit`.

mod answer;
mod check;

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use corehold_types::{
    Code, Problem, WorkspacePath,
    tools::{EditOperation, EditRequest, EditResponse, FileEdit},
};

use super::{
    Edits,
    commit::{self, Change, Failed, Last},
    disk,
    location::{CHEAP, Location, Snapshot, Take, size},
    locks::Key,
    operations::{self, Text, changes_content},
};
use crate::{
    config::{Limit, Limits},
    root::{FinalLink, Root, is_current},
};

/// How often a transaction is planned anew because somebody else changed one of its files meanwhile.
const RACES: u32 = 8;

/// Does what a request asks, all of it or nothing. Blocks.
///
/// # Errors
/// A [`Problem`] whose context names the entry (`file`) and the operation (`operation`), both counted from 0.
pub fn transact(edits: &Edits, root: &Root, limits: &Limits, request: &EditRequest) -> Result<EditResponse, Problem> {
    check::request(limits, request)?;
    edits.settle(root)?;
    let mut races = 0;
    let mut least = 0;
    loop {
        match attempt(edits, root, limits, request, least) {
            Ok(response) => return Ok(response),
            // It was more than the sizes said: a replacement in many places, or a file that grew.
            Err(Raced::Problem(problem)) if least == 0 && is_about_content(&problem, limits) => {
                least = limits.edit_bytes.value;
            }
            Err(Raced::Problem(problem)) => return Err(problem),
            Err(Raced::Again(path)) => {
                races += 1;
                if races == RACES {
                    let what = format!("{path} is being changed by somebody else all the time");
                    return Err(Problem::new(Code::VersionMismatch, what).with("path", check::path_value(&path)));
                }
            }
        }
    }
}

/// Why an attempt came to nothing.
enum Raced {
    /// Somebody else changed this file: the next attempt sees what it is now.
    Again(WorkspacePath),
    Problem(Problem),
}

impl From<Problem> for Raced {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

fn is_about_content(problem: &Problem, limits: &Limits) -> bool {
    problem.code == Code::LimitExceeded
        && problem.context.get("name").is_some_and(|name| name == limits.edit_bytes.name)
}

/// `least` is what it may hold of content at least, whatever the sizes say.
fn attempt(
    edits: &Edits,
    root: &Root,
    limits: &Limits,
    request: &EditRequest,
    least: u64,
) -> Result<EditResponse, Raced> {
    let keys = |places: &Places| places.locations.keys().cloned().collect::<Vec<_>>();
    let places = Places::resolve(root, request)?;
    let wanted = keys(&places);
    let content = edits.memory.take(places.content(request).max(least), limits.edit_bytes.value);
    let _held = edits.locks.hold(wanted.iter().cloned());
    // Again, now that nobody of ours changes them: a link may lead elsewhere than it did.
    let places = Places::resolve(root, request)?;
    if keys(&places) != wanted {
        return Err(Raced::Again(request.files[0].path.clone()));
    }
    let mut plan = Plan::new(limits, request, places, content.bytes())?;
    plan.claim()?;
    plan.work_out()?;
    plan.fill()?;
    let mut response = plan.answer(root)?;
    if !response.dry_run {
        let durable = request.durable.unwrap_or(false);
        let directories = commit::commit(edits, root, &plan.changes, durable).map_err(|failed| match failed {
            Failed::Raced(change) => Raced::Again(plan.changes[change].location.path.clone()),
            Failed::Problem(problem) => Raced::Problem(problem),
        })?;
        plan.add_versions(&mut response, &directories);
    }
    Ok(response)
}

/// Where the paths of a request lead.
struct Places {
    locations: BTreeMap<Key, Location>,
    /// Of each entry.
    paths: Vec<Key>,
    /// Of each entry that renames, where to.
    renamed: Vec<Option<Key>>,
}

impl Places {
    fn resolve(root: &Root, request: &EditRequest) -> Result<Self, Problem> {
        let mut places = Self { locations: BTreeMap::new(), paths: Vec::new(), renamed: Vec::new() };
        let mut directories = HashMap::new();
        for (index, file) in request.files.iter().enumerate() {
            let in_entry = |problem: Problem| check::in_entry(problem, index, &file.path);
            let leaves = file.operations.iter().any(|operation| !changes_content(operation));
            let link = if leaves { FinalLink::Keep } else { FinalLink::Follow };
            let path = Location::resolve(root, &file.path, link).map_err(in_entry)?;
            let key = places.add(path, &mut directories);
            places.paths.push(key);
            let renamed = match rename_of(file) {
                Some((to, _)) => Some(Location::resolve(root, to, FinalLink::Keep).map_err(in_entry)?),
                None => None,
            };
            let renamed = renamed.map(|location| places.add(location, &mut directories));
            places.renamed.push(renamed);
        }
        Ok(places)
    }

    /// Bytes of content, old and new, that a plan will hold, as far as the files' sizes and the request tell.
    fn content(&self, request: &EditRequest) -> u64 {
        let sizes = request.files.iter().zip(&self.paths).map(|(file, key)| {
            let brings: u64 = file.operations.iter().map(operations::brings).sum();
            let stat = self.locations.get(key).and_then(|location| location.stat().ok().flatten());
            let old = stat.map_or(0, |stat| size(&stat));
            // A file that only goes or gets another name is read if it is small.
            if file.operations.iter().any(changes_content) { 2 * old + brings } else { old.min(CHEAP) }
        });
        sizes.sum()
    }

    /// Adds a location. Those in one directory share its descriptor, of which there are not too many.
    fn add(&mut self, mut location: Location, directories: &mut HashMap<(u64, u64), Rc<std::os::fd::OwnedFd>>) -> Key {
        let key = location.key.clone();
        let shared = directories.entry((key.device, key.directory)).or_insert_with(|| Rc::clone(&location.directory));
        location.directory = Rc::clone(shared);
        self.locations.entry(key.clone()).or_insert(location);
        key
    }
}

fn rename_of(file: &FileEdit) -> Option<(&WorkspacePath, bool)> {
    file.operations.iter().rev().find_map(|operation| match operation {
        EditOperation::Rename { to, overwrite } => Some((to, overwrite.unwrap_or(false))),
        _ => None,
    })
}

fn creation_of(file: &FileEdit) -> Option<(bool, Option<u32>)> {
    match file.operations.first() {
        Some(EditOperation::Create { overwrite, mode, .. }) => Some((overwrite.unwrap_or(false), *mode)),
        _ => None,
    }
}

/// What becomes of one entry.
struct Entry<'a> {
    file: &'a FileEdit,
    /// The change at its path.
    path: usize,
    /// The change where its file ends; nothing when it is deleted.
    end: Option<usize>,
    /// Whether there was a file at its path that it works on. Not so for one that it makes.
    works_on_old: bool,
    /// The content at the end, if it is another than before.
    text: Option<Text>,
}

struct Plan<'a> {
    limits: &'a Limits,
    request: &'a EditRequest,
    changes: Vec<Change>,
    entries: Vec<Entry<'a>>,
    /// For each change, the entry that works on the file that is there.
    claimed: Vec<Option<usize>>,
    /// Bytes of content that may still be held.
    budget: Limit,
}

impl<'a> Plan<'a> {
    fn new(limits: &'a Limits, request: &'a EditRequest, places: Places, content: u64) -> Result<Self, Problem> {
        let index: HashMap<Key, usize> = places.locations.keys().cloned().zip(0..).collect();
        let changes: Vec<Change> = places
            .locations
            .into_values()
            .map(|location| Change { location, initial: None, last: Last::Kept })
            .collect();
        let entries = request.files.iter().zip(&places.paths).zip(&places.renamed).map(|((file, path), renamed)| {
            let deletes = matches!(file.operations.last(), Some(EditOperation::Delete {}));
            let path = index[path];
            let end = (!deletes).then(|| renamed.as_ref().map_or(path, |renamed| index[renamed]));
            Entry { file, path, end, works_on_old: creation_of(file).is_none(), text: None }
        });
        let entries = entries.collect();
        let claimed = vec![None; changes.len()];
        let budget = Limit { value: content, ..limits.edit_bytes };
        Ok(Self { limits, request, changes, entries, claimed, budget })
    }

    /// Which entry works on which file; no file is worked on by two.
    fn claim(&mut self) -> Result<(), Problem> {
        for (index, entry) in self.entries.iter().enumerate().filter(|(_, entry)| entry.works_on_old) {
            if let Some(other) = self.claimed[entry.path].replace(index) {
                return Err(self.two_entries(index, other, "both name the same file"));
            }
        }
        // An entry that makes a file replaces the one that is there, unless that one leaves.
        for (index, entry) in self.entries.iter_mut().enumerate().filter(|(_, entry)| !entry.works_on_old) {
            let overwrites = creation_of(entry.file).is_some_and(|(overwrite, _)| overwrite);
            if overwrites && self.claimed[entry.path].is_none() {
                self.claimed[entry.path] = Some(index);
            }
        }
        Ok(())
    }

    /// Looks at every file, checks what was expected, and works out the contents.
    fn work_out(&mut self) -> Result<(), Raced> {
        for change in 0..self.changes.len() {
            let entry = self.claimed[change].map(|entry| (entry, self.entries[entry].file));
            let take = match entry {
                Some((entry, file)) if file.operations.iter().any(changes_content) => match &self.entries[entry] {
                    entry if entry.works_on_old => Take::Everything,
                    _ => Take::Replaced(check::length_of_creation(file)),
                },
                Some((entry, _)) if self.crosses_devices(entry) => Take::Everything,
                Some(_) => Take::IfCheap,
                None => Take::Nothing,
            };
            let budget = self.budget;
            let too_large =
                |size| (size > budget.value).then(|| self.limits.edit_bytes.exceeded("the content of the files"));
            let taken = Snapshot::take(&self.changes[change].location, take, too_large);
            let taken = taken.map_err(|problem| match entry {
                Some((entry, file)) => check::in_entry(problem, entry, &file.path),
                None => problem,
            })?;
            if let Some(bytes) = taken.as_ref().and_then(|taken| taken.bytes.as_ref()) {
                self.budget.value -= (bytes.len() as u64).min(self.budget.value);
            }
            self.changes[change].initial = taken;
        }
        for index in 0..self.entries.len() {
            let path = self.entries[index].file.path.clone();
            self.check_expected(index)?;
            self.work_out_entry(index).map_err(|problem| check::in_entry(problem, index, &path))?;
        }
        Ok(())
    }

    fn crosses_devices(&self, entry: usize) -> bool {
        let Entry { path, end, .. } = &self.entries[entry];
        end.is_some_and(|end| self.changes[end].location.key.device != self.changes[*path].location.key.device)
    }

    fn check_expected(&self, index: usize) -> Result<(), Raced> {
        let entry = &self.entries[index];
        let Some(expected) = &entry.file.expected else { return Ok(()) };
        let location = &self.changes[entry.path].location;
        let mismatch = |what: String, current: Option<String>| {
            let problem = Problem::new(Code::VersionMismatch, what).with("expected", expected.as_str());
            let problem = match current {
                Some(current) => problem.with("version", current),
                None => problem,
            };
            Raced::Problem(check::in_entry(problem.suggest("read the file again"), index, &entry.file.path))
        };
        let Some(initial) = &self.changes[entry.path].initial else {
            return Err(mismatch(format!("{} does not exist", entry.file.path), None));
        };
        if initial.is_symlink() {
            return Err(mismatch(format!("{} is a symbolic link, which has no version", entry.file.path), None));
        }
        let again = || Raced::Again(entry.file.path.clone());
        let file = disk::open(location.fd(), &location.name).map_err(|_| again())?;
        let errno = |error: std::io::Error| {
            location.problem(rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO), "read")
        };
        let current = is_current(&file, expected).map_err(errno)?;
        let unchanged = initial.is_at(location.fd(), &location.name, false).map_err(|_| again())?;
        match (unchanged, current) {
            (false, _) => Err(again()),
            (true, true) => Ok(()),
            (true, false) => {
                let version = crate::root::Version::of(&file).map_err(errno)?.into_string();
                Err(mismatch(format!("{} has changed since", entry.file.path), Some(version)))
            }
        }
    }

    /// What becomes of an entry's content.
    fn work_out_entry(&mut self, index: usize) -> Result<(), Problem> {
        let entry = &self.entries[index];
        let location = &self.changes[entry.path].location;
        let initial = self.changes[entry.path].initial.as_ref();
        let leaves_for_another = self.claimed[entry.path].is_some_and(|other| other != index);
        match (entry.works_on_old, initial) {
            (true, None) => return Err(location.problem(rustix::io::Errno::NOENT, "edit")),
            (false, Some(_)) if self.claimed[entry.path].is_none() => {
                return Err(location
                    .problem(rustix::io::Errno::EXIST, "create")
                    .suggest("give `overwrite: true` to replace it, or change it with the other operations"));
            }
            _ => {}
        }
        if initial.is_some_and(Snapshot::is_symlink) && !leaves_for_another {
            check::link(entry.file)?;
        }
        if !entry.file.operations.iter().any(changes_content) && !self.crosses_devices(index) {
            return Ok(());
        }
        let old = if leaves_for_another { None } else { initial.and_then(|initial| initial.bytes.as_deref()) };
        let mut text = Text { bytes: old.unwrap_or_default().to_vec(), ..Text::default() };
        for (number, operation) in entry.file.operations.iter().enumerate() {
            operations::apply(&mut text, operation, self.budget)
                .map_err(|problem| problem.with("operation", number as u64))?;
        }
        let mode = creation_of(entry.file).and_then(|(_, mode)| mode);
        let same_mode = mode.is_none_or(|mode| initial.is_some_and(|initial| initial.stat.st_mode & 0o7777 == mode));
        let same = !leaves_for_another && old == Some(&text.bytes) && same_mode && !self.crosses_devices(index);
        if !same {
            self.budget.value -= (text.bytes.len() as u64).min(self.budget.value);
            self.entries[index].text = Some(text);
        }
        Ok(())
    }

    /// Who fills which name at the end; no name is filled by two.
    fn fill(&mut self) -> Result<(), Problem> {
        let mut filled: Vec<Option<usize>> = vec![None; self.changes.len()];
        for (index, entry) in self.entries.iter().enumerate() {
            let Some(end) = entry.end else { continue };
            if let Some(other) = filled[end].replace(index) {
                return Err(self.two_entries(index, other, "both end at the same path"));
            }
            let replaces = self.changes[end].initial.is_some() && self.claimed[end].is_none();
            let may = rename_of(entry.file).is_some_and(|(_, overwrite)| overwrite);
            if replaces && end != entry.path && !may {
                let location = &self.changes[end].location;
                let problem = location.problem(rustix::io::Errno::EXIST, "rename to");
                let problem = problem.suggest("give `overwrite: true` to replace it");
                return Err(check::in_entry(problem, index, &entry.file.path));
            }
        }
        for (change, filled) in filled.into_iter().enumerate() {
            let last = match filled {
                Some(index) => self.last_of(index, change),
                // Its file is deleted or renamed. (A file that nobody claims is only here because somebody fills its name.)
                None if self.claimed[change].is_some() => Last::Nothing,
                None => Last::Kept,
            };
            self.changes[change].last = last;
        }
        Ok(())
    }

    fn last_of(&mut self, index: usize, change: usize) -> Last {
        let entry = &mut self.entries[index];
        let has_old = self.claimed[entry.path] == Some(index) && self.changes[entry.path].initial.is_some();
        match &mut entry.text {
            Some(text) => Last::Content {
                // The answer is made from the entry's text, so the change takes a copy only of what it writes.
                bytes: text.bytes.clone(),
                like: has_old.then_some(entry.path),
                mode: creation_of(entry.file).and_then(|(_, mode)| mode),
            },
            None if entry.path == change => Last::Kept,
            None => Last::Moved { from: entry.path },
        }
    }

    fn two_entries(&self, index: usize, other: usize, what: &str) -> Problem {
        let (one, two) = (&self.entries[other].file.path, &self.entries[index].file.path);
        let detail = format!("files[{other}] ({one}) and files[{index}] ({two}) {what}");
        let suggestion = "give all operations of a file in one entry; links may make two paths one file";
        check::in_entry(Problem::new(Code::InvalidRequest, detail).suggest(suggestion), index, two)
    }
}

/// Bytes of content before and after an entry, where they are known.
impl Plan<'_> {
    fn old_bytes(&self, entry: &Entry<'_>) -> Option<&[u8]> {
        let initial = self.changes[entry.path].initial.as_ref();
        initial.and_then(|initial| initial.bytes.as_deref())
    }

    fn old_size(&self, entry: &Entry<'_>) -> u64 {
        self.changes[entry.path].initial.as_ref().map_or(0, |initial| size(&initial.stat))
    }
}
