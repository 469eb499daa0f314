//! What a node's own conditions say of its drain, for everybody else who looks at nodes.
//!
//! Level-triggered from the nodes: an entry of ours stands there as long as its NodeOp has claimed the node and
//! says so of it, and goes with that claim, whoever removed it and whether or not this is still wanted. It is a
//! courtesy: no step waits for it, and no failure of it is reported as an operation's.

use crate::{
    api::nodeop::{Phase, Step},
    plan::model::{
        action::{Action, DrainChange},
        drain_condition::DrainCondition,
        id::OpRef,
        intent::Intent,
        snapshot::{NodeView, Snapshot, Standing},
    },
};

/// Makes nodes say what is so.
pub fn sweep(snapshot: &Snapshot) -> Vec<Action> {
    let held = snapshot.nodes.that_are(Standing::Held);
    held.filter_map(|node| {
        let change = change(snapshot, node)?;
        let (name, resource_version) = (node.name.clone(), node.resource_version.clone());
        Some(Action::PatchNodeConditions { name, resource_version, change, at: snapshot.now })
    })
    .collect()
}

fn change(snapshot: &Snapshot, node: &NodeView) -> Option<DrainChange> {
    let wanted = wanted(snapshot, node);
    let stands = |condition: DrainCondition| node.drain_conditions.get(&condition);
    let mut change = DrainChange::default();
    for condition in DrainCondition::ALL {
        match (wanted.filter(|(wanted, _)| *wanted == condition), stands(condition)) {
            // One of somebody else's stays as it is.
            (_, Some(None)) | (None, None) => {}
            (Some((_, op)), Some(Some(by))) if by == op => {}
            (Some((_, op)), _) => change.set = Some((condition, op.clone())),
            (None, Some(Some(_))) => change.remove.push(condition),
        }
    }
    (change != DrainChange::default()).then_some(change)
}

/// What the node is to say, and for whom.
fn wanted<'a>(snapshot: &Snapshot, node: &'a NodeView) -> Option<(DrainCondition, &'a OpRef)> {
    let op = node.claimed_by.as_ref().filter(|_| snapshot.settings.node_conditions)?;
    let object = snapshot.op(op)?;
    let entry = object.status.as_ref()?.node_statuses.get(&node.name)?;
    let is_this_machine = entry.node_uid.as_ref().is_none_or(|uid| *uid == node.uid);
    if !is_this_machine || Intent::of(&object).drain.is_none() {
        return None;
    }
    let condition = match (entry.phase, entry.step) {
        // A drain that is given up evicts nobody any more.
        (Phase::Running, Some(Step::Drain)) if entry.given_up.is_some() => return None,
        (Phase::Running, Some(Step::Drain)) => DrainCondition::InProgress,
        (Phase::Running, Some(Step::Job | Step::Reboot | Step::Verify)) => DrainCondition::Drained,
        // Until it is given back it stays as it is.
        (Phase::Completed | Phase::Failed, _)
            if node.drain_conditions.contains_key(&DrainCondition::Drained) =>
        {
            DrainCondition::Drained
        }
        _ => return None,
    };
    Some((condition, op))
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
    fn said(entry: Value, node: impl FnOnce(&mut NodeView)) -> (Option<&'static str>, Vec<&'static str>) {
        let mut world = World::new(entry).node(node).op(|op| {
            op.spec.drain_options = serde_json::from_value(json!({"enabled": true})).unwrap();
        });
        world.snapshot.settings.node_conditions = true;
        outcome(&world.snapshot)
    }

    fn outcome(snapshot: &Snapshot) -> (Option<&'static str>, Vec<&'static str>) {
        let change = plan(snapshot).actions.into_iter().find_map(|action| match action {
            Action::PatchNodeConditions { name, change, .. } if name == "n1" => Some(change),
            _ => None,
        });
        let change = change.unwrap_or_default();
        let removed = change.remove.into_iter().map(DrainCondition::kind).collect();
        (change.set.map(|(condition, _)| condition.kind()), removed)
    }

    fn running(step: &str) -> Value {
        json!({"phase": "Running", "step": step, "nodeUid": "n1", "drainStartedAt": "1970-01-12T13:46:40Z"})
    }

    fn says(condition: DrainCondition, by: Option<OpRef>) -> impl FnOnce(&mut NodeView) {
        move |node| drop(node.drain_conditions.insert(condition, by))
    }

    #[test]
    fn a_node_says_how_far_its_drain_is_from_its_begin_to_its_release() {
        use DrainCondition::{Drained, InProgress};
        let none = |_: &mut NodeView| {};
        let (in_progress, drained) = (InProgress.kind(), Drained.kind());
        let me = || Some(by("u"));
        let job = json!({"phase": "Running", "step": "Job", "nodeUid": "n1"});
        let failed = json!({"phase": "Failed", "nodeUid": "n1"});
        let given_up = json!({"phase": "Running", "step": "Drain", "nodeUid": "n1", "givenUp": "timed out",
            "drainStartedAt": "1970-01-12T13:46:40Z", "deadline": "1970-01-12T13:46:40Z"});
        assert_eq!(said(json!({"phase": "Running", "step": "Claim"}), none), (None, vec![]));
        assert_eq!(said(running("Drain"), none), (Some(in_progress), vec![]));
        assert_eq!(said(running("Drain"), says(InProgress, me())), (None, vec![]), "once");
        assert_eq!(said(job.clone(), says(InProgress, me())), (Some(drained), vec![in_progress]));
        assert_eq!(said(job, says(Drained, me())), (None, vec![]));
        assert_eq!(said(given_up, says(InProgress, me())), (None, vec![in_progress]));
        assert_eq!(said(failed.clone(), says(Drained, me())), (None, vec![]), "it is still claimed");
        assert_eq!(said(failed, none), (None, vec![]), "it was never drained");
    }

    #[test]
    fn an_entry_goes_with_its_claim_and_that_of_somebody_else_stays() {
        use DrainCondition::{Drained, InProgress};
        let (in_progress, drained) = (InProgress.kind(), Drained.kind());
        let released = |node: &mut NodeView| (node.claimed_by, node.cordoned_by) = (None, None);
        let left = |node: &mut NodeView| {
            released(node);
            node.drain_conditions.insert(Drained, Some(by("gone")));
        };
        assert_eq!(said(json!({"phase": "Completed"}), left), (None, vec![drained]));
        assert_eq!(
            said(running("Drain"), says(Drained, Some(by("gone")))),
            (Some(in_progress), vec![drained])
        );
        assert_eq!(said(running("Drain"), says(InProgress, Some(by("gone")))), (Some(in_progress), vec![]));
        assert_eq!(said(running("Drain"), says(InProgress, None)), (None, vec![]));
        let theirs = |node: &mut NodeView| {
            released(node);
            node.drain_conditions.insert(Drained, None);
        };
        assert_eq!(said(json!({"phase": "Completed"}), theirs), (None, vec![]));
    }

    #[test]
    fn nothing_is_said_unless_it_is_wanted_and_what_was_said_is_taken_back() {
        let world = World::new(running("Drain"))
            .op(|op| op.spec.drain_options = serde_json::from_value(json!({"enabled": true})).unwrap());
        assert_eq!(outcome(&world.snapshot), (None, vec![]));
        let world = world.node(says(DrainCondition::InProgress, Some(by("u"))));
        assert_eq!(outcome(&world.snapshot), (None, vec![DrainCondition::InProgress.kind()]));
    }
}
