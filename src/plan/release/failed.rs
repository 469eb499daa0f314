//! Nodes that failed and stay cordoned. Once the NodeOp is gone nothing but the node tells of it; so that is
//! said, with what to do.

use crate::plan::{
    model::{
        action::{Action, NodeChange, Notice},
        effects::Effects,
        id::OpRef,
        kept_cordon::KeptCordon,
        question::Question,
        snapshot::{NodeView, Snapshot},
    },
    node::hint_patch,
};

/// Looks after the cordon of a node that failed and that nobody works on.
pub fn sweep(snapshot: &Snapshot, node: &NodeView, kept: &KeptCordon) -> Effects {
    if !node.unschedulable {
        // A human lifted it. The next cordon is none of ours, and load balancers may have the node again.
        let mut lifted = NodeChange { cordoned_by: Some(None), ..NodeChange::default() };
        if let Some(hints) = node.hints.as_ref().filter(|_| node.is_kept_off()) {
            hint_patch::give_back(node, &hints.by, &mut lifted);
        }
        return Action::patch_node(node, lifted).into();
    }
    let gone = Question::Op(kept.by.clone());
    if kept.deleted || snapshot.op(&kept.by).is_some() {
        return Effects::default();
    }
    if snapshot.is_gone(&gone) {
        return Action::patch_node(node, tell(node, kept)).into();
    }
    snapshot.unanswered([gone])
}

/// Says on the node that it stays cordoned, and marks that this was said.
fn tell(node: &NodeView, kept: &KeptCordon) -> NodeChange {
    let (OpRef { namespace, name: op, .. }, name) = (&kept.by, &node.name);
    let off = if node.left_balancers() { " and out of load balancers" } else { "" };
    let message = format!(
        "the node stays cordoned{off}: NodeOp {namespace}/{op}, which is deleted, failed on it. Look at the node, then kubectl uncordon {name}"
    );
    let notice = Notice { warning: true, reason: "CordonKept", message, node: None };
    let kept = KeptCordon { deleted: true, ..kept.clone() };
    NodeChange { kept_cordon: Some(kept.into()), notice: Some(notice.into()), ..NodeChange::default() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::{
        api::names,
        plan::{
            fixtures::at,
            model::{hints::Hints, question::Answer},
            plan,
            release::tests::{changes, world},
        },
    };

    fn kept(deleted: bool) -> KeptCordon {
        KeptCordon { by: OpRef { namespace: "ns".into(), name: "op".into(), uid: "u".into() }, deleted }
    }

    /// n1 failed, was given back, and stays cordoned.
    fn failed(unschedulable: bool, deleted: bool) -> Snapshot {
        let mut snapshot = world("cancelled", "Failed", 1);
        snapshot.pods.clear();
        let kept_cordon = Some(kept(deleted));
        let n1 = NodeView {
            claimed_by: None,
            cordoned_by: None,
            kept_cordon,
            unschedulable,
            ..(*snapshot.nodes["n1"]).clone()
        };
        snapshot.nodes.insert("n1".into(), Arc::new(n1));
        snapshot
    }

    #[test]
    fn that_a_node_failed_stands_on_it_before_anything_that_tells_so_can_go() {
        let mark = NodeChange { kept_cordon: Some(kept(false).into()), ..NodeChange::default() };
        let mut snapshot = world("cancelled", "Failed", 1);
        assert_eq!(
            changes(&snapshot),
            Some(mark.clone()),
            "its waiter still ends, and it is not given back yet"
        );
        let mut op = (**snapshot.ops.values().next().unwrap()).clone();
        op.metadata.deletion_timestamp = Some(Time(at(1)));
        snapshot.ops = [(("ns".to_owned(), "op".to_owned()), Arc::new(op))].into();
        assert_eq!(changes(&snapshot), Some(mark.clone()), "it failed before the NodeOp was deleted");
        snapshot.pods.clear();
        assert_eq!(changes(&snapshot), Some(NodeChange { claimed_by: Some(None), ..mark }));
        assert_eq!(changes(&failed(true, false)), None, "and there it stays");
    }

    #[test]
    fn the_deletion_of_a_nodeop_that_failed_is_told_once_on_each_node_and_uncordons_none() {
        let mut snapshot = failed(true, false);
        snapshot.ops.clear();
        let asked = plan(&snapshot).questions;
        assert_eq!(asked, [Question::Op(kept(false).by)].into());
        snapshot.answers = asked.into_iter().map(|question| (question, Answer::NotFound)).collect();
        let change = changes(&snapshot).unwrap();
        assert_eq!((change.unschedulable, change.kept_cordon), (None, Some(kept(true).into())));
        let notice = change.notice.unwrap();
        assert!(notice.warning && notice.message.ends_with("kubectl uncordon n1"), "{notice:?}");
        let told = Snapshot { answers: [].into(), ops: [].into(), ..failed(true, true) };
        assert!(plan(&told).questions.is_empty() && changes(&told).is_none());
    }

    #[test]
    fn a_human_who_uncordons_a_node_that_failed_leaves_no_mark_for_the_next_cordon() {
        for deleted in [false, true] {
            assert_eq!(
                changes(&failed(false, deleted)),
                Some(NodeChange { cordoned_by: Some(None), ..NodeChange::default() })
            );
        }
    }

    /// Whatever becomes of the NodeOp: nobody is asked about it, and nothing is left behind.
    #[test]
    fn load_balancers_have_a_node_that_failed_again_once_a_human_uncordons_it() {
        let label = (names::NOT_BALANCED.to_owned(), names::NOT_BALANCED_VALUE.to_owned());
        let out_of_them = |unschedulable: bool, labelled: bool| {
            let mut snapshot = failed(unschedulable, true);
            snapshot.ops.clear();
            let n1 = Arc::make_mut(snapshot.nodes.get_mut("n1").unwrap());
            n1.hints = Some(Hints { by: kept(false).by, before: [(label.0.clone(), None)].into() });
            n1.labels = [label.clone()].into_iter().filter(|_| labelled).collect();
            snapshot
        };
        let cordoned = out_of_them(true, true);
        assert!(changes(&cordoned).is_none() && plan(&cordoned).questions.is_empty());
        for labelled in [true, false] {
            let lifted = changes(&out_of_them(false, labelled)).unwrap();
            let label = [(label.0.clone(), None)].into_iter().filter(|_| labelled).collect();
            let marks = [(names::AUTOSCALER_HINTS.to_owned(), None)].into();
            let back = NodeChange { labels: label, annotations: marks, ..NodeChange::default() };
            assert_eq!(lifted, NodeChange { cordoned_by: Some(None), ..back });
        }
    }
}
