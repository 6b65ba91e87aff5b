//! Limits that a command's caller asks for, as `setrlimit(2)` takes them. The container's own limits are the engine's.

use corehold_types::tools::CommandLimits;

use super::error::StartError;

/// The type that the C library's calls have for a resource: another one with musl.
#[cfg(target_env = "gnu")]
pub(super) type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
pub(super) type Resource = libc::c_int;

/// One limit to set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) resource: Resource,
    pub(super) value: libc::rlimit,
}

/// What is to be set. `open_files` is what commands get where their caller says nothing about it.
pub(super) fn to_set(limits: &CommandLimits, open_files: Option<libc::rlimit>) -> Result<Vec<Limit>, StartError> {
    let mut to_set = Vec::new();
    let wanted = [
        (libc::RLIMIT_CPU, limits.cpu_ms.map(|milliseconds| milliseconds.div_ceil(1_000))),
        (libc::RLIMIT_DATA, limits.memory_bytes),
        (libc::RLIMIT_NPROC, limits.processes),
        (libc::RLIMIT_FSIZE, limits.file_bytes),
    ];
    for (resource, value) in wanted {
        let Some(value) = value else { continue };
        let most = hard_limit(resource)?;
        // A process that catches SIGXCPU has one second to end itself.
        let hard = if resource == libc::RLIMIT_CPU { value.saturating_add(1).min(most) } else { value };
        to_set.push(limit(resource, value, hard, most)?);
    }
    match (limits.open_files, open_files) {
        (Some(value), before) => {
            let most = before.map_or_else(|| hard_limit(libc::RLIMIT_NOFILE), |before| Ok(before.rlim_max))?;
            to_set.push(limit(libc::RLIMIT_NOFILE, value, value, most)?);
        }
        (None, Some(value)) => to_set.push(Limit { resource: libc::RLIMIT_NOFILE, value }),
        (None, None) => {}
    }
    Ok(to_set)
}

fn limit(resource: Resource, soft: u64, hard: u64, most: u64) -> Result<Limit, StartError> {
    if soft == 0 {
        return Err(StartError::Invalid("a limit of a command is at least 1; leave it out for none"));
    }
    if soft > most {
        return Err(StartError::Invalid("a limit of a command is above the most that the container allows"));
    }
    Ok(Limit { resource, value: libc::rlimit { rlim_cur: soft, rlim_max: hard } })
}

fn hard_limit(resource: Resource) -> Result<u64, StartError> {
    let mut value = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live local of the right type.
    match unsafe { libc::getrlimit(resource, &raw mut value) } {
        0 => Ok(value.rlim_max),
        _ => Err(StartError::Internal(std::io::Error::last_os_error())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_nothing_and_beyond_the_hard_limit_are_refused() {
        let open_files = Some(libc::rlimit { rlim_cur: 10, rlim_max: 20 });
        let of = |open_files: u64| CommandLimits { open_files: Some(open_files), ..Default::default() };
        assert!(matches!(to_set(&of(0), open_files), Err(StartError::Invalid(_))));
        assert!(matches!(to_set(&of(21), open_files), Err(StartError::Invalid(_))));
        assert_eq!(to_set(&of(20), open_files).unwrap()[0].value.rlim_cur, 20);
        assert_eq!(to_set(&CommandLimits::default(), open_files).unwrap()[0].value.rlim_cur, 10);
    }

    #[test]
    fn cpu_time_is_rounded_up_to_seconds() {
        let limits = CommandLimits { cpu_ms: Some(1_001), ..Default::default() };
        assert_eq!(to_set(&limits, None).unwrap()[0].value.rlim_cur, 2);
    }
}
