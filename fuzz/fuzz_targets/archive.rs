//! `corehold_agent::fuzzing::archive`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corehold_agent::fuzzing::archive(bytes));
