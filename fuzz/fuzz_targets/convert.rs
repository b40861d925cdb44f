//! See `etcdlift::internals::fuzzing::convert`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| etcdlift::internals::fuzzing::convert(data));
