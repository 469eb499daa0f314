//! Our finalizer on a NodeOp. Nodes are released whether it is there or not; but a NodeOp that is deleted
//! without it is gone before its command is stopped, and nobody takes back what its waiters were granted.

use crate::{
    api::names,
    plan::{model::action::Action, node::context::Op},
};

/// What puts our finalizer on a NodeOp, if it has to be and may be: before there is anything to give back,
/// and again if somebody removed it while there is.
pub fn missing(op: &Op) -> Option<Action> {
    let finalizers = op.object.metadata.finalizers.clone().unwrap_or_default();
    if op.deleting || finalizers.iter().any(|finalizer| finalizer == names::FINALIZER) {
        return None;
    }
    let finalizers = finalizers.into_iter().chain([names::FINALIZER.to_owned()]).collect();
    Some(Action::SetFinalizers { op: op.object.clone(), finalizers })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::{api::nodeop::NodeOp, plan::node::fixtures::World};

    /// What was granted to the waiters stayed for ever, and a NodeOp that was deleted then was gone at once.
    #[test]
    fn one_that_somebody_removed_is_put_back_while_a_node_is_worked_on() {
        let sets = |removed: bool, deleting: bool| {
            let drain =
                json!({"phase": "Running", "step": "Drain", "drainStartedAt": "1970-01-12T13:46:40Z"});
            let mut world = World::new(drain);
            let mut op: NodeOp = (**world.snapshot.ops.values().next().unwrap()).clone();
            if removed {
                op.metadata.finalizers = Some(vec!["other.example/finalizer".into()]);
            }
            if deleting {
                op.metadata.deletion_timestamp =
                    serde_json::from_value(json!("1970-01-12T13:46:40Z")).unwrap();
            }
            world.snapshot.ops.insert(world.me.key(), Arc::new(op));
            let set = world.pass(0).actions.into_iter().find_map(|action| match action {
                Action::SetFinalizers { finalizers, .. } => Some(finalizers),
                _ => None,
            });
            set.unwrap_or_default()
        };
        assert_eq!(sets(true, false), ["other.example/finalizer", names::FINALIZER]);
        assert!(sets(false, false).is_empty(), "it is there");
        assert!(sets(true, true).is_empty(), "the API server takes no new one now");
    }
}
