//! Taking over from the Go operator, in place and mid-life.
//!
//! What it finished stays as it is. A node whose Job it made is adopted with that Job and with the reboot pod
//! that it made: no second run, no second reboot pod. A node that it had not begun joins, if it is older than
//! the NodeOp. What cannot be told is failed, not tried again.
//!
//! Its status is written after its Jobs and its names are random, so what is there is listed live before
//! anything is decided. What its Job and its reboot pod on a node prove stands in `node::legacy`.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::jiff::SignedDuration;

use crate::{
    api::nodeop::{NodeOpStatus, NodeStatus, Phase, RebootStatus},
    plan::{
        model::{
            effects::{Effects, Planned, Reasons},
            object_name,
            question::Question,
            snapshot::{JobState, JobView, PodView, Role, Snapshot},
            time::later,
            why::{WaitReason, Why},
        },
        node::{
            cancel,
            context::Op,
            legacy,
            state::{At, Entry, ImageRecord, JobRecord, JobStep, Machine, Over, State, Working},
        },
        rollout::{
            context::{Outcome, Rollout, RolloutContext},
            finalizer,
            not_taken::Refused,
            status::OpProgress,
            targets::{self, NoTargets, Targets},
        },
    },
};

/// The age at which a NodeOp that never got a node is given up.
const EMPTY_STATUS_TIMEOUT: SignedDuration = SignedDuration::from_secs(600);

type Nodes = BTreeMap<String, NodeStatus>;

/// Whether the Go operator may have begun a NodeOp that has no status yet: it made Jobs first. `Err`: this
/// has to be known first.
pub fn may_have_begun(snapshot: &Snapshot, op: &Op) -> Result<bool, Question> {
    // Not by when it was created: the server's clock says that, and ours since when we lead.
    listed(snapshot, op).map(|()| jobs(snapshot, op).next().is_some())
}

/// Our first status of a NodeOp that the Go operator began.
pub fn take_over(ctx: &RolloutContext<'_>, old: &NodeOpStatus) -> Planned<Outcome> {
    let unfinished = old.node_statuses.iter().filter(|(_, entry)| {
        !entry.phase.is_final() || entry.node_uid.is_some() || entry.holds_slot.is_some()
    });
    let why = Why::new(WaitReason::Admission, &FromOlder::Pending);
    let waiting: Reasons = unfinished.map(|(name, _)| (name.clone(), why.clone())).collect();
    let Planned { value, effects } = taken_over(ctx, old);
    let outcome = match value {
        Some((nodes, progress)) => {
            let nodes = nodes.into();
            Outcome::Record(Box::new(Rollout { nodes, progress, waiting, ..Rollout::default() }))
        }
        None => Outcome::Nothing(waiting),
    };
    Planned { value: outcome, effects }
}

/// What is taken over; nothing as long as something has to be known or done before.
fn taken_over(ctx: &RolloutContext<'_>, old: &NodeOpStatus) -> Planned<Option<(Nodes, OpProgress)>> {
    let RolloutContext { snapshot, op, .. } = *ctx;
    if let Err(question) = listed(snapshot, op) {
        return Planned::from(None).with(question);
    }
    let mut effects = Effects::default();
    let created = op.object.metadata.creation_timestamp.as_ref().map_or(snapshot.now, |time| time.0);
    let nothing_begun = old.node_statuses.is_empty() && jobs(snapshot, op).next().is_none();
    // One that it called over ends what it does, and takes no further node: people take it for over.
    let ends = old.phase.is_some_and(Phase::is_final);
    let mut progress = OpProgress::default();
    let mut nodes = BTreeMap::new();
    if nothing_begun && snapshot.now >= later(created, EMPTY_STATUS_TIMEOUT) {
        progress.refused = Some(Refused::LeftUnfinished);
    } else {
        match (!ends).then(|| effects.absorb(targets::choose(snapshot, &op.object))) {
            None => {}
            Some(Targets::Chosen(chosen)) => nodes = chosen,
            // What was begun is taken over at once, with the nodes that its own labels select.
            Some(Targets::Missing(why)) if !why.is_known() && !nothing_begun => {
                nodes = targets::matching(snapshot, &op.object);
            }
            Some(Targets::Missing(why)) => progress.no_targets = Some(why),
        }
        nodes.retain(|name, _| snapshot.nodes.get(name).is_some_and(|node| node.created <= created));
        nodes.extend(BTreeMap::from(old.node_statuses.clone()));
        nodes.extend(
            jobs(snapshot, op)
                .filter(|job| !old.node_statuses.contains_key(&job.node))
                .map(|job| (job.node.clone(), begun())),
        );
        if nodes.is_empty() {
            progress.no_targets.get_or_insert(NoTargets::NoneOlder);
        } else {
            progress.no_targets = None;
        }
    }
    for (name, entry) in &mut nodes {
        match effects.absorb(adopt(snapshot, op, name, entry)) {
            Adopted::AsItIs => {}
            Adopted::Becomes(next) => *entry = next.record(),
            Adopted::NotYet => return Planned { value: None, effects },
        }
    }
    // The Go operator put its finalizer on NodeOps with a reboot alone. Without one a NodeOp that is deleted
    // is gone at once, its command still running on a node that is free.
    let open = nodes.values().any(|entry| !entry.phase.is_final());
    if open && let Some(prepare) = finalizer::missing(op) {
        effects.add(prepare);
        return Planned { value: None, effects };
    }
    Planned { value: Some((nodes, progress)), effects }
}

/// The entry that the Go operator had not written yet when it made a Job.
fn begun() -> NodeStatus {
    NodeStatus { phase: Phase::Running, ..NodeStatus::default() }
}

fn listed(snapshot: &Snapshot, op: &Op) -> Result<(), Question> {
    let question = Question::OwnedWorkload(op.id.clone());
    if snapshot.answer(&question).is_some() { Ok(()) } else { Err(question) }
}

fn jobs<'a>(snapshot: &'a Snapshot, op: &'a Op) -> impl Iterator<Item = &'a JobView> {
    snapshot.jobs_of(&op.id).map(AsRef::as_ref)
}

/// What is said of a node that the Go operator had begun.
enum FromOlder {
    /// It is not known yet what becomes of it.
    Pending,
    WithItsJob,
    /// Nobody knows what came of it.
    Twice {
        jobs: [String; 2],
    },
    JobGone,
}

impl fmt::Display for FromOlder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "is being taken over from an older operator",
            Self::WithItsJob => "taken over from an older operator, with its Job",
            Self::Twice { jobs: [one, other] } => {
                return write!(
                    f,
                    "an older operator started it twice at once, by Jobs {one} and {other}: what they did is not known. Wait for their end, look at the node, then create the NodeOp again"
                );
            }
            Self::JobGone => {
                "was started by an older operator, and its Job is gone: its outcome is not known. Look at the node, then create the NodeOp again"
            }
        })
    }
}

/// What becomes of an entry that the Go operator has written, or would have.
enum Adopted {
    AsItIs,
    Becomes(Box<Entry>),
    /// A reboot pod of a node that was not begun has to end before the node may join: it waits for any
    /// sentinel.
    NotYet,
}

fn adopt(snapshot: &Snapshot, op: &Op, name: &str, old: &NodeStatus) -> Planned<Adopted> {
    let rebooting = op.intent.reboot && legacy::is_legacy_reboot(op.object.status.as_ref(), old);
    if old.phase.is_final() && !rebooting {
        return Adopted::AsItIs.into();
    }
    let here: Vec<&JobView> = jobs(snapshot, op).filter(|job| job.node == name).collect();
    // One that has failed does nothing any more, whatever the status names.
    let live: Vec<&JobView> =
        here.iter().copied().filter(|job| !matches!(job.state, JobState::Failed(_))).collect();
    let is_named = |job: &JobView| old.job_name.as_ref().is_none_or(|name| *name == job.name);
    let adopted = match live[..] {
        [] => here.iter().copied().find(|job| is_named(job)),
        [one] => Some(one),
        // Where it could not write down the first it made another one. Two agents have written to one disk,
        // and of its reboot pods nothing says which Job each waits for: one may come in the middle of the
        // other.
        [..] => None,
    };
    match adopted {
        Some(job) => Adopted::Becomes(Box::new(with_its_job(snapshot, op, name, job))).into(),
        None => without_one(snapshot, op, name, old, &live),
    }
}

/// The node goes on with that Job.
fn with_its_job(snapshot: &Snapshot, op: &Op, name: &str, job: &JobView) -> Entry {
    let reboot = if op.intent.reboot { RebootStatus::Pending } else { RebootStatus::NotRequested };
    let node = snapshot.nodes.get(name);
    let machine = node.map(|node| Machine::of(snapshot, node)).unwrap_or_default();
    let work = Working {
        at: At::Job(JobStep::default()),
        job: Some(JobRecord { name: job.name.clone(), uid: Some(job.uid.clone()) }),
        reboot: Some(reboot),
        ..Working::claims(machine, None, ImageRecord::default())
    };
    let node_uid = node.map(|node| node.uid.clone());
    let state = State::Working(work.into());
    Entry { node_uid, ..Entry::default().moved(snapshot.now, state, FromOlder::WithItsJob) }
}

/// Whether the waiters of the node are ours, by their names: an older CRD has dropped what we had recorded.
/// They reboot nothing without a Job of ours, and are not ended before our record stands: such a CRD would
/// not keep it. Then they are, where the node is given back.
fn has_our_waiter(snapshot: &Snapshot, op: &Op, node: &str) -> bool {
    let mut here = snapshot.pods_of_on(&op.id, Role::Waiter, node).peekable();
    let is_ours =
        |pod: &PodView| object_name::attempt((&op.id.name, &op.id.uid), node, "reboot", &pod.name).is_some();
    here.peek().is_some() && here.all(|pod| is_ours(pod))
}

/// The node has no Job with which it could go on, or several. `live`: those that have not failed.
fn without_one(
    snapshot: &Snapshot,
    op: &Op,
    name: &str,
    old: &NodeStatus,
    live: &[&JobView],
) -> Planned<Adopted> {
    let untouched = matches!(old.phase, Phase::Pending | Phase::Preflight)
        && old.job_name.as_deref().unwrap_or_default().is_empty();
    let mut effects = Effects::default();
    if !has_our_waiter(snapshot, op, name) {
        let ready = snapshot.nodes.get(name).is_some_and(|node| node.ready);
        if effects.absorb(cancel::waiter(snapshot, op, name, ready, 0)).is_some() {
            return Planned { value: Adopted::NotYet, effects };
        }
    }
    if untouched && live.is_empty() {
        return Planned { value: Adopted::Becomes(Box::default()), effects };
    }
    let reboot = if op.intent.reboot { RebootStatus::Cancelled } else { RebootStatus::NotRequested };
    let why = match live {
        [one, other, ..] => FromOlder::Twice { jobs: [one.name.clone(), other.name.clone()] },
        [_] | [] => FromOlder::JobGone,
    };
    // With the name of a Job it is one that may have been changed, and stays cordoned.
    let job_name = live.first().map(|job| job.name.clone()).or_else(|| old.job_name.clone());
    let over = Over { reboot: Some(reboot), job_name, ..Over::default() };
    // Its slot is taken until it is well.
    let node_uid = snapshot.nodes.get(name).filter(|_| !live.is_empty()).map(|node| node.uid.clone());
    let entry = Entry { node_uid, ..Entry::default().moved(snapshot.now, State::Over(over), why) };
    Planned { value: Adopted::Becomes(Box::new(entry)), effects }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::{
        api::nodeop::NodeOp,
        plan::{model::snapshot::NodeView, plan},
    };

    /// The server's clock says when it was created, and ours since when we lead.
    #[test]
    fn a_nodeop_without_a_status_is_begun_only_after_its_jobs_were_looked_for_whenever_it_was_created() {
        for created in ["1970-01-01T00:00:00Z", "2100-01-01T00:00:00Z"] {
            let op: NodeOp = serde_json::from_value(json!({
                "apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
                "metadata": {"name": "op", "namespace": "ns", "uid": "u", "creationTimestamp": created},
                "spec": {"command": ["true"]},
            }))
            .unwrap();
            let op = Op::of(&Arc::new(op));
            let node = NodeView { name: "n1".into(), uid: "n1".into(), ready: true, ..NodeView::default() };
            let snapshot = Snapshot {
                ops: [(op.id.key(), op.object.clone())].into(),
                nodes: [("n1".into(), Arc::new(node))].into(),
                ..Snapshot::default()
            };
            let out = plan(&snapshot);
            assert!(
                out.actions.is_empty() && out.questions.contains(&Question::OwnedWorkload(op.id)),
                "{out:?}"
            );
        }
    }
}
