//! Entries as ustar, with pax records for what its fields can't hold. Owners are left out: whoever extracts owns.

use std::io::{self, Write};

use super::{Entry, Kind, header::BLOCK};

/// Largest number in a field of eleven octal digits.
const OCTAL_MAX: u64 = 0o777_7777_7777;

/// Writes an entry's headers. Its content follows, then [`padding`].
///
/// # Errors
/// The writer's.
pub(in crate::archive) fn write_entry(out: &mut dyn Write, entry: &Entry) -> io::Result<()> {
    let mut extensions = Vec::new();
    if entry.name.len() > 100 {
        record(&mut extensions, b"path", &entry.name);
    }
    if entry.link.len() > 100 {
        record(&mut extensions, b"linkpath", &entry.link);
    }
    if entry.size > OCTAL_MAX {
        record(&mut extensions, b"size", entry.size.to_string().as_bytes());
    }
    let modified = u64::try_from(entry.modified.0).ok().filter(|seconds| *seconds <= OCTAL_MAX);
    if modified.is_none() || entry.modified.1 > 0 {
        record(&mut extensions, b"mtime", time(entry.modified).as_bytes());
    }
    if !extensions.is_empty() {
        out.write_all(&block(b"pax", b'x', b"", 0o644, extensions.len() as u64, 0))?;
        out.write_all(&extensions)?;
        out.write_all(padding(extensions.len() as u64))?;
    }
    let flag = match entry.kind {
        Kind::Directory => b'5',
        Kind::Symlink => b'2',
        Kind::HardLink => b'1',
        _ => b'0',
    };
    out.write_all(&block(&entry.name, flag, &entry.link, entry.mode, entry.size, modified.unwrap_or(0)))
}

/// Seconds, with a fraction where there is one: two seconds and 750,000,000 nanoseconds before 1970 are `-1.25`.
fn time((seconds, nanoseconds): (i64, u32)) -> String {
    if nanoseconds == 0 {
        return seconds.to_string();
    }
    let (sign, whole, fraction) = match seconds {
        0.. => ("", seconds.unsigned_abs(), nanoseconds),
        _ => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
    };
    format!("{sign}{whole}.{fraction:09}").trim_end_matches('0').to_owned()
}

/// What fills the last block of content of this size.
pub(in crate::archive) fn padding(size: u64) -> &'static [u8] {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    // Less than a block, so it fits every usize.
    &ZEROS[..(size.next_multiple_of(BLOCK as u64) - size) as usize]
}

/// The end of an archive.
pub(in crate::archive) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

fn block(name: &[u8], flag: u8, link: &[u8], mode: u32, size: u64, modified: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let cut = |bytes: &[u8]| bytes.len().min(100);
    block[..cut(name)].copy_from_slice(&name[..cut(name)]);
    octal(&mut block[100..107], mode.into());
    octal(&mut block[108..115], 0);
    octal(&mut block[116..123], 0);
    octal(&mut block[124..135], size.min(OCTAL_MAX));
    octal(&mut block[136..147], modified);
    block[156] = flag;
    block[157..157 + cut(link)].copy_from_slice(&link[..cut(link)]);
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum = block.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut block[148..154], sum);
    block[154] = 0;
    block
}

fn octal(field: &mut [u8], mut value: u64) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

/// One `length key=value\n`, whose length counts itself.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let digits = |length: usize| length.to_string().len();
    let mut length = rest + digits(rest);
    length = rest + digits(length);
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::{super::Reader, *};

    #[test]
    fn what_is_written_is_read_again() {
        let plain = Entry {
            name: b"name".to_vec(),
            kind: Kind::File,
            link: Vec::new(),
            size: 0,
            mode: 0o640,
            modified: (1_700_000_000, 0),
        };
        let mut entries = vec![plain.clone()];
        for length in [1, 86, 87, 90, 91, 99, 100, 101, 255, 983, 984, 985, 986, 987, 4095] {
            let name = vec![0xe9; length];
            entries.push(Entry { name: name.clone(), kind: Kind::Directory, ..plain.clone() });
            entries.push(Entry { name: name.clone(), kind: Kind::Symlink, link: name.clone(), ..plain.clone() });
            entries.push(Entry { name: b"x".to_vec(), kind: Kind::HardLink, link: name, ..plain.clone() });
        }
        for modified in
            [(-5, 0), (1 << 40, 0), (1_700_000_000, 123_456_789), (0, 1), (7, 250_000_000), (-1, 999_999_999), (-5, 1)]
        {
            entries.push(Entry { modified, ..plain.clone() });
        }
        let mut archive = Vec::new();
        for entry in &entries {
            write_entry(&mut archive, entry).unwrap();
        }
        archive.extend_from_slice(&END);
        let mut input = archive.as_slice();
        let mut reader = Reader::new(&mut input);
        for entry in entries {
            assert_eq!(reader.next().unwrap(), Some(entry));
        }
        assert_eq!(reader.next().unwrap(), None);
    }

    #[test]
    fn sizes_beyond_the_field_are_kept() {
        let entry = Entry {
            name: b"large".to_vec(),
            kind: Kind::File,
            link: Vec::new(),
            size: 1 << 40,
            mode: 0,
            modified: (0, 0),
        };
        let mut archive = Vec::new();
        write_entry(&mut archive, &entry).unwrap();
        assert_eq!(Reader::new(&mut archive.as_slice()).next().unwrap(), Some(entry));
    }
}
