//! What a node says itself of what it runs: in annotations that we write once its facts are read.

use super::NodeView;
use crate::{api::names, contract::FACTS_SCHEMA};

/// The annotation that says which boot, by which schema, the node's facts are of.
pub fn facts_of(boot: &str) -> String {
    format!("{boot}/{FACTS_SCHEMA}")
}

impl NodeView {
    /// Whether it says the facts of its present boot.
    pub fn says_its_facts(&self) -> bool {
        let says = self.annotations.get(names::FACTS_OF).and_then(|of| of.strip_prefix(&*self.boot_id));
        says.and_then(|says| says.strip_prefix('/')) == Some(FACTS_SCHEMA) && !self.is_stripped()
    }

    /// Whether a user wants us to keep off its labels.
    pub fn is_left_alone(&self) -> bool {
        self.labels.get(names::MANAGED).is_some_and(|value| value == "false")
    }

    /// The release that a node of Kairos is known to run, in the boot in which it is.
    pub fn release(&self) -> Option<&String> {
        let release = self.annotations.get(names::RELEASE)?;
        (self.annotations.contains_key(names::BOOT_STATE_OF) && self.says_its_facts()).then_some(release)
    }

    /// Whether somebody has taken our label off a node of Kairos, or the `false` with which he had kept us
    /// off. A selector by that label would pass the node over until its next boot, without a word.
    fn is_stripped(&self) -> bool {
        self.annotations.contains_key(names::BOOT_STATE_OF) && !self.labels.contains_key(names::MANAGED)
    }
}
