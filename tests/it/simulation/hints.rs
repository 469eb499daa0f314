//! What nodes say to autoscalers and load balancers: some had been told by somebody before, and that is what
//! they say whenever no operation has them.

use std::collections::BTreeMap;

use kairos_operator::{
    api::names,
    plan::model::{action::NodeChange, hints, intent::Intent, snapshot::NodeView},
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

/// Somebody keeps load balancers off one node for good.
pub fn label(node: &str) -> Option<(String, String)> {
    (node == "w3").then(|| (names::NOT_BALANCED.to_owned(), "theirs".to_owned()))
}

/// What of a node autoscalers and load balancers read, and ours about it, once it is changed.
pub fn apply(node: &mut NodeView, change: &NodeChange) {
    let labels = change.labels.iter().filter(|(name, _)| hints::is_label(name));
    for (name, value) in labels {
        let mut labels = node.labels.to_map();
        match value {
            Some(value) => drop(labels.insert(name.clone(), value.clone())),
            None => drop(labels.remove(name)),
        }
        node.labels = labels.into();
    }
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
        let healed = !node.labels.contains_key(names::NOT_REMEDIATED);
        let reboots = node
            .claimed_by
            .as_ref()
            .is_some_and(|of| self.op_of(&of.uid).is_some_and(|op| Intent::of(&op).reboot));
        if node.claimed_by.is_none() && !healed || reboots && healed {
            self.broken(format!("{name}, claimed by {:?}, is healed: {healed}", node.claimed_by));
            return;
        }
        if node.claimed_by.is_some() != asked {
            self.broken(format!(
                "{name}, claimed by {:?}, tells autoscalers {:?}",
                node.claimed_by, node.annotations
            ));
        } else if !asked && (node.hints.is_some() && !node.is_kept_off() || node.annotations != foreign(name))
        {
            self.broken(format!("{name} does not tell autoscalers what it did: {:?}", node.annotations));
        }
    }

    /// A node is out of load balancers for as long as an operation has it that wants that, or it is cordoned
    /// because one failed; and somebody else's label is never touched.
    pub fn check_balancers(&mut self, before: &NodeView) {
        let name = &before.name;
        let Some(node) = self.nodes.get(&super::world::node_key(name)) else { return };
        let theirs = label(name).map(|(_, value)| value);
        let label = node.labels.get(names::NOT_BALANCED).map(str::to_owned);
        if label != theirs && !node.left_balancers() {
            self.broken(format!("{name} is labelled {label:?}, and was {theirs:?}"));
        }
        if !node.left_balancers() {
            self.history.unbalanced.remove(name);
            return;
        }
        if node.claimed_by.is_none() && node.kept_cordon.is_none() {
            self.broken(format!("{name} is nobody's, and out of load balancers"));
        }
        if before.left_balancers() {
            return;
        }
        self.history.unbalanced.insert(name.clone(), self.now);
        let wants = |of| self.op_of(of).is_some_and(|op| Intent::of(&op).leaves_balancers.is_some());
        if !node.claimed_by.as_ref().is_some_and(|of| wants(&of.uid)) {
            self.broken(format!("{name} leaves load balancers, and nobody wanted that"));
        }
        if self.nodes.live().values().all(|other| other.labels.contains_key(names::NOT_BALANCED)) {
            self.broken(format!("{name} was the last node in load balancers"));
        }
    }

    /// Something is done to a node that load balancers were to leave first.
    pub fn check_left(&mut self, name: &str, op: &str) {
        let wait = self.op_of(op).and_then(|op| Intent::of(&op).leaves_balancers).unwrap_or_default();
        if let Some(since) = self.history.unbalanced.get(name)
            && self.now < since + wait.as_secs()
        {
            self.broken(format!("{name} is disturbed {} s after it left load balancers", self.now - since));
        }
    }
}
