//! Reading a tar that nobody vouches for: what its headers can make its reader hold in memory is bounded, and so are its bytes.
//!
//! Names and extended headers may be of any length by their format, and a reader of tars takes them whole.

use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};

/// Bytes of headers before one entry. Names have 4,096; a reader that took any number would hold it all.
const HEADERS: u64 = 1 << 20;
/// Two empty blocks end a tar.
const END: u64 = 1024;

/// What was read so far.
#[derive(Default)]
pub(crate) struct Bounds {
    /// Whether what is read is a file's content, of which nothing is held.
    in_content: Cell<bool>,
    /// Bytes read since the last entry.
    headers: Cell<u64>,
    /// Of these, zeros at their end.
    zeros: Cell<u64>,
    total: Cell<u64>,
}

impl Bounds {
    /// The headers of an entry are read: its content comes.
    pub(crate) fn content_begins(&self) {
        self.in_content.set(true);
    }

    /// Its content is read, or what follows it is taken for headers.
    pub(crate) fn content_ends(&self) {
        self.in_content.set(false);
        self.headers.set(0);
        self.zeros.set(0);
    }

    /// Whether it ended as a tar does.
    pub(crate) fn is_whole(&self) -> bool {
        self.zeros.get() >= END
    }
}

/// A reader whose tar is read.
pub(crate) struct Bounded<R> {
    inner: R,
    most: u64,
    bounds: Rc<Bounds>,
}

impl<R> Bounded<R> {
    /// Fails after more than `most` bytes.
    pub(crate) fn new(inner: R, most: u64) -> (Self, Rc<Bounds>) {
        let bounds = Rc::new(Bounds::default());
        (Self { inner, most, bounds: bounds.clone() }, bounds)
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        let Bounds { in_content, headers, zeros, total } = &*self.bounds;
        total.set(total.get() + length as u64);
        if total.get() > self.most {
            return Err(io::Error::other(format!("it has more than {} bytes", self.most)));
        }
        if !in_content.get() {
            headers.set(headers.get() + length as u64);
            if headers.get() > HEADERS {
                return Err(io::Error::other(format!(
                    "there are more than {HEADERS} bytes of headers before an entry"
                )));
            }
            let tail = buffer[..length].iter().rev().take_while(|byte| **byte == 0).count();
            zeros.set(if tail == length { zeros.get() + length as u64 } else { tail as u64 });
        }
        Ok(length)
    }
}
