//! What the Go operator left on a node: its Job, its reboot pod, and what its entries mean.
//!
//! Its reboot pod says `completed` five seconds *before* it asks for the reboot, and exits 0 even if that
//! failed: so only a boot id proves a reboot here too. While that pod is in its first run, the node is still
//! in the boot to be left, whatever the pod says. In a later run the boot that we see may be the new one
//! already, and nothing proves it.

use crate::{
    api::nodeop::{NodeOpStatus, NodeStatus, Phase, RebootStatus},
    contract::reboot_state,
    plan::{
        model::{
            effects::Planned,
            question::Question,
            snapshot::{PodView, Role},
        },
        node::context::NodeContext,
    },
};

/// An entry that the Go operator called completed though its reboot was still to come.
pub fn is_legacy_reboot(status: Option<&NodeOpStatus>, entry: &NodeStatus) -> bool {
    status.is_some_and(NodeOpStatus::is_legacy)
        && entry.phase == Phase::Completed
        && entry.reboot_status == Some(RebootStatus::Pending)
}

/// Whether a NodeOp has still to be taken over: what it says of a node, or does not say, ends nothing and
/// gives nothing back.
pub fn is_to_be_adopted(status: &NodeOpStatus) -> bool {
    status.is_legacy() && !status.is_over()
}

/// The Go operator's reboot pods of the node.
fn waiters<'a>(ctx: &'a NodeContext<'_>) -> impl Iterator<Item = &'a PodView> {
    ctx.snapshot.pods_of_on(&ctx.op.id, Role::Waiter, &ctx.node.name).map(AsRef::as_ref)
}

/// Whether a reboot pod has said that it reboots.
fn has_said(pod: &PodView) -> bool {
    pod.reboot_state.as_deref() == Some(reboot_state::COMPLETED)
}

/// Whether a reboot pod has said that it reboots and is in a later run since: in a new boot, or after a
/// crash.
fn runs_again(pod: &PodView) -> bool {
    pod.containers.iter().any(|container| container.restarts > 0)
}

/// The reboot pod of an adopted node has begun another run, and the node is in the boot that we took for the
/// one to be left.
pub fn is_reboot_over(ctx: &NodeContext<'_>) -> bool {
    let same = ctx.work.boot_to_leave() == Some(&ctx.node.boot_id);
    let over = |pod: &PodView| pod.is_active() && has_said(pod) && runs_again(pod);
    same && ctx.is_adopted() && waiters(ctx).any(over)
}

/// The boot that an adopted node is about to leave: its Job is complete, and the reboot that follows is the
/// Go operator's pod's. It is read live, while the pod has not gone on. Nothing and no question: the reboot
/// was over before, and is not proved.
pub fn boot_to_leave(ctx: &NodeContext<'_>) -> Planned<Option<String>> {
    let questions = [Question::Node(ctx.node.name.clone()), Question::OwnedWorkload(ctx.op.id.clone())];
    let open = ctx.snapshot.unanswered(questions);
    if open.is_asking() {
        return Planned::from(None).with(open);
    }
    // One that has said so decides, also when it has ended. Another one may have been left behind by a start
    // that failed, and waits for the sentinel of a Job that was never made.
    let (said, silent): (Vec<&PodView>, Vec<_>) = waiters(ctx).partition(|pod| has_said(pod));
    let to_come = match said.is_empty() {
        true => silent.iter().any(|pod| pod.is_active()),
        false => said.iter().all(|pod| pod.is_active() && !runs_again(pod)),
    };
    (to_come && !ctx.node.boot_id.is_empty()).then(|| ctx.node.boot_id.clone()).into()
}
