//! A Job that runs, and none of whose containers has begun: what keeps it, and for how long that is waited for.

use k8s_openapi::jiff::SignedDuration;

use super::pods::JobPods;
use crate::{
    api::names::container,
    plan::{
        model::{
            effects::{Effects, Planned},
            question::{Answer, Question},
            snapshot::{JobView, Obstacle, PodView},
            time::later,
        },
        node::{
            context::{Decision, NodeContext},
            failure::Failure,
            waiting::{NotBegun, Waiting},
        },
        pod_news::{self, Told},
    },
};

/// A Job controller makes the pod at once. When it has made none for this time, the API server is asked why.
const POD_EXPECTED_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// A node that has the images begins within seconds. When the operation has not begun for this time, that is
/// said.
const STARTS_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// A kubelet looks whether a pod has the node's lock each second. When it has seen for this time that the pod
/// has it not, that is said.
const LOCK_EXPECTED_WITHIN: SignedDuration = SignedDuration::from_secs(5);

/// The Job's pod runs, or what keeps it.
pub fn began_or_waits(ctx: &NodeContext<'_>, job: &JobView, pods: &JobPods<'_>) -> Planned<Decision> {
    let mut effects = Effects::default();
    let known = effects.absorb(known(ctx, pods));
    if !ctx.is_adopted() && !pods.have_begun() {
        let asked = pods.all.iter().any(|pod| pod_news::is_asked(ctx.snapshot, pod, &effects));
        return awaited(ctx, job, pods, known, asked).with(effects);
    }
    let why = known
        .and_then(Known::obstacle)
        .map(|obstacle| obstacle.text)
        .or_else(|| effects.absorb(locked(ctx, pods)).map(|locked| locked.to_string()));
    let why = match (why, pods.last_failure()) {
        (Some(why), _) => Waiting::JobHeldUp { why },
        // What its last try failed of is said with it.
        (None, Some(last)) => Waiting::JobTries { failed: pods.count_failed(), last },
        (None, None) => Waiting::JobRuns,
    };
    why.on(ctx.node).with(effects)
}

/// Waits for `pullTimeoutSeconds`, whatever keeps the pod, be it the node's lock: who holds that is no pod
/// that anybody sees, and may never end. What no waiting helps against fails the node at once. A pod of which
/// no error is reported is waited for longer, and that is said: it may run by now, and its kubelet not have
/// told so yet, after a time without the API server, say. `asked`: what Events say of it is just being read.
fn awaited(
    ctx: &NodeContext<'_>,
    job: &JobView,
    pods: &JobPods<'_>,
    known: Option<Known>,
    asked: bool,
) -> Planned<Decision> {
    let calm = known.as_ref().and_then(Known::calm);
    let obstacle = known.and_then(Known::obstacle);
    if let Some(Obstacle { permanent: true, text }) = obstacle {
        return Failure::JobCannotStart { why: text }.gives_up_untouched().into();
    }
    let mut effects = Effects::default();
    let is_podless = pods.all.is_empty();
    let since = ctx.snapshot.let_go_since(job);
    let deadline = later(since, ctx.op.intent.pull_timeout);
    let told = obstacle.map(|obstacle| NotBegun::Pod(obstacle.text));
    let told = told.or_else(|| effects.absorb(locked(ctx, pods)));
    // A node that is not heard of may have begun, and nobody knows.
    let is_silent = ctx.node.ready && !is_podless && !asked;
    let silent = || match pods.last_failure().filter(|_| !pods.are_open()) {
        Some(last) => Waiting::JobNotBegun(NotBegun::Pod(last)),
        None => Waiting::JobPodSilent { told: calm.clone() },
    };
    let due = later(since, STARTS_WITHIN);
    let Some(why) = told.or_else(|| effects.absorb(podless(ctx, job, pods))) else {
        if is_silent && ctx.snapshot.now >= due {
            return silent().with(effects);
        }
        if is_silent {
            effects.add(Effects::wake_at(due));
        }
        return Waiting::JobRuns.on(ctx.node).with(effects);
    };
    if ctx.snapshot.now < deadline {
        return Waiting::JobNotBegun(why).with(effects).with(Effects::wake_at(deadline));
    }
    // A Job's controller that is away goes on when it is back, however late.
    if why == NotBegun::ControllerAway {
        return Waiting::JobNotBegun(why).with(effects);
    }
    let live = Question::Job((job.namespace.clone(), job.name.clone()));
    if is_podless && ctx.snapshot.answer(&live).is_none() {
        return Waiting::JobPodUnconfirmed.with(effects).with(live);
    }
    let seconds = ctx.op.intent.pull_timeout.as_secs();
    Failure::JobLate { seconds, why }.gives_up_untouched().into()
}

/// What is known of a Job's pod that does not work.
enum Known {
    Obstacle(Obstacle),
    /// Nothing keeps it; this says what takes its time.
    Calm(String),
}

impl Known {
    fn obstacle(self) -> Option<Obstacle> {
        match self {
            Self::Obstacle(obstacle) => Some(obstacle),
            Self::Calm(_) => None,
        }
    }

    fn calm(&self) -> Option<String> {
        match self {
            Self::Calm(told) => Some(told.clone()),
            Self::Obstacle(_) => None,
        }
    }
}

/// What keeps the Job's pod from its work: as its status says, or its Events. A pod that has failed speaks if
/// its like will fail too.
fn known(ctx: &NodeContext<'_>, pods: &JobPods<'_>) -> Planned<Option<Known>> {
    let (over, there): (Vec<&PodView>, Vec<_>) = pods.all.iter().partition(|pod| pod.phase.is_final());
    let told = there.iter().find_map(|pod| pod.obstacle());
    let lasting = || over.iter().filter_map(|pod| pod.obstacle()).find(|obstacle| obstacle.permanent);
    if let Some(obstacle) = told.or_else(lasting) {
        return Some(Known::Obstacle(obstacle)).into();
    }
    let mut effects = Effects::default();
    let silent = there.iter().find_map(|pod| effects.absorb(pod_news::event_message(ctx.snapshot, pod)));
    let known = silent.map(|told| match told {
        Told::Wrong(text) => Known::Obstacle(Obstacle { permanent: false, text }),
        Told::Pulls { .. } => Known::Calm(told.to_string()),
    });
    Planned { value: known, effects }
}

/// Whether a pod of the Job waits for the node's lock, and has for longer than that takes if it is free.
fn locked(ctx: &NodeContext<'_>, pods: &JobPods<'_>) -> Planned<Option<NotBegun>> {
    let Some(pod) = pods.all.iter().find(|pod| pod.waits_for_lock()) else { return None.into() };
    let since = ctx.snapshot.running_since(pod, container::NODE_LOCK).unwrap_or(ctx.snapshot.now);
    let due = later(since, LOCK_EXPECTED_WITHIN);
    if ctx.snapshot.now < due {
        return Planned::from(None).with(Effects::wake_at(due));
    }
    Some(NotBegun::Locked).into()
}

/// Why a Job that runs has no pod. Its controller says so only in an Event, so the API server is asked.
fn podless(ctx: &NodeContext<'_>, job: &JobView, pods: &JobPods<'_>) -> Planned<Option<NotBegun>> {
    // The pods of an adopted Job carry no label of ours and are not seen.
    if ctx.is_adopted() || !pods.all.is_empty() {
        return None.into();
    }
    let due = later(ctx.snapshot.let_go_since(job), POD_EXPECTED_WITHIN);
    if ctx.snapshot.now < due {
        return Planned::from(None).with(Effects::wake_at(due));
    }
    let again = Effects::wake_at(later(ctx.snapshot.now, POD_EXPECTED_WITHIN));
    let question = Question::Admission(ctx.op.id.clone(), ctx.node.name.clone());
    let (why, open) = match ctx.snapshot.answer(&question) {
        Some(Answer::Refused(message) | Answer::NotYet(message)) => {
            (NotBegun::Refused(message.clone()), None)
        }
        Some(
            Answer::NotFound
            | Answer::Found
            | Answer::Pending
            | Answer::Attached(_)
            | Answer::Said(_)
            | Answer::Pulls { .. }
            | Answer::NotReady(_),
        ) => (NotBegun::ControllerAway, None),
        None => (NotBegun::ControllerAway, Some(question)),
    };
    Planned::from(Some(why)).with(again).with(Effects::ask(open))
}
