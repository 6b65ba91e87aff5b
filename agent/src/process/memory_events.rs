//! Whether the kernel killed processes of the workspace for want of memory, as its control group counts it.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

/// The open file with the group's counter, where there is one.
#[derive(Debug)]
pub(super) struct MemoryEvents(Option<File>);

impl MemoryEvents {
    /// Opens this counter, or finds that of the agent's own group: `memory.events` (v2) or `memory.oom_control` (v1).
    pub(super) fn open(named: Option<&Path>) -> Self {
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let paths = named.map_or_else(|| candidates(&groups), |path| vec![path.to_owned()]);
        Self(paths.iter().find_map(|path| {
            let events = Self(Some(File::open(path).ok()?));
            events.kills().is_some().then_some(events.0).flatten()
        }))
    }

    /// How many processes were killed so far; `None` where it can't be known.
    pub(super) fn kills(&self) -> Option<u64> {
        let mut bytes = [0; 1024];
        let read = self.0.as_ref()?.read_at(&mut bytes, 0).ok()?;
        parse(std::str::from_utf8(&bytes[..read]).ok()?)
    }
}

/// Both versions have a line `oom_kill N` (v1 since Linux 4.13).
fn parse(events: &str) -> Option<u64> {
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// Where the counter may be. Inside a container the group's own path is often not visible, and its files lie at the top.
fn candidates(groups: &str) -> Vec<PathBuf> {
    let mut candidates = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            let top = Path::new("/sys/fs/cgroup");
            candidates.extend([top.join(path).join("memory.events"), top.join("memory.events")]);
        } else if controllers.split(',').any(|controller| controller == "memory") {
            let top = Path::new("/sys/fs/cgroup/memory");
            candidates.extend([top.join(path).join("memory.oom_control"), top.join("memory.oom_control")]);
        }
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        assert_eq!(parse("low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 9\n"), Some(2));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), Some(7));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\n"), None);
    }

    #[test]
    fn the_own_group_comes_before_the_top() {
        assert_eq!(
            candidates("11:cpu,cpuacct:/x\n4:memory:/docker/abc\n"),
            [
                PathBuf::from("/sys/fs/cgroup/memory/docker/abc/memory.oom_control"),
                PathBuf::from("/sys/fs/cgroup/memory/memory.oom_control")
            ]
        );
        assert_eq!(candidates("0::/\n")[1], PathBuf::from("/sys/fs/cgroup/memory.events"));
    }
}
