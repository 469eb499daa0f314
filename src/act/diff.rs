//! What a write of a status sends: only what differs, so that a status of thousands of nodes is neither sent
//! nor written out whole for one of them.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::api::{
    node_statuses::{Change, NodeStatuses},
    nodeop::{NodeOpStatus, NodeStatus},
    upgrade::NodeOpUpgradeStatus,
};

/// The merge patch that turns `old` into `new`. Keys that are gone become `null`.
fn merge_diff(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
            let mut patch: Map<String, Value> = gone.collect();
            for (key, value) in new {
                let change = old.get(key).map_or_else(|| Some(value.clone()), |old| merge_diff(old, value));
                patch.extend(change.map(|change| (key.clone(), change)));
            }
            (!patch.is_empty()).then_some(Value::Object(patch))
        }
        _ => (old != new).then(|| new.clone()),
    }
}

/// A status that has an entry for each node: thousands, of which a write changes a few.
pub trait NodesStatus: Serialize + DeserializeOwned {
    fn nodes(&self) -> &NodeStatuses;
    fn nodes_mut(&mut self) -> &mut NodeStatuses;
    /// The same, without its entries.
    fn without_nodes(&self) -> Self;

    /// The entries that differ from another version's: as they are there, and here.
    fn changes<'a>(&'a self, old: Option<&'a Self>) -> Vec<Change<'a>> {
        match old {
            Some(old) => self.nodes().changes(old.nodes()).collect(),
            None => all(self.nodes()),
        }
    }

    fn has_nodes(&self) -> bool {
        !self.nodes().is_empty()
    }

    /// This one, with the entries that another version has, of which these are changed.
    fn with(mut self, nodes: &Self, changed: Vec<(String, NodeStatus)>) -> Self {
        self.nodes_mut().clone_from(nodes.nodes());
        changed.into_iter().for_each(|(name, entry)| self.nodes_mut().insert(name, entry));
        self
    }

    /// What a server has that was told to turn the version `old` into this one: no time in it is finer than
    /// it is written out.
    fn as_written(&self, old: Option<&Self>) -> serde_json::Result<Self> {
        let changed = self.changes(old).into_iter().filter_map(|change| Some((change.name, change.new?)));
        let changed = changed.map(|(name, entry)| Ok((name.clone(), read_back(entry)?)));
        let changed = changed.collect::<serde_json::Result<_>>()?;
        Ok(read_back(&self.without_nodes())?.with(self, changed))
    }
}

impl NodesStatus for NodeOpStatus {
    fn nodes(&self) -> &NodeStatuses {
        &self.node_statuses
    }

    fn nodes_mut(&mut self) -> &mut NodeStatuses {
        &mut self.node_statuses
    }

    fn without_nodes(&self) -> Self {
        Self::without_nodes(self)
    }
}

impl NodesStatus for NodeOpUpgradeStatus {
    fn nodes(&self) -> &NodeStatuses {
        &self.node_statuses
    }

    fn nodes_mut(&mut self) -> &mut NodeStatuses {
        &mut self.node_statuses
    }

    fn without_nodes(&self) -> Self {
        Self::without_nodes(self)
    }
}

fn read_back<T: Serialize + DeserializeOwned>(value: &T) -> serde_json::Result<T> {
    serde_json::from_value(serde_json::to_value(value)?)
}

fn all<'a>(nodes: impl IntoIterator<Item = (&'a String, &'a NodeStatus)>) -> Vec<Change<'a>> {
    nodes.into_iter().map(|(name, new)| Change { name, old: None, new: Some(new) }).collect()
}

/// The merge patch that turns the status `old` into `new`. Only entries that differ are written out.
pub fn status_diff<S: NodesStatus>(old: Option<&S>, new: &S) -> serde_json::Result<Option<Value>> {
    let frame = |status: &S| serde_json::to_value(status.without_nodes());
    let mut diff = merge_diff(&old.map_or_else(|| Ok(json!({})), frame)?, &frame(new)?);
    let mut nodes = Map::new();
    for Change { name, old, new } in new.changes(old) {
        let change = match (old, new) {
            (_, None) => Some(Value::Null),
            (Some(old), Some(new)) => merge_diff(&serde_json::to_value(old)?, &serde_json::to_value(new)?),
            (None, Some(new)) => Some(serde_json::to_value(new)?),
        };
        nodes.extend(change.map(|change| (name.clone(), change)));
    }
    if !nodes.is_empty() {
        let nodes = if new.has_nodes() { Value::Object(nodes) } else { Value::Null };
        diff.get_or_insert_with(|| json!({}))["nodeStatuses"] = nodes;
    }
    Ok(diff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::nodeop::Phase;

    #[test]
    fn a_merge_diff_names_only_what_differs() {
        let old = json!({"phase": "Running", "nodeStatuses": {"a": {"phase": "Running", "step": "Job"}, "b": {"phase": "Pending"}}});
        let new = json!({"phase": "Running", "nodeStatuses": {"a": {"phase": "Completed"}, "b": {"phase": "Pending"}}});
        let diff = json!({"nodeStatuses": {"a": {"phase": "Completed", "step": null}}});
        assert_eq!(merge_diff(&old, &new), Some(diff));
        assert_eq!(merge_diff(&new, &new), None);
        assert_eq!(merge_diff(&json!({}), &new), Some(new));
        assert_eq!(
            merge_diff(&json!({"l": [1, 2]}), &json!({"l": [2]})),
            Some(json!({"l": [2]})),
            "a list is one value"
        );
    }

    /// Entries by a number: each digit, in base four, is what stands there about one node.
    fn status(number: usize) -> NodeOpStatus {
        let entry = |digit: usize| {
            let phase = [Phase::Pending, Phase::Running, Phase::Completed][digit - 1];
            NodeStatus { phase, message: (digit == 2).then(|| "m".into()), ..NodeStatus::default() }
        };
        let digits = (0..3_u32).map(|place| (place, number / 4_usize.pow(place) % 4));
        let nodes = digits.filter(|(_, digit)| *digit > 0);
        NodeOpStatus {
            phase: number.is_multiple_of(2).then_some(Phase::Running),
            node_statuses: nodes.map(|(place, digit)| (format!("n{place}"), entry(digit))).collect(),
            ..NodeOpStatus::default()
        }
    }

    #[test]
    fn entry_by_entry_it_is_the_patch_of_the_whole() {
        for (old, new) in (0..64).flat_map(|old| (0..64).map(move |new| (old, new))) {
            let (old, new) = (status(old), status(new));
            let whole = |status: &NodeOpStatus| serde_json::to_value(status).unwrap();
            let expected = merge_diff(&whole(&old), &whole(&new));
            assert_eq!(status_diff(Some(&old), &new).unwrap(), expected, "{old:?} {new:?}");
            assert_eq!(status_diff(None, &new).unwrap(), merge_diff(&json!({}), &whole(&new)));
            assert_eq!(new.as_written(Some(&old)).unwrap(), serde_json::from_value(whole(&new)).unwrap());
        }
    }
}
