//! Which processes hold sockets, as far as the agent may see: those of its own user.

use std::{
    collections::{HashMap, HashSet},
    os::unix::ffi::OsStrExt as _,
};

/// For each of these sockets the process with the lowest id that has it open.
#[must_use]
pub fn holders(inodes: &HashSet<u64>) -> HashMap<u64, u32> {
    let mut found = HashMap::new();
    if inodes.is_empty() {
        return found;
    }
    let Ok(processes) = std::fs::read_dir("/proc") else { return found };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        // It may have ended, or be another user's.
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(target) = std::fs::read_link(descriptor.path()) else { continue };
            if let Some(inode) = socket(target.as_os_str().as_bytes()).filter(|inode| inodes.contains(inode)) {
                found.entry(inode).and_modify(|lowest: &mut u32| *lowest = pid.min(*lowest)).or_insert(pid);
            }
        }
    }
    found
}

/// `socket:[inode]`, as `proc_pid_fd(5)` has it.
fn socket(target: &[u8]) -> Option<u64> {
    let inode = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(inode).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_are_sockets() {
        assert_eq!(socket(b"socket:[42]"), Some(42));
        for other in [&b"pipe:[42]"[..], b"socket:[]", b"socket:[42", b"socket:[-1]", b"/app/socket:[42]", b"\xff"] {
            assert_eq!(socket(other), None);
        }
    }
}
