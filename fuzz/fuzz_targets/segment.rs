//! See `etcdlift::fuzzing::segment`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| etcdlift::fuzzing::segment(data));
