//! What `fuzz/` calls: the agent's parsers, each with what must hold of its result. Compiled only with the feature `fuzzing`, and
//! for the tests, which run the seeds in `fuzz/seeds/` through the same functions.

use std::sync::LazyLock;

use corehold_types::{Tool, WorkspacePath, for_each_tool, rpc::Frame};

use crate::{
    archive, calls,
    edit::diff,
    policy::{self, Policy},
    root::{self, RelativePath},
    search::pattern::{self, PatternOptions},
    socket,
};

/// A path of a request.
pub fn path(bytes: &[u8]) {
    RelativePath::fuzz(&WorkspacePath::from_bytes(bytes));
}

/// A small tree and a path, resolved by the kernel and by the walk: `agent/src/root/fuzz.rs` says how it is written.
pub fn resolve(bytes: &[u8]) {
    root::fuzz(bytes);
}

/// A diff, the first part up to a NUL byte, applied to the text behind it.
pub fn diff(bytes: &[u8]) {
    let cut = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (diff, text) = (&bytes[..cut], bytes.get(cut + 1..).unwrap_or_default());
    if let Ok(hunks) = diff::parse(diff) {
        let _ = diff::apply(text, &hunks, 2);
    }
}

/// An archive.
pub fn archive(bytes: &[u8]) {
    archive::fuzz(bytes);
}

/// What a client sends over a WebSocket, and a binary frame of ours in it: what is read is written as it came.
pub fn frame(bytes: &[u8]) {
    socket::fuzz(bytes);
    if let Ok(frame) = Frame::decode(bytes) {
        assert_eq!(frame.encode(), bytes);
    }
}

/// A pattern of `search`; the first byte says how it is meant.
pub fn pattern(bytes: &[u8]) {
    let Some((flags, pattern)) = bytes.split_first() else { return };
    let Ok(pattern) = std::str::from_utf8(pattern) else { return };
    let flag = |bit: u8| flags & (1 << bit) != 0;
    let options = PatternOptions {
        literal: flag(0),
        word: flag(1),
        whole_line: flag(2),
        multiline: flag(3),
        dot_all: flag(4),
        crlf: flag(5),
        ..PatternOptions::default()
    };
    let _ = pattern::compile(pattern, &options);
}

/// A shell line under three policies. What a strict policy lets run, one that only denies lets run too; and a denied command
/// behind it never runs.
pub fn line(line: &str) {
    static POLICIES: LazyLock<[Policy; 2]> = LazyLock::new(|| {
        [r#"{"mode":"allow","allow":[{"program":"a"},{"program":"sh"},{"program":"env"}],"redirections":true}"#, "{}"]
            .map(|json| Policy::parse(json).expect("these policies are right"))
    });
    let [strict, lenient] = &*POLICIES;
    if policy::fuzz(strict, line) {
        assert!(policy::fuzz(lenient, line), "a strict policy lets more run");
    }
    assert!(!policy::fuzz(lenient, &format!("sudo id\n{line}")), "what follows hides a denied command");
}

/// The request of every tool, and what it is reckoned to take of memory.
pub fn request(bytes: &[u8]) {
    assert!(calls::memory_of(bytes) >= 2 * bytes.len());
    fn read<T: Tool>(bytes: &[u8]) {
        if let Ok(request) = serde_json::from_slice::<T::Request>(bytes) {
            drop(request);
        }
    }
    macro_rules! read_all {
        ($($tool:ident),*) => { $(read::<corehold_types::tools::$tool>(bytes);)* };
    }
    for_each_tool!(read_all);
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    type Target = (&'static str, fn(&[u8]));

    /// Each target with what `fuzz/fuzz_targets/` calls.
    const TARGETS: [Target; 8] = [
        ("archive", archive),
        ("diff", diff),
        ("frame", frame),
        ("line", |bytes| {
            if let Ok(text) = std::str::from_utf8(bytes) {
                line(text);
            }
        }),
        ("path", path),
        ("pattern", pattern),
        ("request", request),
        ("resolve", resolve),
    ];

    #[test]
    fn seeds_of_every_target_hold() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        let targets = fs::read_dir(folder.join("fuzz_targets")).unwrap().map(|entry| entry.unwrap().path());
        let ours = targets.filter(|path| fs::read_to_string(path).unwrap().contains("corehold_agent::"));
        let named: BTreeSet<String> = ours.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        assert_eq!(named, TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect());
        for (name, run) in TARGETS {
            let seeds = fs::read_dir(folder.join("seeds").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            let seeds: Vec<_> = seeds.map(|seed| seed.unwrap().path()).collect();
            assert!(seeds.len() >= 8, "{name} has {} seeds", seeds.len());
            for seed in seeds {
                let bytes = fs::read(&seed).unwrap();
                assert!(std::panic::catch_unwind(|| run(&bytes)).is_ok(), "{} fails", seed.display());
            }
        }
    }
}
