//! `corehold_agent::fuzzing::line`.
#![no_main]

libfuzzer_sys::fuzz_target!(|line: &str| corehold_agent::fuzzing::line(line));
