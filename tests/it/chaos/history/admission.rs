//! Which nodes an operation is about, how many of them it may have in progress, and that it takes none while
//! it is paused.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kairos_operator::api::nodeop::{NodeOp, NodeOpStatus, NodeStatus, Phase};
use serde_json::{Value, json};

use super::{Past, intent, text};
use crate::chaos::worlds::Kind;

/// A node that joined so shortly before the targets were chosen may not have been seen yet.
const JUST_JOINED: Duration = Duration::from_secs(30);
/// Operators start later than this: whoever looks sees the nodes that are there by then.
const BEGINNING: Duration = Duration::from_secs(1);
/// What an upgrade is told reaches its NodeOp within this time, where nothing goes wrong.
const PASSED_ON: Duration = Duration::from_secs(15);

/// What is remembered of operations.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// How many nodes an operation may have in progress: its limit, or as many as it had when that was
    /// lowered.
    allowed: BTreeMap<String, usize>,
    /// Upgrades that are paused, and since when.
    pub paused: BTreeMap<String, Duration>,
}

/// Whether a NodeOp holds a slot for the node.
fn is_held(entry: &NodeStatus) -> bool {
    entry.phase == Phase::Running || entry.node_uid.is_some() || entry.holds_slot == Some(true)
}

/// Whether a selector, as people write them here, matches these labels.
pub(super) fn selects(selector: &Value, labels: &Value) -> bool {
    let equal =
        selector["matchLabels"].as_object().into_iter().flatten().all(|(key, value)| labels[key] == *value);
    let listed = |it: &Value| {
        it["values"]
            .as_array()
            .is_some_and(|values| values.contains(&labels[it["key"].as_str().unwrap_or_default()]))
    };
    equal && selector["matchExpressions"].as_array().into_iter().flatten().all(listed)
}

impl Past<'_> {
    /// The targets are chosen once; and without one, nothing is done.
    pub(super) fn targets(&mut self, op: &NodeOp, uid: &str, before: &NodeOpStatus, now: &NodeOpStatus) {
        let added: Vec<&String> =
            now.node_statuses.keys().filter(|node| !before.node_statuses.contains_key(node)).collect();
        if !before.node_statuses.is_empty() && !added.is_empty() {
            self.broken(format!("{uid} is about {added:?} as well, which it was not in the beginning"));
        }
        if before.node_statuses.is_empty() && !now.node_statuses.is_empty() {
            self.left_out(op, uid, now);
        }
        let conditions = now.conditions.iter().filter(|condition| condition.status == "True");
        let done = conditions
            .map(|condition| condition.type_.as_str())
            .any(|kind| matches!(kind, "Complete" | "Verified"));
        if now.node_statuses.is_empty() && (done || now.phase == Some(Phase::Completed)) {
            self.broken(format!("{uid} is done, and is about no node: {:?}", now.message));
        }
    }

    /// A node that is there and Ready is not left out because nobody has read yet what it runs.
    fn left_out(&mut self, op: &NodeOp, uid: &str, now: &NodeOpStatus) {
        // Where nodes come and go while others look away, nobody can tell what was to be seen.
        if !self.scenario.is_calm() || !op.spec.node_names.is_empty() {
            return;
        }
        let selector = json!(op.spec.node_selector);
        let left = self.nodes.iter().filter(|(name, node)| {
            let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
            let ready =
                conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True");
            let known = self
                .joined
                .get(*name)
                .is_some_and(|joined| *joined <= BEGINNING || self.at > *joined + JUST_JOINED);
            // Each machine here is one of ours, so each is going to have this label; but nobody reads what a
            // Windows node runs.
            let mut labels = node["metadata"]["labels"].clone();
            if labels["kubernetes.io/os"] != "windows" {
                labels["kairos.io/managed"] = "true".into();
            }
            let linux = op.spec.node_selector.is_some() || labels["kubernetes.io/os"] != "windows";
            ready && known && linux && selects(&selector, &labels) && !now.node_statuses.contains_key(name)
        });
        let left: Vec<&String> = left.map(|(name, _)| name).collect();
        if !left.is_empty() {
            self.broken(format!("{uid} leaves out {left:?}, which match its selector"));
        }
    }

    /// A status was written: by the version that it carries, whoever wrote it knew the spec that stood there.
    pub(super) fn admits(&mut self, op: &NodeOp, uid: &str, before: &NodeOpStatus, now: &NodeOpStatus) {
        let old = |node: &str| before.node_statuses.get(node).cloned().unwrap_or_default();
        let starts = |(node, entry): &(&String, &NodeStatus)| {
            let (was, is) = (old(node).phase, entry.phase);
            let waits = matches!(was, Phase::Pending | Phase::Preflight);
            (waits && is == Phase::Running) || (was == Phase::Pending && is == Phase::Preflight)
        };
        let started: Vec<String> =
            now.node_statuses.iter().filter(starts).map(|(node, _)| node.clone()).collect();
        let paused = self.ops.get(uid).is_some_and(|op| op.spec.paused == Some(true));
        if paused && !started.is_empty() {
            self.broken(format!("{uid} starts {started:?}, and is paused"));
        }
        let upgrades = op
            .metadata
            .owner_references
            .iter()
            .flatten()
            .filter_map(|owner| self.admission.paused.get(&owner.uid));
        let late = upgrades.min().is_some_and(|since| self.at > *since + PASSED_ON);
        if late && !started.is_empty() && self.scenario.is_calm() && !self.scenario.is(Kind::Refusals) {
            self.broken(format!("{uid} starts {started:?}, and its upgrade is paused"));
        }
        self.says_that_it_is_paused(op, uid, paused, now);
        self.has_room(op, uid, (before, now));
    }

    /// Whoever looks at an operation that is paused sees why nothing new is started.
    fn says_that_it_is_paused(&mut self, op: &NodeOp, uid: &str, paused: bool, now: &NodeOpStatus) {
        let over = now.phase.is_some_and(Phase::is_final) || op.metadata.deletion_timestamp.is_some();
        let message = now.message.clone().unwrap_or_default();
        let current = now.counts.as_ref().map(|counts| counts.current.clone()).unwrap_or_default();
        // Nor would it start anything if it went on.
        let stopped = message.contains("nothing more is started")
            || message.contains("refuses what the operation needs");
        if paused && !over && !stopped && !message.contains("paused") && !current.contains("paused") {
            self.broken(format!("{uid} is paused, and does not say so: {message:?}, current {current:?}"));
        }
    }

    /// Never more nodes than `concurrency` says; those in progress when it is lowered go on, and none is
    /// taken beside them.
    fn has_room(&mut self, op: &NodeOp, uid: &str, (before, now): (&NodeOpStatus, &NodeOpStatus)) {
        let held = |status: &NodeOpStatus| -> BTreeSet<String> {
            status
                .node_statuses
                .iter()
                .filter(|(_, entry)| is_held(entry))
                .map(|(node, _)| node.clone())
                .collect()
        };
        let (had, has) = (held(before), held(now));
        let limit = intent(op).concurrency.unwrap_or(usize::MAX);
        // One that was done, or had failed and was given back, may go down when the next one was taken already.
        let went_down = |node: &String| {
            let phase = now.node_statuses[node].phase;
            let was_over = before.node_statuses.get(node).is_some_and(|entry| entry.phase == phase);
            phase == Phase::Completed || phase == Phase::Failed && was_over
        };
        let new: Vec<&String> = has.difference(&had).filter(|node| !went_down(node)).collect();
        if has.len() > limit && !new.is_empty() {
            self.broken(format!("{uid} has too many nodes in progress with {new:?}: {has:?}"));
        }
        self.admission.allowed.insert(uid.to_owned(), limit.max(has.len()));
    }

    /// How many nodes an operation may have in progress.
    pub(super) fn allowed(&self, uid: &str) -> Option<usize> {
        let limit = intent(self.known.get(uid)?).concurrency?;
        Some(self.admission.allowed.get(uid).copied().unwrap_or(limit).max(limit))
    }

    /// An upgrade is changed.
    pub(super) fn upgrade_is_paused(&mut self, upgrade: &Value) {
        let uid = text(upgrade, "/metadata/uid").to_owned();
        if upgrade["spec"]["paused"] == true {
            self.admission.paused.entry(uid).or_insert(self.at);
        } else {
            self.admission.paused.remove(&uid);
        }
    }
}
