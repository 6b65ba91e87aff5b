//! The agent's binary on its way into the image: taken only if it runs in any Linux container.

use std::path::Path;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};

/// How to build one that is taken.
const BUILD_HINT: &str = "build it with `cargo xtask agent`, or by hand: RUSTFLAGS='-C target-feature=+crt-static' \
     cargo build --profile agent --target x86_64-unknown-linux-gnu -p corehold-agent";

/// An agent larger than this is something else.
const LARGEST: u64 = 256 << 20;

/// Reads the agent's binary.
///
/// # Errors
/// `NotFound` when there is none, `Invalid` when it isn't a static program for x86-64; the hint says how to build it.
pub(super) async fn read(path: &Path) -> Result<Bytes> {
    let shown = path.display();
    let fail = |kind, why: String| Error::new(kind, format!("the agent {shown} {why}")).hint(BUILD_HINT);
    let metadata = tokio::fs::metadata(path).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => fail(ErrorKind::NotFound, "is not there".to_owned()),
        _ => fail(ErrorKind::Io, format!("can't be read: {source}")).caused_by(source),
    })?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(fail(ErrorKind::Invalid, "is not a program".to_owned()));
    }
    let bytes = tokio::fs::read(path)
        .await
        .map_err(|source| fail(ErrorKind::Io, format!("can't be read: {source}")).caused_by(source))?;
    check_static(&bytes).map_err(|why| fail(ErrorKind::Invalid, why.to_owned()))?;
    Ok(bytes.into())
}

/// Whether the bytes are a program for x86-64 Linux that needs no dynamic linker (ELF-64 specification: file header, and
/// program headers of which none is `PT_INTERP`).
pub(crate) fn check_static(elf: &[u8]) -> Result<(), &'static str> {
    const DAMAGED: &str = "is a damaged program";
    const EXECUTABLE: u16 = 2;
    const SHARED: u16 = 3; // a position-independent executable is one of these
    const X86_64: u16 = 62;
    const INTERPRETER: u32 = 3;
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_le_bytes(elf.get(at..at + 8)?.try_into().ok()?));

    if !elf.starts_with(b"\x7fELF") {
        return Err("is not a Linux program");
    }
    // 64 bits, little-endian.
    if elf.get(4..6) != Some(&[2, 1]) || half(18) != Some(X86_64) {
        return Err("is not made for x86-64");
    }
    if !matches!(half(16), Some(EXECUTABLE | SHARED)) {
        return Err("is an object file or a core dump, not a program");
    }
    let table = long(32).and_then(|offset| usize::try_from(offset).ok()).ok_or(DAMAGED)?;
    let (size, count) = (half(54).ok_or(DAMAGED)?, half(56).ok_or(DAMAGED)?);
    if count == 0 || size < 56 {
        return Err(DAMAGED);
    }
    for index in 0..usize::from(count) {
        let header = table.checked_add(index * usize::from(size)).ok_or(DAMAGED)?;
        if header > elf.len() {
            return Err(DAMAGED);
        }
        if word(header).ok_or(DAMAGED)? == INTERPRETER {
            return Err("is linked dynamically, so it would not start in every image");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file header and one program header of the type.
    fn elf(program_header: u32) -> Vec<u8> {
        let mut bytes = vec![0; 120];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[16] = 2;
        bytes[18] = 62;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64..68].copy_from_slice(&program_header.to_le_bytes());
        bytes
    }

    #[test]
    fn only_static_programs_for_this_machine_are_taken() {
        assert_eq!(check_static(&elf(1)), Ok(()));
        assert!(check_static(&elf(3)).unwrap_err().contains("dynamically"));
        assert!(check_static(b"#!/bin/sh\n").unwrap_err().contains("not a Linux program"));
        assert!(check_static(b"").unwrap_err().contains("not a Linux program"));
        let with = |at: usize, value: u8| {
            let mut bytes = elf(1);
            bytes[at] = value;
            check_static(&bytes).unwrap_err()
        };
        assert!(with(18, 183).contains("x86-64"), "aarch64");
        assert!(with(4, 1).contains("x86-64"), "32 bits");
        assert!(with(16, 4).contains("core dump"));
        assert!(with(56, 0).contains("damaged"), "no program header");
        assert!(with(39, 0xff).contains("damaged"), "a table beyond the end");
        for length in 0..119 {
            assert!(check_static(&elf(1)[..length]).is_err() || length >= 68, "cut off at {length}");
        }
    }

    #[tokio::test]
    async fn this_test_is_dynamic_and_says_how_to_do_better() {
        let error = read(&std::env::current_exe().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.hint_text().unwrap().contains("+crt-static"));
        assert_eq!(read(Path::new("/no/agent")).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(read(Path::new("/")).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
}
