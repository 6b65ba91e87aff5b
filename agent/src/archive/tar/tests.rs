//! Entries as other programs write them, and as nobody should.

use super::*;

fn entries(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, String> {
    let mut input = archive;
    let mut reader = Reader::new(&mut input);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next().map_err(|problem| problem.detail)? {
        let mut content = Vec::new();
        loop {
            let piece = reader.content().map_err(|problem| problem.detail)?.to_vec();
            if piece.is_empty() {
                break;
            }
            reader.consume(piece.len());
            content.extend(piece);
        }
        entries.push((entry, content));
    }
    Ok(entries)
}

fn one(set: impl FnOnce(&mut ::tar::Header), content: &[u8]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_ustar();
    header.set_path("name").unwrap();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    set(&mut header);
    header.set_cksum();
    builder.append(&header, content).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn reads_what_the_tar_crate_writes() {
    let mut builder = ::tar::Builder::new(Vec::new());
    for length in [1, 99, 100, 101, 156, 255, 256, 1000] {
        let name = "d/".repeat(length / 2) + "f";
        let mut header = ::tar::Header::new_gnu();
        header.set_size(3);
        header.set_mtime(1_700_000_000);
        header.set_mode(0o640);
        builder.append_data(&mut header, &name, &b"abc"[..]).unwrap();
    }
    builder.append_pax_extensions([("path", &b"caf\xe9"[..]), ("mtime", b"5.5")]).unwrap();
    let mut header = ::tar::Header::new_ustar();
    header.set_size(0);
    header.set_cksum();
    builder.append(&header, &b""[..]).unwrap();
    let archive = builder.into_inner().unwrap();
    let read = entries(&archive).unwrap();
    assert_eq!(read.len(), 9);
    for ((entry, content), length) in read.iter().zip([1, 99, 100, 101, 156, 255, 256, 1000]) {
        assert_eq!(entry.name, ("d/".repeat(length / 2) + "f").as_bytes());
        assert_eq!((content.as_slice(), entry.mode, entry.modified), (&b"abc"[..], 0o640, (1_700_000_000, 0)));
    }
    assert_eq!((read[8].0.name.as_slice(), read[8].0.modified), (&b"caf\xe9"[..], (5, 500_000_000)));
}

#[test]
fn an_archive_cut_off_anywhere_is_an_error() {
    let archive = one(|_| {}, b"some content");
    assert_eq!(archive.len(), 2048);
    for end in 0..1025 {
        assert!(entries(&archive[..end]).is_err(), "cut at {end}");
    }
    assert_eq!(entries(&archive[..1536]).unwrap().len(), 1, "one block of zeros is an end");
}

#[test]
fn a_changed_byte_in_a_header_is_noticed() {
    let archive = one(|_| {}, b"");
    for index in 0..500 {
        let mut changed = archive.clone();
        changed[index] = changed[index].wrapping_add(1);
        // Digits of the checksum's own field may be spelled otherwise; everything else is in the sum.
        if !(148..156).contains(&index) {
            assert!(entries(&changed).is_err(), "byte {index}");
        }
    }
}

#[test]
fn what_can_not_be_read_faithfully_is_refused() {
    let sparse = one(|header| header.set_entry_type(::tar::EntryType::GNUSparse), b"");
    assert!(entries(&sparse).unwrap_err().contains("sparse"));
    let volume = one(|header| header.set_entry_type(::tar::EntryType::new(b'V')), b"");
    assert!(entries(&volume).unwrap_err().contains("GNU tar's"));
    let mut builder = ::tar::Builder::new(Vec::new());
    builder.append_pax_extensions([("GNU.sparse.major", &b"1"[..])]).unwrap();
    let mut archive = builder.into_inner().unwrap();
    archive.truncate(1024);
    archive.extend(one(|_| {}, b""));
    assert!(entries(&archive).unwrap_err().contains("sparse"));
    let global = one(|header| header.set_entry_type(::tar::EntryType::XGlobalHeader), b"10 path=x\n");
    assert!(entries(&global).unwrap_err().contains("global header sets path") || entries(&global).is_err());
}

#[test]
fn headers_without_end_are_refused() {
    let long = one(|header| header.set_entry_type(::tar::EntryType::GNULongName), b"name\0");
    let archive = long[..1024].repeat(100);
    assert!(entries(&archive).unwrap_err().contains("extended headers"));
    let huge = one(
        |header| {
            header.set_entry_type(::tar::EntryType::GNULongName);
            header.set_size(1 << 30);
        },
        b"",
    );
    assert!(entries(&huge).unwrap_err().contains("impossible"));
}
