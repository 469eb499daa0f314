//! A NodeOp that is over, or that is deleted before it began.

use crate::{
    api::names,
    plan::{
        model::{
            action::Action,
            effects::{Effects, Planned, Reasons},
            snapshot::{Snapshot, Standing},
        },
        node::context::Op,
        release,
        rollout::{expiry, prestart, settle},
    },
};

/// A finished (or never started) NodeOp: once no node is claimed any more, what was granted is taken back and
/// the finalizer goes. The Go operator's finalizer goes too.
pub fn conclude(snapshot: &Snapshot, op: &Op) -> Planned<Reasons> {
    let held = snapshot.nodes.that_are(Standing::Held).any(|node| {
        node.claimed_by.as_ref() == Some(&op.id) || (op.deleting && node.holders().contains(&op.id))
    });
    let nothing = Planned::from(Reasons::default());
    let withdrawn =
        op.object.status.as_ref().map(|status| prestart::withdraw(snapshot, op, &status.node_statuses));
    let mut effects = withdrawn.unwrap_or_default();
    let old = op.object.metadata.finalizers.clone().unwrap_or_default();
    // A waiter that still looks around after its reboot needs what was granted; one that is deleted does not.
    let lingers = !op.deleting && !effects.take(release::expire_waiters(snapshot, op));
    if held || lingers {
        return nothing.with(effects).with(settle::settle(op));
    }
    if !op.object.has_our_finalizer() {
        let expiry = expiry::sweep(snapshot, op);
        let settled = if expiry.actions.is_empty() { settle::settle(op) } else { Effects::default() };
        return nothing.with(effects).with(expiry).with(settled);
    }
    // What the status says of the spec is a courtesy, and comes after this.
    let finalizers = old.into_iter().filter(|finalizer| !names::is_our_finalizer(finalizer)).collect();
    nothing.with(effects).with(Action::Finalize { op: op.object.clone(), finalizers })
}
