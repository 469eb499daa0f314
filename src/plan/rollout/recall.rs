//! Nodes that are recorded as taken, and not claimed yet.
//!
//! Most often a moment lies between the two. But the leader may die there, or the API server may refuse the
//! claim for hours, and the claim is the first thing that is done to a node: until then whatever keeps a
//! pending node from being taken keeps this one from it, too. It goes back to where it was.

use crate::plan::{
    model::snapshot::NodeView,
    node::{
        context::EntryPlan,
        state::{At, Entry, Pending, State, Working},
    },
    rollout::{
        context::RolloutContext,
        not_taken::{Closed, NotTaken, Stopped},
    },
};

/// What takes nodes of one NodeOp back.
pub struct Recall<'a> {
    ctx: &'a RolloutContext<'a>,
    /// Why nothing more is started.
    closed: Option<Closed>,
}

impl<'a> Recall<'a> {
    /// For a NodeOp that starts nothing more if it is `stopped`.
    pub fn of(ctx: &'a RolloutContext<'a>, stopped: Option<&Stopped>) -> Self {
        Self { ctx, closed: ctx.closed(stopped) }
    }

    /// What becomes of a node that is worked on, if it is one that is taken back.
    pub fn node(&self, name: &str, entry: &Entry, work: &Working) -> Option<EntryPlan> {
        let RolloutContext { snapshot, op, .. } = self.ctx;
        let Working { at: At::Claim { passed_in }, given_up: None, found, .. } = work else { return None };
        // One that is deleted says so itself.
        if op.deleting {
            return None;
        }
        let node = snapshot.nodes.get(name).filter(|node| Some(&node.uid) == entry.node_uid.as_ref())?;
        if node.claimed_by.as_ref() == Some(&op.id) {
            return None;
        }
        let why = self.why(node, passed_in.as_deref())?;
        // Whether it is not claimed is proved before its slot is free (see `slots`): a view may be older.
        let pending = Pending { passed_in: passed_in.clone(), found: found.clone(), ..Pending::default() };
        Some(EntryPlan::Record(Box::new(entry.moved(snapshot.now, State::Pending(pending), why))))
    }

    fn why(&self, node: &NodeView, passed_in: Option<&str>) -> Option<NotTaken> {
        if let Some(closed) = &self.closed {
            return Some(NotTaken::Closed(closed.clone()));
        }
        if node.deleting {
            return Some(NotTaken::NodeDeleting);
        }
        if node.labels.on_hold() {
            return Some(NotTaken::OnHold);
        }
        if !node.ready {
            return Some(NotTaken::NodeNotReady);
        }
        // The preflight passed in a boot that is over: it is asked again.
        if passed_in.is_some_and(|boot| boot != node.boot_id) {
            return Some(NotTaken::Turn);
        }
        self.ctx.others()?.newer(node)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use serde_json::json;

    use crate::{
        api::{
            names,
            nodeop::{NodeOp, Phase},
        },
        plan::{
            model::{
                action::Action,
                effects::Plan,
                id::OpRef,
                question::Answer,
                snapshot::{NodeView, Snapshot},
            },
            plan,
        },
    };

    /// It is recorded that n1 is taken, which passed its preflight in boot b1.
    fn recorded() -> (Snapshot, NodeOp, NodeView) {
        let op: NodeOp = serde_json::from_value(json!({
            "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
            "metadata": {"name": "op", "namespace": "ns", "uid": "u", "finalizers": [names::FINALIZER], "generation": 1},
            "spec": {"command": ["true"], "preflight": {"command": ["check"]}, "cordon": true, "concurrency": 1,
                "stopOnFailure": true},
            "status": {"phase": "Running", "observedGeneration": 1, "nodeStatuses": {
                "n1": {"phase": "Running", "step": "Claim", "nodeUid": "n1", "boot": "b1"}, "n2": {"phase": "Pending"},
            }},
        }))
        .unwrap();
        let node = NodeView {
            name: "n1".into(),
            uid: "n1".into(),
            boot_id: "b1".into(),
            ready: true,
            ..NodeView::default()
        };
        (Snapshot { now: Timestamp::from_second(1_000_000).unwrap(), ..Snapshot::default() }, op, node)
    }

    /// The plan when all that it asks for was found.
    fn planned(change: impl FnOnce(&mut NodeOp, &mut NodeView)) -> Plan {
        let (mut snapshot, mut op, mut node) = recorded();
        change(&mut op, &mut node);
        snapshot.nodes.insert("n1".into(), Arc::new(node));
        snapshot.ops.insert(OpRef::of(&op).key(), Arc::new(op));
        let asked = plan(&snapshot).questions;
        snapshot.answers = asked.into_iter().map(|question| (question, Answer::Found)).collect();
        plan(&snapshot)
    }

    fn is_claimed(plan: &Plan) -> bool {
        let claims = |action: &Action| matches!(action, Action::PatchNode { change, .. } if change.claimed_by.is_some());
        plan.actions.iter().any(claims)
    }

    #[test]
    fn what_was_said_between_the_record_and_the_claim_counts() {
        assert!(is_claimed(&planned(|_, _| {})));
        type Change = fn(&mut NodeOp, &mut NodeView);
        let said: [(&str, Change); 7] = [
            ("paused", |op, _| op.spec.paused = Some(true)),
            ("notAfter", |op, _| op.spec.not_after = Some(Time(Timestamp::from_second(999_999).unwrap()))),
            ("stopOnFailure", |op, _| {
                let nodes = &mut op.status.as_mut().unwrap().node_statuses;
                nodes.update("n2", |entry| entry.phase = Phase::Failed);
            }),
            ("held", |_, node| drop(node.labels.insert(names::HOLD.into(), "true".into()))),
            ("not Ready", |_, node| node.ready = false),
            ("being deleted", |_, node| node.deleting = true),
            ("another boot", |_, node| node.boot_id = "b2".into()),
        ];
        for (what, change) in said {
            let plan = planned(change);
            assert!(!is_claimed(&plan), "{what}: {:?}", plan.actions);
            let back = plan.actions.iter().any(|action| {
                let Action::PatchStatus { status, .. } = action else { return false };
                let entry = &status.node_statuses["n1"];
                // Its UID stays until a live read has shown that it is not claimed.
                entry.phase == Phase::Pending && entry.node_uid.is_some()
            });
            assert!(back, "{what}: {:?}", plan.actions);
        }
    }

    #[test]
    fn a_node_that_is_claimed_is_not_taken_back() {
        let plan = planned(|op, node| {
            node.claimed_by = Some(OpRef::of(op));
            op.spec.paused = Some(true);
        });
        let back = plan.actions.iter().any(|action| {
            let Action::PatchStatus { status, .. } = action else { return false };
            status.node_statuses["n1"].phase != Phase::Running
        });
        let cordons = |action: &Action| matches!(action, Action::PatchNode { change, .. } if change.unschedulable == Some(true));
        assert!(!back && plan.actions.iter().any(cordons), "{:?}", plan.actions);
    }
}
