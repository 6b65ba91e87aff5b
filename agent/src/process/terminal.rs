//! A pseudo-terminal: opening one and telling its size. What goes through it is the keeper's and `input`'s business.

use std::os::fd::{AsFd, OwnedFd};

use corehold_types::tools::PtySize;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    pty::OpenptFlags,
    termios::{SpecialCodeIndex, Winsize},
};

/// Both ends of a new terminal of this size: ours, which never waits, and the command's.
///
/// No library is asked for the name of the other end: it is opened through ours, so `/dev/pts` needn't be what we see.
pub(super) fn open(size: PtySize) -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&ours)?;
    resize(&ours, size)?;
    let theirs = match rustix::pty::ioctl_tiocgptpeer(&ours, flags) {
        // Kernels before 4.13, and sandboxes that don't know the call.
        Err(Errno::NOTTY | Errno::INVAL | Errno::NOSYS) => {
            let name = rustix::pty::ptsname(&ours, Vec::new())?;
            rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?
        }
        theirs => theirs?,
    };
    rustix::fs::fcntl_setfl(&ours, OFlags::RDWR | OFlags::NONBLOCK)?;
    Ok((ours, theirs))
}

/// Sets the size; where it changed, the kernel tells the foreground processes by SIGWINCH.
pub(super) fn resize(terminal: impl AsFd, size: PtySize) -> Result<(), Errno> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size)
}

/// The size now: a program inside may have changed it.
pub(super) fn size(terminal: impl AsFd) -> Result<PtySize, Errno> {
    let size = rustix::termios::tcgetwinsize(terminal)?;
    Ok(PtySize { columns: size.ws_col, rows: size.ws_row })
}

/// The character that ends the input of a program that reads lines: Ctrl-D unless it was changed.
pub(super) fn end_of_input(terminal: impl AsFd) -> Result<u8, Errno> {
    Ok(rustix::termios::tcgetattr(terminal)?.special_codes[SpecialCodeIndex::VEOF])
}
