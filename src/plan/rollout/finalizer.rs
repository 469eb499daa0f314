//! Our finalizer on a NodeOp. It is a courtesy: nodes are released whether it is there or not.

use crate::{
    api::names,
    plan::{model::action::Action, node::context::Op},
};

/// What puts our finalizer on a NodeOp, if it has to be and may be: before there is anything to give back.
pub fn add(op: &Op) -> Option<Action> {
    let finalizers = op.object.metadata.finalizers.clone().unwrap_or_default();
    if op.deleting || finalizers.iter().any(|finalizer| finalizer == names::FINALIZER) {
        return None;
    }
    let finalizers = finalizers.into_iter().chain([names::FINALIZER.to_owned()]).collect();
    Some(Action::SetFinalizers { op: op.object.clone(), finalizers })
}
