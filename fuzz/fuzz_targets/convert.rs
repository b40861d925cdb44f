//! See `etcdlift::fuzzing::convert`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| etcdlift::fuzzing::convert(data));
