//! What nodes say to autoscalers: some had been told by somebody before, and that is what they say whenever
//! no operation has them.

use std::collections::BTreeMap;

use kairos_operator::{
    api::names,
    plan::model::{action::NodeChange, snapshot::NodeView},
};

use super::world::World;

/// What somebody has told autoscalers of a node, by its name.
pub fn foreign(node: &str) -> BTreeMap<String, String> {
    let [(autoscaler, yes), (karpenter, _)] = names::KEEPS_FROM_SCALE_DOWN;
    let said = match node.bytes().last().map(|last| last % 4) {
        Some(0) => vec![(autoscaler, yes)],
        Some(1) => vec![(autoscaler, "false"), (karpenter, "30m")],
        _ => Vec::new(),
    };
    said.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Those annotations of a node that autoscalers read, and ours about them, once it is changed.
pub fn apply(node: &mut NodeView, change: &NodeChange) {
    for (name, value) in &change.annotations {
        if name == names::AUTOSCALER_HINTS {
            node.hints = value.as_ref().map(|text| text.parse().expect("what we wrote"));
        } else if names::KEEPS_FROM_SCALE_DOWN.iter().any(|(hint, _)| hint == name) {
            match value {
                Some(value) => drop(node.annotations.insert(name.clone(), value.clone())),
                None => drop(node.annotations.remove(name)),
            }
        }
    }
}

impl World {
    /// Claim and hints come and go in one patch.
    pub fn check_hints(&mut self, name: &str) {
        let Some(node) = self.nodes.get(&super::world::node_key(name)) else { return };
        let asks = names::KEEPS_FROM_SCALE_DOWN;
        let asked = asks.iter().all(|(hint, yes)| node.annotations.get(*hint).is_some_and(|it| it == yes));
        if node.claimed_by.is_some() != asked {
            self.broken(format!(
                "{name}, claimed by {:?}, tells autoscalers {:?}",
                node.claimed_by, node.annotations
            ));
        } else if !asked && (node.hints.is_some() || node.annotations != foreign(name)) {
            self.broken(format!("{name} does not tell autoscalers what it did: {:?}", node.annotations));
        }
    }
}
