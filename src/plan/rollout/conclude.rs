//! A NodeOp that is over, or that is deleted before it began.

use crate::{
    api::names,
    plan::{
        model::{
            action::Action,
            effects::{Effects, Planned},
            snapshot::NodeClass,
        },
        release,
        rollout::{context::RolloutContext, expiry, observe_generation, prestart},
    },
};

/// A finished (or never started) NodeOp: once no node is claimed any more, what was granted is taken back and
/// the finalizer goes. The Go operator's finalizer goes too.
pub fn conclude(ctx: &RolloutContext<'_>) -> Effects {
    let RolloutContext { snapshot, op, .. } = ctx;
    let held = snapshot.nodes.that_are(NodeClass::Marked).any(|node| {
        node.claimed_by.as_ref() == Some(&op.id) || (op.deleting && node.claimants().contains(&op.id))
    });
    let withdrawn = op.object.status.as_ref().map(|status| prestart::withdraw(ctx, &status.node_statuses));
    let withdrawn = withdrawn.unwrap_or_default();
    let old = op.object.metadata.finalizers.clone().unwrap_or_default();
    // A waiter that still looks around after its reboot needs what was granted; one that is deleted does not.
    let waiters = if op.deleting { Planned::from(true) } else { release::expire_waiters(snapshot, op) };
    let Planned { value: none_lingers, effects: expired } = waiters;
    if held || !none_lingers {
        return Effects::all([withdrawn, expired, observe_generation::observe(op)]);
    }
    if !op.object.has_our_finalizer() {
        let expiry = expiry::sweep(snapshot, op);
        let observed =
            if expiry.actions.is_empty() { observe_generation::observe(op) } else { Effects::default() };
        return Effects::all([withdrawn, expired, expiry, observed]);
    }
    // The status is written on the next pass (`observe_generation`), after the finalizer is off: a refused status write
    // must not keep the NodeOp.
    let finalizers = old.into_iter().filter(|finalizer| !names::is_our_finalizer(finalizer)).collect();
    let finalize = Action::Finalize { op: op.object.clone(), finalizers };
    Effects::all([withdrawn, expired, finalize.into()])
}
