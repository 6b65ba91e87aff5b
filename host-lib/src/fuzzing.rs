//! What `fuzz/` calls: what is read from an archive store, and archives that are to be templates, each with what must hold of its result. Compiled only with the feature
//! `fuzzing`, and for the tests, which run the seeds in `fuzz/seeds/` through the same functions.

use crate::{archive, template::fuzz_archive};

/// The manifest of an archive, under the name that it gives itself.
pub fn manifest(bytes: &[u8]) {
    archive::fuzz::manifest(bytes);
}

/// The index of an archive.
pub fn index(bytes: &[u8]) {
    archive::fuzz::index(bytes);
}

/// The list of an archive's entries; the first byte says in which pieces it comes.
pub fn entries(bytes: &[u8]) {
    archive::fuzz::entries(bytes);
}

/// An archive that somebody wants to use as a template. It is unpacked in the folder for temporary files.
pub fn template(bytes: &[u8]) {
    fuzz_archive(bytes);
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    type Target = (&'static str, fn(&[u8]));

    /// Each target with what `fuzz/fuzz_targets/` calls.
    const TARGETS: [Target; 4] =
        [("entries", entries), ("index", index), ("manifest", manifest), ("template", template)];

    #[test]
    fn seeds_of_every_target_hold() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        let targets = fs::read_dir(folder.join("fuzz_targets")).unwrap().map(|entry| entry.unwrap().path());
        let ours = targets.filter(|path| fs::read_to_string(path).unwrap().contains("corehold_host::"));
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
