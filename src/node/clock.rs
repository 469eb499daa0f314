//! The node's wall clock as text for people. Nothing is decided by it: a node without a battery starts in
//! 1970.

use k8s_openapi::jiff::Timestamp;

/// Now, in RFC 3339, to the second.
pub fn now() -> String {
    format!("{:.0}", Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_no_fraction_and_is_one_of_utc() {
        let now = now();
        assert!(now.len() == "2026-11-28T02:00:07Z".len() && now.ends_with('Z'), "{now}");
        assert!(now.parse::<Timestamp>().is_ok(), "{now}");
    }
}
