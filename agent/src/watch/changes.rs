//! Changes that wait to be told: those of one file within the quiet time become one.

use std::collections::{HashMap, HashSet};

use corehold_types::tools::ResyncReason;

/// A change, with paths beneath the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// There is something of this name now.
    Created(Vec<u8>, bool),
    /// It was written to.
    Modified(Vec<u8>),
    /// It is gone.
    Removed(Vec<u8>, bool),
    /// It has another name.
    Renamed(Vec<u8>, Vec<u8>, bool),
    /// Something beneath was not seen.
    Resync(Vec<u8>, ResyncReason),
}

impl Change {
    /// The path under which a later change finds it.
    fn path(&self) -> Option<&[u8]> {
        match self {
            Self::Created(path, _) | Self::Modified(path) | Self::Removed(path, _) | Self::Renamed(_, path, _) => {
                Some(path)
            }
            Self::Resync(..) => None,
        }
    }
}

/// Bytes that a change takes, about.
pub(super) fn cost(change: &Change) -> usize {
    let paths = match change {
        Change::Created(path, _) | Change::Modified(path) | Change::Removed(path, _) | Change::Resync(path, _) => {
            path.len()
        }
        Change::Renamed(from, to, _) => from.len() + to.len(),
    };
    paths + size_of::<Change>()
}

/// What waits, in order. Whoever applies it to what he knew before knows what is there. So a file that has come and gone is
/// told as gone: somebody may have listed its directory in between.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Nothing where changes became one.
    list: Vec<Option<Change>>,
    /// The last change of each path.
    last: HashMap<Vec<u8>, usize>,
    /// Files whose end is told, but whose beginning wasn't.
    untold: HashSet<Vec<u8>>,
    /// Created ones that may have taken another's place.
    replacing: HashSet<Vec<u8>>,
    /// What they cost, those that became one with others included.
    bytes: usize,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How much memory they take, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What waited, and nothing waits any more.
    pub(super) fn take(&mut self) -> Vec<Change> {
        self.last.clear();
        self.untold.clear();
        self.replacing.clear();
        self.bytes = 0;
        std::mem::take(&mut self.list).into_iter().flatten().collect()
    }

    pub(super) fn created(&mut self, path: Vec<u8>, directory: bool) {
        match self.pending(&path) {
            // Also seen when the directory was looked through.
            Some(Change::Created(_, was)) if *was == directory => {}
            Some(Change::Removed(_, false)) if !directory && !self.untold.contains(&path) => {
                self.replace(&path, Change::Modified(path.clone()))
            }
            _ => self.push(Change::Created(path, directory)),
        }
    }

    /// It came from where nobody watches, and may have taken another's place.
    pub(super) fn came(&mut self, path: Vec<u8>, directory: bool) {
        if !matches!(self.pending(&path), Some(Change::Created(..))) {
            self.replacing.insert(path.clone());
        }
        self.created(path, directory);
    }

    pub(super) fn modified(&mut self, path: Vec<u8>) {
        if !matches!(self.pending(&path), Some(Change::Created(..) | Change::Modified(_))) {
            self.push(Change::Modified(path));
        }
    }

    /// Something else has taken the file's place at once, in an exchange of names.
    pub(super) fn replaced(&mut self, path: Vec<u8>) {
        match self.pending(&path) {
            Some(Change::Created(..)) if self.replacing.contains(&path) => {
                self.replace(&path, Change::Modified(path.clone()));
            }
            _ => self.modified(path),
        }
    }

    pub(super) fn removed(&mut self, path: Vec<u8>, directory: bool) {
        if directory {
            self.forget_beneath(&path);
        }
        match self.pending(&path) {
            // At the end, behind all that may have come into a directory.
            Some(pending @ (Change::Created(..) | Change::Modified(_))) => {
                if matches!(pending, Change::Created(..)) {
                    self.untold.insert(path.clone());
                }
                self.forget(&path);
                self.push(Change::Removed(path, directory));
            }
            _ => self.push(Change::Removed(path, directory)),
        }
    }

    /// What had this name has left, whatever has it now.
    pub(super) fn left(&mut self, path: Vec<u8>, directory: bool) {
        self.forget_beneath(&path);
        self.forget(&path);
        self.push(Change::Removed(path, directory));
    }

    /// Renames are told one by one: what happens to a directory's name in between changes what each of them means.
    pub(super) fn renamed(&mut self, from: Vec<u8>, to: Vec<u8>, directory: bool) {
        if !directory && matches!(self.pending(&from), Some(Change::Created(..))) {
            // A file that nobody has heard of under its first name, as editors make when they save.
            self.removed(from, false);
            self.push(Change::Created(to, false));
            return;
        }
        // Whatever gets these names later is something else.
        self.last.remove(&from);
        for path in self.names_beneath(&from) {
            self.last.remove(&path);
        }
        self.push(Change::Renamed(from, to, directory));
    }

    pub(super) fn resync(&mut self, path: Vec<u8>, reason: ResyncReason) {
        let change = Change::Resync(path, reason);
        if !self.list.iter().flatten().any(|other| *other == change) {
            self.bytes += cost(&change);
            self.list.push(Some(change));
        }
    }

    /// What is beneath goes with its directory; what came there from elsewhere is gone from there.
    fn forget_beneath(&mut self, path: &[u8]) {
        for index in self.take_beneath(path) {
            if let Some(Change::Renamed(first, _, directory)) = self.list[index].take() {
                self.list[index] = Some(Change::Removed(first, directory));
            }
        }
    }

    /// The changes of what is beneath a directory, in order; they are no longer found by their paths.
    fn take_beneath(&mut self, path: &[u8]) -> Vec<usize> {
        let names = self.names_beneath(path);
        let mut indices: Vec<usize> = names.iter().filter_map(|name| self.last.remove(name)).collect();
        indices.sort_unstable();
        indices
    }

    fn names_beneath(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let prefix = [path, b"/"].concat();
        self.last.keys().filter(|other| other.starts_with(&prefix)).cloned().collect()
    }

    fn pending(&self, path: &[u8]) -> Option<&Change> {
        self.last.get(path).and_then(|index| self.list[*index].as_ref())
    }

    fn forget(&mut self, path: &[u8]) {
        if let Some(index) = self.last.remove(path) {
            self.list[index] = None;
        }
    }

    fn replace(&mut self, path: &[u8], change: Change) {
        if let Some(index) = self.last.get(path) {
            self.list[*index] = Some(change);
        }
    }

    fn push(&mut self, change: Change) {
        self.bytes += cost(&change);
        if let Some(path) = change.path().map(<[u8]>::to_vec) {
            let is_new = matches!(change, Change::Created(..) | Change::Renamed(..));
            if is_new && matches!(self.pending(&path), Some(Change::Created(..) | Change::Modified(_))) {
                self.forget(&path);
            }
            self.last.insert(path, self.list.len());
        }
        self.list.push(Some(change));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(path: &str) -> Vec<u8> {
        path.as_bytes().to_vec()
    }

    /// Words such as `+a` (created), `~a` (modified), `-a` (removed), `a>b` (renamed); a slash at the end makes a directory.
    fn of(words: &str) -> String {
        let mut changes = Changes::default();
        for word in words.split_whitespace() {
            let directory = word.ends_with('/');
            let word = word.trim_end_matches('/');
            match (word.split_at(1), word.split_once('>')) {
                (_, Some((from, to))) => changes.renamed(bytes(from), bytes(to), directory),
                (("+", path), _) => changes.created(bytes(path), directory),
                (("~", path), _) => changes.modified(bytes(path)),
                (("-", path), _) => changes.removed(bytes(path), directory),
                _ => panic!("{word}"),
            }
        }
        let text = |path: Vec<u8>, directory| String::from_utf8(path).unwrap() + if directory { "/" } else { "" };
        let told = changes.take().into_iter().map(|change| match change {
            Change::Created(path, directory) => format!("+{}", text(path, directory)),
            Change::Modified(path) => format!("~{}", text(path, false)),
            Change::Removed(path, directory) => format!("-{}", text(path, directory)),
            Change::Renamed(from, to, directory) => format!("{}>{}", text(from, false), text(to, directory)),
            Change::Resync(..) => panic!(),
        });
        told.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn changes_of_one_file_are_one() {
        for (happened, told) in [
            ("+a ~a ~a", "+a"),
            ("~a ~a", "~a"),
            ("+a -a", "-a"),
            ("~a -a", "-a"),
            ("-a +a", "~a"),
            ("-a/ +a", "-a/ +a"),
            ("-a +a/", "-a +a/"),
            ("+a a>b", "-a +b"),
            ("+a -a +a", "-a +a"),
            ("-a +a -a", "-a"),
            ("-a +a -a +a", "~a"),
            ("a>b b>c", "a>b b>c"),
            ("a>b ~b", "a>b ~b"),
            ("a>b -b", "a>b -b"),
            ("+t t>a -a", "-t -a"),
            ("-a b>a", "-a b>a"),
            ("a>b a>c", "a>b a>c"),
            ("x>t t>a +t t>b", "x>t t>a -t +b"),
            ("x/f>g x>y/ g>h", "x/f>g x>y/ g>h"),
            ("+d/ +d/f x>d/y -d/", "-x -d/"),
            ("+a b>a", "b>a"),
            ("~a a>b", "~a a>b"),
            ("a>b b>a", "a>b b>a"),
            ("+d/ +d/f d>e/ +d/f", "+d/ +d/f d>e/ +d/f"),
            // An editor that saves beside and renames.
            ("+t ~t t>a", "-t +a"),
        ] {
            assert_eq!(of(happened), told, "{happened}");
        }
    }

    #[test]
    fn a_resync_is_told_once() {
        let mut changes = Changes::default();
        changes.resync(bytes("a"), ResyncReason::Rules);
        changes.resync(bytes("a"), ResyncReason::Rules);
        assert_eq!(changes.take(), [Change::Resync(bytes("a"), ResyncReason::Rules)]);
        assert!(changes.is_empty());
    }
}
