//! A node's labels, and what is read off them in every plan.

use std::{collections::BTreeMap, ops::Deref};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::NodeView;
use crate::{
    api::{labels::Labels, names},
    plan::model::selector,
};

/// Labels of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeLabels {
    all: Labels,
    control_plane: bool,
    on_hold: bool,
}

impl NodeView {
    /// Whether a selector of nodes matches it; without one every Linux node is selected that is a machine.
    pub fn is_selected_by(&self, selector: Option<&LabelSelector>) -> bool {
        match selector.filter(|selector| !selector::selects_all(selector)) {
            Some(selector) => selector::matches(selector, |key| self.labels.get(key)),
            None => self.is_linux() && !self.bootless,
        }
    }
}

impl NodeLabels {
    /// Whether a distribution marks the node as a member of the control plane or of its etcd. The key alone
    /// counts, as it does for `kubectl get nodes`: a node that is taken for a member by mistake costs time,
    /// one that is not taken for one a quorum.
    pub fn has_control_plane_label(&self) -> bool {
        self.control_plane
    }

    /// The marks of the control plane that the node bears. Nodes with the same marks run the same of it: an
    /// API server alone, a member of etcd alone, or both.
    pub fn control_plane_marks(&self) -> impl Iterator<Item = &'static str> {
        let labels = names::CONTROL_PLANE_LABELS.into_iter().filter(|label| self.all.contains_key(label));
        labels.chain(roles(&self.all))
    }

    /// Whether somebody holds the node out of all operations.
    pub fn on_hold(&self) -> bool {
        self.on_hold
    }

    /// Sets a label; returns what it was before.
    pub fn insert(&mut self, key: String, value: String) -> Option<String> {
        let mut all = self.all.to_map();
        let before = all.insert(key, value);
        *self = all.into_iter().collect();
        before
    }
}

fn has_control_plane_label(labels: &Labels) -> bool {
    names::CONTROL_PLANE_LABELS.iter().any(|label| labels.contains_key(label))
        || roles(labels).next().is_some()
}

/// The labels whose value says that the node has that role.
fn roles(labels: &Labels) -> impl Iterator<Item = &'static str> {
    let is = |label: &str, role: &str| labels.get(label).is_some_and(|value| value == role);
    names::CONTROL_PLANE_ROLES
        .into_iter()
        .filter(move |(label, role)| is(label, role))
        .map(|(label, _)| label)
}

/// Every value holds but the one that says the opposite: who writes `=`, `=yes` or `=maintenance` on a node
/// sees the label there, and means it.
fn is_on_hold(labels: &Labels) -> bool {
    labels.get(names::HOLD).is_some_and(|value| value != "false")
}

impl From<Labels> for NodeLabels {
    fn from(all: Labels) -> Self {
        Self { control_plane: has_control_plane_label(&all), on_hold: is_on_hold(&all), all }
    }
}

impl From<BTreeMap<String, String>> for NodeLabels {
    fn from(labels: BTreeMap<String, String>) -> Self {
        labels.into_iter().collect()
    }
}

impl FromIterator<(String, String)> for NodeLabels {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(labels: I) -> Self {
        Labels::from_iter(labels).into()
    }
}

impl<const N: usize> From<[(String, String); N]> for NodeLabels {
    fn from(labels: [(String, String); N]) -> Self {
        labels.into_iter().collect()
    }
}

impl Deref for NodeLabels {
    type Target = Labels;

    fn deref(&self) -> &Labels {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_held_by_every_value_of_the_label_but_false() {
        let held = |value: &str| NodeLabels::from([(names::HOLD.to_owned(), value.to_owned())]).on_hold();
        for value in ["true", "", "yes", "True", "maintenance", "False", "no"] {
            assert!(held(value), "{value:?}");
        }
        assert!(!held("false") && !NodeLabels::default().on_hold());
        let mut labels = NodeLabels::default();
        labels.insert(names::HOLD.into(), String::new());
        assert!(labels.on_hold());
        labels.insert(names::HOLD.into(), "false".into());
        assert!(!labels.on_hold());
    }
}
