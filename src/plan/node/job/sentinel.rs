//! What the sentinel container printed: the boot in which the operation succeeded.

use crate::{
    api::{names::container, nodeop::RebootStatus},
    contract::Sentinel,
    plan::{
        model::snapshot::{PodPhase, PodView},
        node::{
            context::{Decision, NodeContext},
            job::injected,
            state::{At, Reboot},
        },
    },
};

/// What the sentinel container says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The boot in which the operation succeeded; no boot at all if nothing had to be changed.
    Found(Sentinel),
    /// A pod of the Job has not ended yet, as far as one sees.
    Lags,
    /// No pod is left that says it.
    Gone,
}

/// The boot in which the operation succeeded, as the sentinel container printed it.
pub fn sentinel(ctx: &NodeContext<'_>, job_uid: &str) -> Record {
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
        return Record::Found(found);
    }
    if ctx.job_pods(job_uid).any(|pod| !pod.phase.is_final()) { Record::Lags } else { Record::Gone }
}

/// The sentinel's word, if it shows only after the Job's completion did: the two come from two caches.
pub fn late_sentinel(ctx: &NodeContext<'_>, reboot: &Reboot) -> Option<Decision> {
    let Record::Found(found) = sentinel(ctx, ctx.work.job_uid()?) else { return None };
    if found.boot.is_empty() {
        let message = "nothing had to be changed";
        return Some(ctx.complete(RebootStatus::NotRequested, message));
    }
    let known = Reboot { left: Some(found.boot), ..reboot.clone() };
    Some(ctx.record(|work| work.at = At::Reboot(known)))
}
