//! A NodeOp that is over, and whose spec was edited since: nothing is run for that, and its status says so.
//!
//! Whoever waits for an object by kstatus (Flux, Helm, `kubectl wait`, Argo CD) waits until its status is
//! about its spec as it is. Some fields of a NodeOp may be edited at any time, such as `notAfter`, which
//! belongs on every NodeOp in Git. So the generation is written once more, and nothing else: what came of
//! each node and when it was over stays as it is. So does all that the Go operator has finished.

use crate::{
    api::nodeop::NodeOpStatus,
    plan::{
        model::{action::Action, effects::Effects},
        node::context::Op,
    },
};

/// Writes of which spec the status is, if that is another one than it says.
pub fn observe(op: &Op) -> Effects {
    let object = &op.object;
    let status = object.status.as_ref().filter(|_| object.is_over() && !object.is_observed());
    Effects::act(status.map(|status| {
        let generation = object.metadata.generation;
        let mut status = Box::new(NodeOpStatus { observed_generation: generation, ..status.clone() });
        status.conditions.iter_mut().for_each(|condition| condition.observed_generation = generation);
        Action::PatchStatus { op: object.clone(), status, notices: Vec::new() }
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api::{names, nodeop::NodeOp},
        plan::{check, model::snapshot::Snapshot, plan},
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
    fn what_the_go_operator_finished_stays_as_it_is() {
        let done = json!({"phase": "Completed", "jobName": "j", "rebootStatus": "completed"});
        let go = json!({"observedGeneration": null, "conditions": [], "nodeStatuses": {"n1": done}});
        assert_eq!(written(op(1, json!([]), go)), None);
    }
}
