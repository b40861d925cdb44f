//! See `etcdlift::internals::fuzzing::bolt`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| etcdlift::internals::fuzzing::bolt(data));
