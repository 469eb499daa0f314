//! What follows from a Job's success: the node is done, or its reboot is due.

use super::pods::{Beside, JobPods, SentinelReport};
use crate::{
    api::nodeop::RebootStatus,
    contract::{Sentinel, reboot_state},
    plan::{
        image,
        model::{effects::Planned, snapshot::brief, time::later},
        node::{
            context::{Decision, NodeContext},
            end::{self, End},
            failure::Failure,
            state::{At, ImageRecord, Reboot, WaiterRecord, Working},
            waiter,
            waiting::Waiting,
        },
    },
};

/// The Job is complete.
pub fn succeeded(ctx: &NodeContext<'_>, pods: &JobPods<'_>) -> Planned<Decision> {
    if !ctx.op.intent.reboot {
        return unbooted(ctx, pods);
    }
    match pods.sentinel() {
        SentinelReport::Found(found) => follow_sentinel(ctx, pods, found).into(),
        SentinelReport::Lags => Waiting::JobPodLags.into(),
        // The waiter still knows the boot from the sentinel file, and its word is a proof.
        SentinelReport::Gone => to_reboot(ctx, None, None).into(),
    }
}

/// The Job runs another content than the first node of the architecture did. Without a preflight nobody knows
/// before a pod of the Job has the image. An upgrade is left to end all the same: killing the agent midway is
/// worse. But its waiter is ended: it would see the Job complete before we do, and reboot the node into what
/// is not taken.
pub fn another_content(ctx: &NodeContext<'_>, pods: &JobPods<'_>) -> Option<Decision> {
    let why = pods.all.iter().find_map(|pod| image::mismatch(ctx.snapshot, &ctx.op.object, pod))?;
    Some(Failure::OtherContent { why }.gives_up())
}

/// The operation has succeeded, as the record of this very Job says, whatever condition the Job has.
pub fn follow_sentinel(ctx: &NodeContext<'_>, pods: &JobPods<'_>, found: Sentinel) -> Decision {
    if found.boot.is_empty() { no_boot_due(ctx, pods) } else { reboot_due(ctx, found, None) }
}

/// The Job has succeeded, and no boot is to follow.
fn unbooted(ctx: &NodeContext<'_>, pods: &JobPods<'_>) -> Planned<Decision> {
    if let Some(proved) = proved_unbooted(ctx, pods) {
        return proved.into();
    }
    // A Job's end may show before its pod's, and then what would prove an upgrade is still to come.
    if ctx.op.intent.upgrade && !pods.have_succeeded() && pods.are_open() {
        return Waiting::JobPodLags.into();
    }
    ctx.end(&End::Ran(pods.last_message())).into()
}

/// The Job has succeeded, and its record says that no boot follows from what it did: the node was at the
/// release, or the recovery image alone was written.
fn no_boot_due(ctx: &NodeContext<'_>, pods: &JobPods<'_>) -> Decision {
    proved_unbooted(ctx, pods).unwrap_or_else(|| ctx.end(&End::NothingChanged(pods.last_message())))
}

/// What an upgrade proves without a boot: the node's own record of its recovery image, or that the node was
/// found to run the image's release. A command may say what it likes.
fn proved_unbooted(ctx: &NodeContext<'_>, pods: &JobPods<'_>) -> Option<Decision> {
    if !ctx.op.intent.upgrade {
        return None;
    }
    // No boot proves the recovery image, and the node's record does.
    let recovered = pods.recovery_proof().map(End::Recovered);
    Some(ctx.end(&recovered.or_else(|| pods.up_to_date().map(End::UpToDate))?))
}

/// The operation has succeeded, and containers of somebody else keep its Job from completing, or have failed
/// it.
pub fn succeeded_beside(ctx: &NodeContext<'_>, pods: &JobPods<'_>, beside: &Beside<'_>) -> Planned<Decision> {
    let others = beside.others.join(", ");
    let reboot_asked = ctx.op.intent.reboot;
    if reboot_asked {
        match pods.sentinel() {
            SentinelReport::Found(found) if found.boot.is_empty() => {}
            SentinelReport::Found(found) => return reboot_due(ctx, found, None).into(),
            SentinelReport::Lags | SentinelReport::Gone => {
                return Waiting::OtherContainers { names: others }.into();
            }
        }
    }
    let unproved = end::Beside { reboot_asked, said: beside.said(), others, failed: beside.failed };
    proved_unbooted(ctx, pods).unwrap_or_else(|| ctx.end(&End::Beside(unproved))).into()
}

/// The operation has succeeded in the boot that the record names. One that names another target than the
/// image has, as its preflight read it, is not of this operation: nothing is proved by it. `awaited`: the
/// reboot that is awaited already, for the record shows late.
fn reboot_due(ctx: &NodeContext<'_>, found: Sentinel, awaited: Option<&Reboot>) -> Decision {
    match (&ctx.work.found.target, &found.target) {
        (Some(known), Some(said)) if known != said => {
            Failure::OtherTarget { known: known.clone(), said: said.clone() }.gives_up()
        }
        _ => to_reboot(ctx, Some(found), awaited),
    }
}

/// The operation has succeeded, in the boot that its record names if there is one. What it does not say of
/// the image the preflight may have said: that is proved by the boot as well.
pub fn to_reboot(ctx: &NodeContext<'_>, sentinel: Option<Sentinel>, awaited: Option<&Reboot>) -> Decision {
    let Sentinel { before, target, not_tried, .. } = sentinel.clone().unwrap_or_default();
    let (left, known) = (sentinel.map(|found| found.boot), &ctx.work.found);
    let found = ImageRecord {
        before: before.or_else(|| known.before.clone()),
        target: target.or_else(|| known.target.clone()),
        not_tried: not_tried.map(|why| brief(&why)),
        image: known.image.clone(),
    };
    if let Some(reboot) = awaited {
        let at = At::Reboot(Reboot { left, ..reboot.clone() });
        return ctx.record(|work| (work.at, work.found) = (at, found));
    }
    let deadline = Some(later(ctx.snapshot.now, ctx.op.intent.reboot_timeout).into());
    let reboot = Reboot { left, deadline, seen: None };
    let work = Working {
        at: At::Reboot(reboot),
        found,
        waiter: WaiterRecord { lost_at: None, ..ctx.work.waiter },
        reboot: Some(RebootStatus::Pending),
        ..ctx.work.clone()
    };
    ctx.move_to(work, Waiting::Reboot)
}

/// The sentinel's word, if it shows only after the Job's completion did: the two come from two caches.
pub fn late_sentinel(ctx: &NodeContext<'_>, reboot: &Reboot) -> Option<Decision> {
    let pods = JobPods::of(ctx, ctx.work.job_uid()?);
    let SentinelReport::Found(found) = pods.sentinel() else { return None };
    if found.boot.is_empty() {
        return Some(no_boot_due(ctx, &pods));
    }
    Some(reboot_due(ctx, found, Some(reboot)))
}

/// The Job was deleted before its outcome was seen here. A waiter that went on had seen it `Complete`.
pub fn vanished(ctx: &NodeContext<'_>, uid: &str) -> Planned<Decision> {
    if ctx.op.intent.reboot
        && !ctx.is_adopted()
        && matches!(waiter::went_on(ctx), Some(reboot_state::REBOOTING | reboot_state::COMPLETED))
    {
        return to_reboot(ctx, None, None).into();
    }
    if ctx.job_pods(uid).any(|pod| !pod.is_terminated_or_fenced(ctx.node.ready)) {
        return Waiting::JobPodsEnd.into();
    }
    if ctx.op.deleting { Failure::DeletedWhileRunning.into() } else { Failure::JobVanished.into() }
}
