//! `ttlSecondsAfterFinished`: a NodeOp that is over is deleted, unless something would only create it
//! again, to run again.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::SignedDuration};

use crate::{
    api::{
        ended::ended,
        nodeop::{NodeOp, NodeOpStatus, Phase},
    },
    plan::{
        model::{
            action::{Action, Notice},
            effects::Effects,
            id::OpRef,
            snapshot::Snapshot,
            time::later,
        },
        node::context::Op,
    },
};

/// By what an object is known that comes from a repository: a key of its annotations or labels, and whose
/// it is.
const MANAGED_BY: [(&str, &str); 4] = [
    ("argocd.argoproj.io/tracking-id", "Argo CD"),
    ("app.kubernetes.io/instance", "Argo CD or Helm"),
    ("kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("helm.toolkit.fluxcd.io/name", "Flux"),
];

/// Who would create the object again if it were deleted.
fn manager(meta: &ObjectMeta) -> Option<&'static str> {
    let has =
        |key: &str| [&meta.annotations, &meta.labels].into_iter().flatten().any(|map| map.contains_key(key));
    MANAGED_BY.into_iter().find_map(|(key, who)| has(key).then_some(who))
}

/// Deletes a NodeOp that has been over for as long as it was to be kept, and of which nothing is left to do.
pub fn sweep(snapshot: &Snapshot, op: &Op) -> Effects {
    let ttl = op.object.spec.ttl_seconds_after_finished;
    let Some(ttl) = ttl.filter(|_| !op.deleting && manager(&op.object.metadata).is_none()) else {
        return Effects::default();
    };
    let over = op.object.status.as_ref().and_then(|status| ended(&status.conditions));
    let Some(over) = over else { return Effects::default() };
    // It counts over many leaders, or one that is followed each day would never end. But a clock that says it
    // was over in the future, or before the server made it, says nothing.
    let made = op.object.metadata.creation_timestamp.as_ref();
    let told = over <= snapshot.now && made.is_none_or(|made| made.0 <= over);
    let over = if told { over } else { snapshot.leading_since };
    let due = later(over, SignedDuration::from_secs(i64::from(ttl)));
    if snapshot.now < due {
        Effects::wake_at(due)
    } else {
        Action::DeleteOp { op: OpRef::of(&op.object) }.into()
    }
}

/// What is said of a NodeOp that is over now, and that would be deleted, but for whoever manages it.
pub fn notice(op: &NodeOp, new: &NodeOpStatus) -> Option<Notice> {
    let over = |status: &NodeOpStatus| status.phase.is_some_and(Phase::is_final);
    if op.spec.ttl_seconds_after_finished.is_none() || !over(new) || op.status.as_ref().is_some_and(over) {
        return None;
    }
    let who = manager(&op.metadata)?;
    let message = format!(
        "ttlSecondsAfterFinished is ignored: {who} manages this NodeOp, would create it again, and it would run again"
    );
    Some(Notice { warning: true, reason: "TTLIgnored", message, node: None })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::plan;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    /// A NodeOp that was over at second 0 by somebody's clock; we lead since 10 s before.
    fn deleted(meta: Value, ttl: Option<i32>, phase: &str, now: i64) -> bool {
        deleted_of((0, -10), meta, ttl, phase, now)
    }

    /// The same, of one that was over, and a leader that began, at these seconds.
    fn deleted_of((over, leading): (i64, i64), meta: Value, ttl: Option<i32>, phase: &str, now: i64) -> bool {
        let mut metadata = json!({"name": "op", "namespace": "ns", "uid": "u"});
        metadata.as_object_mut().unwrap().extend(meta.as_object().unwrap().clone());
        let over = json!({"type": "Complete", "status": "True", "reason": "Completed", "message": "", "lastTransitionTime": Time(at(over))});
        let conditions = if phase == "Completed" { vec![over] } else { vec![] };
        let op: NodeOp = serde_json::from_value(json!({
            "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "metadata": metadata,
            "spec": {"command": [], "ttlSecondsAfterFinished": ttl},
            "status": {"phase": phase, "observedGeneration": 1, "conditions": conditions, "nodeStatuses": {"n1": {"phase": phase}}},
        }))
        .unwrap();
        let snapshot = Snapshot {
            now: at(now),
            leading_since: at(leading),
            ops: [(OpRef::of(&op).key(), Arc::new(op))].into(),
            ..Snapshot::default()
        };
        plan(&snapshot)
            .actions
            .iter()
            .any(|action| matches!(action, Action::DeleteOp { op } if op.uid == "u"))
    }

    #[test]
    fn a_nodeop_is_deleted_when_its_time_is_over_and_not_where_it_would_be_made_again() {
        let own = json!({});
        assert!(deleted(own.clone(), Some(60), "Completed", 60));
        assert!(!deleted(own.clone(), Some(60), "Completed", 59));
        assert!(!deleted(own.clone(), None, "Completed", 1_000_000));
        assert!(!deleted(own.clone(), Some(60), "Pending", 1_000_000));
        assert!(!deleted(own, Some(60), "Completed", -5), "by another clock it is over in the future");
        // By the clock of an earlier leader that was an hour wrong. The server made it at second 0.
        let made = json!({"creationTimestamp": Time(at(0))});
        for over in [-3600, 3600] {
            let deleted = |now| deleted_of((over, 10), made.clone(), Some(60), "Completed", now);
            assert_eq!((deleted(69), deleted(70)), (false, true), "{over}");
        }
        assert!(deleted_of((20, 1000), made, Some(60), "Completed", 1000), "many leaders may come and go");
        for (key, _) in MANAGED_BY {
            for map in ["annotations", "labels"] {
                assert!(!deleted(json!({map: {key: "x"}}), Some(60), "Completed", 1_000_000), "{key}");
            }
        }
        let held = json!({"finalizers": [crate::api::names::FINALIZER]});
        assert!(!deleted(held, Some(60), "Completed", 60), "not before it is concluded");
    }
}
