//! Loss of power, simulated at every moment: what was synced is on the disk afterwards, and of the rest some beginning.
//!
//! The work runs on a real folder, which is looked at before each of its steps: what two looks differ in is one change. The disk that a
//! loss of power leaves is put together from these, as file systems keep them that log changes of names (ext4, xfs, btrfs): any
//! beginning of the changes, and those besides that touch a directory which was synced later. Whether a file's name came with its
//! content is not relied upon. Of what was written to a file and not synced there is all, half or nothing. Inodes stay what they
//! were, since each file has a second name elsewhere: journals name files by them.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use super::{
    faults::{Check, prepare, request},
    *,
};
use crate::edit::faults::{Fault, inject, meanwhile, syncs};

/// A name's file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Node {
    inode: u64,
    is_directory: bool,
}

/// What is in a file, and its mode.
type Content = (Vec<u8>, u32);

/// The disk at a moment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Disk {
    names: BTreeMap<PathBuf, Node>,
    files: BTreeMap<u64, Content>,
}

/// What becomes of what was written to files and not synced.
#[derive(Debug, Clone, Copy)]
enum Unsynced {
    Kept,
    Half,
    Lost,
}

/// A workspace, and beside it a second name for each file that it ever had.
struct Lab {
    workspace: PathBuf,
    second_names: PathBuf,
    _temporary: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let temporary = in_memory();
        let [workspace, second_names] = ["workspace", "files"].map(|name| temporary.path().join(name));
        std::fs::create_dir(&workspace).unwrap();
        std::fs::create_dir(&second_names).unwrap();
        prepare(&workspace);
        let lab = Self { workspace, second_names, _temporary: temporary };
        // Now, since it changes the files' ctime, and with it what an edit compares.
        lab.look();
        lab
    }

    fn second_name(&self, inode: u64) -> PathBuf {
        self.second_names.join(inode.to_string())
    }

    fn look(&self) -> Disk {
        let mut disk = Disk { names: BTreeMap::new(), files: BTreeMap::new() };
        let mut open = vec![PathBuf::new()];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(self.workspace.join(&directory)).unwrap() {
                let entry = entry.unwrap();
                let (path, metadata) = (directory.join(entry.file_name()), entry.path().symlink_metadata().unwrap());
                let node = Node { inode: metadata.ino(), is_directory: metadata.is_dir() };
                if node.is_directory {
                    open.push(path.clone());
                } else {
                    let _ = std::fs::hard_link(entry.path(), self.second_name(node.inode));
                }
                if metadata.is_file() {
                    let content = (std::fs::read(entry.path()).unwrap(), metadata.mode() & 0o7777);
                    disk.files.insert(node.inode, content);
                }
                disk.names.insert(path, node);
            }
        }
        disk
    }

    /// Makes the workspace what a disk has. Directories stay the ones that they are.
    fn restore(&self, disk: &Disk) {
        let is_there = |path: &Path| disk.names.get(path).is_some_and(|node| node.is_directory);
        for (path, node) in self.look().names.iter().rev() {
            let full = self.workspace.join(path);
            match node.is_directory {
                true if is_there(path) => {}
                true => std::fs::remove_dir(full).unwrap(),
                false => std::fs::remove_file(full).unwrap(),
            }
        }
        for (inode, (bytes, mode)) in &disk.files {
            let file = self.second_name(*inode);
            if std::fs::read(&file).unwrap() != *bytes {
                std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
                std::fs::write(&file, bytes).unwrap();
            }
            std::fs::set_permissions(&file, PermissionsExt::from_mode(*mode)).unwrap();
        }
        for (path, node) in &disk.names {
            let full = self.workspace.join(path);
            match node.is_directory {
                true if full.is_dir() => {}
                true => std::fs::create_dir(full).unwrap(),
                false => std::fs::hard_link(self.second_name(node.inode), full).unwrap(),
            }
        }
    }

    /// Does something and notes each of its steps.
    fn record(self: &Rc<Self>, exchanges: bool, work: impl FnOnce(&Path)) -> History {
        let looks = Rc::new(RefCell::new(Vec::new()));
        meanwhile({
            let (lab, looks) = (Rc::clone(self), Rc::clone(&looks));
            move || looks.borrow_mut().push(lab.look())
        });
        syncs();
        inject(Fault::Watch, exchanges);
        work(&self.workspace);
        inject(Fault::None, true);
        meanwhile(|| {});
        let mut looks = Rc::into_inner(looks).unwrap().into_inner();
        looks.push(self.look());
        let root = std::fs::metadata(&self.workspace).unwrap().ino();
        History { looks, syncs: syncs(), root }
    }

    /// What an agent finds that starts now and recovers.
    fn recovered(&self) -> BTreeMap<PathBuf, Seen> {
        let root = Root::open(&self.workspace).unwrap();
        recover(&Edits::default(), &root).unwrap();
        without_identity(&look(&self.workspace))
    }
}

/// How the disk looked before each step, and at the end; and which step synced which inode.
struct History {
    looks: Vec<Disk>,
    syncs: Vec<(usize, u64)>,
    root: u64,
}

impl History {
    fn end(&self) -> usize {
        self.looks.len() - 1
    }

    /// The names that a step changed.
    fn changed(&self, step: usize) -> impl Iterator<Item = (&PathBuf, Option<Node>)> {
        let (before, after) = (&self.looks[step].names, &self.looks[step + 1].names);
        let gone = before.keys().filter(|path| !after.contains_key(*path)).map(|path| (path, None));
        let new = after.iter().filter(|(path, node)| before.get(*path) != Some(node));
        gone.chain(new.map(|(path, node)| (path, Some(*node))))
    }

    /// Whether a directory in which the step changed a name was synced before the power went at `end`.
    fn was_synced(&self, step: usize, end: usize) -> bool {
        let of = |path: &Path| match path.parent() {
            Some(parent) if parent != Path::new("") => {
                self.looks[step].names.get(parent).or(self.looks[step + 1].names.get(parent)).map(|node| node.inode)
            }
            _ => Some(self.root),
        };
        let directories: Vec<_> = self.changed(step).filter_map(|(path, _)| of(path)).collect();
        self.syncs.iter().any(|(by, inode)| (step + 1..end).contains(by) && directories.contains(inode))
    }

    /// What is on the disk when the power goes before step `end`, and the file system has written the changes before `logged` by itself.
    fn disk(&self, end: usize, logged: usize, unsynced: Unsynced) -> Disk {
        let mut names = self.looks[0].names.clone();
        for step in (0..end).filter(|step| *step < logged || self.was_synced(*step, end)) {
            for (path, node) in self.changed(step) {
                match node {
                    Some(node) => names.insert(path.clone(), node),
                    None => names.remove(path),
                };
            }
        }
        // What is in a directory that isn't there can't be reached.
        let directories: BTreeSet<_> =
            names.iter().filter(|(_, node)| node.is_directory).map(|(path, _)| path.clone()).collect();
        names.retain(|path, _| {
            let mut above = path.ancestors().skip(1);
            above.all(|directory| directory == Path::new("") || directories.contains(directory))
        });
        let inodes = names.values().filter(|node| !node.is_directory).map(|node| node.inode);
        let files = inodes.filter_map(|inode| Some((inode, self.content(inode, end, unsynced)?))).collect();
        Disk { names, files }
    }

    /// Of a file; nothing of a link.
    fn content(&self, inode: u64, end: usize, unsynced: Unsynced) -> Option<Content> {
        // A file without a name at that moment has what it had before.
        let current = self.looks[..=end].iter().rev().find_map(|look| look.files.get(&inode))?;
        let by = self.syncs.iter().rev().find(|(by, of)| *by < end && *of == inode).map(|(by, _)| *by);
        let synced = self.looks[by.unwrap_or(0)].files.get(&inode).cloned().unwrap_or((Vec::new(), 0o600));
        Some(match unsynced {
            Unsynced::Kept => current.clone(),
            Unsynced::Half if current.0.starts_with(&synced.0) => {
                let length = synced.0.len() + (current.0.len() - synced.0.len()) / 2;
                (current.0[..length].to_vec(), synced.1)
            }
            Unsynced::Half | Unsynced::Lost => synced,
        })
    }

    /// Every disk that a loss of power before step `end` may leave.
    fn disks(&self, end: usize) -> BTreeSet<Disk> {
        let all = (0..=end).flat_map(|logged| {
            [Unsynced::Kept, Unsynced::Half, Unsynced::Lost].map(|unsynced| self.disk(end, logged, unsynced))
        });
        all.collect()
    }
}

fn edit(durable: bool) -> impl FnOnce(&Path) {
    move |folder| drop(World::at(folder).transact(&request(durable)).unwrap())
}

#[test]
fn durable_edits_are_all_old_or_all_new_after_a_loss_of_power_at_any_step() {
    let check = Check::new();
    for exchanges in [true, false] {
        let lab = Rc::new(Lab::new());
        let history = lab.record(exchanges, edit(true));
        let (mut disks, mut both) = (BTreeSet::new(), [0, 0]);
        for end in 0..=history.end() {
            for disk in history.disks(end) {
                lab.restore(&disk);
                let found = lab.recovered();
                let is_new = found == check.new;
                assert!(
                    is_new || found == check.old,
                    "step {end}, exchanges {exchanges}: {disk:#?}\nbecame {found:#?}"
                );
                assert!(is_new || end < history.end(), "an edit that was answered is lost with {disk:#?}");
                both[usize::from(is_new)] += 1;
                disks.insert((disk, is_new));
            }
        }
        assert!(both[0] > 100 && both[1] > 20, "old and new: {both:?}");
        // The power goes again while the next agent recovers, and once it has.
        for (disk, is_new) in disks.into_iter().step_by(11) {
            lab.restore(&disk);
            let recovery = lab.record(exchanges, |_| drop(lab.recovered()));
            let wanted = if is_new { &check.new } else { &check.old };
            for end in 0..=recovery.end() {
                for again in recovery.disks(end) {
                    lab.restore(&again);
                    assert!(lab.recovered() == *wanted, "step {end} of the recovery of {disk:#?}: {again:#?}");
                }
            }
        }
    }
}

/// What is promised then: the agent starts, nothing that the edit doesn't name is touched, and what it names has what it had, what it
/// was to have, or a beginning of that.
#[test]
fn other_edits_may_come_half_but_touch_nothing_else_and_keep_no_agent_from_starting() {
    let check = Check::new();
    let lab = Rc::new(Lab::new());
    let history = lab.record(true, edit(false));
    let mut half = 0;
    for end in 0..=history.end() {
        for disk in history.disks(end) {
            lab.restore(&disk);
            let found = lab.recovered();
            half += u32::from(found != check.old && found != check.new);
            for path in ["untouched", "script-link"].map(Path::new) {
                assert_eq!(found[path], check.old[path], "step {end}: {disk:#?}");
            }
            let known = |bytes: &[u8]| {
                let mut whole = check.old.values().chain(check.new.values());
                whole.any(|seen| seen.bytes.starts_with(bytes))
            };
            let unknown: Vec<_> = found.iter().filter(|(_, seen)| !known(&seen.bytes)).collect();
            assert!(unknown.is_empty(), "step {end}: {unknown:?} after {disk:#?}");
        }
    }
    assert!(half > 10, "the simulation loses something: {half}");
}
