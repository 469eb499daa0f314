//! Taking a node in hand: the intent stands in status, and now the claim on the node itself keeps other NodeOps away.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    api::nodeop::{NodeStatus, Phase, Step},
    plan::{
        model::{action::Action, question::Question, time::later},
        node::{
            cordon::{self, Take},
            drain,
            hold::still_ours,
            job::start_job,
            turn::{Decision, Turn},
            waiter,
        },
        quorum,
    },
};

/// Takes the node. Until this is done nothing of the node has changed, so every obstacle gives the slot back.
pub fn advance(turn: &mut Turn<'_>) -> Decision {
    if turn.op.deleting {
        return turn.fail("the NodeOp was deleted before the operation started");
    }
    if let Some(next) = yield_to_rival(turn) {
        return next;
    }
    match cordon::take(turn.s, turn.node, &turn.op.me, turn.op.intent.cordon) {
        Take::Held => after_claim(turn),
        Take::Patch(change) => {
            if let Some(wait) = still_ours(turn, &change) {
                return wait;
            }
            let (name, resource_version) = (turn.node.name.clone(), turn.node.resource_version.clone());
            turn.act(Action::Node { name, resource_version, change });
            Decision::Wait(if turn.op.intent.cordon { "cordoning the node".into() } else { "claiming the node".into() })
        }
        Take::Ask(question) => {
            turn.ask(question);
            Decision::Wait("checking who cordoned the node".into())
        }
        Take::Taken(other) => {
            back_to_pending(turn, format!("waiting for NodeOp {}/{}, which has claimed the node", other.namespace, other.name))
        }
    }
}

/// Before a control-plane node is claimed, every NodeOp and every control-plane node is read live: of two planners that
/// both wrote an intent, at least one sees the other's, and whoever sees one yields. The nodes themselves tell of claims
/// whose NodeOp is finished or gone, and which of them are away.
fn yield_to_rival(turn: &mut Turn<'_>) -> Option<Decision> {
    let claimed = turn.node.claimed_by.as_ref() == Some(&turn.op.me);
    if claimed || !turn.node.control_plane() || !turn.op.intent.disturbs() {
        return None;
    }
    let nodes = turn.s.nodes.values().filter(|node| node.control_plane());
    let questions = nodes.map(|node| Question::Node(node.name.clone())).chain([Question::Rivals]);
    let open: Vec<_> = questions.filter(|question| turn.s.answer(question).is_none()).collect();
    let asked = quorum::ask(turn.s, &turn.node.name, turn.plan);
    if asked || !open.is_empty() {
        turn.plan.questions.extend(open);
        return Some(Decision::Wait("checking that no other control-plane node is in hand".into()));
    }
    if let Some(why) = quorum::others_not_ready(turn.s, &turn.node.name, turn.plan) {
        return Some(back_to_pending(turn, format!("waiting: {why}")));
    }
    let mine = (turn.op.me.key(), turn.node.name.clone());
    let rivals: Vec<_> = quorum::control_planes_in_hand(turn.s).into_iter().filter(|held| *held != mine).collect();
    if rivals.len() < turn.s.settings.control_plane_concurrency {
        return None;
    }
    let ((namespace, name), node) = &rivals[0];
    Some(back_to_pending(turn, format!("waiting for NodeOp {namespace}/{name}, which has control-plane node {node}")))
}

fn back_to_pending(turn: &Turn<'_>, why: String) -> Decision {
    Decision::Record(Box::new(NodeStatus {
        phase: Phase::Pending,
        message: Some(why),
        // What the preflight found out, which is asked again only in another boot.
        boot: turn.status.boot.clone(),
        target: turn.status.target.clone(),
        image: turn.status.image.clone(),
        attempt: turn.status.attempt,
        node_uid: turn.status.node_uid.clone(),
        last_updated: Some(Time(turn.s.now)),
        ..NodeStatus::default()
    }))
}

fn after_claim(turn: &mut Turn<'_>) -> Decision {
    let intent = &turn.op.intent;
    if intent.drain.is_none() && !intent.reboot {
        return start_job(turn);
    }
    let timeout = intent.drain.as_ref().and_then(|drain| drain.timeout);
    let mut next = turn.to(Step::Drain);
    next.drain_started_at = Some(Time(turn.s.now));
    next.deadline = timeout.map(|timeout| Time(later(turn.s.now, timeout)));
    next.attempt = None;
    // What is about to be so is said with the step, and needs no write of its own a second later.
    next.message = Some(match turn.op.intent.reboot {
        true => format!("waiting for the reboot waiter: {}", waiter::STARTS),
        false => drain::LISTING.into(),
    });
    Decision::Record(Box::new(next))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use crate::{
        api::nodeop::{NodeOp, Phase},
        plan::{
            model::{
                action::{Action, Plan},
                id::OpRef,
                question::{Answer, Question},
                snapshot::{NodeView, Snapshot},
            },
            plan,
        },
    };

    /// An operation that has recorded that it takes a control-plane node, and has not claimed it.
    fn takes(s: &mut Snapshot, op: &str, node: &str) {
        let op: NodeOp = serde_json::from_value(json!({
            "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
            "metadata": {"name": op, "namespace": "ns", "uid": op, "finalizers": [crate::api::names::FINALIZER]},
            "spec": {"command": ["true"], "cordon": true, "concurrency": 1},
            "status": {"phase": "Running", "observedGeneration": 1, "nodeStatuses": {
                node: {"phase": "Running", "step": "Claim", "nodeUid": node},
            }},
        }))
        .unwrap();
        s.ops.insert(OpRef::of(&op).key(), Arc::new(op));
    }

    fn world() -> Snapshot {
        let mut s = Snapshot::default();
        for name in ["c1", "c2"] {
            let labels = [("node-role.kubernetes.io/control-plane".to_owned(), String::new())].into();
            let node = NodeView { name: name.into(), uid: name.into(), ready: true, labels, ..NodeView::default() };
            s.nodes.insert(name.into(), Arc::new(node));
        }
        takes(&mut s, "a", "c1");
        s
    }

    fn claims(out: &Plan) -> bool {
        out.actions.iter().any(|action| matches!(action, Action::Node { change, .. } if change.claimed_by.is_some()))
    }

    /// Of two planners that each know of their own intent alone, whoever reads after the other has written sees it.
    #[test]
    fn a_control_plane_node_is_claimed_only_after_all_that_may_have_another_was_read_live() {
        let mut s = world();
        let asked = plan(&s).questions;
        for question in [Question::Rivals, Question::Node("c1".into()), Question::Node("c2".into())] {
            let mut but_one = s.clone();
            but_one.answers = asked.iter().filter(|other| **other != question).map(|other| (other.clone(), Answer::Seen)).collect();
            let out = plan(&but_one);
            assert!(out.questions.contains(&question) && !claims(&out), "{question} is not asked: {:?}", out.actions);
        }
        s.answers = asked.into_iter().map(|question| (question, Answer::Seen)).collect();
        assert!(claims(&plan(&s)), "nobody else has one");
        takes(&mut s, "b", "c2");
        let out = plan(&s);
        let yields = |action: &Action| matches!(action, Action::Status { op, status, .. } if op.metadata.name.as_deref() == Some("a") && status.node_statuses["c1"].phase == Phase::Pending);
        assert!(out.actions.iter().any(yields) && !claims(&out), "{:?}", out.actions);
    }
}
