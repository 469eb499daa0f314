//! What came of a Job, and what follows: the node is done, its reboot is due, or it failed.

use k8s_openapi::jiff::SignedDuration;

use super::{
    injected,
    message::termination_message,
    remake,
    sentinel::{Record, sentinel},
};
use crate::{
    api::{names::container, nodeop::RebootStatus},
    contract::{RecoveryProof, Sentinel, reboot_state},
    plan::{
        image,
        model::{
            effects::{Effects, Planned},
            snapshot::{JobView, PodPhase, PodView, brief},
            time::later,
        },
        node::{
            context::{Decision, NodeContext},
            failure::Failure,
            legacy,
            state::{At, Found, Reboot, WaiterRecord, Working},
            waiter,
            waiting::Waiting,
        },
    },
};

/// Within this time after a Job's failure the cache shows the end of those of its pods that are still there.
const PODS_SEEN_WITHIN: SignedDuration = SignedDuration::from_secs(5);

/// The Job runs another content than the first node of the architecture did. Without a preflight nobody knows
/// before a pod of the Job has the image. An upgrade is left to end all the same: killing the agent midway is
/// worse.
pub fn another_content(ctx: &NodeContext<'_>, job: &JobView) -> Option<Decision> {
    if legacy::is_adopted(ctx) {
        return None;
    }
    let mut pods = ctx.job_pods(&job.uid);
    let why = pods.find_map(|pod| image::mismatch(ctx.snapshot, &ctx.op.object, pod))?;
    Some(Failure::OtherContent { why }.gives_up())
}

pub fn succeeded(ctx: &NodeContext<'_>, job: &JobView) -> Planned<Decision> {
    if let Some(next) = another_content(ctx, job) {
        return next.into();
    }
    if !ctx.op.intent.reboot {
        return unbooted(ctx, job);
    }
    if legacy::is_adopted(ctx) {
        let Planned { value, effects } = legacy::boot_to_leave(ctx);
        return match value {
            Some(boot) => to_reboot(ctx, Some(Sentinel { boot, ..Sentinel::default() })).into(),
            None if effects.questions.is_empty() => Failure::RebootNotProved.into(),
            None => Waiting::BootBeforeReboot.with(effects),
        };
    }
    match sentinel(ctx, &job.uid) {
        Record::Found(found) if found.boot.is_empty() => match recovery_proof(ctx, job) {
            Some(proof) => recovered(ctx, proof).into(),
            None => {
                let message =
                    termination_message(ctx, job).unwrap_or_else(|| "nothing had to be changed".into());
                ctx.complete(RebootStatus::NotRequested, message).into()
            }
        },
        Record::Found(found) => reboot_due(ctx, found).into(),
        Record::Lags => Waiting::JobPodLags.into(),
        // The waiter still knows the boot from the sentinel file, and its word is a proof.
        Record::Gone => to_reboot(ctx, None).into(),
    }
}

/// The Job has succeeded, and no boot is to follow.
fn unbooted(ctx: &NodeContext<'_>, job: &JobView) -> Planned<Decision> {
    if let Some(proof) = recovery_proof(ctx, job) {
        return recovered(ctx, proof).into();
    }
    // A Job's end may show before its pod's, and then what would prove an upgrade is still to come.
    let over = |pod: &PodView| pod.phase == PodPhase::Succeeded || injected::succeeded(pod);
    let mut pods = ctx.job_pods(&job.uid);
    if ctx.op.intent.upgrade
        && !ctx.job_pods(&job.uid).any(|pod| over(pod))
        && pods.any(|pod| !pod.phase.is_final())
    {
        return Waiting::JobPodLags.into();
    }
    let message = termination_message(ctx, job).map_or_else(
        || "Job completed successfully".into(),
        |message| format!("Job completed successfully: {message}"),
    );
    ctx.complete(RebootStatus::NotRequested, message).into()
}

/// The node's own record of an upgrade of its recovery image, as the Job's pod has found it.
fn recovery_proof(ctx: &NodeContext<'_>, job: &JobView) -> Option<RecoveryProof> {
    let said = |pod: &PodView| pod.container(container::NODEOP)?.parsed_message::<RecoveryProof>();
    ctx.job_pods(&job.uid).find_map(|pod| said(pod)).filter(|_| ctx.op.intent.upgrade)
}

/// The recovery image was written. No boot proves that, and the node's own record does.
fn recovered(ctx: &NodeContext<'_>, proof: RecoveryProof) -> Decision {
    let RecoveryProof { recovery_at, target } = proof;
    let release = target.map_or_else(|| "a release that the image does not name".into(), |it| brief(&it));
    let message = format!(
        "Job completed successfully: recovery upgraded to {release}, as the node's own record says ({})",
        brief(&recovery_at)
    );
    ctx.end(true, RebootStatus::NotRequested, Some(true), message)
}

/// The operation has succeeded in the boot that the record names. One that names another target than the
/// image has, as its preflight read it, is not of this operation: nothing is proved by it.
pub fn reboot_due(ctx: &NodeContext<'_>, found: Sentinel) -> Decision {
    match (&ctx.work.found.target, &found.target) {
        (Some(known), Some(said)) if known != said => {
            Failure::OtherTarget { known: known.clone(), said: said.clone() }.gives_up()
        }
        _ => to_reboot(ctx, Some(found)),
    }
}

/// The operation has succeeded, in the boot that its record names if there is one.
fn to_reboot(ctx: &NodeContext<'_>, sentinel: Option<Sentinel>) -> Decision {
    let (left, before, target) =
        sentinel.map_or((None, None, None), |found| (Some(found.boot), found.before, found.target));
    let reboot = Reboot {
        left,
        deadline: later(ctx.snapshot.now, ctx.op.intent.reboot_timeout),
        machine_id: Some(ctx.node.machine_id.clone()).filter(|id| !id.is_empty()),
        control_plane: ctx.node.control_plane(),
        seen: None,
    };
    let work = Working {
        at: At::Reboot(reboot),
        found: Found { before, target, ..ctx.work.found.clone() },
        waiter: WaiterRecord { lost_at: None, ..ctx.work.waiter },
        reboot: Some(RebootStatus::Pending),
        ..ctx.work.clone()
    };
    ctx.move_to(work, Waiting::Reboot)
}

/// The Job was deleted before its outcome was seen here. A waiter that went on had seen it `Complete`.
pub fn vanished(ctx: &NodeContext<'_>, uid: &str) -> Planned<Decision> {
    if ctx.op.intent.reboot
        && !legacy::is_adopted(ctx)
        && matches!(waiter::went_on(ctx), Some(reboot_state::REBOOTING | reboot_state::COMPLETED))
    {
        return to_reboot(ctx, None).into();
    }
    if ctx.job_pods(uid).any(|pod| !pod.is_terminated_or_fenced(ctx.node.ready)) {
        return Waiting::JobPodsEnd.into();
    }
    if ctx.op.deleting { Failure::DeletedWhileRunning.into() } else { Failure::JobVanished.into() }
}

pub fn failed(ctx: &NodeContext<'_>, job: &JobView, why: &str) -> Planned<Decision> {
    // Jobs and pods come by two watches, and the pods know why. One that the cache shows still at work says
    // nothing yet.
    let until = later(ctx.snapshot.failed_since(job), PODS_SEEN_WITHIN);
    let ended = ctx.job_pods(&job.uid).filter(|pod| pod.phase == PodPhase::Failed).count();
    let unseen = i32::try_from(ended).is_ok_and(|ended| ended < job.failed);
    if unseen && ctx.snapshot.now < until && !legacy::is_adopted(ctx) {
        return Waiting::JobPodsUnread { why: why.to_owned() }.with(Effects::wake_at(until));
    }
    if let Some(next) = remake::again(ctx, job).filter(|_| !ctx.op.deleting) {
        return next.into();
    }
    let message = termination_message(ctx, job).or_else(|| {
        let gone = job.failed > 0 && ctx.job_pods(&job.uid).next().is_none() && !legacy::is_adopted(ctx);
        gone.then(|| "none of its pods is left to say why, as when somebody deletes them".to_owned())
    });
    Failure::JobFailed { why: why.to_owned(), message }.into()
}
