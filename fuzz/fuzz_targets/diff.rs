//! `corehold_agent::fuzzing::diff`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corehold_agent::fuzzing::diff(bytes));
