//! From a node's facts to its labels and annotations. Only keys of our own list are ever set or removed.

use std::collections::BTreeMap;

use crate::{
    api::names,
    contract::Facts,
    plan::model::{
        action::NodeChange,
        snapshot::{NodeView, fact_labels, facts_of},
    },
};

/// The one patch that makes the node say its facts.
pub fn change(node: &NodeView, facts: &Facts) -> NodeChange {
    let (mut labels, mut annotations) = if node.is_left_alone() { <_>::default() } else { wanted(facts) };
    let fact_annotations = names::FACT_ANNOTATIONS.iter().map(|(name, _)| *name);
    if node.is_left_alone() {
        labels.clear();
    } else {
        retire(|name| node.labels.contains_key(name), fact_labels(), &mut labels);
        retire(|name| node.annotations.contains_key(name), fact_annotations, &mut annotations);
    }
    annotations.insert(names::RELEASE.into(), facts.version.clone());
    annotations.insert(names::BOOT_STATE_OF.into(), Some(facts.boot_state.clone()).filter(|_| facts.kairos));
    let label = |name: &str| match labels.get(name) {
        Some(value) => value.as_deref(),
        None => node.labels.get(name),
    };
    annotations.insert(names::FACTS_OF.into(), Some(facts_of(&facts.boot, label)));
    labels.retain(|key, value| node.labels.get(key) != value.as_deref());
    annotations.retain(|key, value| node.annotations.get(key) != value.as_ref());
    NodeChange { labels, annotations, ..NodeChange::default() }
}

/// The key of [`names::FACT_LABELS`] that has a value whatever the release file holds.
const RELEASE_KEY: &str = "RELEASE";
/// That value, if nothing says what the node runs.
const UNKNOWN: &str = "unknown";

type Values = BTreeMap<String, Option<String>>;

fn wanted(facts: &Facts) -> (Values, Values) {
    let (mut labels, mut annotations) = (Values::new(), Values::new());
    if !facts.kairos {
        return (labels, annotations);
    }
    labels.insert(names::MANAGED.into(), Some("true".into()));
    labels.insert(
        names::BOOT_STATE.into(),
        Some(sanitize(&facts.boot_state)).filter(|value| !value.is_empty()),
    );
    for (name, key) in names::FACT_LABELS {
        let value = label(facts.release.get(key));
        labels.insert(name.into(), if key == RELEASE_KEY { Some(release(value, facts)) } else { value });
    }
    for (name, key) in names::FACT_ANNOTATIONS {
        annotations.insert(name.into(), facts.release.get(key).cloned().filter(|value| !value.is_empty()));
    }
    (labels, annotations)
}

/// The label by which people see what a node runs is there on every Kairos node. Not every image has
/// `KAIROS_RELEASE`, from which the Go operator makes it; what upgrades compare says as much.
fn release(said: Option<String>, facts: &Facts) -> String {
    said.or_else(|| label(facts.version.as_ref())).unwrap_or_else(|| UNKNOWN.into())
}

/// What a label says of a value; none if nothing of it may stand in one.
fn label(value: Option<&String>) -> Option<String> {
    value.map(|value| sanitize(value)).filter(|value| !value.is_empty())
}

/// Adds the removal of what is there, is ours, and is no longer true.
fn retire<'a>(is_there: impl Fn(&str) -> bool, ours: impl Iterator<Item = &'a str>, wanted: &mut Values) {
    for name in ours.filter(|name| is_there(name)) {
        wanted.entry(name.to_owned()).or_insert(None);
    }
}

/// A label value: what is not allowed becomes a dash, no punctuation at the ends, at most 63 characters.
pub fn sanitize(value: &str) -> String {
    let punctuation = ['-', '_', '.'];
    let mapped: String = value
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || punctuation.contains(&c) { c } else { '-' })
        .collect();
    let trimmed = mapped.trim_matches(punctuation);
    trimmed[..trimmed.len().min(63)].trim_end_matches(punctuation).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let release = [
            ("VERSION", "v3.5.0"),
            ("FLAVOR", "opensuse"),
            ("SOFTWARE_VERSION", "v1.30.11+k3s1"),
            ("TARGETARCH", "amd64"),
        ];
        Facts {
            boot: "b2".into(),
            boot_state: "active".into(),
            kairos: true,
            version: Some("v3.5.0-k3sv1.30.11+k3s1".into()),
            release: release.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        }
    }

    fn node(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> NodeView {
        let map = |pairs: &[(&str, &str)]| {
            let owned = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            owned.collect::<BTreeMap<String, String>>()
        };
        NodeView {
            labels: map(labels).into(),
            annotations: map(annotations),
            boot_id: "b2".into(),
            ..NodeView::default()
        }
    }

    fn text(values: &Values) -> Vec<String> {
        values
            .iter()
            .map(|(key, value)| format!("{key}={}", value.as_deref().unwrap_or("(removed)")))
            .collect()
    }

    #[test]
    fn a_kairos_node_says_what_it_runs_and_keeps_the_users_own_labels() {
        let change =
            change(&node(&[("kairos.io/site", "berlin"), ("kairos.io/variant", "core")], &[]), &facts());
        assert_eq!(
            text(&change.labels),
            [
                "kairos.io/boot-state=active",
                "kairos.io/flavor=opensuse",
                "kairos.io/managed=true",
                "kairos.io/release=v3.5.0-k3sv1.30.11-k3s1",
                "kairos.io/software-version=v1.30.11-k3s1",
                "kairos.io/variant=(removed)",
            ]
        );
        assert_eq!(
            text(&change.annotations),
            [
                "kairos.io/version=v3.5.0",
                "operator.kairos.io/boot-state=active",
                "operator.kairos.io/facts-of=b2/3/be0b896d",
                "operator.kairos.io/release=v3.5.0-k3sv1.30.11+k3s1"
            ]
        );
    }

    #[test]
    fn a_kairos_node_always_says_its_release() {
        let long = format!("v3.5.0-{}", "x".repeat(100));
        for (key, version, expected) in [
            (Some("v3.5"), Some("v3.5.0-k3sv1.30.11+k3s1"), "v3.5"),
            (None, Some("v3.5.0-k3sv1.30.11+k3s1"), "v3.5.0-k3sv1.30.11-k3s1"),
            (Some("///"), Some("v3.5.0"), "v3.5.0"),
            (None, Some(long.as_str()), &long[..63]),
            (None, Some("+++"), "unknown"),
            (None, None, "unknown"),
        ] {
            let release = key.map(|value| ("RELEASE".to_owned(), value.to_owned())).into_iter().collect();
            let facts = Facts {
                boot: "b2".into(),
                kairos: true,
                version: version.map(Into::into),
                release,
                ..Facts::default()
            };
            let change = change(&node(&[], &[]), &facts);
            assert_eq!(change.labels["kairos.io/release"].as_deref(), Some(expected), "{key:?} {version:?}");
        }
    }

    #[test]
    fn what_is_said_already_is_not_said_again() {
        let first = change(&node(&[], &[]), &facts());
        let said = |values: Values| {
            let set = values.into_iter().filter_map(|(key, value)| Some((key, value?)));
            set.collect::<BTreeMap<String, String>>()
        };
        let node = NodeView {
            labels: said(first.labels).into(),
            annotations: said(first.annotations),
            boot_id: "b2".into(),
            ..NodeView::default()
        };
        assert!(node.says_its_facts());
        assert!(change(&node, &facts()).is_empty());
    }

    #[test]
    fn a_node_that_is_no_longer_kairos_loses_ours_and_nothing_else() {
        let node = node(
            &[("kairos.io/managed", "true"), ("kairos.io/site", "berlin")],
            &[("kairos.io/version", "v1")],
        );
        let change = change(&node, &Facts { boot: "b2".into(), ..Facts::default() });
        assert_eq!(text(&change.labels), ["kairos.io/managed=(removed)"]);
        assert_eq!(
            text(&change.annotations),
            ["kairos.io/version=(removed)", "operator.kairos.io/facts-of=b2/3/57be87a1"]
        );
    }

    #[test]
    fn managed_false_means_hands_off() {
        let change =
            change(&node(&[("kairos.io/managed", "false"), ("kairos.io/variant", "mine")], &[]), &facts());
        assert!(change.labels.is_empty());
        assert!(change.annotations.keys().all(|key| key.starts_with("operator.kairos.io/")));
    }

    #[test]
    fn values_become_label_values() {
        let (a70, a62) = ("a".repeat(70), "a".repeat(62));
        for (value, label) in [
            ("v1.30.11+k3s1", "v1.30.11-k3s1"),
            ("hello world", "hello-world"),
            ("-a_.", "a"),
            ("///", ""),
            ("", ""),
            ("ä", ""),
            (a70.as_str(), &a70[..63]),
            (format!("{a62}-a").as_str(), a62.as_str()),
        ] {
            assert_eq!(sanitize(value), label, "{value}");
        }
    }
}
