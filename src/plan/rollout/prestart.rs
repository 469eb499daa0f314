//! Ahead of its turn: while a node is worked on, the next one in line gets its reboot waiter.
//!
//! So the operator's image is pulled before the node is cordoned, and the node is not kept away for the time
//! that this takes: it is not drained before its waiter stands. A waiter is harmless ahead of its
//! turn: without a sentinel of its own Job, which is not made before the node is claimed, it reboots nothing.

use crate::{
    api::{
        node_statuses::{Mark, NodeStatuses},
        nodeop::{NodeStatus, Phase},
    },
    plan::{
        model::{
            action::{Action, Target},
            effects::Effects,
            snapshot::{NodeClass, NodeView, PodView, Role},
        },
        node::context::Op,
        rollout::{
            context::{Rollout, RolloutContext},
            out_of_service::Slots,
            targets,
        },
    },
};

/// The waiters of the nodes whose turn comes next, or of those whose turn will not come.
pub fn for_next(ctx: &RolloutContext<'_>, rollout: &Rollout) -> Effects {
    let Rollout { nodes, progress, .. } = rollout;
    let nothing_starts = ctx.closed(progress.stopped.as_ref()).is_some() || progress.refused.is_some();
    if nothing_starts || progress.starves || progress.are_slots_held(&ctx.op.intent) {
        withdraw(ctx, nodes)
    } else {
        prepare(ctx, nodes, &progress.slots)
    }
}

/// Makes the waiters of as many nodes as are about to get a slot, because one before them has it.
fn prepare(ctx: &RolloutContext<'_>, nodes: &NodeStatuses, slots: &Slots) -> Effects {
    let RolloutContext { snapshot, op, .. } = ctx;
    // One that is given up keeps its slot, perhaps.
    let soon = nodes.marked([Mark::Running]).filter(|(_, node)| node.given_up.is_none()).count();
    if !op.intent.reboot || op.deleting || soon == 0 {
        return Effects::default();
    }
    // Whoever has passed a preflight has a record of it. Thousands that wait have none.
    let next = targets::order(snapshot, nodes, [Mark::Remarkable], &slots.to_be_taken)
        .filter_map(|(name, entry)| Some((snapshot.nodes.get(name)?, entry)))
        .filter(|(view, entry)| is_next(view, entry))
        .map(|(view, _)| view.as_ref())
        .take(soon);
    let on_hold = snapshot.nodes.by_name(NodeClass::OnHold);
    let ended = end(ctx, nodes, |node| on_hold.contains_key(node));
    let has_waiter = |node: &NodeView| snapshot.pods_of_on(&op.id, Role::Waiter, &node.name).next().is_some();
    let made = Effects::act(next.filter(|node| !has_waiter(node)).map(|node| make(op, node)));
    Effects::all([ended, made])
}

fn make(op: &Op, node: &NodeView) -> Action {
    let (name, job) = (op.object_name(&node.name, "reboot", 0), op.object_name(&node.name, "", 0));
    let (op, node) = (op.object.clone(), node.name.clone());
    Action::CreateWaiter { op, node, name, job, succeeded: None }
}

/// Whether nothing but a free slot keeps the node from being taken.
fn is_next(node: &NodeView, entry: &NodeStatus) -> bool {
    let passed = entry.passed_in() == Some(node.boot_id.as_str());
    passed && entry.node_uid.is_none() && node.is_available()
}

/// Ends the waiters of nodes whose turn will not come, because the rollout starts nothing more.
pub fn withdraw(ctx: &RolloutContext<'_>, nodes: &NodeStatuses) -> Effects {
    end(ctx, nodes, |_| true)
}

/// Ends the waiters of those untouched nodes whose name `of` accepts.
fn end(ctx: &RolloutContext<'_>, nodes: &NodeStatuses, of: impl Fn(&str) -> bool) -> Effects {
    let is_untouched = |pod: &PodView| {
        let entry = || nodes.get(&pod.node);
        of(&pod.node) && entry().is_some_and(|entry| matches!(entry.phase, Phase::Pending | Phase::Preflight))
    };
    let pods =
        ctx.snapshot.pods_of(&ctx.op.id, Role::Waiter).filter(|pod| pod.is_active() && is_untouched(pod));
    let why = "its node's turn will not come";
    Effects::act(pods.map(|pod| Action::DeletePod { pod: Target::of(pod), why }))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api::nodeop::NodeOp,
        plan::{
            fixtures,
            model::{
                effects::Plan,
                id::OpRef,
                object_name,
                snapshot::{Owner, Snapshot},
            },
            plan,
        },
        render::access,
    };

    /// n1 is worked on, or over, as `first` says; n2 and n3 wait, and `waiter` names the node that has a
    /// waiter already.
    fn planned(first: Value, change: Value, waiter: Option<&str>) -> Plan {
        planned_with(first, json!({"phase": "Pending", "boot": "b"}), change, waiter)
    }

    fn planned_with(first: Value, second: Value, change: Value, waiter: Option<&str>) -> Plan {
        let drains = second["step"] == "Drain";
        let mut op = json!({
            "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
            "metadata": {"name": "op", "namespace": "ns", "uid": "u", "finalizers": [crate::api::names::FINALIZER]},
            "spec": {"command": ["true"], "cordon": true, "rebootOnSuccess": true, "concurrency": 1, "stopOnFailure": true},
            "status": {"phase": "Running", "observedGeneration": 1,
                "nodeStatuses": {"n1": first, "n2": second, "n3": {"phase": "Pending", "boot": "b"}}},
        });
        for (field, value) in change.as_object().unwrap() {
            op["spec"][field] = value.clone();
        }
        let op: NodeOp = serde_json::from_value(op).unwrap();
        let me = OpRef::of(&op);
        let node = |name: &str| {
            let second = name == "n2" && drains;
            let claimed_by = Some(me.clone()).filter(|_| name == "n1" || second);
            let node = NodeView {
                name: name.into(),
                claimed_by,
                cordoned_by: Some(me.clone()).filter(|_| second),
                unschedulable: second,
                ready: true,
                boot_id: "b".into(),
                ..NodeView::default()
            };
            (name.to_owned(), Arc::new(node))
        };
        let pod = waiter.map(|node| PodView {
            reboot_state: Some("waiting".into()),
            ..fixtures::pod(Role::Waiter, "w", Owner::nodeop("op", "u"), node)
        });
        plan(&Snapshot {
            now: Timestamp::UNIX_EPOCH,
            nodes: ["n1", "n2", "n3"].map(node).into(),
            ops: [(me.key(), Arc::new(op))].into(),
            pods: pod
                .into_iter()
                .map(|pod| ((pod.namespace.clone(), pod.name.clone()), Arc::new(pod)))
                .collect(),
            ..Snapshot::default()
        })
    }

    fn at_step(step: &str) -> Value {
        json!({"phase": "Running", "step": step, "jobName": "j", "jobUid": "ju", "nodeUid": "", "boot": "b"})
    }

    /// Nodes other than n1 that get a waiter.
    fn made(plan: &Plan) -> Vec<&str> {
        let nodes = plan.actions.iter().filter_map(|action| match action {
            Action::CreateWaiter { node, .. } if node != "n1" => Some(node.as_str()),
            _ => None,
        });
        nodes.collect()
    }

    fn deleted(plan: &Plan) -> bool {
        plan.actions.iter().any(|action| matches!(action, Action::DeletePod { pod, .. } if pod.uid == "w"))
    }

    /// Their requests go out side by side. Two that set the rules of one Role would take the rights from each
    /// other's waiter, for ever: so nothing of one waiter's account is part of another one's.
    #[test]
    fn waiters_that_are_made_together_are_granted_what_each_of_them_needs() {
        let drains = json!({"phase": "Running", "step": "Drain", "nodeUid": "", "drainStartedAt": "1970-01-01T00:00:00Z"});
        let plan = planned_with(at_step("Reboot"), drains, json!({"concurrency": 2}), None);
        let made = |action: &Action| match action {
            Action::CreateWaiter { op, node, name, job, succeeded: _ } => {
                let accounts = object_name::accounts(("op", op.metadata.uid.as_deref()?), node);
                let grant = access::Grant { node, waiter: name, job };
                let rules = access::role(op, &accounts[0], grant).rules?;
                let named = rules.into_iter().filter_map(|rule| rule.resource_names).flatten().collect();
                Some(([name.clone(), job.clone()], named, accounts))
            }
            _ => None,
        };
        let made: Vec<([String; 2], Vec<String>, Vec<String>)> =
            plan.actions.iter().filter_map(made).collect();
        assert!(made.len() >= 2, "{:?}", plan.actions);
        for (needed, named, _) in &made {
            assert_eq!(named, needed);
        }
        let accounts: Vec<&String> = made.iter().flat_map(|(_, _, accounts)| accounts).collect();
        let distinct: BTreeSet<&&String> = accounts.iter().collect();
        assert_eq!(distinct.len(), accounts.len(), "{accounts:?}");
    }

    #[test]
    fn the_next_node_gets_its_waiter_while_the_one_before_it_is_worked_on() {
        for step in ["Job", "Reboot"] {
            assert_eq!(made(&planned(at_step(step), json!({}), None)), ["n2"]);
            assert!(made(&planned(at_step(step), json!({}), Some("n2"))).is_empty(), "it has one");
        }
        let mut given_up = at_step("Job");
        given_up["givenUp"] = "no".into();
        assert!(made(&planned(given_up, json!({}), None)).is_empty(), "it may keep its slot");
        assert!(made(&planned(at_step("Reboot"), json!({"rebootOnSuccess": false}), None)).is_empty());
        let not_asked = planned_with(at_step("Reboot"), json!({"phase": "Pending"}), json!({}), None);
        assert_eq!(made(&not_asked), ["n3"], "n2 may turn out to have nothing to do");
    }

    #[test]
    fn a_waiter_goes_when_the_turn_of_its_node_will_not_come() {
        let failed = json!({"phase": "Failed", "rebootStatus": "cancelled", "jobName": "j"});
        let plan = planned(failed.clone(), json!({}), Some("n2"));
        assert!(deleted(&plan) && made(&plan).is_empty());
        assert!(
            !deleted(&planned(failed, json!({"stopOnFailure": false}), Some("n2"))),
            "the rollout goes on"
        );
    }

    /// Others that wait are not even looked at.
    #[test]
    fn whoever_is_next_behind_a_preflight_has_a_record_of_it() {
        let view = NodeView { ready: true, boot_id: "b".into(), ..NodeView::default() };
        for (boot, attempt) in
            [(None, None), (None, Some(1)), (Some("a"), None), (Some("b"), None), (Some("b"), Some(1))]
        {
            let entry = NodeStatus { boot: boot.map(Into::into), attempt, ..NodeStatus::default() };
            assert_eq!(is_next(&view, &entry), boot == Some("b"));
            assert!(boot.is_none() || Mark::Remarkable.is_on(&entry));
        }
    }
}
