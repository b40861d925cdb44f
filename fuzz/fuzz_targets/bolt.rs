//! See `etcdlift::fuzzing::bolt`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| etcdlift::fuzzing::bolt(data));
