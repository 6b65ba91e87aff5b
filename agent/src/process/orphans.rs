//! Processes whose parents have gone: the kernel makes them the agent's children, and that is how survivors of a command are
//! noticed without searching all of `/proc` at each exit.

use std::{collections::HashMap, fs::File, os::unix::fs::FileExt as _};

use super::members::{self, Whose};

/// The agent's adopted children.
#[derive(Debug)]
pub(super) struct Orphans {
    /// `/proc/self/task/<main>/children`: the main thread adopts. Absent on kernels built without it.
    list: Option<File>,
    /// Whose each is, found out once in its life: nothing can take a process's origin away later.
    known: HashMap<i32, Origin>,
}

#[derive(Debug)]
struct Origin {
    session: Option<i32>,
    command: Option<String>,
}

impl Orphans {
    pub(super) fn open() -> Self {
        let list = File::open(format!("/proc/self/task/{}/children", std::process::id())).ok();
        Self { list, known: HashMap::new() }
    }

    /// Whether any of them may be a command's. Called when its leader has been reaped: what survives it was given to the
    /// agent before.
    pub(super) fn has_any_of(&mut self, whose: Whose<'_>) -> bool {
        let Some(orphans) = self.list.as_ref().and_then(read) else { return true };
        orphans.into_iter().any(|pid| {
            let origin = self
                .known
                .entry(pid)
                .or_insert_with(|| Origin { session: members::session_of(pid), command: members::command_of(pid) });
            origin.session == Some(whose.leader) || origin.command.as_deref() == Some(whose.id)
        })
    }

    /// Whether the agent has children that are no leaders of commands, living or not yet reaped; also where it can't be known.
    pub(super) fn are_there(&self, leaders: &HashMap<i32, u64>) -> bool {
        let children = self.list.as_ref().and_then(read);
        children.is_none_or(|children| children.iter().any(|pid| !leaders.contains_key(pid)))
    }

    /// It was reaped: its pid may come back as another's.
    pub(super) fn forget(&mut self, pid: i32) {
        self.known.remove(&pid);
    }
}

fn read(list: &File) -> Option<Vec<i32>> {
    let (mut bytes, mut length) = (vec![0; 4096], 0);
    loop {
        let read = list.read_at(&mut bytes[length..], length as u64).ok()?;
        if read == 0 {
            break;
        }
        length += read;
        if length == bytes.len() {
            bytes.resize(length * 2, 0);
        }
    }
    std::str::from_utf8(&bytes[..length]).ok()?.split_ascii_whitespace().map(|pid| pid.parse().ok()).collect()
}
