//! `corehold_host::fuzzing::template`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| corehold_host::fuzzing::template(bytes));
