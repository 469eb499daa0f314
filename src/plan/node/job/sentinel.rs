//! What the sentinel container printed: the boot in which the operation succeeded.

use crate::{
    api::{names::container, nodeop::RebootStatus},
    contract::Sentinel,
    plan::{
        model::snapshot::{PodPhase, PodView},
        node::{
            context::{Decision, NodeContext},
            job::injected,
        },
    },
};

/// The boot in which the operation succeeded, as the sentinel container printed it. `Err`: not (yet) to be
/// had.
pub fn sentinel(ctx: &NodeContext<'_>, job_uid: &str) -> Result<Sentinel, Option<&'static str>> {
    // A pod that was ended with its node after its sentinel had spoken has failed, and does not count.
    // One in which a container of somebody else still runs has succeeded all the same.
    let over = |pod: &PodView| {
        pod.phase == PodPhase::Succeeded || (!pod.phase.is_final() && injected::succeeded(pod))
    };
    let succeeded = ctx.job_pods(job_uid).filter(|pod| over(pod));
    let said = |pod: &PodView| pod.container(container::SENTINEL)?.parsed_message::<Sentinel>();
    let found = succeeded.filter_map(|pod| Some((pod, said(pod).filter(|found| found.job_uid == job_uid)?)));
    // A pod that succeeded and was deleted before the Job knew of it was followed by another one, perhaps in
    // another boot. A sentinel that names the present boot decides, whatever the others say: no reboot has
    // been proved then.
    let newest =
        found.max_by_key(|(pod, found)| (found.boot == ctx.node.boot_id, pod.created, pod.name.clone()));
    if let Some((_, found)) = newest {
        return Ok(found);
    }
    let unfinished = ctx.job_pods(job_uid).any(|pod| !pod.phase.is_final());
    Err(unfinished.then_some("the Job is complete, its pod is about to be seen so"))
}

/// The sentinel's word, if it shows only after the Job's completion did: the two come from two caches.
pub fn late_sentinel(ctx: &NodeContext<'_>) -> Option<Decision> {
    let found = sentinel(ctx, ctx.status.job_uid.as_deref()?).ok()?;
    if found.boot.is_empty() {
        let message = "nothing had to be changed";
        return Some(ctx.complete(RebootStatus::NotRequested, message));
    }
    Some(ctx.record(|status| status.boot = Some(found.boot)))
}
