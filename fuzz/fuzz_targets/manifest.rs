//! `corehold_host::fuzzing::manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corehold_host::fuzzing::manifest(bytes));
