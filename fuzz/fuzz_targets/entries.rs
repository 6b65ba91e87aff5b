//! `corehold_host::fuzzing::entries`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corehold_host::fuzzing::entries(bytes));
