//! What a kubelet can do, by its version.

/// The first minor version of Kubernetes 1 whose kubelets run native sidecars unless they are told not to
/// (KEP-753: beta, and on by default, in 1.29), and end them after the other containers of their pod.
const SIDECARS_SINCE: u32 = 29;

/// Whether a kubelet of this version (`v1.33.4+k3s1`) knows native sidecars: init containers that are
/// restarted always, which it does not wait for to end. One before would wait for ever, and so would perhaps
/// one that does not say which it is.
pub fn has_native_sidecars(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split(['.', '-', '+']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(1)), Some(Ok(minor))) => minor >= SIDECARS_SINCE,
        (Some(Ok(major)), Some(Ok(_))) => major > 1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelets_since_1_29_know_sidecars_and_unknown_ones_may_not() {
        for version in ["v1.29.0", "v1.33.4+k3s1", "v1.30.0-rc.1", "1.36.2", "v2.0.0", "v1.29.3-gke.1282000"]
        {
            assert!(has_native_sidecars(version), "{version}");
        }
        for version in ["v1.28.15", "v1.9.1", "", "v1", "1.x", "v0.40.0", "unknown", "v-1.30.0", "v1.29x.0"] {
            assert!(!has_native_sidecars(version), "{version}");
        }
    }
}
