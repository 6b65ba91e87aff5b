//! What a file is besides its content, and how a new file in its place gets it: mode, owner, group, extended attributes
//! (access control lists among them).
//!
//! Not kept, as for any file that is written: file capabilities and labels of security modules, which the kernel drops or
//! sets itself, and the times.

use std::{ffi::CString, fs::File};

use corehold_types::{Code, Problem, WorkspacePath};
use rustix::{
    fs::{Gid, Mode, Stat, Uid, XattrFlags},
    io::Errno,
};

use super::disk;

/// The attributes of a file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    extended: Vec<(CString, Vec<u8>)>,
}

impl Attributes {
    /// Of something whose attributes don't matter.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    pub(crate) fn of(file: &File, stat: &Stat) -> Result<Self, Errno> {
        Ok(Self { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, extended: extended(file)? })
    }

    /// Gives them to a new file; `mode` instead of the old one if there is one.
    pub(crate) fn give(&self, file: &File, mode: Option<u32>, path: &WorkspacePath) -> Result<(), Problem> {
        let errno = |errno| crate::root::os_problem(errno, "keep the attributes of", path);
        let now = rustix::fs::fstat(file).map_err(errno)?;
        if (now.st_uid, now.st_gid) != (self.uid, self.gid) {
            let owner = (now.st_uid != self.uid).then(|| Uid::from_raw(self.uid));
            let given = disk::attribute(|| rustix::fs::fchown(file, owner, Some(Gid::from_raw(self.gid))));
            given.map_err(|error| match error {
                Errno::PERM => Problem::new(
                    Code::PermissionDenied,
                    format!("{path} belongs to user {} and group {}, which the agent can't keep", self.uid, self.gid),
                )
                .suggest("copy the file, edit the copy, and put it in the place of the file"),
                error => errno(error),
            })?;
        }
        for (name, value) in &self.extended {
            disk::attribute(|| rustix::fs::fsetxattr(file, name.as_c_str(), value, XattrFlags::empty()))
                .map_err(errno)?;
        }
        // Last: a change of the owner takes set-user-id bits away, and an access control list has a say in the mode.
        disk::attribute(|| rustix::fs::fchmod(file, Mode::from_raw_mode(mode.unwrap_or(self.mode)))).map_err(errno)
    }
}

/// Those that belong to the file's owner; a file system without any has none.
fn extended(file: &File) -> Result<Vec<(CString, Vec<u8>)>, Errno> {
    let mut names = vec![0_u8; 1 << 10];
    let names = loop {
        match rustix::fs::flistxattr(file, &mut names) {
            Ok(length) => break &names[..length],
            // The kernel's own bound is 64 KiB.
            Err(Errno::RANGE) if names.len() < 1 << 17 => names = vec![0; names.len() * 4],
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        }
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if !name.starts_with(b"user.") && !name.starts_with(b"system.posix_acl_access") {
            continue;
        }
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let mut value = vec![0_u8; 256];
        loop {
            match rustix::fs::fgetxattr(file, name.as_c_str(), &mut value) {
                Ok(length) => {
                    value.truncate(length);
                    found.push((name, value));
                    break;
                }
                Err(Errno::RANGE) if value.len() < 1 << 17 => value = vec![0; value.len() * 4],
                // Removed in between.
                Err(Errno::NODATA) => break,
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(found)
}
