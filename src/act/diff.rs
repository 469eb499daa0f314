//! What a write of a status sends: only what differs, so that a status of thousands of nodes is neither sent
//! nor written out whole for one of them.

use std::fmt::Debug;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
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
pub trait NodesStatus: Clone + Default + PartialEq + Debug + Serialize + DeserializeOwned {
    fn nodes(&self) -> &NodeStatuses;
    fn nodes_mut(&mut self) -> &mut NodeStatuses;
    fn observed_generation(&self) -> Option<i64>;
    /// What this and a newer version do not both say, as each of them says it; without the entries.
    fn apart(&self, new: &Self) -> (Self, Self);
    /// All times in it, but for those in the entries.
    fn times_mut(&mut self) -> impl Iterator<Item = &mut Time>;

    /// What a server has that was told to turn the version `old` into this one: no time in it is finer than
    /// it is written out.
    fn as_written(&self, old: Option<&Self>) -> Self {
        let mut written = self.clone();
        for Change { name, old: _, new } in changes(old, self) {
            let Some(mut entry) = new.cloned() else { continue };
            entry.times_mut().for_each(cut);
            written.nodes_mut().insert(name, entry);
        }
        written.times_mut().for_each(cut);
        debug_assert!(is_read_back(&written), "{written:?}");
        written
    }
}

/// What two versions of a status, or of an entry, do not both say. It names all fields, so that none is
/// forgotten.
macro_rules! apart {
    ($kind:ident $(but $left:ident)?, $old:expr, $new:expr, $($field:ident),+) => {{
        let $kind { $($left: _,)? $($field),+ } = $new;
        let (mut was, mut is) = ($kind::default(), $kind::default());
        $(if $old.$field != *$field {
            was.$field.clone_from(&$old.$field);
            is.$field.clone_from($field);
        })+
        (was, is)
    }};
}

impl NodesStatus for NodeOpStatus {
    fn nodes(&self) -> &NodeStatuses {
        &self.node_statuses
    }

    fn nodes_mut(&mut self) -> &mut NodeStatuses {
        &mut self.node_statuses
    }

    fn observed_generation(&self) -> Option<i64> {
        self.observed_generation
    }

    #[rustfmt::skip]
    fn apart(&self, new: &Self) -> (Self, Self) {
        apart!(
            NodeOpStatus but node_statuses, self, new,
            phase, message, observed_generation, conditions, counts, image, images, release, last_updated
        )
    }

    fn times_mut(&mut self) -> impl Iterator<Item = &mut Time> {
        of_conditions(&mut self.conditions).chain(&mut self.last_updated)
    }
}

impl NodesStatus for NodeOpUpgradeStatus {
    fn nodes(&self) -> &NodeStatuses {
        &self.node_statuses
    }

    fn nodes_mut(&mut self) -> &mut NodeStatuses {
        &mut self.node_statuses
    }

    fn observed_generation(&self) -> Option<i64> {
        self.observed_generation
    }

    #[rustfmt::skip]
    fn apart(&self, new: &Self) -> (Self, Self) {
        apart!(
            NodeOpUpgradeStatus but node_statuses, self, new,
            phase, node_op_name, node_op_uid, run, round, history, message, observed_generation, conditions,
            counts, image, images, release, last_updated
        )
    }

    fn times_mut(&mut self) -> impl Iterator<Item = &mut Time> {
        let round = self.round.iter_mut().filter_map(|round| round.since.as_mut());
        let history = self.history.iter_mut().filter_map(|run| run.finished_at.as_mut());
        of_conditions(&mut self.conditions).chain(round).chain(history).chain(&mut self.last_updated)
    }
}

/// What two versions of an entry do not both say, as each of them says it: most of it stays.
#[rustfmt::skip]
fn entries_apart(old: &NodeStatus, new: &NodeStatus) -> (NodeStatus, NodeStatus) {
    apart!(
        NodeStatus, old, new,
        phase, step, job_name, message, reason, reboot_status, last_updated, node_uid, job_uid, attempt,
        drain_started_at, blocked_since, detaching_since, given_up, untouched, waiter_since, machine_id,
        control_plane, deadline, boot, succeeded_in, target, image, before, not_tried, verified, new_boot,
        holds_slot, since
    )
}

fn of_conditions(conditions: &mut [Condition]) -> impl Iterator<Item = &mut Time> {
    conditions.iter_mut().map(|condition| &mut condition.last_transition_time)
}

/// Cuts a time as it is cut when it is written out.
fn cut(Time(time): &mut Time) {
    let second = time.as_second() - i64::from(time.subsec_nanosecond() < 0);
    *time = Timestamp::from_second(second).unwrap_or(*time);
}

fn is_read_back<T: PartialEq + Serialize + DeserializeOwned>(value: &T) -> bool {
    serde_json::to_value(value).and_then(serde_json::from_value::<T>).is_ok_and(|read| read == *value)
}

/// The entries that differ from another version's: as they are there, and here.
fn changes<'a, S: NodesStatus>(old: Option<&'a S>, new: &'a S) -> Vec<Change<'a>> {
    match old {
        Some(old) => new.nodes().changes(old.nodes()).collect(),
        None => all(new.nodes()),
    }
}

fn all<'a>(nodes: impl IntoIterator<Item = (&'a String, &'a NodeStatus)>) -> Vec<Change<'a>> {
    nodes.into_iter().map(|(name, new)| Change { name, old: None, new: Some(new) }).collect()
}

/// The merge patch that turns the status `old` into `new`. Only what differs is written out, and the field by
/// which a status is known as ours: a server whose CRD has no such field refuses the write, instead of
/// dropping what it does not know of all that stands there.
pub fn status_diff<S: NodesStatus>(old: Option<&S>, new: &S) -> serde_json::Result<Option<Value>> {
    let (was, is) = old.map_or_else(|| S::default().apart(new), |old| old.apart(new));
    let mut diff = merge_diff(&serde_json::to_value(was)?, &serde_json::to_value(is)?);
    let mut nodes = Map::new();
    for Change { name, old, new } in changes(old, new) {
        let change = match (old, new) {
            (_, None) => Some(Value::Null),
            (Some(old), Some(new)) => {
                let (was, is) = entries_apart(old, new);
                merge_diff(&serde_json::to_value(was)?, &serde_json::to_value(is)?)
            }
            (None, Some(new)) => Some(serde_json::to_value(new)?),
        };
        nodes.extend(change.map(|change| (name.clone(), change)));
    }
    if !nodes.is_empty() {
        let nodes = if !new.nodes().is_empty() { Value::Object(nodes) } else { Value::Null };
        diff.get_or_insert_with(|| json!({}))["nodeStatuses"] = nodes;
    }
    if let (Some(diff), Some(generation)) = (&mut diff, new.observed_generation()) {
        diff["observedGeneration"] = generation.into();
    }
    Ok(diff)
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;

    use super::*;
    use crate::api::{
        nodeop::{NodeOp, Phase},
        upgrade::NodeOpUpgrade,
    };

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
            assert_eq!(new.as_written(Some(&old)), serde_json::from_value(whole(&new)).unwrap());
        }
    }

    /// A CRD of the Go operator, or of an old version, drops all by which a status is known as ours.
    #[test]
    fn each_write_names_the_field_by_which_a_status_is_known_as_ours() {
        let generation = |number| NodeOpStatus { observed_generation: Some(3), ..status(number) };
        let diff = status_diff(Some(&generation(1)), &generation(2)).unwrap().unwrap();
        assert_eq!(diff["observedGeneration"], 3, "{diff}");
        assert_eq!(status_diff(Some(&generation(1)), &generation(1)).unwrap(), None, "nothing is written");
    }

    /// An object that has all fields of a schema, and in each time more than is written out of it.
    fn full(schema: &Value, time: &str) -> Value {
        let of = |schema: &Value| full(schema, time);
        match (schema["type"].as_str(), schema["format"].as_str()) {
            _ if schema["enum"].is_array() => schema["enum"][0].clone(),
            (Some("object"), _) if schema["properties"].is_object() => {
                let fields = schema["properties"].as_object().unwrap().iter();
                fields.map(|(name, schema)| (name.clone(), of(schema))).collect()
            }
            (Some("object"), _) => json!({"n1": of(&schema["additionalProperties"])}),
            (Some("array"), _) => json!([of(&schema["items"])]),
            (Some("string"), Some("date-time")) => time.into(),
            (Some("string"), _) => "text".into(),
            (Some("integer"), _) => 1.into(),
            (Some("boolean"), _) => true.into(),
            other => panic!("{other:?}: {schema}"),
        }
    }

    /// Each time that there is, and none that was forgotten here.
    #[test]
    fn what_was_written_is_what_is_read_again() {
        fn of<S: NodesStatus>(crd: &impl Serialize, time: &str) -> usize {
            let crd = serde_json::to_value(crd).unwrap();
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
            let new: S = serde_json::from_value(full(schema, time)).unwrap();
            let text = serde_json::to_string(&new).unwrap();
            assert!(!new.nodes().is_empty() && !is_read_back(&new));
            let read: S = serde_json::from_str(&text).unwrap();
            assert_eq!(new.as_written(None), read);
            assert_eq!(new.as_written(Some(&S::default())), read);
            assert_eq!(status_diff(Some(&new), &new).unwrap(), None);
            assert_eq!(status_diff(None, &new).unwrap(), Some(serde_json::to_value(&new).unwrap()));
            let mut other = S::default();
            other.nodes_mut().insert("n1", NodeStatus::default());
            let whole = |status: &S| serde_json::to_value(status).unwrap();
            for (old, new) in [(&other, &new), (&new, &other)] {
                let expected = merge_diff(&whole(old), &whole(new));
                assert_eq!(status_diff(Some(old), new).unwrap(), expected, "each field of an entry, too");
            }
            text.matches(&time[..10]).count()
        }
        for time in ["2026-05-28T20:26:40.999999999Z", "1969-12-31T23:59:58.5Z"] {
            let (ops, upgrades) = (
                of::<NodeOpStatus>(&NodeOp::crd(), time),
                of::<NodeOpUpgradeStatus>(&NodeOpUpgrade::crd(), time),
            );
            assert!(ops > 8 && upgrades > ops, "{ops} {upgrades}");
        }
    }
}
