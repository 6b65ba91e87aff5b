//! Which host processes live, without a clock: each holds a lock on a file of its own, and the kernel lets go of it however the
//! process ends. Whoever can take another's lock knows that it is gone.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    error::{Error, ErrorKind, Result},
    workspace::random_word,
};

/// Characters of a process's name: nobody has it again.
const NAME_CHARACTERS: usize = 16;

/// A host, as long as it lives: what it began, nobody else finishes.
#[derive(Debug)]
pub(crate) struct HostProcess {
    folder: PathBuf,
    name: String,
    /// The lock is the open file's.
    _file: File,
}

impl HostProcess {
    /// Begins to live. The locks of the dead are cleared away.
    pub(crate) fn begin(home: &Path) -> Result<Self> {
        let folder = home.join("hosts");
        let fail = |error: io::Error| {
            let shown = folder.display();
            Error::new(ErrorKind::Io, format!("this host can't say in {shown} that it lives: {error}")).caused_by(error)
        };
        fs::create_dir_all(&folder).map_err(fail)?;
        loop {
            let name = random_word(NAME_CHARACTERS)?;
            let path = path(&folder, &name);
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(fail)?;
            // Nobody holds it for longer than a look.
            flock(&file, FlockOperation::LockExclusive).map_err(|error| fail(error.into()))?;
            // Somebody who cleared away found it in the moment before it was locked.
            if !is_at(&file, &path).map_err(fail)? {
                continue;
            }
            let process = Self { folder, name, _file: file };
            process.clear_away();
            return Ok(process);
        }
    }

    /// Its name, by which others ask whether it lives.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether a process lives; this one does. Of what can't be looked into, nobody knows that it is dead.
    pub(crate) fn lives(&self, name: &str) -> bool {
        if name == self.name {
            return true;
        }
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        // What can't be a name of ours never lived.
        !name.is_empty() && name.bytes().all(plain) && !self.is_dead(&path(&self.folder, name))
    }

    /// Whether the lock can be taken, or is gone. The dead don't come back: no name is given twice.
    fn is_dead(&self, path: &Path) -> bool {
        match File::open(path) {
            // Shared: two who look at once don't take each other for it.
            Ok(file) => flock(&file, FlockOperation::NonBlockingLockShared).is_ok(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    fn clear_away(&self) {
        let own = path(&self.folder, &self.name);
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path == own || path.extension().is_none_or(|extension| extension != "lock") {
                continue;
            }
            let Ok(file) = File::open(&path) else { continue };
            // Held until the file is gone: who has made it and is about to lock it gets the lock only then, and sees that it is gone.
            if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
                // Another one may have cleared it away already.
                let _ = fs::remove_file(path);
            }
        }
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        let _ = fs::remove_file(path(&self.folder, &self.name));
    }
}

fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.lock"))
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_until_it_ends_whatever_the_clock_says() {
        let home = tempfile::tempdir().unwrap();
        let one = HostProcess::begin(home.path()).unwrap();
        let two = HostProcess::begin(home.path()).unwrap();
        let name = two.name().to_owned();
        let lock = path(&two.folder, &name);
        assert!(one.lives(&name) && two.lives(one.name()) && one.lives(one.name()));
        File::open(&lock).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert!(one.lives(&name));
        drop(two);
        assert!(!one.lives(&name));
        for never in ["", "../../etc/passwd", "A"] {
            assert!(!one.lives(never), "{never:?}");
        }
    }

    /// As the kernel leaves it when a process is killed: the file is there, its lock is not.
    #[test]
    fn the_lock_of_one_that_was_killed_is_free_and_is_cleared_away() {
        let home = tempfile::tempdir().unwrap();
        let one = HostProcess::begin(home.path()).unwrap();
        let left = path(&one.folder, "killed");
        File::create(&left).unwrap();
        assert!(!one.lives("killed"));
        let two = HostProcess::begin(home.path()).unwrap();
        assert!(!left.exists() && two.lives(one.name()), "only the dead are cleared away");
    }

    #[test]
    fn many_that_begin_at_once_all_live() {
        // Once in some dozen rounds, one cleared away the file of another who was about to lock it.
        for _ in 0..100 {
            let home = tempfile::tempdir().unwrap();
            let all: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> =
                    (0..16).map(|_| scope.spawn(|| HostProcess::begin(home.path()).unwrap())).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(all.iter().all(|one| all.iter().all(|other| one.lives(other.name()))));
        }
    }
}
