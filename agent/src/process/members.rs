//! Which processes belong to a command, found in `/proc`, and signals to all of them.
//!
//! A process is a member if it is in the leader's session, or descends from a member, or has the command's name in its
//! environment. A process that left its session, lost its parents and cleared its environment is out of reach.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::Read as _,
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::process::{Pid, PidfdFlags, Signal};

use super::environment;

/// Bytes of a process's environment that are searched for the command's name.
const ENVIRONMENT_BYTES: u64 = 256 * 1024;

/// One living process, as `/proc/<pid>/stat` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    parent: i32,
    group: i32,
    session: i32,
    /// Clock ticks since boot: with the pid it names the process for ever.
    started: u64,
}

/// Whose members are looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose<'a> {
    /// The command's name in the environment.
    pub(super) id: &'a str,
    /// The leader's pid, which is its session's id too.
    pub(super) leader: i32,
    /// Whether the leader is no zombie yet: once it is reaped, a process with its pid is another one.
    pub(super) leader_is_there: bool,
}

/// All members that live (zombies don't).
pub(super) fn find(whose: Whose<'_>) -> Vec<Process> {
    let processes = all();
    let own = std::process::id() as i32;
    // After the leader is gone its pid can only be used again when its session has ended too.
    let session_is_ours = whose.leader_is_there || !processes.iter().any(|process| process.pid == whose.leader);
    let mut members: HashSet<i32> = processes
        .iter()
        .filter(|process| process.pid != own)
        .filter(|process| (session_is_ours && process.session == whose.leader) || is_named(process.pid, whose.id))
        .map(|process| process.pid)
        .collect();
    // Children of members, and theirs; parents may have higher pids than their children, so until nothing changes.
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for process in &processes {
        children.entry(process.parent).or_default().push(process.pid);
    }
    let mut to_visit: Vec<i32> = members.iter().copied().collect();
    while let Some(parent) = to_visit.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if members.insert(*child) {
                to_visit.push(*child);
            }
        }
    }
    processes.into_iter().filter(|process| members.contains(&process.pid)).collect()
}

/// Sends a signal to all of them, once each: to the leader's process group as a whole, so that none is missed that is just
/// being forked, and to the others one by one. Returns how many there were.
pub(super) fn signal(members: &[Process], leader: i32, signal: Signal) -> usize {
    let (in_group, others): (Vec<&Process>, Vec<&Process>) = members.iter().partition(|member| member.group == leader);
    let mut reached = 0;
    if !in_group.is_empty()
        && let Some(group) = Pid::from_raw(leader)
        && rustix::process::kill_process_group(group, signal).is_ok()
    {
        reached += in_group.len();
    }
    for member in others {
        reached += usize::from(signal_one(member, signal));
    }
    reached
}

fn signal_one(member: &Process, signal: Signal) -> bool {
    let Some(pid) = Pid::from_raw(member.pid) else { return false };
    match handle(member) {
        Some(handle) => rustix::process::pidfd_send_signal(handle.as_fd(), signal).is_ok(),
        // A kernel or engine without pidfds; look again as late as possible.
        None => is_still(member) && rustix::process::kill_process(pid, signal).is_ok(),
    }
}

/// A descriptor of a member that becomes readable when it ends; none when it has ended already.
pub(super) fn handle(member: &Process) -> Option<OwnedFd> {
    let handle = rustix::process::pidfd_open(Pid::from_raw(member.pid)?, PidfdFlags::empty()).ok()?;
    // Opened first, looked at afterwards: what it names now is what it names for ever.
    is_still(member).then_some(handle)
}

fn is_still(member: &Process) -> bool {
    read_stat(member.pid).is_some_and(|now| now.started == member.started)
}

fn all() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| read_stat(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

/// The session of a process, living or not.
pub(super) fn session_of(pid: i32) -> Option<i32> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?).map(|(process, _)| process.session)
}

/// The command that a process says it belongs to, by its environment.
pub(super) fn command_of(pid: i32) -> Option<String> {
    let environ = read_environment(pid)?;
    environment::command_named(&environ).and_then(|id| String::from_utf8(id.to_vec()).ok())
}

fn read_stat(pid: i32) -> Option<Process> {
    let (process, state) = parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    (!matches!(state, 'Z' | 'X')).then_some(process)
}

/// `proc_pid_stat(5)`: the name in parentheses may itself hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<(Process, char)> {
    let (pid, rest) = stat.split_once(' ')?;
    let mut fields = rest.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let mut number = || fields.next()?.parse::<i64>().ok();
    let (parent, group, session) = (number()?, number()?, number()?);
    // The start time is field 22; those up to the session were fields 1 to 6.
    let started = fields.nth(15)?.parse().ok()?;
    let narrow = |value: i64| i32::try_from(value).ok();
    let process = Process {
        pid: pid.parse().ok()?,
        parent: narrow(parent)?,
        group: narrow(group)?,
        session: narrow(session)?,
        started,
    };
    Some((process, state))
}

fn is_named(pid: i32, id: &str) -> bool {
    read_environment(pid).is_some_and(|environ| environment::names_command(&environ, id))
}

fn read_environment(pid: i32) -> Option<Vec<u8>> {
    let mut environ = Vec::new();
    File::open(format!("/proc/{pid}/environ")).ok()?.take(ENVIRONMENT_BYTES).read_to_end(&mut environ).ok()?;
    Some(environ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_parentheses_does_not_mislead() {
        let stat = "42 (a) R 1 (b)) S 7 40 39 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 987654 1000 10";
        let (process, state) = parse_stat(stat).unwrap();
        assert_eq!(state, 'S');
        assert_eq!(process, Process { pid: 42, parent: 7, group: 40, session: 39, started: 987_654 });
    }

    #[test]
    fn this_process_is_found_in_its_session() {
        let own = std::process::id() as i32;
        let process = read_stat(own).unwrap();
        assert_eq!(Some(process.session), session_of(own));
        assert!(is_still(&process));
        assert!(!is_still(&Process { started: process.started + 1, ..process }));
    }
}
