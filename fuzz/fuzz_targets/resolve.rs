//! `corehold_agent::fuzzing::resolve`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corehold_agent::fuzzing::resolve(bytes));
