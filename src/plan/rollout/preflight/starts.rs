//! Preflight pods whose check has not started: for how long that is waited for, and what it may depend on.

use k8s_openapi::jiff::SignedDuration;

use super::{PreflightContext, PreflightFailure, lost, reason::Asking, wait};
use crate::plan::{
    model::{
        effects::{Effects, Planned},
        snapshot::{NodeView, PodView, Snapshot},
        time::later,
    },
    node::{
        context::{EntryPlan, Op},
        state::Pending,
    },
    pod_news::{self, PodNews},
    rollout::{not_taken::NotTaken, others},
};

/// How long a look at the image may be kept from its start beside another operation that has the node. Then
/// it waits for that one, which may bring what is missing.
const BESIDE_ANOTHER: SignedDuration = SignedDuration::from_secs(60);

/// What is said of a pod of which nothing is told. Kubernetes keeps Events for an hour, that of a pull, too.
const AS_PULLED: &str = "nothing is told of it, as while its image is pulled";

impl PreflightContext<'_> {
    /// The container has not started, and in a pod that has ended it never will.
    pub(super) fn not_started(&self, pod: &PodView) -> Planned<EntryPlan> {
        let obstacle = pod.obstacle();
        if let Some(lasts) = obstacle.as_ref().filter(|obstacle| obstacle.permanent) {
            return self.fail(PreflightFailure::CannotStart(lasts.text.clone())).into();
        }
        if !pod.is_active() {
            return self.drained_first(pod).unwrap_or_else(|| self.again(lost::reason(pod))).into();
        }
        let mut effects = Effects::default();
        let told = obstacle
            .map(|obstacle| PodNews::Obstacle(obstacle.text))
            .or_else(|| effects.absorb(pod_news::event_message(self.snapshot, pod)));
        let now = self.snapshot.now;
        let within = |limit: SignedDuration| later(self.snapshot.first_seen(pod), limit);
        let is_late = now >= within(self.patience());
        // What Events say belongs to the last word on the pod.
        if is_late && told.is_none() && pod_news::is_asked(self.snapshot, pod, &effects) {
            return wait(Asking::AsTold(self.entry.message.clone().unwrap_or_default())).with(effects);
        }
        let is_taken_up = pod.is_silent() && !pod.containers.is_empty();
        let (limit, waits) = match &told {
            Some(PodNews::Obstacle(why)) => (self.patience(), Asking::NotStarted { why: why.clone() }),
            Some(pulls @ PodNews::Pulling { .. }) => {
                (self.as_the_job(), Asking::Starts { told: pulls.to_string() })
            }
            None if is_late && is_taken_up => (self.as_the_job(), Asking::Starts { told: AS_PULLED.into() }),
            None => (self.patience(), Asking::Runs),
        };
        let deadline = within(limit);
        if now < deadline {
            return wait(waits).with(effects).with(Effects::wake_at(deadline));
        }
        let why = told.map_or_else(|| "the node did not start it".into(), |told| told.to_string());
        Planned::from(self.fail(PreflightFailure::NotStartedIn { limit, why })).with(effects)
    }

    /// For how long the pod may be kept from its start.
    fn patience(&self) -> SignedDuration {
        let limit = self.op.intent.pull_timeout;
        self.holder().map_or(limit, |_| limit.min(BESIDE_ANOTHER))
    }

    /// For how long an image may be pulled: as long as the Job may, which would wait for the same pull.
    fn as_the_job(&self) -> SignedDuration {
        let job = SignedDuration::from_secs(self.op.intent.job_deadline);
        self.op.intent.pull_timeout.max(job)
    }

    /// The other operation that has the node. Where more than the image is asked about, no such node is
    /// asked.
    pub(super) fn holder(&self) -> Option<NotTaken> {
        let looks = !self.op.intent.preflight.is_about_the_node();
        self.snapshot
            .nodes
            .get(self.name)
            .filter(|_| looks)
            .and_then(|node| others::holder(self.snapshot, self.op, node))
    }
}

/// Why a node is not looked at now whose image was looked for in vain: another operation has it, and may bring
/// what was missing.
pub fn waits_with_it(snapshot: &Snapshot, op: &Op, node: &NodeView, pending: &Pending) -> Option<NotTaken> {
    let in_vain = pending.attempt.is_some() && !op.intent.preflight.is_about_the_node();
    if in_vain { others::holder(snapshot, op, node) } else { None }
}
