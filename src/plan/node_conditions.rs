//! What a node's own conditions say of an operation on it, for everybody else who looks at nodes: that it is
//! in maintenance, from the claim to the release, and how far its drain is.
//!
//! Level-triggered from the nodes: an entry of ours stands there as long as its NodeOp has claimed the node
//! and says so of it, and goes with that claim, whoever removed it and whether or not this is still wanted.
//! It is a courtesy: no step waits for it, and no failure of it is reported as an operation's.

use crate::{
    api::nodeop::{NodeStatus, Phase, Step},
    plan::model::{
        action::{Action, ConditionChange},
        id::OpRef,
        intent::Intent,
        lifecycle::Lifecycle,
        snapshot::{NodeClass, NodeView, Snapshot},
    },
};

/// Makes nodes say what is so.
pub fn sweep(snapshot: &Snapshot) -> Vec<Action> {
    let held = snapshot.nodes.that_are(NodeClass::Marked);
    held.filter_map(|node| {
        let change = change(snapshot, node)?;
        let (name, resource_version) = (node.name.clone(), node.resource_version.clone());
        Some(Action::PatchNodeConditions { name, resource_version, change, at: snapshot.now })
    })
    .collect()
}

fn change(snapshot: &Snapshot, node: &NodeView) -> Option<ConditionChange> {
    let (wanted, by) = wanted(snapshot, node);
    let mut change = ConditionChange::default();
    for condition in Lifecycle::ALL {
        let by = by.filter(|_| wanted.contains(&condition));
        match (by, node.lifecycle.get(&condition)) {
            // One of somebody else's stays as it is.
            (_, Some(None)) | (None, None) => {}
            (Some(op), Some(Some(by))) if by == op => {}
            (Some(op), _) => change.set.push((condition, op.clone())),
            (None, Some(Some(_))) => change.remove.push(condition),
        }
    }
    (change != ConditionChange::default()).then_some(change)
}

/// What the node is to say, and for whom.
fn wanted<'a>(snapshot: &Snapshot, node: &'a NodeView) -> (Vec<Lifecycle>, Option<&'a OpRef>) {
    let says = || {
        let op = node.claimed_by.as_ref().filter(|_| snapshot.config.node_conditions)?;
        let object = snapshot.op(op)?;
        let entry = object.status.as_ref()?.node_statuses.get(&node.name)?;
        let is_this_machine = entry.node_uid.as_ref().is_none_or(|uid| *uid == node.uid);
        let intent = Intent::of(&object);
        let drain = drain(node, entry).filter(|_| intent.drain.is_some());
        let all: Vec<_> = maintenance(node, &intent, entry).into_iter().chain(drain).collect();
        is_this_machine.then_some((all, Some(op)))
    };
    says().unwrap_or_default()
}

/// That the node is in maintenance, if the operation takes it out of service at all, and the node's lock
/// guards what the operation runs there.
fn maintenance(node: &NodeView, intent: &Intent, entry: &NodeStatus) -> Option<Lifecycle> {
    let guarded = intent.upgrade || node.native_sidecars;
    let begun = match (entry.phase, entry.step) {
        // The drain that comes next is said in the same write. Load balancers may take long before that.
        (Phase::Running, Some(Step::Claim)) => node.left_balancers(),
        (Phase::Running, _) => true,
        // Until it is given back it stays as it is.
        _ => stands(node, Lifecycle::Maintenance),
    };
    (intent.disturbs() && guarded && begun).then_some(Lifecycle::Maintenance)
}

/// How far the drain of the node is.
fn drain(node: &NodeView, entry: &NodeStatus) -> Option<Lifecycle> {
    match (entry.phase, entry.step) {
        // A drain that is given up evicts nobody any more.
        (Phase::Running, Some(Step::Drain)) if entry.given_up.is_some() => None,
        (Phase::Running, Some(Step::Drain)) => Some(Lifecycle::Draining),
        (Phase::Running, Some(step)) if step.follows_drain() => Some(Lifecycle::Drained),
        // Until it is given back it stays as it is.
        (Phase::Completed | Phase::Failed, _) if stands(node, Lifecycle::Drained) => Some(Lifecycle::Drained),
        _ => None,
    }
}

fn stands(node: &NodeView, condition: Lifecycle) -> bool {
    node.lifecycle.contains_key(&condition)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::{node::fixtures::World, plan};

    fn by(uid: &str) -> OpRef {
        OpRef { namespace: "ns".into(), name: "op".into(), uid: uid.into() }
    }

    /// What the node of an entry is made to say: what is set, and what is removed.
    fn said(entry: Value, node: impl FnOnce(&mut NodeView)) -> (String, Vec<&'static str>) {
        let mut world = World::new(entry).node(node).op(|op| {
            op.spec.drain_options = serde_json::from_value(json!({"enabled": true})).unwrap();
        });
        world.snapshot.config.node_conditions = true;
        outcome(&world.snapshot)
    }

    fn outcome(snapshot: &Snapshot) -> (String, Vec<&'static str>) {
        let change = plan(snapshot).actions.into_iter().find_map(|action| match action {
            Action::PatchNodeConditions { name, change, .. } if name == "n1" => Some(change),
            _ => None,
        });
        let change = change.unwrap_or_default();
        let removed = change.remove.into_iter().map(Lifecycle::kind).collect();
        (change.set.iter().map(|(condition, _)| condition.kind()).collect::<Vec<_>>().join(" "), removed)
    }

    fn running(step: &str) -> Value {
        json!({"phase": "Running", "step": step, "nodeUid": "n1", "drainStartedAt": "1970-01-12T13:46:40Z"})
    }

    fn says_it(condition: Lifecycle, by: Option<OpRef>) -> impl FnOnce(&mut NodeView) {
        move |node| drop(node.lifecycle.insert(condition, by))
    }

    #[test]
    fn a_node_says_how_far_its_drain_is_from_its_begin_to_its_release() {
        use Lifecycle::{Drained, Draining as InProgress};
        let none = |_: &mut NodeView| {};
        let (in_progress, drained) = (InProgress.kind(), Drained.kind());
        let me = || Some(by("u"));
        let job = json!({"phase": "Running", "step": "Job", "nodeUid": "n1"});
        let failed = json!({"phase": "Failed", "nodeUid": "n1"});
        let given_up = json!({"phase": "Running", "step": "Drain", "nodeUid": "n1", "givenUp": "timed out",
            "drainStartedAt": "1970-01-12T13:46:40Z", "deadline": "1970-01-12T13:46:40Z"});
        assert_eq!(said(json!({"phase": "Running", "step": "Claim"}), none), (String::new(), vec![]));
        assert_eq!(said(running("Drain"), none), (in_progress.into(), vec![]));
        assert_eq!(said(running("Drain"), says_it(InProgress, me())), (String::new(), vec![]), "once");
        assert_eq!(said(job.clone(), says_it(InProgress, me())), (drained.into(), vec![in_progress]));
        assert_eq!(said(job, says_it(Drained, me())), (String::new(), vec![]));
        assert_eq!(said(given_up, says_it(InProgress, me())), (String::new(), vec![in_progress]));
        assert_eq!(
            said(failed.clone(), says_it(Drained, me())),
            (String::new(), vec![]),
            "it is still claimed"
        );
        assert_eq!(said(failed, none), (String::new(), vec![]), "it was never drained");
    }

    /// What a node, whose kubelet is new enough or not, is made to say of an operation.
    fn of_operation(
        spec: Value,
        native_sidecars: bool,
        entry: Value,
        node: impl FnOnce(&mut NodeView),
    ) -> (String, Vec<&'static str>) {
        let mut world = World::new(entry).node(|view| view.native_sidecars = native_sidecars).node(node);
        world = world.op(|op| op.spec = serde_json::from_value(spec).unwrap());
        world.snapshot.config.node_conditions = true;
        outcome(&world.snapshot)
    }

    #[test]
    fn a_node_is_in_maintenance_from_its_claim_to_its_release_where_its_lock_guards_what_runs() {
        let command = || json!({"command": ["true"], "cordon": true, "concurrency": 1});
        let upgrade =
            || json!({"image": "os:1", "upgrade": {"active": true}, "cordon": true, "concurrency": 1});
        let drains = || json!({"command": ["true"], "cordon": true, "drainOptions": {"enabled": true}, "concurrency": 1});
        let none = |_: &mut NodeView| {};
        let job = || json!({"phase": "Running", "step": "Job", "nodeUid": "n1"});
        let says = |it: &str| (it.to_owned(), vec![]);
        assert_eq!(of_operation(command(), true, job(), none), says("MaintenanceInProgress"));
        assert_eq!(of_operation(command(), false, job(), none), says(""), "nothing guards the command");
        assert_eq!(of_operation(upgrade(), false, job(), none), says("MaintenanceInProgress"));
        let quiet = json!({"command": ["true"], "concurrency": 1});
        assert_eq!(of_operation(quiet, true, job(), none), says(""), "it stays in service");
        let both = "MaintenanceInProgress DrainInProgress";
        assert_eq!(of_operation(drains(), true, running("Drain"), none), says(both), "in one write");
        let claim = || json!({"phase": "Running", "step": "Claim", "nodeUid": "n1"});
        assert_eq!(of_operation(drains(), true, claim(), none), says(""));
        let stands = || says_it(Lifecycle::Maintenance, Some(by("u")));
        assert_eq!(of_operation(command(), true, job(), stands()), says(""), "once");
        let failed = || json!({"phase": "Failed", "nodeUid": "n1"});
        assert_eq!(of_operation(command(), true, failed(), stands()), says(""), "it is still claimed");
        assert_eq!(of_operation(command(), true, failed(), none), says(""));
        let theirs = says_it(Lifecycle::Maintenance, None);
        assert_eq!(of_operation(command(), true, job(), theirs), says(""), "somebody else says it");
        let released = |node: &mut NodeView| {
            (node.claimed_by, node.cordoned_by) = (None, None);
            node.lifecycle.insert(Lifecycle::Maintenance, Some(by("u")));
        };
        let gone = (String::new(), vec!["MaintenanceInProgress"]);
        assert_eq!(of_operation(command(), true, json!({"phase": "Completed"}), released), gone);
        assert_eq!(
            of_operation(command(), false, job(), stands()),
            gone,
            "the node has an older kubelet now"
        );
    }

    #[test]
    fn an_entry_goes_with_its_claim_and_that_of_somebody_else_stays() {
        use Lifecycle::{Drained, Draining as InProgress};
        let (in_progress, drained) = (InProgress.kind(), Drained.kind());
        let released = |node: &mut NodeView| (node.claimed_by, node.cordoned_by) = (None, None);
        let left = |node: &mut NodeView| {
            released(node);
            node.lifecycle.insert(Drained, Some(by("gone")));
        };
        assert_eq!(said(json!({"phase": "Completed"}), left), (String::new(), vec![drained]));
        assert_eq!(
            said(running("Drain"), says_it(Drained, Some(by("gone")))),
            (in_progress.into(), vec![drained])
        );
        assert_eq!(
            said(running("Drain"), says_it(InProgress, Some(by("gone")))),
            (in_progress.into(), vec![])
        );
        assert_eq!(said(running("Drain"), says_it(InProgress, None)), (String::new(), vec![]));
        let theirs = |node: &mut NodeView| {
            released(node);
            node.lifecycle.insert(Drained, None);
        };
        assert_eq!(said(json!({"phase": "Completed"}), theirs), (String::new(), vec![]));
    }

    #[test]
    fn nothing_is_said_unless_it_is_wanted_and_what_was_said_is_taken_back() {
        let world = World::new(running("Drain"))
            .op(|op| op.spec.drain_options = serde_json::from_value(json!({"enabled": true})).unwrap());
        assert_eq!(outcome(&world.snapshot), (String::new(), vec![]));
        let world = world.node(says_it(Lifecycle::Draining, Some(by("u"))));
        assert_eq!(outcome(&world.snapshot), (String::new(), vec![Lifecycle::Draining.kind()]));
    }
}
