//! What a node says itself of what it runs: in annotations that we write once its facts are read.

use super::NodeView;
use crate::{
    api::{hash::digits, names},
    contract::FACTS_SCHEMA,
};

/// The labels that say a node's facts.
pub fn fact_labels() -> impl Iterator<Item = &'static str> {
    names::FACT_LABELS.iter().map(|(name, _)| *name).chain([names::MANAGED, names::BOOT_STATE])
}

/// The annotation that says which boot, by which schema, the node's facts are of, and as which labels they
/// were written.
pub fn facts_of<'a>(boot: &str, label: impl Fn(&str) -> Option<&'a str>) -> String {
    let labels: Vec<&str> = fact_labels().flat_map(|name| [name, label(name).unwrap_or_default()]).collect();
    format!("{boot}/{FACTS_SCHEMA}/{}", digits(&labels, 8))
}

impl NodeView {
    /// Whether it says the facts of its present boot, as they were written.
    pub fn says_its_facts(&self) -> bool {
        self.has_facts_of_its_boot() && !self.is_changed()
    }

    fn has_facts_of_its_boot(&self) -> bool {
        let says = self.annotations.get(names::FACTS_OF).and_then(|of| of.strip_prefix(&*self.boot_id));
        let says = says.and_then(|says| says.strip_prefix('/')?.strip_prefix(FACTS_SCHEMA));
        says.is_some_and(|says| says.starts_with('/'))
    }

    /// Whether a user wants us to keep off its labels.
    pub fn is_left_alone(&self) -> bool {
        self.labels.get(names::MANAGED).is_some_and(|value| value == "false")
    }

    /// The release that a node of Kairos is known to run, in the boot in which it is.
    pub fn release(&self) -> Option<&String> {
        let release = self.annotations.get(names::RELEASE)?;
        // Whatever became of the labels.
        (self.annotations.contains_key(names::BOOT_STATE_OF) && self.has_facts_of_its_boot())
            .then_some(release)
    }

    /// Whether somebody has taken a label of ours off a node of Kairos, or changed one, or has taken off the
    /// `false` with which he had kept us off. A selector by that label would pass the node over until its
    /// next boot, without a word.
    fn is_changed(&self) -> bool {
        let written = facts_of(&self.boot_id, |name| self.labels.get(name));
        self.annotations.contains_key(names::BOOT_STATE_OF)
            && !self.is_left_alone()
            && self.annotations.get(names::FACTS_OF) != Some(&written)
    }
}
