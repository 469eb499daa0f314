//! A NodeOp that is over, and whose spec was edited since: nothing is run for that, and its status says so.
//!
//! Whoever waits for an object by kstatus (Flux, Helm, `kubectl wait`, Argo CD) waits until its status is about
//! its spec as it is. Some fields of a NodeOp may be edited at any time, such as `notAfter`, which belongs on
//! every NodeOp in Git. So the generation is written once more, and nothing else: what came of each node and
//! when it was over stays as it is.
//!
//! What the Go operator has finished gets the conditions that it never wrote. Where such a status still
//! decides what becomes of a node, it is by the missing `observedGeneration` that it is known as the Go
//! operator's, so it gets the conditions alone; kstatus does not ask for more.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    api::nodeop::{NodeOp, NodeOpStatus, Phase},
    plan::{
        conditions::{self, Moment, Standing},
        model::{action::Action, effects::Effects, snapshot::Snapshot},
        node::context::Op,
    },
};

/// Whether the status of a NodeOp that is over is about its spec as it is, or is not to say anything more.
pub fn is_settled(op: &NodeOp) -> bool {
    let generation = op.metadata.generation;
    let is_current = |condition: &Condition| condition.observed_generation == generation;
    let says_so = |conditions: &[Condition]| !conditions.is_empty() && conditions.iter().all(is_current);
    op.is_observed()
        || op
            .status
            .as_ref()
            .is_some_and(|status| status.leaves_a_node_of_go() && says_so(&status.conditions))
}

/// Makes it so.
pub fn settle(snapshot: &Snapshot, op: &Op) -> Effects {
    let object = &op.object;
    let status = object.status.as_ref().filter(|_| object.is_over() && !is_settled(object));
    Effects::act(status.map(|status| {
        let status = Box::new(settled(status, object.metadata.generation, snapshot));
        Action::PatchStatus { op: object.clone(), status, notices: Vec::new() }
    }))
}

fn settled(old: &NodeOpStatus, generation: Option<i64>, snapshot: &Snapshot) -> NodeOpStatus {
    let mut status = old.clone();
    if status.conditions.is_empty() {
        let standing =
            if status.phase == Some(Phase::Completed) { Standing::Completed } else { Standing::Failed };
        let message = status.message.as_deref().unwrap_or_default();
        conditions::set(&mut status.conditions, standing, message, Moment { generation, now: snapshot.now });
    }
    status.conditions.iter_mut().for_each(|condition| condition.observed_generation = generation);
    if !status.leaves_a_node_of_go() {
        status.observed_generation = generation;
    }
    status
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api::names,
        plan::{check, plan},
    };

    fn op(generation: i64, finalizers: Value, status: Value) -> NodeOp {
        let meta = json!({"namespace": "ns", "name": "op", "uid": "u", "resourceVersion": "7", "generation": generation,
            "finalizers": finalizers});
        let conditions = [("Complete", 1), ("Ready", 1), ("Theirs", 0)].map(|(type_, of)| {
            json!({"type": type_, "status": "True", "reason": "Completed", "message": "m",
                "lastTransitionTime": "2026-01-02T03:04:05Z", "observedGeneration": of})
        });
        let mut all = json!({"phase": "Completed", "message": "m", "observedGeneration": 1, "conditions": conditions,
            "nodeStatuses": {"n1": {"phase": "Completed", "message": "exit code 0"}}, "lastUpdated": "2026-01-02T03:04:05Z"});
        all.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": meta, "spec": {"command": ["true"]}, "status": all}))
            .unwrap()
    }

    /// What is written of it.
    fn written(op: NodeOp) -> Option<NodeOpStatus> {
        let key = ("ns".to_owned(), "op".to_owned());
        let snapshot = Snapshot { ops: [(key, Arc::new(op))].into(), ..Snapshot::default() };
        let plan = plan(&snapshot);
        assert_eq!(check::broken(&snapshot, &plan), [""; 0]);
        plan.actions.into_iter().find_map(|action| match action {
            Action::PatchStatus { status, notices, .. } => {
                assert!(notices.is_empty(), "nothing has happened to it");
                Some(*status)
            }
            _ => None,
        })
    }

    #[test]
    fn the_status_of_a_finished_nodeop_follows_an_edit_once_and_says_nothing_else() {
        let edited = op(2, json!([]), json!({}));
        let status = written(edited.clone()).unwrap();
        let mut wanted = serde_json::to_value(edited.status.clone().unwrap()).unwrap();
        wanted["observedGeneration"] = 2.into();
        let conditions = wanted["conditions"].as_array_mut().unwrap();
        conditions.iter_mut().for_each(|condition| condition["observedGeneration"] = 2.into());
        assert_eq!(serde_json::to_value(&status).unwrap(), wanted);
        assert_eq!(written(NodeOp { status: Some(status), ..edited }), None, "once");
        assert_eq!(written(op(1, json!([]), json!({}))), None, "nothing was edited");
        let mut deleted = op(2, json!(["another.example/finalizer"]), json!({}));
        deleted.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-03T00:00:00Z")).unwrap();
        assert_eq!(written(deleted), None, "a deletion is no edit");
    }

    /// A write that a server refuses must not keep a finalizer in place.
    #[test]
    fn what_is_left_to_do_comes_first() {
        let held = op(2, json!([names::FINALIZER]), json!({}));
        let key = ("ns".to_owned(), "op".to_owned());
        let snapshot = Snapshot { ops: [(key, Arc::new(held))].into(), ..Snapshot::default() };
        let plan = plan(&snapshot);
        assert!(matches!(plan.actions.as_slice(), [Action::Finalize { .. }]), "{:?}", plan.actions);
    }

    #[test]
    fn what_the_go_operator_finished_gets_its_conditions_and_stays_known_as_its_own_while_that_matters() {
        let go = |phase: &str, node: Value| json!({"phase": phase, "observedGeneration": null, "conditions": [], "nodeStatuses": {"n1": node}});
        let done = || json!({"phase": "Completed", "jobName": "j", "rebootStatus": "completed"});
        let failed = || json!({"phase": "Failed", "jobName": "j"});
        for (status, ready, observed) in
            [(go("Completed", done()), "True", Some(1)), (go("Failed", failed()), "False", None)]
        {
            let old = op(1, json!([]), status);
            let status = written(old.clone()).unwrap();
            let condition = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
            assert_eq!((&*condition.status, status.observed_generation), (ready, observed));
            assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(1)));
            assert_eq!(status.node_statuses, old.status.clone().unwrap().node_statuses);
            let settled = NodeOp { status: Some(status), ..old };
            assert_eq!(written(settled.clone()), None, "once");
            let mut edited = settled;
            edited.metadata.generation = Some(2);
            let again = written(edited).unwrap();
            assert_eq!(again.observed_generation, observed.map(|_| 2));
            assert!(again.conditions.iter().all(|condition| condition.observed_generation == Some(2)));
        }
    }
}
