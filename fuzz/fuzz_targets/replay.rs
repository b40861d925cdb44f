//! See `etcdlift::fuzzing::replay`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| etcdlift::fuzzing::replay(data));
