//! A Job whose every pod the node's kubelet refused: it counts those as tries, and with them `backoffLimit` is
//! used up before a single container began. What such a refusal comes from passes, as a rule: a full node,
//! disk pressure, a kubelet that has just started. So another Job is made, after a pause, for as long as a
//! pod may take to start. Never once a container has begun. Another one is made, too, where a Job of somebody
//! else has the name.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};

use crate::plan::{
    model::{
        object_name::MAX_JOBS,
        question::Question,
        snapshot::{JobView, PodPhase},
        time::later,
    },
    node::{
        cancel,
        context::{Decision, NodeContext},
        legacy,
    },
};

/// The pause before each further Job, times the number of those before it …
const BACKOFF: SignedDuration = SignedDuration::from_secs(10);
/// … and at most this.
const MAX_BACKOFF: SignedDuration = SignedDuration::from_secs(120);
/// The reason with which a Job fails that has used up its tries.
const USED_UP: &str = "BackoffLimitExceeded";

/// What comes after a Job that failed without a container that began: the next one, or the end of the time
/// for it. `None`: it failed in earnest.
pub fn begin_again(ctx: &mut NodeContext<'_>, job: &JobView, why: &str) -> Option<Decision> {
    if ctx.op.deleting || legacy::is_adopted(ctx) || !why.starts_with(USED_UP) {
        return None;
    }
    let refusal = match refusals(ctx, job) {
        Refusals::All(refusal) => refusal,
        Refusals::Unknown(live) => {
            ctx.ask(live);
            return Some(Decision::Wait(format!("the Job has failed; reading what its pods say ({why})")));
        }
        Refusals::NotAll => return None,
    };
    let deadline = later(ctx.begun_at(ctx.status.last_updated.as_ref()), ctx.op.intent.pull_timeout);
    if ctx.snapshot.now >= deadline {
        let after = ctx.op.intent.pull_timeout.as_secs();
        return Some(ctx.fail_untouched(format!("the Job's pod could not start in {after} s: {refusal}")));
    }
    next(ctx, &format!("the node refuses the Job's pod: {refusal}"))
}

/// Goes on to the next Job, and to a waiter that watches that one; `why` the present one is none. `None`: there
/// have been too many.
pub fn next(ctx: &mut NodeContext<'_>, why: &str) -> Option<Decision> {
    let attempt = ctx.status.job_attempt.unwrap_or(0).saturating_add(1);
    if attempt >= MAX_JOBS {
        return None;
    }
    let waiter = ctx.status.attempt.unwrap_or(0);
    if ctx.op.intent.reboot
        && let Some(open) =
            cancel::waiter(ctx.snapshot, ctx.op, &ctx.node.name, ctx.node.ready, waiter, ctx.plan)
    {
        return Some(Decision::Wait(format!("{why}; {open}")));
    }
    let name = ctx.op.object_name(&ctx.node.name, "", attempt);
    let now = Time(ctx.snapshot.now);
    let next_waiter = ctx.op.intent.reboot.then_some(waiter.saturating_add(1));
    Some(ctx.record(|status| {
        (status.job_attempt, status.job_name, status.job_uid) = (Some(attempt), Some(name), None);
        (status.since, status.waiter_since) = (Some(now.clone()), Some(now));
        status.attempt = next_waiter;
        status.message = Some(format!("{why}; another Job is made"));
    }))
}

/// Whether the next Job has to wait. After the pause the one before it, which has said why, is deleted.
pub fn pause(ctx: &mut NodeContext<'_>) -> Option<Decision> {
    let attempt = ctx.status.job_attempt?;
    let last = ctx.op.object_name(&ctx.node.name, "", attempt.saturating_sub(1));
    let key = (ctx.op.id.namespace.clone(), last);
    let last = ctx.snapshot.jobs.get(&key).filter(|job| job.is_of(&ctx.op.id) && !job.deleting).cloned();
    let Some(at) = ctx.paused_until((BACKOFF * attempt).min(MAX_BACKOFF)) else {
        if let Some(job) = &last {
            ctx.act(cancel::delete(&ctx.op.id, job, "the node refused its pods, and another one is made"));
        }
        return None;
    };
    let refusal = last.and_then(|job| refusal(ctx, &job));
    let said = refusal.map(|why| format!("the node refuses the Job's pod: {why}; ")).unwrap_or_default();
    Some(Decision::Wait(format!("{said}the next Job is made at {at:.0}")))
}

/// Why the node refused the newest pod of a Job.
fn refusal(ctx: &NodeContext<'_>, job: &JobView) -> Option<String> {
    let pods = ctx.snapshot.pods_of_job(&job.namespace, &job.name, &job.uid);
    let newest = pods.max_by_key(|pod| (pod.created, &pod.name))?;
    Some(newest.obstacle()?.text)
}

/// What a Job's failed pods say.
enum Refusals {
    /// None of them had a container; this is why the newest one had none.
    All(String),
    /// A cache does not show all of them: to be read live.
    Unknown(Question),
    /// One of them had a container, or nobody knows.
    NotAll,
}

fn refusals(ctx: &NodeContext<'_>, job: &JobView) -> Refusals {
    let pods: Vec<_> = ctx.job_pods(&job.uid).collect();
    // What a kubelet says of a pod that it has admitted comes with the states of its containers.
    let refused = pods.iter().all(|pod| {
        pod.phase == PodPhase::Failed && !pod.has_run() && pod.obstacle().is_some_and(|why| !why.permanent)
    });
    if !refused {
        return Refusals::NotAll;
    }
    let counted = usize::try_from(job.failures).unwrap_or_default().max(1);
    if pods.len() < counted {
        let live = Question::Job((job.namespace.clone(), job.name.clone()));
        let known = ctx.snapshot.answer(&live).is_some();
        return if known { Refusals::NotAll } else { Refusals::Unknown(live) };
    }
    refusal(ctx, job).map_or(Refusals::NotAll, Refusals::All)
}
