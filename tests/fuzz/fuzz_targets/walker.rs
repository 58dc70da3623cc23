#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nestling_fuzz::run("walker", data));
