//! A Job that may run: whether the operation runs in it, what keeps it from that, and for how long it is
//! waited for.

use k8s_openapi::jiff::SignedDuration;

use super::pods::JobPods;
use crate::{
    api::names::container,
    plan::{
        model::{
            effects::{Effects, Planned},
            failing,
            question::{Question, Regarding},
            snapshot::{Admission, JobView, News, Obstacle, PodView},
            time::later,
        },
        node::{
            context::{Decision, NodeContext},
            failure::{Failure, NextPod},
            waiting::{NotBegun, Waiting},
        },
        pod_news::{self, PodNews},
    },
};

/// A Job controller makes the pod at once. When it has made none for this time, the API server is asked why.
pub const POD_EXPECTED_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// When a Job has had no pod for this time, and the API server refuses one for a reason that does not pass by
/// itself, as it would have before the node was taken, no waiting helps where nothing has begun.
const REFUSED_FOR: SignedDuration = SignedDuration::from_secs(30);

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
    if ctx.snapshot.may_have_begun(job) {
        return began(ctx, job, pods, known).with(effects);
    }
    let asked = pods.all.iter().any(|pod| pod_news::is_asked(ctx.snapshot, pod, &effects));
    awaited(ctx, job, pods, known, asked).with(effects)
}

/// The operation has begun, or may have. It runs, or a further try of it is to: that one has as long to start
/// as the first had.
fn began(
    ctx: &NodeContext<'_>,
    job: &JobView,
    pods: &JobPods<'_>,
    known: Option<Known>,
) -> Planned<Decision> {
    let mut effects = Effects::default();
    // Between two tries the Job controller makes no pod for a while.
    let blocker = effects
        .absorb(blocker(ctx, job, pods, known))
        .filter(|blocker| blocker.why != NotBegun::ControllerAway);
    let Some(blocker) = blocker else {
        let gone = usize::try_from(job.failed).unwrap_or(0);
        let why = match pods.last_failure() {
            // What its last try failed of is said with it.
            Some(last) => Waiting::JobTries { failed: pods.count_failed(), last: Some(last) },
            None if gone > 0 && pods.all.is_empty() => Waiting::JobTries { failed: gone, last: None },
            None => Waiting::JobRuns,
        };
        return why.on(ctx.node).with(effects);
    };
    let why = Waiting::JobHeldUp { why: blocker.why.to_string() }.on(ctx.node);
    if pods.run() {
        return why.with(effects);
    }
    until_late(ctx, job, why, blocker, NextPod::Further).with(effects)
}

/// Nothing of it has begun. A pod of which no error is reported is waited for longer than others, and that is
/// said: it may run by now, and its kubelet not have told so yet, after a time without the API server, say.
/// `asked`: what Events say of it is just being read.
fn awaited(
    ctx: &NodeContext<'_>,
    job: &JobView,
    pods: &JobPods<'_>,
    known: Option<Known>,
    asked: bool,
) -> Planned<Decision> {
    let calm = known.as_ref().and_then(Known::calm);
    let mut effects = Effects::default();
    if let Some(blocker) = effects.absorb(blocker(ctx, job, pods, known)) {
        let why = Waiting::JobNotBegun(blocker.why.clone());
        return until_late(ctx, job, why, blocker, NextPod::First).with(effects);
    }
    // A node that is not heard of may have begun, and nobody knows.
    if !ctx.node.ready || pods.all.is_empty() || asked {
        return Waiting::JobRuns.on(ctx.node).with(effects);
    }
    let due = later(ctx.snapshot.idle_since(job), STARTS_WITHIN);
    if ctx.snapshot.now < due {
        return Waiting::JobRuns.with(effects).with(Effects::wake_at(due));
    }
    match pods.last_failure().filter(|_| !pods.are_open()) {
        Some(last) => Waiting::JobNotBegun(NotBegun::Pod(last)).with(effects),
        None => Waiting::JobPodSilent { told: calm }.with(effects),
    }
}

/// Waits for `pullTimeoutSeconds`, whatever keeps the pod, be it the node's lock: who holds that is no pod
/// that anybody sees, and may never end. What no waiting helps against fails the node at once. Before that
/// the Job and its pods are read: what they say is all that tells whether the operation has begun.
fn until_late(
    ctx: &NodeContext<'_>,
    job: &JobView,
    why: Waiting,
    blocker: Blocker,
    pod: NextPod,
) -> Planned<Decision> {
    let limit = ctx.op.intent.pull_timeout;
    let deadline = later(ctx.snapshot.idle_since(job), limit);
    if !blocker.lasts && ctx.snapshot.now < deadline {
        return why.with(Effects::wake_at(deadline));
    }
    let Some(blocker) = in_the_end(ctx, blocker) else { return why.into() };
    let live = Question::Job((job.namespace.clone(), job.name.clone()));
    if ctx.snapshot.answer(&live).is_none() {
        return why.with(live);
    }
    match blocker {
        Blocker { why, lasts: true } => Failure::JobCannotStart { why: why.to_string(), pod }.into(),
        Blocker { why, lasts: false } => Failure::JobLate { seconds: limit.as_secs(), why, pod }.into(),
    }
}

/// For what a Job is given up that is late. Where a Job's controller is away, it goes on when it is back,
/// however late. But if the dry run of what it makes has failed for as long as a pod may take, so have its
/// own requests: a webhook of which no pod is left, since the drain has evicted them, say, answers neither of
/// us before the node is given back.
fn in_the_end(ctx: &NodeContext<'_>, blocker: Blocker) -> Option<Blocker> {
    if blocker.why != NotBegun::ControllerAway {
        return Some(blocker);
    }
    let tried = dry_run(ctx);
    let until = later(failing::since(ctx.snapshot, &tried)?, ctx.op.intent.pull_timeout);
    let why = failing::of(ctx.snapshot, &tried).filter(|_| ctx.snapshot.now >= until)?;
    Some(Blocker { why: NotBegun::Unanswered(why), ..blocker })
}

/// Whether the API server admits what the operation makes.
fn dry_run(ctx: &NodeContext<'_>) -> Question {
    Question::Admission(ctx.op.id.clone(), ctx.node.name.clone())
}

/// What keeps a pod of the Job from starting.
struct Blocker {
    why: NotBegun,
    /// No waiting helps.
    lasts: bool,
}

/// What keeps a pod of the Job from starting, or the Job from having one.
fn blocker(
    ctx: &NodeContext<'_>,
    job: &JobView,
    pods: &JobPods<'_>,
    known: Option<Known>,
) -> Planned<Option<Blocker>> {
    if let Some(Obstacle { permanent, text }) = known.and_then(Known::obstacle) {
        return Some(Blocker { why: NotBegun::Pod(text), lasts: permanent }).into();
    }
    let locked = locked(ctx, pods).map(|why| why.map(|why| Blocker { why, lasts: false }));
    locked.or_else(|| podless(ctx, job, pods))
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
        PodNews::Obstacle(text) => Known::Obstacle(Obstacle { permanent: false, text }),
        PodNews::Pulling { .. } => Known::Calm(told.to_string()),
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

/// Why a Job that runs has no pod. The API server is asked whether it would admit one; and if it would, the
/// Events of the Job are: some things are refused to its controller alone, by an image policy, by a webhook
/// that changes pods, or since the pod's account is not there. A controller that has one by now has made it,
/// whatever its Events say: they come late, and some never.
fn podless(ctx: &NodeContext<'_>, job: &JobView, pods: &JobPods<'_>) -> Planned<Option<Blocker>> {
    if job.has_pod || !pods.all.is_empty() {
        return None.into();
    }
    let due = later(ctx.snapshot.idle_since(job), POD_EXPECTED_WITHIN);
    if ctx.snapshot.now < due {
        return Planned::from(None).with(Effects::wake_at(due));
    }
    let again = Effects::wake_at(later(ctx.snapshot.now, POD_EXPECTED_WITHIN));
    let admission = ctx.snapshot.admission(&ctx.op.id, &ctx.node.name);
    let lasts = matches!(admission, Some(Admission::Refused(_)))
        && !ctx.snapshot.may_have_begun(job)
        && ctx.snapshot.now >= later(ctx.snapshot.idle_since(job), REFUSED_FOR);
    let (why, open) = match admission {
        Some(Admission::Refused(message) | Admission::NotYet(message)) => {
            (NotBegun::Refused(message.to_owned()), None)
        }
        Some(Admission::Admitted) => controller_says(ctx, job),
        None => (NotBegun::ControllerAway, Some(dry_run(ctx))),
    };
    Planned::from(Some(Blocker { why, lasts })).with(again).with(Effects::ask(open))
}

/// What asks for Events of a Job, or of its pods.
pub fn about(job: &JobView, of: Regarding) -> Question {
    let (namespace, name, uid) = (job.namespace.clone(), job.name.clone(), job.uid.clone());
    Question::Events { of, namespace, name, uid }
}

/// What the Job's controller says of a pod that it could not make, and what is still to be asked for that.
fn controller_says(ctx: &NodeContext<'_>, job: &JobView) -> (NotBegun, Option<Question>) {
    let question = about(job, Regarding::Job);
    match ctx.snapshot.news(&question) {
        Some(News::Warns(message)) => (NotBegun::NotMade(message.to_owned()), None),
        Some(News::Pulls(_) | News::Nothing) => (NotBegun::ControllerAway, None),
        None => (NotBegun::ControllerAway, Some(question)),
    }
}
