//! See `etcdlift::internals::fuzzing::replay`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| etcdlift::internals::fuzzing::replay(data));
