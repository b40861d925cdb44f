//! See `etcdlift::fuzzing::snap`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| etcdlift::fuzzing::snap(data));
