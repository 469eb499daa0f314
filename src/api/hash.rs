//! FNV-1a, 64 bits: stable over releases of Rust and of this project, which names, labels and what stands in
//! a status must be.

/// The hash of these parts, none of which may stand for two others.
pub fn hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Its first hexadecimal digits, sixteen at most.
pub fn digits(parts: &[&str], count: usize) -> String {
    let mut digits = format!("{:016x}", hash(parts));
    digits.truncate(count);
    digits
}
