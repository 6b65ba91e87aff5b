//! `corehold_agent::fuzzing::frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corehold_agent::fuzzing::frame(bytes));
