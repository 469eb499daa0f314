//! Pods that come to a node that was drained, while the operation runs there.
//!
//! The scheduler may have chosen the node before the cordon, and binds a pod to it up to minutes later, when
//! its volume is there. A reboot would take it down without a word to its budget. So it is evicted as it
//! comes. Nothing is held up for it, since the operation has begun. What is still there when the reboot is
//! due is named and no longer evicted: where there is no reboot the node is let go and the pod may stay, and
//! where there is one it comes before any eviction has done its work.

use super::{EvictionDecision, arrival, evict, judge, own, say_left};
use crate::plan::{
    model::{
        effects::{Effects, Planned},
        intent::DrainIntent,
        question::Question,
        snapshot::{NodePod, PodArrival},
    },
    node::{
        context::{Decision, NodeContext},
        state::{At, State},
    },
};

/// Evicts what has come to the node since the drain, beside what its Job does next. To a leader that comes
/// when the drain is over, all that is there has: the drain had evicted what was there before, and what it
/// left the options leave now. The operation's own pods are told by their owner, see [`judge`].
pub fn keep_clear(ctx: &NodeContext<'_>, next: Planned<Decision>) -> Planned<Decision> {
    // A Node that was made again in this step is not ours until it is claimed again. Who has made it
    // unschedulable is somebody else, who may want its pods to stay.
    let clears = ctx.is_claimed() && !ctx.op.deleting;
    let Some(options) = ctx.op.intent.drain.as_ref().filter(|_| clears) else { return next };
    let mut effects = Effects::watch_pods_of(&ctx.node.name);
    let lenient = DrainIntent { strict: false, ..options.clone() };
    let late = ctx.snapshot.residents(&ctx.node.name).filter(|pod| {
        // Whoever lets pods in again does not want them evicted, for as long as that is not undone.
        ctx.node.unschedulable
            && !pod.finished
            && !own::is(ctx.snapshot, pod)
            && arrival(ctx, pod) == PodArrival::Late
            && judge(ctx, pod, &lenient) == EvictionDecision::Evict
    });
    let eviction = |pod| evict(ctx, options, ctx.snapshot.now.into(), pod);
    match after(&next.value) {
        After::Job => {
            let mut evictions = Effects::default();
            late.for_each(|pod| drop(evictions.absorb(eviction(pod))));
            // An old view shows the claim of a Node that was deleted and made again since. A drain has just
            // seen its claim; a Job may run for hours.
            let live = Question::Node(ctx.node.name.clone());
            let is_unread = !evictions.actions.is_empty() && ctx.snapshot.answer(&live).is_none();
            effects.add(if is_unread { Effects::from(live) } else { evictions });
        }
        After::Reboot => {
            let came = |pod: &NodePod| format!("{}: it came while the operation ran", pod.path());
            let there: Vec<_> = late.map(|pod| eviction(pod).value.unwrap_or_else(|| came(pod))).collect();
            effects.add(say_left(ctx, &there).map(Effects::from).unwrap_or_default());
        }
        After::End => {}
    }
    next.with(effects)
}

/// What follows in step `Job`.
enum After {
    /// The Job still runs.
    Job,
    Reboot,
    /// The operation is over on this node.
    End,
}

fn after(next: &Decision) -> After {
    match next {
        Decision::Wait(_) => After::Job,
        Decision::Record(entry) => match &entry.state {
            State::Working(work) if matches!(work.at, At::Reboot(_)) => After::Reboot,
            State::Working(_) => After::Job,
            State::Pending(_) | State::Preflight(_) | State::Over(_) => After::End,
        },
        Decision::GiveUp(_) => After::End,
    }
}
