//! See `etcdlift::internals::fuzzing::snap`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| etcdlift::internals::fuzzing::snap(data));
