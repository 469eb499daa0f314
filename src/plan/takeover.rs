//! Taking over from the Go operator, in place and mid-life.
//!
//! What it finished stays as it is. A node whose Job it made is adopted with that Job and with the reboot pod that it
//! made: no second run, no second reboot pod. A node that it had not begun joins, if it is older than the NodeOp. What
//! cannot be told is failed, not tried again.
//!
//! Its status is written after its Jobs and its names are random, so what is there is listed live before anything is
//! decided. Its reboot pod says `completed` five seconds *before* it asks for the reboot, and exits 0 even if that failed:
//! so only a boot id proves a reboot here too. While that pod is in its first run, the node is still in the boot to be left,
//! whatever the pod says. In a later run the boot that we see may be the new one already, and nothing proves it.

use std::collections::BTreeMap;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};

use super::{
    action::Plan,
    admit, call_off,
    question::Question,
    snapshot::{JobView, PodView, Role, Snapshot},
    status::{self, Whole},
    step::{Next, Op, Turn, finish, later},
    targets,
};
use crate::{
    api::nodeop::{NodeOpStatus, NodeStatus, Phase, RebootStatus, Step},
    contract::reboot_state,
};

/// After so long a NodeOp that never got a node is given up.
const EMPTY: SignedDuration = SignedDuration::from_secs(600);

/// A status that the Go operator wrote, and we have not touched.
pub fn is_legacy(status: &NodeOpStatus) -> bool {
    status.observed_generation.is_none()
}

/// An entry that the Go operator called completed though its reboot was still to come.
pub fn is_legacy_reboot(status: Option<&NodeOpStatus>, entry: &NodeStatus) -> bool {
    status.is_some_and(is_legacy) && entry.phase == Phase::Completed && entry.reboot_status == Some(RebootStatus::Pending)
}

/// Whether an entry is not what it says: the NodeOp has still to be taken over, or the Go operator's reboot pod is at work.
/// Nothing is ended and nothing given back because of such an entry.
pub fn is_unsettled(status: &NodeOpStatus, entry: &NodeStatus) -> bool {
    is_legacy(status) && (!status.phase.is_some_and(Phase::is_final) || is_legacy_reboot(Some(status), entry))
}

/// Whether the Go operator may have begun a NodeOp that has no status yet: it made Jobs first. `None`: not known yet.
pub fn may_have_begun(s: &Snapshot, op: &Op, plan: &mut Plan) -> Option<bool> {
    let created = op.object.metadata.creation_timestamp.as_ref().map(|time| time.0);
    if created.is_none_or(|created| created >= s.leading_since) {
        return Some(false);
    }
    listed(s, op, plan).then(|| jobs(s, op).next().is_some())
}

/// Writes our first status of a NodeOp that the Go operator began.
pub fn plan(s: &Snapshot, op: &Op, old: &NodeOpStatus, plan: &mut Plan) {
    let unfinished = old.node_statuses.iter().filter(|(_, entry)| !entry.phase.is_final());
    let waiting = |name: &String| ((op.me.key(), name.clone()), "is being taken over from an older operator".to_owned());
    plan.waiting.extend(unfinished.map(|(name, _)| waiting(name)));
    if !listed(s, op, plan) {
        return;
    }
    let created = op.object.metadata.creation_timestamp.as_ref().map_or(s.now, |time| time.0);
    let mut whole = Whole::default();
    let mut nodes = BTreeMap::new();
    if old.node_statuses.is_empty() && jobs(s, op).next().is_none() && s.now >= later(created, EMPTY) {
        whole.refused = Some("was left unfinished by an older operator; create it again (see metadata.generateName)".into());
    } else {
        nodes = targets::choose(s, &op.object);
        nodes.retain(|name, _| s.nodes.get(name).is_some_and(|node| node.created <= created));
        nodes.extend(old.node_statuses.clone());
        nodes.extend(jobs(s, op).filter(|job| !old.node_statuses.contains_key(&job.node)).map(|job| (job.node.clone(), begun())));
    }
    for (name, entry) in &mut nodes {
        match adopt(s, op, name, entry, plan) {
            Next::Become(next) => *entry = *next,
            // A reboot pod of a node that was not begun has to end before the node may join: it waits for any sentinel.
            Next::Wait(_) => return,
        }
    }
    // The Go operator put its finalizer on NodeOps with a reboot alone. Without one a NodeOp that is deleted is gone at once, its
    // command still running on a node that is free.
    let open = nodes.values().any(|entry| !entry.phase.is_final());
    if let Some(prepare) = open.then(|| admit::finalizer(op)).flatten() {
        plan.actions.push(prepare);
        return;
    }
    status::write(s, &op.object, status::summarize(&op.object, nodes, &whole, s.now), plan);
}

/// The entry that the Go operator had not written yet when it made a Job.
fn begun() -> NodeStatus {
    NodeStatus { phase: Phase::Running, ..NodeStatus::default() }
}

fn listed(s: &Snapshot, op: &Op, plan: &mut Plan) -> bool {
    let question = Question::Work(op.me.clone());
    let known = s.answer(&question).is_some();
    if !known {
        plan.questions.insert(question);
    }
    known
}

fn jobs<'a>(s: &'a Snapshot, op: &'a Op) -> impl Iterator<Item = &'a JobView> {
    s.jobs.values().map(AsRef::as_ref).filter(|job| job.owner_uid == op.me.uid)
}

fn adopt(s: &Snapshot, op: &Op, name: &str, old: &NodeStatus, plan: &mut Plan) -> Next {
    let rebooting = op.intent.reboot && is_legacy_reboot(op.object.status.as_ref(), old);
    if old.phase.is_final() && !rebooting {
        return Next::Become(Box::new(old.clone()));
    }
    let named = |job: &&JobView| old.job_name.as_ref().is_none_or(|name| *name == job.name);
    if let Some(job) = jobs(s, op).filter(|job| job.node == name).find(named) {
        return Next::Become(Box::new(NodeStatus {
            phase: Phase::Running,
            step: Some(Step::Job),
            job_name: Some(job.name.clone()),
            job_uid: Some(job.uid.clone()),
            node_uid: s.nodes.get(name).map(|node| node.uid.clone()),
            reboot_status: Some(if op.intent.reboot { RebootStatus::Pending } else { RebootStatus::NotRequested }),
            message: Some("taken over from an older operator, with its Job".into()),
            last_updated: Some(Time(s.now)),
            ..NodeStatus::default()
        }));
    }
    let untouched = matches!(old.phase, Phase::Pending | Phase::Preflight) && old.job_name.as_deref().unwrap_or_default().is_empty();
    let ready = s.nodes.get(name).is_some_and(|node| node.ready);
    if let Some(why) = call_off::waiter(s, op, (name, ready), 0, plan) {
        return Next::Wait(why);
    }
    if untouched {
        return Next::Become(Box::default());
    }
    let reboot = if op.intent.reboot { RebootStatus::Cancelled } else { RebootStatus::NotRequested };
    let message =
        "was started by an older operator, and its Job is gone: its outcome is not known. Look at the node, then create the NodeOp again";
    finish(s.now, old, Phase::Failed, Some(reboot), message)
}

/// Its Job is known to be one that succeeded, and its reboot is not known to have come.
pub const NOT_PROVED: &str = "the Job of an older operator completed, and its reboot was over or lost before this operator came: that the \
                              node rebooted is not proved. Look at the node; if it is well and still cordoned, kubectl uncordon it";

/// Whether the node's Job is one that the Go operator made: then so is its reboot pod.
pub fn is_adopted(turn: &Turn<'_>) -> bool {
    turn.status.job_name.as_ref().is_some_and(|name| *name != turn.op.object_name(&turn.node.name, "", 0))
}

/// Says of a node that was taken over and is done that it stays cordoned, if it does: older versions of the Go operator left no
/// word that it was they who had cordoned it.
pub fn remark(turn: &Turn<'_>, next: Next) -> Next {
    let cordoned = turn.op.intent.cordon && turn.node.unschedulable && turn.node.cordoned_by.is_none();
    match next {
        Next::Become(mut status) if status.phase == Phase::Completed && cordoned && is_adopted(turn) => {
            let name = &turn.node.name;
            let said = status.message.take().unwrap_or_default();
            status.message = Some(format!("{said}; it stays cordoned, since nothing on it says by whom: kubectl uncordon {name}"));
            Next::Become(status)
        }
        next => next,
    }
}

/// The Go operator's reboot pods of the node that are not over, and whether each has said that it reboots.
fn waiters<'a>(turn: &'a Turn<'_>) -> impl Iterator<Item = (&'a PodView, bool)> {
    let pods = turn.s.pods_of(&turn.op.me.uid, &turn.node.name, Role::Waiter).map(AsRef::as_ref);
    let there = pods.filter(|pod: &&PodView| !pod.phase.is_final() && !pod.deleting);
    there.map(|pod| (pod, pod.reboot_state.as_deref() == Some(reboot_state::COMPLETED)))
}

/// Whether a reboot pod has said that it reboots and is in a later run since: in a new boot, or after a crash.
fn runs_again(pod: &PodView) -> bool {
    pod.containers.iter().any(|container| container.restarts > 0)
}

/// The reboot pod of an adopted node has begun another run, and the node is in the boot that we took for the one to be left.
pub fn is_reboot_over(turn: &Turn<'_>) -> bool {
    let same = turn.status.boot.as_ref() == Some(&turn.node.boot_id);
    same && is_adopted(turn) && waiters(turn).any(|(pod, said)| said && runs_again(pod))
}

/// The Job of an adopted node is complete, and the reboot that follows is the Go operator's pod's. The boot from which it
/// follows is read live, while the pod has not gone on.
pub fn succeeded(turn: &mut Turn<'_>) -> Result<String, Next> {
    let questions = [Question::Node(turn.node.name.clone()), Question::Work(turn.op.me.clone())];
    let open: Vec<_> = questions.into_iter().filter(|question| turn.s.answer(question).is_none()).collect();
    if !open.is_empty() {
        open.into_iter().for_each(|question| turn.ask(question));
        return Err(Next::Wait("Job completed, reading the node's boot id before it reboots".into()));
    }
    let to_come = waiters(turn).any(|(pod, said)| !said || !runs_again(pod));
    if to_come && !turn.node.boot_id.is_empty() {
        return Ok(turn.node.boot_id.clone());
    }
    Err(turn.fail(NOT_PROVED))
}
