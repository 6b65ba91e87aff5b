//! Archives to order, also such as no program would write.

use std::io::Write as _;

/// A tar in the making.
#[derive(Default, Clone)]
pub(crate) struct Tar(Vec<u8>);

/// One header's fields, written as they are.
pub(crate) struct Raw<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) flag: u8,
    pub(crate) link: &'a [u8],
    pub(crate) mode: u32,
    pub(crate) modified: u64,
    pub(crate) size: Option<u64>,
    pub(crate) content: &'a [u8],
}

impl Default for Raw<'_> {
    fn default() -> Self {
        Self { name: b"", flag: b'0', link: b"", mode: 0o644, modified: 1_700_000_000, size: None, content: b"" }
    }
}

impl Tar {
    pub(crate) fn raw(mut self, raw: &Raw<'_>) -> Self {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..raw.name.len()].copy_from_slice(raw.name);
        header.as_old_mut().linkname[..raw.link.len()].copy_from_slice(raw.link);
        header.as_old_mut().linkflag = [raw.flag];
        header.set_mode(raw.mode);
        header.set_mtime(raw.modified);
        header.set_size(raw.size.unwrap_or(raw.content.len() as u64));
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(raw.content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A header whose bytes were changed before it was summed up.
    pub(crate) fn changed(mut self, raw: &Raw<'_>, change: impl FnOnce(&mut [u8; 512])) -> Self {
        let start = self.0.len();
        self = self.raw(raw);
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(&self.0[start..start + 512]);
        change(header.as_mut_bytes());
        header.set_cksum();
        self.0[start..start + 512].copy_from_slice(header.as_bytes());
        self
    }

    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        self.raw(&Raw { name: name.as_bytes(), content: content.as_bytes(), ..Raw::default() })
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.raw(&Raw { name: name.as_bytes(), flag: b'5', mode: 0o755, ..Raw::default() })
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(&Raw { name: name.as_bytes(), flag: b'2', link: target.as_bytes(), ..Raw::default() })
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.raw(&Raw { name: name.as_bytes(), flag: b'1', link: target.as_bytes(), ..Raw::default() })
    }

    pub(crate) fn of_kind(self, flag: u8, name: &str) -> Self {
        self.raw(&Raw { name: name.as_bytes(), flag, ..Raw::default() })
    }

    /// A header of another kind, with content.
    pub(crate) fn of_kind_with(self, flag: u8, content: &[u8]) -> Self {
        self.raw(&Raw { name: b"extended", flag, content, ..Raw::default() })
    }

    /// An extended header with one record for the entry that follows.
    pub(crate) fn pax(self, key: &str, value: &[u8]) -> Self {
        let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let mut length = rest.len() + 1;
        while length.to_string().len() + rest.len() != length {
            length = length.to_string().len() + rest.len();
        }
        let content = [length.to_string().as_bytes(), &rest].concat();
        self.raw(&Raw { name: b"pax", flag: b'x', content: &content, ..Raw::default() })
    }

    /// GNU's header for a long name.
    pub(crate) fn gnu_long_name(self, name: &[u8]) -> Self {
        let content = [name, b"\0"].concat();
        self.raw(&Raw { name: b"././@LongLink", flag: b'L', content: &content, ..Raw::default() })
    }

    /// The archive with its end.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }

    /// What was written so far, without an end.
    pub(crate) fn unfinished(self) -> Vec<u8> {
        self.0
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}
