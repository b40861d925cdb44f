//! See `etcdlift::internals::fuzzing::store`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| etcdlift::internals::fuzzing::store(data));
