//! What is kept of an object: less than the server sends. Every run of an operation is an object of its
//! own, and nobody deletes the old ones, so of what is over no more is kept than a decision can still need.

use std::collections::BTreeMap;

use kube::{Resource, core::ObjectMeta};

use crate::api::{
    names,
    nodeop::{NodeOp, NodeOpSpec, NodeOpStatus, NodeStatus, Phase},
    owner,
    upgrade::{NodeOpUpgrade, NodeOpUpgradeSpec, NodeOpUpgradeStatus, UpgradePhase},
};

/// A NodeOp. Of one that is over, without a finalizer of ours, with all its nodes given back, and whose
/// status is about its spec as it is, nothing depends any more but by its identity, of which the cache keeps
/// a record (see [`FinishedOp`](crate::plan::model::snapshot::FinishedOp)). A NodeOpUpgrade copies the status
/// of its own, see [`upgraded`].
pub fn nodeop(op: NodeOp) -> NodeOp {
    let op = trimmed(op);
    if is_over(&op) && owner::upgrade_uid(&op.metadata).is_none() { identified(op) } else { op }
}

/// Whether the NodeOp of a NodeOpUpgrade can be forgotten, too; `upgrade` is the one that its owner reference
/// names. Of an earlier run the status of the upgrade says what came of it. Where that says of no run, as the
/// Go operator's, the NodeOp alone tells what was run.
pub fn upgraded(op: &NodeOp, upgrade: Option<&NodeOpUpgrade>) -> Option<NodeOp> {
    let whole = op.status.as_ref().is_some_and(|status| !status.node_statuses.is_empty());
    let copied = |upgrade: &NodeOpUpgrade| {
        let status = upgrade.status.as_ref();
        let recorded = status.and_then(|status| status.node_op_uid.as_ref());
        upgrade.metadata.uid.as_deref() != owner::upgrade_uid(&op.metadata)
            || status.is_some_and(|of| of.run.is_some() && of.phase.is_some_and(UpgradePhase::is_final))
            || recorded.is_some() && recorded != op.metadata.uid.as_ref()
    };
    (whole && is_over(op) && upgrade.is_none_or(copied)).then(|| identified(op.clone()))
}

/// Whether no more is kept of the NodeOp than its identity, or it has nothing else: it is over, and so is
/// what it made.
pub fn is_forgotten(op: &NodeOp) -> bool {
    op.status
        .as_ref()
        .is_some_and(|status| status.node_statuses.is_empty() && status.phase.is_some_and(Phase::is_final))
}

fn is_over(op: &NodeOp) -> bool {
    op.is_over() && op.is_observed() && !op.has_our_finalizer() && !op.status.as_ref().is_some_and(has_a_node)
}

/// Whether what the status says of a node still decides what becomes of it. Ours says so until the node is
/// given back, also when somebody has removed the finalizer. The Go operator wrote nothing of that, and had
/// no finalizer: it left nodes that failed cordoned.
fn has_a_node(status: &NodeOpStatus) -> bool {
    let written_by_go = status.observed_generation.is_none();
    let is_free = |entry: &NodeStatus| {
        if written_by_go {
            entry.phase == Phase::Completed
        } else {
            entry.phase != Phase::Running && entry.node_uid.is_none()
        }
    };
    !status.node_statuses.values().all(is_free)
}

fn identified(op: NodeOp) -> NodeOp {
    let Some(status) = &op.status else { return op };
    let ttl = op.spec.ttl_seconds_after_finished;
    // When it was over, and who brings it back if it is deleted, matters to those that are to be deleted.
    let kept = NodeOpStatus {
        phase: status.phase,
        observed_generation: status.observed_generation,
        conditions: if ttl.is_some() { status.conditions.clone() } else { Vec::new() },
        // For the metrics: what came of it, and when.
        counts: status.counts.clone(),
        last_updated: status.last_updated.clone(),
        ..NodeOpStatus::default()
    };
    let mut metadata = identity(op.metadata, ttl.is_some());
    // By whom else it was made decides nothing.
    if ttl.is_none() && owner::upgrade(&metadata).is_none() {
        (metadata.owner_references, metadata.annotations) = (None, None);
    }
    NodeOp {
        metadata,
        spec: NodeOpSpec { ttl_seconds_after_finished: ttl, ..NodeOpSpec::default() },
        status: Some(kept),
    }
}

/// A NodeOpUpgrade. Of one that is over and not `Continuous`, and whose spec was not changed since, no more
/// may be decided on than which NodeOps it has, and which nodes run what it brought.
pub fn upgrade(upgrade: NodeOpUpgrade) -> NodeOpUpgrade {
    let upgrade = trimmed(upgrade);
    let generation = upgrade.metadata.generation;
    let over = |status: &&NodeOpUpgradeStatus| {
        let is_observed = status.run.is_some() && status.observed_generation == generation;
        is_observed && status.phase.is_some_and(UpgradePhase::is_final) && !upgrade.spec.is_continuous()
    };
    let Some(status) = upgrade.status.as_ref().filter(over) else { return upgrade };
    let kept = NodeOpUpgradeStatus {
        phase: status.phase,
        node_op_name: status.node_op_name.clone(),
        node_op_uid: status.node_op_uid.clone(),
        run: status.run.clone(),
        round: status.round.clone(),
        release: status.release.clone(),
        history: status.history.clone(),
        observed_generation: status.observed_generation,
        // For the metrics: what came of it, and when.
        counts: status.counts.clone(),
        last_updated: status.last_updated.clone(),
        ..NodeOpUpgradeStatus::default()
    };
    NodeOpUpgrade {
        metadata: identity(upgrade.metadata, false),
        spec: NodeOpUpgradeSpec { node_selector: upgrade.spec.node_selector, ..NodeOpUpgradeSpec::default() },
        status: Some(kept),
    }
}

fn identity(meta: ObjectMeta, annotated: bool) -> ObjectMeta {
    ObjectMeta {
        name: meta.name,
        namespace: meta.namespace,
        uid: meta.uid,
        resource_version: meta.resource_version,
        generation: meta.generation,
        creation_timestamp: meta.creation_timestamp,
        deletion_timestamp: meta.deletion_timestamp,
        finalizers: meta.finalizers,
        owner_references: meta.owner_references,
        annotations: meta.annotations.map(|all| kept(all, annotated)).filter(|kept| !kept.is_empty()),
        labels: meta.labels.filter(|_| annotated),
        ..ObjectMeta::default()
    }
}

/// As which run a NodeOp was made is part of what it is.
fn kept(mut annotations: BTreeMap<String, String>, annotated: bool) -> BTreeMap<String, String> {
    annotations.retain(|name, _| annotated || name == names::RUN);
    annotations
}

/// `managedFields` and kubectl's copy of the object are half of it, and decide nothing.
fn trimmed<K: Resource>(mut object: K) -> K {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(names::LAST_APPLIED);
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn op(phase: &str, finalizers: Value) -> NodeOp {
        serde_json::from_value(json!({
            "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
            "metadata": {"name": "op", "namespace": "ns", "uid": "u", "resourceVersion": "7", "finalizers": finalizers,
                "managedFields": [{"manager": "kubectl"}], "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x"}},
            "spec": {"command": ["x".repeat(1000)], "concurrency": 1},
            "status": {"phase": phase, "message": "m", "nodeStatuses": {"n1": {"phase": "Completed", "message": "m"}}},
        }))
        .unwrap()
    }

    #[test]
    fn of_a_nodeop_that_is_over_its_identity_is_kept_and_of_others_all() {
        for (object, whole) in [
            (op("Completed", json!([])), false),
            (op("Failed", json!(["other.example/finalizer"])), false),
            (op("Completed", json!([names::FINALIZER])), true),
            (op("Completed", json!([names::LEGACY_FINALIZER])), true),
            (op("Running", json!([])), true),
        ] {
            let kept = nodeop(object.clone());
            let same = |of: fn(&NodeOp) -> Value| of(&kept) == of(&object);
            assert!(same(|op| json!([
                op.metadata.uid,
                op.metadata.resource_version,
                op.metadata.finalizers
            ])));
            assert!(same(|op| json!(op.status.as_ref().unwrap().phase)));
            assert_eq!(kept.spec == object.spec, whole);
            assert_eq!(kept.status.as_ref().unwrap().node_statuses.len(), usize::from(whole));
            assert!(kept.metadata.managed_fields.is_none());
        }
    }

    /// The Go operator's finished operations have no finalizer, and anybody may remove ours: a node that
    /// failed was uncordoned then, since nobody knew any more that it had.
    #[test]
    fn what_is_said_of_a_node_is_kept_until_the_node_is_given_back() {
        let of = |generation: Option<i64>, entry: Value| {
            let mut object = op("Failed", json!([]));
            object.metadata.generation = generation;
            let status = object.status.as_mut().unwrap();
            status.observed_generation = generation;
            status.node_statuses.insert("n2", serde_json::from_value(entry).unwrap());
            nodeop(object).status.unwrap().node_statuses.contains_key("n2")
        };
        for (generation, entry, kept) in [
            (None, json!({"phase": "Failed", "jobName": "j", "rebootStatus": "not-requested"}), true),
            (None, json!({"phase": "Running", "jobName": "j", "rebootStatus": "pending"}), true),
            (None, json!({"phase": "Completed", "jobName": "j", "rebootStatus": "pending"}), true),
            (None, json!({"phase": "Completed", "jobName": "j", "rebootStatus": "completed"}), false),
            (Some(1), json!({"phase": "Failed", "jobName": "j", "nodeUid": "n"}), true),
            (Some(1), json!({"phase": "Running", "jobName": "j"}), true),
            (Some(1), json!({"phase": "Failed", "jobName": "j"}), false),
            (Some(1), json!({"phase": "Pending"}), false),
        ] {
            assert_eq!(of(generation, entry.clone()), kept, "{generation:?} {entry}");
        }
    }

    /// Its status is still to be written, and from a record that could not be.
    #[test]
    fn a_nodeop_that_was_edited_after_its_end_is_kept_until_its_status_says_so() {
        for (observed, whole) in [(Some(2), false), (Some(1), true), (None, false)] {
            let mut object = op("Completed", json!([]));
            object.metadata.generation = Some(2);
            object.status.as_mut().unwrap().observed_generation = observed;
            let kept = nodeop(object.clone());
            assert_eq!(kept.status == object.status && kept.spec == object.spec, whole, "{observed:?}");
        }
    }

    #[test]
    fn the_nodeop_of_an_upgrade_is_kept_until_the_upgrade_has_its_end() {
        let mut child = op("Completed", json!([]));
        child.metadata.owner_references =
            serde_json::from_value(json!([{"apiVersion": "operator.kairos.io/v1alpha1",
            "kind": "NodeOpUpgrade", "name": "op", "uid": "up", "controller": true}]))
            .unwrap();
        assert_eq!(nodeop(child.clone()).status.unwrap().node_statuses.len(), 1);
        let upgrade = |uid: &str, phase: &str, run: Option<&str>| -> NodeOpUpgrade {
            serde_json::from_value(
                json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade",
                "metadata": {"name": "op", "namespace": "ns", "uid": uid}, "spec": {"image": "i"},
                "status": {"phase": phase, "run": run}}),
            )
            .unwrap()
        };
        assert!(upgraded(&child, Some(&upgrade("up", "Running", Some("r")))).is_none());
        let told = "which run that was is still to be found out";
        assert!(upgraded(&child, Some(&upgrade("up", "Completed", None))).is_none(), "{told}");
        let others = [upgrade("up", "Completed", Some("r")), upgrade("another", "Running", None)];
        for of in others.into_iter().map(Some).chain([None]) {
            let kept = upgraded(&child, of.as_ref()).unwrap();
            assert!(kept.status.as_ref().unwrap().node_statuses.is_empty());
            assert_eq!(upgraded(&kept, of.as_ref()), None, "once is enough");
        }
    }

    #[test]
    fn a_thousand_runs_that_are_over_take_little_room() {
        let nodes: Value = (0..100)
            .map(|n| (format!("n{n}"), json!({"phase": "Completed", "message": "m".repeat(200)})))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let mut object = op("Completed", json!([]));
        object.status = serde_json::from_value(json!({"phase": "Completed", "nodeStatuses": nodes})).unwrap();
        let size = |op: &NodeOp| serde_json::to_string(op).unwrap().len();
        assert!(size(&object) > 20_000 && size(&nodeop(object)) < 400);
    }
}
