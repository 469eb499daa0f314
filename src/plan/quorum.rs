//! The limits that hold across NodeOps: one control-plane node at a time, and never while another one is not
//! well.
//!
//! Etcd keeps its quorum with one member of three away. A second one, because another NodeOp runs or because
//! a node is down anyway, would stop the cluster, and with it the operator that could bring it back. And a
//! node that is Ready is not yet a member that votes: after a boot its kubelet may be up long before its etcd
//! has caught up.

use std::{collections::BTreeSet, fmt};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    api::node_statuses::Mark,
    plan::model::{
        effects::{Effects, Planned},
        id::Key,
        intent::Intent,
        question::Question,
        snapshot::{ControlPlanePods, NodeView, RETURNS_WITHIN, Snapshot},
        time::later,
    },
};

/// How long a node that was away must have been Ready before another one goes away in its place: one that
/// holds a slot, and a control-plane node if nothing tells of its etcd.
pub const READY_FOR: SignedDuration = SignedDuration::from_secs(60);
/// How long after we saw it turn Ready another one may go away, if something does tell: right after a boot,
/// what is told may be older than the boot.
const READY_AGAIN_FOR: SignedDuration = SignedDuration::from_secs(10);
/// Between two looks at the pods of a control plane, which no watch tells of.
const LOOK_EVERY: SignedDuration = SignedDuration::from_secs(10);

/// Why a control-plane node may not be a member that votes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwell {
    NotReady {
        node: String,
    },
    /// Its Node object is gone, and may come back with the machine.
    Gone {
        node: String,
        since: Timestamp,
    },
    /// Its distribution says so on the Node, and this of it.
    NotVoting {
        node: String,
        said: String,
    },
    /// A pod of its control plane is not.
    PodNotReady {
        node: String,
        pod: String,
    },
    /// It runs no such pod, and another one of its kind does.
    PodMissing {
        node: String,
        component: String,
        as_on: String,
    },
    /// It was not Ready a moment ago.
    ReadySince {
        node: String,
        since: Timestamp,
        waited: SignedDuration,
    },
}

impl fmt::Display for Unwell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady { node } => {
                write!(f, "control-plane node {node} is not Ready, and a second one must not go away")
            }
            Self::Gone { node, since } => write!(
                f,
                "the Node of control-plane node {node} was deleted at {since:.0}; for {} s its machine may come back, and no other one goes away meanwhile",
                RETURNS_WITHIN.as_secs()
            ),
            Self::NotVoting { node, said } => {
                write!(f, "etcd of control-plane node {node} is not a healthy voting member")?;
                if said.is_empty() { Ok(()) } else { write!(f, ": {said}") }
            }
            Self::PodNotReady { node, pod } => {
                write!(f, "pod kube-system/{pod} of control-plane node {node} is not Ready")
            }
            Self::PodMissing { node, component, as_on } => write!(
                f,
                "control-plane node {node} runs no {component} pod, as {as_on} does; put its static pod back (/etc/kubernetes/manifests, as a rule)"
            ),
            Self::ReadySince { node, since, waited } => write!(
                f,
                "control-plane node {node} is Ready since {since:.0} only; {} s are waited for",
                waited.as_secs()
            ),
        }
    }
}

/// The control-plane nodes claimed by NodeOps that cordon or reboot: recorded in a status, or claimed on the
/// node. A claim whose owner is gone counts too: nobody knows any more what it did, and its waiter may still
/// have to end. And so does a node whose Node object was deleted while it reboots, as cloud controllers do:
/// its machine is away, and is to come back.
pub fn control_planes_under_way(snapshot: &Snapshot) -> Vec<(Key, String)> {
    let mut under_way = BTreeSet::new();
    for node in snapshot.control_planes() {
        if let Some(of) = &node.claimed_by
            && snapshot.op(of).is_none_or(|op| Intent::of(&op).disturbs())
        {
            under_way.insert((of.key(), node.name.clone()));
        }
    }
    for (key, op) in snapshot.ops.iter().filter(|(_, op)| Intent::of(op).disturbs()) {
        let statuses = op.status.iter().map(|status| &status.node_statuses);
        let recorded = statuses.flat_map(|nodes| nodes.marked([Mark::Running, Mark::NotGivenBack]));
        let members = recorded.filter(|(name, entry)| {
            snapshot.is_control_plane_named(name) || entry.control_plane == Some(true)
        });
        under_way.extend(members.map(|(name, _)| (key.clone(), name.clone())));
    }
    under_way.into_iter().collect()
}

/// The members of the control plane other than `node`.
fn others<'a>(snapshot: &'a Snapshot, node: &'a str) -> impl Iterator<Item = &'a NodeView> {
    snapshot.control_planes().filter(move |other| other.name != node)
}

/// Asks what [`others_not_ready`] has to know of the others. That a distribution says on the Node whether its
/// etcd votes is not all: its leader writes that of each member that it counts, and of an API server beside
/// it nothing is said; RKE2 runs both in static pods besides. What `node` itself runs the others are to run
/// as well. Nothing is asked that is known.
pub fn ask(snapshot: &Snapshot, node: &str) -> Effects {
    let alone = others(snapshot, node).next().is_none();
    let ready = snapshot.control_planes().filter(|member| member.ready && !alone);
    let questions = ready.map(|other| Question::ControlPlanePods(other.name.clone()));
    let mut effects = snapshot.unanswered(questions);
    if effects.is_asking() {
        effects.add(look_again(snapshot));
    }
    effects
}

/// Asks what [`ask`] does, and how those nodes are now, whatever the cache shows.
pub fn ask_live(snapshot: &Snapshot, node: &str) -> Effects {
    let nodes = others(snapshot, node).map(|other| Question::Node(other.name.clone()));
    let mut effects = ask(snapshot, node);
    effects.add(snapshot.unanswered(nodes));
    effects
}

/// Why a control-plane node other than `node` may not be a member that votes, so that `node` must not be
/// claimed. What [`ask`] asks has been answered.
pub fn others_not_ready(snapshot: &Snapshot, node: &str) -> Planned<Option<Unwell>> {
    unwell(snapshot, node, &BTreeSet::new())
}

/// Why a control-plane node other than `node`, which is claimed, may not be a member that votes, so that
/// `node` must not be disturbed: one may have gone away since the claim.
pub fn others_went_away(snapshot: &Snapshot, node: &str) -> Planned<Option<Unwell>> {
    unwell(snapshot, node, &apart(snapshot))
}

/// Which of them has gone away since the claim, as far as caches show it: while the operation of `node` runs,
/// nobody is asked again and again. Those that nobody has seen to be Ready for long enough are not taken for
/// such: a new leader has seen nobody for long.
pub fn others_away(snapshot: &Snapshot, node: &str) -> Option<Unwell> {
    let apart = apart(snapshot);
    let mut others = others(snapshot, node).filter(|other| !apart.contains(&other.name));
    gone(snapshot, &apart).map(|(why, _)| why).or_else(|| others.find_map(is_away))
}

fn is_away(other: &NodeView) -> Option<Unwell> {
    let node = other.name.clone();
    if !other.ready {
        return Some(Unwell::NotReady { node });
    }
    let said = other.etcd_said.clone();
    (other.etcd_votes == Some(false)).then_some(Unwell::NotVoting { node, said })
}

/// One whose Node object is gone, and since when we have seen that.
fn gone(snapshot: &Snapshot, apart: &BTreeSet<String>) -> Option<(Unwell, Timestamp)> {
    let (gone, since) = snapshot.control_planes_gone().find(|(gone, _)| !apart.contains(*gone))?;
    Some((Unwell::Gone { node: gone.to_owned(), since }, since))
}

/// Where the limit lets several go at once, those that are under way are away because they are to be.
fn apart(snapshot: &Snapshot) -> BTreeSet<String> {
    let several = snapshot.config.control_plane_concurrency > 1;
    let under_way = if several { control_planes_under_way(snapshot) } else { Vec::new() };
    under_way.into_iter().map(|(_, name)| name).collect()
}

fn unwell(snapshot: &Snapshot, node: &str, apart: &BTreeSet<String>) -> Planned<Option<Unwell>> {
    if let Some((why, since)) = gone(snapshot, apart) {
        return Planned::from(Some(why)).with(Effects::wake_at(later(since, RETURNS_WITHIN)));
    }
    let others = others(snapshot, node).filter(|other| !apart.contains(&other.name));
    let mut found = others.map(|other| not_ready(snapshot, other));
    found.find(|planned| planned.value.is_some()).unwrap_or_else(|| None.into())
}

fn not_ready(snapshot: &Snapshot, other: &NodeView) -> Planned<Option<Unwell>> {
    let node = other.name.clone();
    let Some(since) = snapshot.ready_since(other) else {
        return Some(Unwell::NotReady { node }).into();
    };
    if let Some(why) = pod_missing(snapshot, other) {
        return Planned::from(Some(why)).with(look_again(snapshot));
    }
    let wait = match (other.etcd_votes, snapshot.control_plane_pods(&node)) {
        (_, Some(ControlPlanePods::NotReady(pods))) => {
            let pod = pods.first().cloned().unwrap_or_default();
            return Planned::from(Some(Unwell::PodNotReady { node, pod })).with(look_again(snapshot));
        }
        (Some(false), _) => {
            let said = other.etcd_said.clone();
            return Some(Unwell::NotVoting { node, said }).into();
        }
        (Some(true), _) | (None, Some(ControlPlanePods::Ready(_))) if since > snapshot.leading_since => {
            READY_AGAIN_FOR
        }
        (Some(true), _) | (None, Some(ControlPlanePods::Ready(_))) => return None.into(),
        (None, _) => READY_FOR,
    };
    let until = later(since, wait);
    if snapshot.now >= until {
        return None.into();
    }
    Planned::from(Some(Unwell::ReadySince { node, since, waited: wait })).with(Effects::wake_at(until))
}

/// A pod of the control plane that is not on this node, and is on another one with the same marks. A kubelet
/// without its manifests is Ready, for it reaches the API server through another member; and of a node on
/// which nothing of the control plane runs, no pod is left that could be seen not to be Ready.
fn pod_missing(snapshot: &Snapshot, member: &NodeView) -> Option<Unwell> {
    let components = |of: &NodeView| match snapshot.control_plane_pods(&of.name)? {
        ControlPlanePods::Ready(components) => Some(components),
        ControlPlanePods::None => Some(&[][..]),
        ControlPlanePods::NotReady(_) => None,
    };
    let own = components(member)?;
    let is_alike =
        |other: &&NodeView| other.labels.control_plane_marks().eq(member.labels.control_plane_marks());
    others(snapshot, &member.name).filter(is_alike).find_map(|other| {
        let component = components(other)?.iter().find(|component| !own.contains(component))?.clone();
        Some(Unwell::PodMissing { node: member.name.clone(), component, as_on: other.name.clone() })
    })
}

fn look_again(snapshot: &Snapshot) -> Effects {
    Effects::wake_at(later(snapshot.now, LOOK_EVERY))
}
