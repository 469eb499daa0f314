//! One node in hand: from its status and what the cluster shows to its next status, and what to do for it.
//!
//! ```text
//!   Pending ─▶ Claim ─▶ Drain ─▶ Job ─▶ Reboot ─▶ Verify ─▶ Completed
//!                 └───────┴───────┴───────┴─────────┴──────▶ Failed
//! ```
//!
//! Two rules make a crash harmless. A fact that an action relies on is in status before the action: the Job is made
//! *suspended* and may run only once its UID stands in status, so a Job that is missing then has run or been deleted,
//! and one that is missing before has never run. And every action is one that may be repeated.

use std::sync::Arc;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use super::{
    action::{Action, Notice, Plan},
    call_off, claim,
    cordon::{self, Take},
    drain,
    intent::Intent,
    job, names,
    question::Question,
    reboot,
    snapshot::{NodeView, OpRef, Snapshot},
    takeover, verify,
    waiter::{self, Waiter},
};
use crate::api::nodeop::{NodeOp, NodeStatus, Phase, RebootStatus, Step};

/// A NodeOp that is being planned, parsed.
#[derive(Clone, Debug)]
pub struct Op {
    pub object: Arc<NodeOp>,
    pub me: OpRef,
    pub intent: Intent,
    /// Somebody deleted it: cancel, release, conclude.
    pub deleting: bool,
}

impl Op {
    pub fn of(object: &Arc<NodeOp>) -> Self {
        let deleting = object.metadata.deletion_timestamp.is_some();
        Self { object: object.clone(), me: OpRef::of(object), intent: Intent::of(object), deleting }
    }

    /// The deterministic name of what we make for a node.
    pub fn object_name(&self, node: &str, kind: &str, attempt: i32) -> String {
        names::object((&self.me.name, &self.me.uid), node, kind, attempt)
    }
}

/// What a step comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing can be recorded yet; this is why.
    Wait(String),
    /// Record this.
    Become(Box<NodeStatus>),
}

/// Everything a step looks at and writes to.
#[derive(Debug)]
pub struct Turn<'a> {
    pub s: &'a Snapshot,
    pub op: &'a Op,
    pub node: &'a NodeView,
    pub status: &'a NodeStatus,
    pub plan: &'a mut Plan,
}

impl Turn<'_> {
    pub fn act(&mut self, action: Action) {
        self.plan.actions.push(action);
    }

    pub fn ask(&mut self, question: Question) {
        self.plan.questions.insert(question);
    }

    /// Says something, together with the status write that records it.
    pub fn say(&mut self, notice: Notice) {
        self.plan.said.entry(self.op.me.key()).or_default().push(notice);
    }

    /// A copy of the status, moved to `step`.
    pub fn to(&self, step: Step) -> NodeStatus {
        let message = match step {
            Step::Preflight => "Preflight in progress",
            Step::Claim => "taken in hand",
            Step::Drain => "preparing the node",
            Step::Job => "making the Job",
            Step::Reboot => "Job completed, the node reboots",
            Step::Verify => "the node rebooted, its release is being verified",
        };
        NodeStatus {
            phase: Phase::Running,
            step: Some(step),
            message: Some(message.into()),
            last_updated: Some(Time(self.s.now)),
            ..self.status.clone()
        }
    }

    /// Records a fact without moving on.
    pub fn record(&self, change: impl FnOnce(&mut NodeStatus)) -> Next {
        let mut status = self.status.clone();
        change(&mut status);
        Next::Become(Box::new(status))
    }

    pub fn fail(&self, message: impl Into<String>) -> Next {
        let reboot = self.status.reboot_status.map(|_| RebootStatus::Cancelled).filter(|_| self.op.intent.reboot);
        finish(self.s.now, self.status, Phase::Failed, reboot.or(Some(RebootStatus::NotRequested)), message)
    }
}

/// The final status of a node: what it was in hand for is forgotten, what a reader wants to know stays.
pub fn finish(now: Timestamp, status: &NodeStatus, phase: Phase, reboot: Option<RebootStatus>, message: impl Into<String>) -> Next {
    Next::Become(Box::new(NodeStatus {
        phase,
        // A Job whose UID was never recorded never ran: the node was not touched by the operation.
        job_name: status.job_name.clone().filter(|_| status.job_uid.is_some()),
        message: Some(message.into()),
        reboot_status: reboot,
        last_updated: Some(Time(now)),
        // The slot is taken until the node is given back, see `rollout`.
        node_uid: status.node_uid.clone(),
        ..NodeStatus::default()
    }))
}

/// Advances a node in hand.
pub fn advance(s: &Snapshot, op: &Op, name: &str, status: &NodeStatus, plan: &mut Plan) -> Next {
    let node = match s.nodes.get(name) {
        Some(node) if status.node_uid.as_ref().is_none_or(|uid| *uid == node.uid) => node.clone(),
        Some(node) if s.answer(&Question::Node(name.into())).is_some() => {
            let why = "another machine has joined under the node's name while it was in hand";
            return lost(s, op, (name, node.ready), status, why, plan);
        }
        None if s.is_gone(&Question::Node(name.into())) => {
            return lost(s, op, (name, false), status, "the node was deleted while it was in hand", plan);
        }
        // A cache that is older than the status may show an earlier machine of that name.
        Some(_) | None => {
            plan.questions.insert(Question::Node(name.into()));
            return Next::Wait("checking whether the node still exists".into());
        }
    };
    let mut turn = Turn { s, op, node: &node, status, plan };
    let next = in_hand(&mut turn);
    takeover::remark(&turn, next)
}

fn in_hand(turn: &mut Turn<'_>) -> Next {
    match turn.status.step {
        Some(Step::Claim) | None => claim::advance(turn),
        Some(Step::Drain) => before_job(turn),
        Some(Step::Job) => job::advance(turn),
        Some(Step::Reboot) => reboot::advance(turn),
        Some(Step::Verify) => verify::advance(turn),
        Some(Step::Preflight) => Next::Wait("its preflight runs".into()),
    }
}

/// The machine is gone. Its Job goes first: on another machine of the same name it would run again.
fn lost(s: &Snapshot, op: &Op, node: (&str, bool), status: &NodeStatus, message: &str, plan: &mut Plan) -> Next {
    let waiting = status.job_name.as_ref().and_then(|job| call_off::job(s, op, job, plan));
    let waiting = waiting.or_else(|| {
        let may_reboot = op.intent.reboot && status.job_uid.is_some();
        may_reboot.then(|| call_off::waiter(s, op, node, status.attempt.unwrap_or(0), plan))?
    });
    if let Some(waiting) = waiting {
        return Next::Wait(format!("{message}; {waiting}"));
    }
    let reboot = if op.intent.reboot { RebootStatus::Cancelled } else { RebootStatus::NotRequested };
    // Its claim and cordon went with it: nothing is to be given back.
    let status = NodeStatus { node_uid: None, ..status.clone() };
    finish(s.now, &status, Phase::Failed, Some(reboot), message)
}

/// The operation is next: its Job's name is recorded before the Job is made.
pub fn start_job(turn: &Turn<'_>) -> Next {
    let mut next = turn.to(Step::Job);
    next.job_name = Some(turn.op.object_name(&turn.node.name, "", 0));
    next.deadline = None;
    next.message = Some("making the Job".into());
    next.reboot_status = Some(if turn.op.intent.reboot { RebootStatus::Pending } else { RebootStatus::NotRequested });
    Next::Become(Box::new(next))
}

/// `now + span`, or the end of time: a spec may say 2 147 483 647 seconds.
pub fn later(now: Timestamp, span: SignedDuration) -> Timestamp {
    now.checked_add(span).unwrap_or(Timestamp::MAX)
}

/// Before the Job nothing has begun; whatever the node fails of, its waiter is seen to end before that is said. One that
/// was just made and that no cache shows yet would be left on a node which is no longer ours.
fn before_job(turn: &mut Turn<'_>) -> Next {
    let before = turn.plan.actions.len();
    let next = drained(turn);
    let ends = matches!(&next, Next::Become(next) if next.phase.is_final());
    if !ends || !turn.op.intent.reboot {
        return next;
    }
    // What was planned to go on is not done any more, or a waiter would be made and ended in turns.
    turn.plan.actions.truncate(before);
    let node = (turn.node.name.as_str(), turn.node.ready);
    match call_off::waiter(turn.s, turn.op, node, turn.status.attempt.unwrap_or(0), turn.plan) {
        Some(why) => Next::Wait(format!("not going on with this node: {why}")),
        None => next,
    }
}

/// Drains the node while its waiter starts; nothing of the operation has begun.
fn drained(turn: &mut Turn<'_>) -> Next {
    if turn.op.deleting {
        return turn.fail("the NodeOp was deleted before the operation started");
    }
    if let Some(next) = hold(turn) {
        return next;
    }
    if turn.op.intent.drain.is_some() {
        // Whatever this pass comes to: a watch that is taken up again knows nothing at first, and what blocks is forgotten.
        turn.plan.drains.insert(turn.node.name.clone());
    }
    let waiter = waiter::ensure(turn, &turn.op.object_name(&turn.node.name, "", 0));
    let started = turn.status.drain_started_at.as_ref().map_or(turn.s.now, |time| time.0);
    match &waiter {
        Waiter::Foreign(name) => {
            return turn.fail(format!("a pod {name} exists that is not ours; delete it and create the NodeOp again"));
        }
        Waiter::Lost(next) => return next.clone(),
        Waiter::Starting(why) => {
            if let Some(next) = waiter::overdue(turn, started, why) {
                return next;
            }
        }
        Waiter::Ready | Waiter::NotAsked => {}
    }
    let progress = match &turn.op.intent.drain {
        Some(options) => drain::advance(turn, &options.clone(), started),
        None => drain::Progress::Done(Vec::new()),
    };
    match (progress, waiter) {
        (drain::Progress::Done(left), Waiter::Ready | Waiter::NotAsked) => {
            drain::say_left(turn, &left);
            start_job(turn)
        }
        (drain::Progress::Done(_), Waiter::Starting(why)) => Next::Wait(format!("waiting for the reboot waiter: {why}")),
        (drain::Progress::Refused(why), _) => turn.fail(why),
        (drain::Progress::Record(next), _) => next,
        (drain::Progress::Going(why), _) => give_up_or_wait(turn, &why),
        (drain::Progress::Done(_), Waiter::Foreign(_) | Waiter::Lost(_)) => Next::Wait("the reboot waiter was lost".into()),
    }
}

fn give_up_or_wait(turn: &mut Turn<'_>, why: &str) -> Next {
    let Some(deadline) = turn.status.deadline.as_ref().map(|time| time.0) else {
        return Next::Wait(why.into());
    };
    if turn.s.now >= deadline {
        return turn.fail(format!("drain timed out, the operation was not started: {why}"));
    }
    turn.plan.wake(deadline);
    Next::Wait(why.into())
}

/// Holds what we took until the node reboots: an uncordon by somebody else is undone, a removed claim is set again.
pub fn hold(turn: &mut Turn<'_>) -> Option<Next> {
    match cordon::take(turn.s, turn.node, &turn.op.me, turn.op.intent.cordon) {
        Take::Held => None,
        Take::Patch(change) => {
            if let Some(wait) = claim::still_ours(turn, &change) {
                return Some(wait);
            }
            let (name, resource_version) = (turn.node.name.clone(), turn.node.resource_version.clone());
            let again = change.unschedulable.is_some();
            turn.act(Action::Node { name, resource_version, change });
            let what = if again { "cordoning the node again, which somebody uncordoned" } else { "claiming the node" };
            Some(Next::Wait(what.into()))
        }
        Take::Ask(question) => {
            turn.ask(question);
            None
        }
        Take::Taken(other) => {
            let message = format!("the node was taken over by NodeOp {}/{}: its claim annotation was changed", other.namespace, other.name);
            turn.status.job_uid.is_none().then(|| turn.fail(message))
        }
    }
}
