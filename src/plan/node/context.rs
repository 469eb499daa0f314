//! What a step of a node looks at, what it comes to, and how its result is written down.

use std::{fmt, sync::Arc};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    api::nodeop::{NodeOp, NodeStatus, RebootStatus},
    plan::{
        model::{
            effects::{Effects, Planned},
            id::OpRef,
            intent::Intent,
            object_name,
            snapshot::{JobView, NodeView, PodView, Snapshot},
            stamp::Stamp,
            time::later,
            why::Why,
        },
        node::{
            end::End,
            failure::Failure,
            state::{Entry, GivenUp, Over, State, Working},
            waiting::Waiting,
        },
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
        object_name::attempt((&self.id.name, &self.id.uid), node, "", name).is_some()
    }
}

/// What a step decides about its node.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The node stays where it is; this is why.
    Wait(Waiting),
    /// Record this: the next step, or a fact that an action relies on.
    Record(Box<Entry>),
    /// The node fails for this reason, as soon as nothing of the operation can act on it any more (see
    /// `give_up`).
    GiveUp(GivenUp),
}

impl Decision {
    /// The decision, and what goes with it.
    pub fn with(self, effects: impl Into<Effects>) -> Planned<Self> {
        Planned::from(self).with(effects)
    }
}

impl Waiting {
    /// The node waits, and this is done, asked or awaited meanwhile.
    pub fn with(self, effects: impl Into<Effects>) -> Planned<Decision> {
        Decision::Wait(self).with(effects)
    }
}

/// The node waits, and nothing is done about it.
impl From<Waiting> for Planned<Decision> {
    fn from(why: Waiting) -> Self {
        Decision::Wait(why).into()
    }
}

impl Failure {
    /// Gives the node up. What was planned for it in this pass is not done.
    pub fn gives_up(self) -> Decision {
        Decision::GiveUp(GivenUp { reason: self.to_string(), touched: self.touched() })
    }
}

/// The node is given up, and nothing else is done in this pass.
impl From<Failure> for Planned<Decision> {
    fn from(failure: Failure) -> Self {
        failure.gives_up().into()
    }
}

/// What becomes of a node's entry in this plan.
#[derive(Clone, Debug, PartialEq)]
pub enum EntryPlan {
    /// Nothing can be recorded yet; this is why.
    Wait(Why),
    /// Record this.
    Record(Box<Entry>),
}

/// Everything that a step looks at.
#[derive(Clone, Copy, Debug)]
pub struct NodeContext<'a> {
    pub snapshot: &'a Snapshot,
    pub op: &'a Op,
    pub node: &'a NodeView,
    /// What stands in the status about the node …
    pub entry: &'a Entry,
    /// … and how far the work on it is.
    pub work: &'a Working,
}

impl NodeContext<'_> {
    /// Whether the node says that it is ours, as we see it. A Node object that was made again says nothing.
    pub fn is_claimed(&self) -> bool {
        self.node.claimed_by.as_ref() == Some(&self.op.id)
    }

    /// The next step.
    pub fn move_to(&self, work: Working, message: impl fmt::Display) -> Decision {
        self.moves(State::Working(work.into()), message)
    }

    /// Records a fact without moving on.
    pub fn record(&self, change: impl FnOnce(&mut Working)) -> Decision {
        let mut work = self.work.clone();
        change(&mut work);
        Decision::Record(Box::new(Entry { state: State::Working(work.into()), ..self.entry.clone() }))
    }

    /// What is said of the reboot from when the operation is next.
    pub fn reboot_asked(&self) -> RebootStatus {
        if self.op.intent.reboot { RebootStatus::Pending } else { RebootStatus::NotRequested }
    }

    /// Whether the node's Job is one that the Go operator made: then so is its reboot pod.
    pub fn is_adopted(&self) -> bool {
        self.work.job.as_ref().is_some_and(|job| !self.op.is_job_name(&self.node.name, &job.name))
    }

    /// The pods that the node's Job made. `job_uid`: as which Job it is recorded.
    pub fn job_pods<'a>(&'a self, job_uid: &'a str) -> impl Iterator<Item = &'a Arc<PodView>> {
        let name = self.work.job.as_ref().map(|job| job.name.as_str()).unwrap_or_default();
        self.snapshot
            .pods_of_job(&self.op.id.namespace, name, job_uid)
            .filter(|pod| pod.node == self.node.name)
    }

    /// The Job of the node as a cache shows it, if it is the one whose UID is recorded.
    pub fn recorded_job(&self) -> Option<&JobView> {
        recorded_job(self.snapshot, self.op, self.work)
    }

    /// When the present step is over, whose limit is `span`.
    pub fn deadline(&self, span: SignedDuration) -> Option<Timestamp> {
        deadline(self.snapshot, self.entry, self.work, span)
    }

    /// When something began of which a moment is recorded; now, if none is.
    pub fn begun_at(&self, recorded: Option<Stamp>) -> Timestamp {
        self.snapshot.begun_at_or_now(recorded)
    }

    /// The node is over. What it was claimed for is forgotten, what a reader wants to know stays; the slot is
    /// taken until the node is given back, see `rollout`.
    pub fn end(&self, end: &End) -> Decision {
        let over = Over {
            succeeded: end.succeeded(),
            reason: end.reason(),
            reboot: Some(end.reboot()),
            job_name: self.work.ran(),
            verified: end.verified(),
            ..Over::of(self.work)
        };
        self.moves(State::Over(over), end)
    }

    /// Another phase or step, as which this is said of the node.
    pub fn moves(&self, state: State, message: impl fmt::Display) -> Decision {
        Decision::Record(Box::new(self.entry.moved(self.snapshot.now, state, message)))
    }
}

/// When the present step of a node is over, whose limit is `span`. Of a step that another leader began, the
/// whole limit counts from when we began to lead.
pub fn deadline(
    snapshot: &Snapshot,
    entry: &Entry,
    work: &Working,
    span: SignedDuration,
) -> Option<Timestamp> {
    let recorded = work.deadline()?;
    let by_another = entry.since.is_some_and(|at| !snapshot.is_of_our_time(at));
    Some(if by_another { later(snapshot.leading_since, span) } else { recorded.written() })
}

/// The Job of a node as a cache shows it, if it is the one whose UID is recorded.
pub fn recorded_job<'a>(snapshot: &'a Snapshot, op: &Op, work: &Working) -> Option<&'a JobView> {
    let record = work.job.as_ref()?;
    let job = snapshot.jobs.get(&(op.id.namespace.clone(), record.name.clone()))?;
    (record.uid.as_ref() == Some(&job.uid)).then_some(job)
}
