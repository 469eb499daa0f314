//! A pod with which its kubelet does not go on. After a boot of the node, a pod that is never restarted and
//! of which a container is known already gets no new sandbox (`computePodActions`,
//! kubernetes/kubernetes#118321), and it has not failed either while a container is still to start. It would
//! stand there until its Job's deadline. Once deleted it has failed, and the Job's next pod finds the node as
//! it is:
//!
//! | what had ended in it | what follows |
//! |---|---|
//! | nothing of the operation | deleted; where that was the Job's last try, the Job is made again (`failed`) |
//! | an upgrade, or a part of it | deleted; the next try finds what its agent has done |
//! | a command, before its success was recorded | the Job is ended, so that no pod runs the command again |
//!
//! The last one is not left to the Job's `podFailurePolicy`: the container that records the success may have
//! no exit code, and then the end of the lock's holder counts, and another pod follows.

use k8s_openapi::jiff::SignedDuration;

use super::pods::JobPods;
use crate::{
    api::names::container,
    plan::{
        model::{
            action::{Action, Target},
            effects::{Effects, Planned},
            question::Question,
            snapshot::{JobView, PodView},
            time::later,
        },
        node::{
            context::{Decision, NodeContext},
            failure::{Failure, JobEnd},
            state::At,
            waiting::{NotBegun, Waiting},
        },
    },
};

/// Within this time after its boot a kubelet has reported all its pods, and begun the next container of those
/// with which it goes on.
const GOES_ON_WITHIN: SignedDuration = SignedDuration::from_secs(30);

/// What is said of such a pod.
const HALTED: &str = "the node has booted since, and its kubelet does not go on with the pod";

/// What follows from a pod of the Job, which is active, that has stood still since the node's boot. The pod
/// is read live first, and it may have gone on after all.
pub fn after_a_boot(ctx: &NodeContext<'_>, job: &JobView, pods: &JobPods<'_>) -> Planned<Option<Decision>> {
    let At::Job(step) = &ctx.work.at else { return None.into() };
    let is_left = step.let_go_in.as_ref().is_some_and(|boot| *boot != ctx.node.boot_id);
    if !is_left || ctx.op.deleting {
        return None.into();
    }
    let is_first = job.failed == 0 && pods.count_failed() == 0;
    let halted = pods.all.iter().filter(|pod| is_first || has_lost_its_lock(pod));
    let halted = halted.filter_map(|pod| Some((*pod, ctx.snapshot.halted_since(pod, ctx.node)?)));
    let Some((pod, since)) = halted.min_by_key(|(_, since)| *since) else { return None.into() };
    let until = later(since, GOES_ON_WITHIN);
    if ctx.snapshot.now < until {
        return Planned::from(None).with(Effects::wake_at(until));
    }
    let live = Question::Job((job.namespace.clone(), job.name.clone()));
    if ctx.snapshot.answer(&live).is_none() {
        return Planned::from(None).with(live);
    }
    if !pod.has_begun() {
        let why = Waiting::JobNotBegun(NotBegun::Pod(HALTED.into()));
        return why.with(delete(pod)).map(Some);
    }
    if ctx.op.intent.upgrade {
        return Waiting::JobHeldUp { why: HALTED.into() }.with(delete(pod)).map(Some);
    }
    let succeeded = pod.operates().is_some_and(|it| it.ended().is_some_and(|ended| ended.code == 0));
    if !succeeded || pod.container(container::SENTINEL).is_none() {
        return None.into();
    }
    let end = JobEnd::Unrecorded(HALTED.into());
    Some(Failure::JobFailed { why: "ended by the operator".into(), end }.gives_up()).into()
}

/// A pod that the Job made later may have begun in this boot. A kubelet starts the lock's holder again when
/// it ends, unless it does not go on with the pod at all; of any other container only the Job's first pod,
/// which was made in the boot that is left, proves that.
fn has_lost_its_lock(pod: &PodView) -> bool {
    pod.containers.iter().any(|it| it.holds_lock() && it.ended().is_some())
}

fn delete(pod: &PodView) -> Effects {
    Effects::act([Action::DeletePod { pod: Target::of(pod), why: HALTED }])
}
