//! Holding a node that was taken, until it reboots: its claim and its cordon are set again if somebody else
//! removed them. And a control-plane node that was taken waits if another one has gone away since.

use crate::{
    api::names,
    plan::{
        attempts,
        model::{
            action::{Action, NodeChange},
            effects::Planned,
            failing,
            question::Question,
        },
        node::{
            cancel,
            context::{Decision, NodeContext},
            cordon::{self, Take},
            failure::Failure,
            hint_patch,
            waiting::Waiting,
        },
        quorum::{self, Unwell},
    },
};

/// Holds what we took until the node reboots: an uncordon by somebody else is undone, a removed claim is set
/// again.
pub fn claim_and_cordon(ctx: &NodeContext<'_>) -> Planned<Option<Decision>> {
    match cordon::take(ctx.snapshot, ctx.node, &ctx.op.id, ctx.op.intent.cordon) {
        Take::InPlace => None.into(),
        Take::Patch(change) => {
            let again = change.unschedulable.is_some();
            let why = if again { Waiting::CordonAgain } else { Waiting::Claim { cordon: false } };
            // One that is being drained already is not taken out of load balancers any more.
            patch(ctx, change, false, why).map(Some)
        }
        // Nothing is done to a node that is not ours yet, and whose cordon may be somebody's.
        Take::Ask(question) => {
            let waits = (!ctx.is_claimed()).then_some(Decision::Wait(Waiting::CordonOwner));
            Planned::from(waits).with(question)
        }
        Take::Taken(_) => taken_over(ctx).filter(|_| ctx.work.job_uid().is_none()).into(),
    }
}

/// Gives the node up if another NodeOp has claimed it, after somebody removed our claim.
pub fn taken_over(ctx: &NodeContext<'_>) -> Option<Decision> {
    let other = ctx.node.claimed_by.as_ref().filter(|of| **of != ctx.op.id)?;
    let by = format!("{}/{}", other.namespace, other.name);
    Some(Failure::TakenOver { by }.gives_up())
}

/// Keeps a control-plane node from being disturbed as long as another one is not well. All were when this one
/// was claimed, but a drain may take hours, and what goes away meanwhile asks nobody. So they are read live
/// once more, before the Job is made and before it is let go.
pub fn quorum(ctx: &NodeContext<'_>) -> Planned<Option<Decision>> {
    others_unwell(ctx, Waiting::ControlPlaneUnwell).map(|why| why.map(Decision::Wait))
}

/// Keeps a reboot from coming that is due, or will be: another control-plane node has gone away since the Job
/// was let go, which may run for hours. A waiter reboots its node on its own, so it is ended, and the next
/// one is made when the others are well. The Go operator's reboot pod has no next one, and is left.
///
/// What the caches show is looked at in every plan. Without a waiter that watches, all that a claim needs has
/// to hold again before there is one.
pub fn reboot(ctx: &NodeContext<'_>, watched: bool) -> Planned<Option<Waiting>> {
    if !ctx.op.intent.reboot || ctx.is_adopted() || !is_concerned(ctx) {
        return None.into();
    }
    let planned = match quorum::others_away(ctx.snapshot, &ctx.node.name) {
        Some(why) => Some(Waiting::RebootHeldBack(why)).into(),
        None if watched => None.into(),
        None => others_unwell(ctx, Waiting::RebootHeldBack),
    };
    let held_back = matches!(planned.value, Some(Waiting::RebootHeldBack(_)));
    let waiters = held_back.then(|| cancel::end_waiters_for_now(ctx.snapshot, ctx.op, &ctx.node.name));
    planned.with(waiters.unwrap_or_default())
}

/// Whether what other control-plane nodes do matters to this one.
fn is_concerned(ctx: &NodeContext<'_>) -> bool {
    ctx.snapshot.is_control_plane(ctx.node) && ctx.op.intent.disturbs()
}

/// Why another control-plane node is not well, by a live read.
fn others_unwell(ctx: &NodeContext<'_>, waits: fn(Unwell) -> Waiting) -> Planned<Option<Waiting>> {
    if !is_concerned(ctx) {
        return None.into();
    }
    let mut effects = quorum::ask_live(ctx.snapshot, &ctx.node.name);
    if effects.is_asking() {
        return Planned { value: Some(Waiting::ControlPlanesUnread), effects };
    }
    let why = effects.absorb(quorum::others_went_away(ctx.snapshot, &ctx.node.name));
    Planned { value: why.map(waits), effects }
}

/// Takes what is to be taken. A claim is set only on the word of the NodeOp itself: in an old view a node
/// that was given back looks like one that is about to be taken, or whose claim somebody removed.
///
/// With its claim the node says which run tries it, and asks autoscalers to leave it, load balancers if that
/// is wanted, and remediators if it is to reboot.
pub fn patch(
    ctx: &NodeContext<'_>,
    mut change: NodeChange,
    leaves_balancers: bool,
    why: Waiting,
) -> Planned<Decision> {
    let question = Question::Op(ctx.op.id.clone());
    let known = ctx.snapshot.answer(&question).or_else(|| ctx.snapshot.answer(&Question::AllNodeOps));
    if change.claimed_by.is_some() && known.is_none() && !failing::change_is_paused(ctx.snapshot, ctx.node) {
        return Waiting::StillOurs.with(question);
    }
    if change.claimed_by.is_some() {
        // What heals nodes would take one that boots for long for a broken one.
        let wanted = [(leaves_balancers, names::NOT_BALANCED), (ctx.op.intent.reboot, names::NOT_REMEDIATED)];
        let labels: Vec<&str> = wanted.into_iter().filter_map(|(is, label)| is.then_some(label)).collect();
        hint_patch::add(ctx.node, &ctx.op.id, &labels, &mut change);
        change.annotations.extend(attempts::record(&ctx.op.object, ctx.node, None));
    }
    why.with(Action::patch_node(ctx.node, change))
}
