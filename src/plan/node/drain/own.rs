//! The operator's own pod, if it is on the node that is drained.
//!
//! Evicting it ends this very drain, so it goes last, and only if another replica is Ready elsewhere to go on
//! with it. One that starts there, because it had to leave this node too, is waited for: a leader that goes
//! down with its node is missed for as long as its Lease lasts. With no other replica it stays, and goes down
//! with the node.

use k8s_openapi::jiff::SignedDuration;

use crate::plan::{
    model::{
        effects::{Effects, Planned},
        intent::DrainIntent,
        question::Question,
        snapshot::{NodePod, OtherReplica, Snapshot},
        stamp::Stamp,
        time::later,
    },
    node::{context::NodeContext, waiting::Draining},
};

/// Between two looks at a replica that starts. Nothing watches it.
const LOOK_EVERY: SignedDuration = SignedDuration::from_secs(1);

/// How long another replica that is not Ready yet is waited for.
const REPLICA_START_GRACE: SignedDuration = SignedDuration::from_secs(60);

/// Why it is left at first.
pub const WHY: &str = "it is the operator itself, which goes last";

/// Whether this is our own pod.
pub fn is(snapshot: &Snapshot, pod: &NodePod) -> bool {
    snapshot
        .config
        .own_pod
        .as_ref()
        .is_some_and(|(namespace, name)| *namespace == pod.namespace && *name == pod.name)
}

/// Evicts our own pod, if another replica can go on; says what is waited for.
pub fn evict(ctx: &NodeContext<'_>, options: &DrainIntent, started: Stamp) -> Planned<Option<Draining>> {
    let mut pods = ctx.snapshot.residents(&ctx.node.name);
    let Some(pod) = pods.find(|pod| is(ctx.snapshot, pod)) else { return None.into() };
    if pod.ends_by.is_some() {
        return Some(Draining::OperatorEnds).into();
    }
    match ctx.snapshot.other_replica(&ctx.node.name) {
        None => {
            let question = Question::OtherReplica(ctx.node.name.clone());
            Planned::from(Some(Draining::OtherReplicaUnknown)).with(question)
        }
        Some(OtherReplica::Ready) => {
            let evicted = super::evict(ctx, options, started, pod);
            evicted.map(|blocked| Some(Draining::OperatorMoves { blocked }))
        }
        // One that does not get Ready is as good as none.
        Some(OtherReplica::Starts)
            if ctx.snapshot.now
                >= later(ctx.snapshot.replica_starts_since(&ctx.node.name), REPLICA_START_GRACE) =>
        {
            None.into()
        }
        Some(OtherReplica::Starts) => {
            let again = Effects::wake_at(later(ctx.snapshot.now, LOOK_EVERY));
            Planned::from(Some(Draining::OtherReplicaStarts)).with(again)
        }
        Some(OtherReplica::None) => None.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use crate::{
        api::nodeop::NodeOp,
        plan::{
            model::{
                action::Action,
                intent::Intent,
                question::Answer,
                snapshot::{NodeView, PlannerConfig},
            },
            node::{context::Op, drain::own::*, fixtures},
        },
    };

    fn look(answer: Option<Answer>) -> (Option<Draining>, Effects) {
        let op: NodeOp = serde_json::from_value(json!({
            "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
            "metadata": {"name": "op", "namespace": "ns", "uid": "u"},
            "spec": {"command": [], "cordon": true, "drainOptions": {"enabled": true}},
        }))
        .unwrap();
        let drain = Intent::of(&op).drain.unwrap();
        let op = Op::of(&Arc::new(op));
        let own =
            NodePod { namespace: "own".into(), name: "me".into(), uid: "p".into(), ..NodePod::default() };
        let snapshot = Snapshot {
            config: PlannerConfig { own_pod: Some(("own".into(), "me".into())), ..PlannerConfig::default() },
            drained_pods: [("n1".to_owned(), vec![Arc::new(own)].into())].into(),
            answers: answer.map(|answer| (Question::OtherReplica("n1".into()), answer)).into_iter().collect(),
            ..Snapshot::default()
        };
        let node = NodeView { name: "n1".into(), ..NodeView::default() };
        let (entry, work) = fixtures::draining(snapshot.now);
        let ctx = NodeContext { snapshot: &snapshot, op: &op, node: &node, entry: &entry, work: &work };
        let planned = evict(&ctx, &drain, snapshot.now.into());
        (planned.value, planned.effects)
    }

    #[test]
    fn the_operator_moves_only_if_another_replica_can_go_on() {
        let (said, plan) = look(None);
        assert!(said.is_some() && plan.actions.is_empty() && plan.questions.len() == 1, "it asks first");
        let (said, plan) = look(Some(Answer::Found));
        assert!(
            said.is_some() && matches!(&plan.actions[..], [Action::Evict { pod, .. }] if pod.name == "me"),
            "{:?}",
            plan.actions
        );
        let (said, plan) = look(Some(Answer::Pending));
        assert!(said.is_some() && plan.actions.is_empty() && plan.wake_at.is_some(), "it looks again");
        let (said, plan) = look(Some(Answer::NotFound));
        assert!(said.is_none() && plan.actions.is_empty(), "alone, it stays and goes down with the node");
    }
}
