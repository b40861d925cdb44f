//! See `etcdlift::internals::fuzzing::segment`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| etcdlift::internals::fuzzing::segment(data));
