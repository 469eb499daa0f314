//! Pods of Jobs that the Go operator made and this one adopted: they have no label of an operation's, and
//! only their Job's name tells whose they are.

use std::collections::BTreeSet;

use crate::api::names::{JOB_NAME_LABEL, label_value};

/// Jobs that are asked for at once: a selector is a part of an address, whose length proxies bound.
const JOBS: usize = 50;

/// The selectors of the pods of these Jobs, less those of which pods are known.
pub fn selectors<'a>(jobs: impl Iterator<Item = &'a String>, known: &BTreeSet<String>) -> Vec<String> {
    let names: Vec<String> = jobs.map(|job| label_value(job)).filter(|job| !known.contains(job)).collect();
    names.chunks(JOBS).map(|names| format!("{JOB_NAME_LABEL} in ({})", names.join(","))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_without_a_known_pod_are_asked_for_some_at_a_time() {
        let jobs: Vec<String> = (0..102).map(|number| format!("j{number}")).collect();
        let known = BTreeSet::from(["j0".to_owned()]);
        let selectors = selectors(jobs.iter(), &known);
        assert_eq!(selectors.len(), 3);
        assert!(selectors[0].starts_with("batch.kubernetes.io/job-name in (j1,j2,"), "{}", selectors[0]);
        assert_eq!(selectors[2], "batch.kubernetes.io/job-name in (j101)");
    }
}
