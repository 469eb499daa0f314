//! A Job that runs, and none of whose containers has begun: what keeps it, and for how long that is waited for.

use std::fmt;

use k8s_openapi::jiff::SignedDuration;

use super::{
    message::{RUNNING, away},
    refused::NOT_STARTED,
};
use crate::plan::{
    model::{
        question::{Answer, Question},
        silence,
        snapshot::{JobView, Obstacle},
        time::later,
    },
    node::{
        context::{Decision, NodeContext},
        legacy,
    },
};

/// A Job controller makes the pod at once. When it has made none for this time, the API server is asked why.
const POD_EXPECTED_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// Why no container of the operation has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NotBegun {
    /// The pod's status says so, or an Event about it.
    Pod(String),
    /// There is no pod, and the API server would refuse one.
    Refused(String),
    /// There is no pod, and nothing forbids one: the Job's controller is away.
    ControllerAway,
}

impl fmt::Display for NotBegun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(message) => f.write_str(message),
            Self::Refused(message) => {
                write!(f, "the Job controller has made none; the API server refuses {message}")
            }
            Self::ControllerAway => f.write_str("the Job controller has made none"),
        }
    }
}

/// Waits for `pullTimeoutSeconds`, whatever keeps the pod; what no waiting helps against fails the node at
/// once.
pub fn awaited(ctx: &mut NodeContext<'_>, job: &JobView, obstacle: Option<Obstacle>) -> Decision {
    if let Some(Obstacle { permanent: true, text }) = &obstacle {
        return ctx.fail_untouched(format!("the Job's pod cannot start: {text}"));
    }
    let told = obstacle.map(|obstacle| NotBegun::Pod(obstacle.text));
    let deadline = later(ctx.snapshot.let_go_since(job), ctx.op.intent.pull_timeout);
    let Some(why) = told.or_else(|| podless(ctx, job)) else {
        if ctx.job_pods(&job.uid).next().is_some() {
            ctx.plan.wake(deadline.max(later(ctx.snapshot.now, POD_EXPECTED_WITHIN)));
        }
        return Decision::Wait(format!("{RUNNING}{}", away(ctx)));
    };
    let waits = ctx.snapshot.now < deadline;
    if waits {
        ctx.plan.wake(deadline);
    }
    // A Job's controller that is away goes on when it is back, however late.
    if waits || why == NotBegun::ControllerAway {
        return Decision::Wait(format!("{NOT_STARTED}{why}"));
    }
    let live = Question::Job((job.namespace.clone(), job.name.clone()));
    if ctx.job_pods(&job.uid).next().is_none() && ctx.snapshot.answer(&live).is_none() {
        ctx.ask(live);
        return Decision::Wait(format!("{RUNNING}; checking whether it has a pod"));
    }
    let after = ctx.op.intent.pull_timeout.as_secs();
    ctx.fail_untouched(format!("the Job's pod could not start in {after} s: {why}"))
}

/// What keeps the Job's pod from its work: as its status says, or its Events. A pod that has failed speaks if
/// its like will fail too.
pub fn obstacle(ctx: &mut NodeContext<'_>, job: &JobView) -> Option<Obstacle> {
    let (over, there): (Vec<_>, Vec<_>) =
        ctx.job_pods(&job.uid).cloned().partition(|pod| pod.phase.is_final());
    let told = there.iter().find_map(|pod| pod.obstacle());
    let lasting = || over.iter().filter_map(|pod| pod.obstacle()).find(|obstacle| obstacle.permanent);
    let silent = |ctx: &mut NodeContext<'_>| {
        there.iter().find_map(|pod| silence::event_message(ctx.snapshot, pod, ctx.plan))
    };
    told.or_else(lasting).or_else(|| Some(Obstacle { permanent: false, text: silent(ctx)? }))
}

/// Why a Job that runs has no pod. Its controller says so only in an Event, so the API server is asked.
fn podless(ctx: &mut NodeContext<'_>, job: &JobView) -> Option<NotBegun> {
    // The pods of an adopted Job carry no label of ours and are not seen.
    if legacy::is_adopted(ctx) || ctx.job_pods(&job.uid).next().is_some() {
        return None;
    }
    let begun = job.started_at.or_else(|| ctx.status.last_updated.as_ref().map(|time| time.0))?;
    let due = later(begun, POD_EXPECTED_WITHIN);
    if ctx.snapshot.now < due {
        ctx.plan.wake(due);
        return None;
    }
    ctx.plan.wake(later(ctx.snapshot.now, POD_EXPECTED_WITHIN));
    let question = Question::Admission(ctx.op.id.clone(), ctx.node.name.clone());
    match ctx.snapshot.answer(&question) {
        Some(Answer::Refused(message) | Answer::NotYet(message)) => Some(NotBegun::Refused(message.clone())),
        Some(
            Answer::NotFound
            | Answer::Found
            | Answer::Pending
            | Answer::Attached(_)
            | Answer::Said(_)
            | Answer::NotReady(_),
        ) => Some(NotBegun::ControllerAway),
        None => {
            ctx.ask(question);
            Some(NotBegun::ControllerAway)
        }
    }
}
