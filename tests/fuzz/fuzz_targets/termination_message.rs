//! cargo-fuzz runs [`kairos_operator_fuzz::nodes::termination_message`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kairos_operator_fuzz::nodes::termination_message(data));
