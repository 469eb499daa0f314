//! What the fuzz targets feed, and what must hold of the outcome. cargo-fuzz calls these with what it
//! invents, and the ordinary tests with every case that was kept (`tests/it/fuzz.rs`), so nothing here needs
//! either.
//!
//! A target takes any bytes and returns; what it finds wrong it says by a panic. Bytes that are no case for
//! it are passed over.

pub mod nodes;
pub mod planner;
pub mod users;

/// A target: its name, which is also the name of its corpus, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them. Each has a file in `fuzz_targets`.
pub const TARGETS: [Target; 13] = [
    ("release", nodes::release),
    ("facts", nodes::facts),
    ("facts_message", nodes::facts_message),
    ("records", nodes::records),
    ("mountinfo", nodes::mountinfo),
    ("termination_message", nodes::termination_message),
    ("names", users::names),
    ("op_ref", users::op_ref),
    ("selector", users::selector),
    ("nodeop", users::nodeop),
    ("upgrade", users::upgrade),
    ("arguments", users::arguments),
    ("planner", planner::planner),
];

/// The input as text, if it is any.
fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// The input cut at NUL bytes into `N` texts; missing ones are empty.
fn texts<const N: usize>(data: &[u8]) -> Option<[&str; N]> {
    let mut parts = text(data)?.splitn(N, '\0');
    Some([(); N].map(|()| parts.next().unwrap_or_default()))
}

/// Whether a name is a DNS label.
fn is_dns_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len())
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Whether a text may be the value of a label.
fn is_label_value(value: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let ends =
        value.chars().next().into_iter().chain(value.chars().last()).all(|c| c.is_ascii_alphanumeric());
    value.len() <= 63 && value.chars().all(inner) && ends
}
