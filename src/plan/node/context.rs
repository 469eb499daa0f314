//! What a step of a node looks at, what it comes to, and how its result is written down.

use std::sync::Arc;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use crate::{
    api::nodeop::{NodeOp, NodeStatus, Phase, RebootStatus, Step},
    plan::model::{
        action::{Action, Notice, Plan},
        id::OpRef,
        intent::Intent,
        object_name,
        question::Question,
        snapshot::{JobView, NodeView, PodView, Snapshot},
        time::later,
    },
};

/// A NodeOp that is being planned, parsed.
#[derive(Clone, Debug)]
pub struct Op {
    pub object: Arc<NodeOp>,
    pub id: OpRef,
    pub intent: Intent,
    /// Somebody deleted it: cancel, release, conclude.
    pub deleting: bool,
}

impl Op {
    pub fn of(object: &Arc<NodeOp>) -> Self {
        let deleting = object.metadata.deletion_timestamp.is_some();
        Self { object: object.clone(), id: OpRef::of(object), intent: Intent::of(object), deleting }
    }

    /// The deterministic name of what we make for a node.
    pub fn object_name(&self, node: &str, kind: &str, attempt: i32) -> String {
        object_name::object((&self.id.name, &self.id.uid), node, kind, attempt)
    }

    /// The name of the Job of a node whose entry is this.
    pub fn job_name(&self, node: &str, entry: Option<&NodeStatus>) -> String {
        let recorded = entry.and_then(|entry| entry.job_name.clone());
        recorded.unwrap_or_else(|| self.object_name(node, "", 0))
    }

    /// Whether a Job of that name on that node is one that we make, and not the Go operator's.
    pub fn is_job_name(&self, node: &str, name: &str) -> bool {
        object_name::is_job((&self.id.name, &self.id.uid), node, name)
    }
}

/// What a step decides about its node.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The node stays where it is; this is why.
    Wait(String),
    /// Record this: the next step, or a fact that an action relies on.
    Record(Box<NodeStatus>),
    /// The node fails for this reason, as soon as nothing of the operation can act on it any more (see
    /// `give_up`).
    GiveUp(Verdict),
}

/// Why a node is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub reason: String,
    /// No container of the operation has begun, and none is going to: the node is as it was.
    pub untouched: bool,
}

/// What becomes of a node's entry in this plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing can be recorded yet; this is why.
    Wait(String),
    /// Record this.
    Become(Box<NodeStatus>),
}

/// Everything a step looks at and writes to.
#[derive(Debug)]
pub struct NodeContext<'a> {
    pub snapshot: &'a Snapshot,
    pub op: &'a Op,
    pub node: &'a NodeView,
    pub status: &'a NodeStatus,
    pub plan: &'a mut Plan,
}

impl NodeContext<'_> {
    pub fn act(&mut self, action: Action) {
        self.plan.actions.push(action);
    }

    pub fn ask(&mut self, question: Question) {
        self.plan.questions.insert(question);
    }

    /// Says something, together with the status write that records it.
    pub fn say(&mut self, notice: Notice) {
        self.plan.said.entry(self.op.id.key()).or_default().push(notice);
    }

    /// A copy of the status, moved to `step` with a message.
    pub fn moved_to(&self, step: Step, message: impl Into<String>) -> NodeStatus {
        NodeStatus {
            phase: Phase::Running,
            step: Some(step),
            message: Some(message.into()),
            last_updated: Some(Time(self.snapshot.now)),
            ..self.status.clone()
        }
    }

    /// Records a fact without moving on.
    pub fn record(&self, change: impl FnOnce(&mut NodeStatus)) -> Decision {
        let mut status = self.status.clone();
        change(&mut status);
        Decision::Record(Box::new(status))
    }

    /// The pods that the node's Job made. `job_uid`: as which Job it is recorded.
    pub fn job_pods<'a>(&'a self, job_uid: &'a str) -> impl Iterator<Item = &'a Arc<PodView>> {
        let name = self.status.job_name.as_deref().unwrap_or_default();
        self.snapshot
            .pods_of_job(&self.op.id.namespace, name, job_uid)
            .filter(|pod| pod.node == self.node.name)
    }

    /// When the present step is over, whose limit is `span`. A time that an earlier leader wrote is by a
    /// clock of its own, which may be hours away from ours: then the whole limit counts from when we began to
    /// lead. The step ends later so, never too early.
    pub fn deadline(&self, span: SignedDuration) -> Option<Timestamp> {
        let recorded = self.status.deadline.as_ref()?.0;
        let written = self.status.last_updated.as_ref().map(|time| time.0);
        let by_another = written.is_some_and(|at| at < self.snapshot.leading_since || at > self.snapshot.now);
        Some(if by_another { later(self.snapshot.leading_since, span) } else { recorded })
    }

    /// When something began of which a moment is recorded: no earlier than we began to lead, since an earlier
    /// leader's clock may be hours away from ours. What counts from there ends later so, never too early.
    pub fn begun_at(&self, recorded: Option<&Time>) -> Timestamp {
        let Snapshot { now, leading_since, .. } = self.snapshot;
        recorded.map_or(*now, |time| if time.0 > *now { *leading_since } else { time.0.max(*leading_since) })
    }

    /// Until when a pause lasts that began when the last pod or Job was lost, if it is not over. A moment
    /// that lies in the future is of a clock that was wrong, and so an old one.
    pub fn paused_until(&mut self, pause: SignedDuration) -> Option<Timestamp> {
        let lost = self.status.since.as_ref().map(|time| time.0).filter(|at| *at <= self.snapshot.now)?;
        let at = Some(later(lost, pause)).filter(|at| self.snapshot.now < *at)?;
        self.plan.wake(at);
        Some(at)
    }

    /// Gives the node up. What was planned for it in this pass is not done.
    pub fn fail(&self, reason: impl Into<String>) -> Decision {
        Decision::GiveUp(Verdict { reason: reason.into(), untouched: false })
    }

    /// Gives the node up before anything of the operation has begun on it.
    pub fn fail_untouched(&self, reason: impl Into<String>) -> Decision {
        Decision::GiveUp(Verdict { reason: reason.into(), untouched: true })
    }

    /// The node is done.
    pub fn complete(&self, reboot: RebootStatus, message: impl Into<String>) -> Decision {
        Decision::Record(Box::new(finished(
            self.snapshot.now,
            self.status,
            Phase::Completed,
            Some(reboot),
            message,
        )))
    }
}

/// The Job of an entry as a cache shows it, if it is the one whose UID is recorded.
pub fn recorded_job<'a>(snapshot: &'a Snapshot, op: &Op, status: &NodeStatus) -> Option<&'a JobView> {
    let name = status.job_name.clone()?;
    let job = snapshot.jobs.get(&(op.id.namespace.clone(), name))?;
    (status.job_uid.as_ref() == Some(&job.uid)).then_some(job)
}

/// The final status of a node: what it was claimed for is forgotten, what a reader wants to know stays.
pub fn finished(
    now: Timestamp,
    status: &NodeStatus,
    phase: Phase,
    reboot: Option<RebootStatus>,
    message: impl Into<String>,
) -> NodeStatus {
    NodeStatus {
        phase,
        // A Job whose UID was never recorded never ran: the node was not touched by the operation.
        job_name: status
            .job_name
            .clone()
            .filter(|_| status.job_uid.is_some() && status.untouched != Some(true)),
        message: Some(message.into()),
        reboot_status: reboot,
        last_updated: Some(Time(now)),
        // The slot is taken until the node is given back, see `rollout`.
        node_uid: status.node_uid.clone(),
        ..NodeStatus::default()
    }
}

/// The same, as what becomes of the entry.
pub fn finish(
    now: Timestamp,
    status: &NodeStatus,
    phase: Phase,
    reboot: Option<RebootStatus>,
    message: impl Into<String>,
) -> Next {
    Next::Become(Box::new(finished(now, status, phase, reboot, message)))
}
