//! What follows once a run of a `Continuous` upgrade is over: further rounds of it, for nodes that joined, or
//! that run another release than the one that the upgrade brings.
//!
//! ```text
//!   over ─▶ nodes to take? ─▶ announced as the next round ─▶ made ─▶ recorded ─▶ over
//!     └─▶ a node that was tried runs something else ─▶ Failed, until it does not
//! ```
//!
//! A node is taken if the selector matches it, it is Ready and nobody holds it, what it runs in this boot is
//! known and is another release, this run has not tried it (or could not, an hour ago), and no newer upgrade
//! has to do with it. Nothing is taken after a run that failed under `stopOnFailure`, or that ended before it
//! had taken all its nodes; nor while as many nodes as may be in progress at once were tried and are out of
//! service since: an image that does not boot would take every node that an autoscaler adds, one after the
//! other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Condition,
    jiff::{SignedDuration, Timestamp},
};

use crate::{
    api::{
        names::{self, condition, reason},
        nodeop::{MAX_NODE_NAMES, NodeOp},
        text::listed,
        upgrade::{MAX_LOST, NodeOpUpgrade, NodeOpUpgradeStatus, UpgradePhase},
    },
    plan::{
        attempts::{self, Attempt},
        conditions::{self, Moment, Standing},
        model::{
            effects::{Effects, Planned},
            snapshot::{NodeClass, NodeView, Snapshot},
            time::later,
        },
        quorum::READY_FOR,
        upgrades::newest::Newer,
    },
};

/// What the message of a run says behind this was found out after the run.
const ALSO: &str = "; mode Continuous: ";

/// Why nothing is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Idle {
    Expired(Timestamp),
    Paused,
    /// Under `stopOnFailure`.
    Stopped,
    /// The last run ended before it had taken all its nodes.
    Unfinished,
    ReleaseUnknown,
    /// Nodes that were tried are out of service.
    OutOfService(Vec<String>),
}

/// Why a node is not taken, while others may be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    NotReady,
    OnHold,
    Newer(String),
    /// The record of what tried it was written by somebody else.
    Unreadable,
    /// Its preflight could not run.
    ToNothing,
}

/// A node that was tried, and runs another release than it should.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Drifted {
    node: String,
    runs: String,
    /// The newer upgrade that decides what it runs.
    newer: Option<String>,
    /// Its Node was deleted while it was tried, and has no record of that now.
    was_lost: bool,
}

/// How the nodes are that the upgrade selects.
#[derive(Debug, Default)]
struct Nodes {
    /// Those to take.
    ready: Vec<String>,
    /// Those that would be.
    left: BTreeMap<Left, Vec<String>>,
    /// When the first of those may be taken whose preflight could not run, or the first of those that are
    /// Ready again counts as back in service.
    next_look: Option<Timestamp>,
    /// Those that were tried and run another release.
    drifted: Vec<Drifted>,
    /// Those that were tried and are out of service.
    out_of_service: Vec<String>,
}

/// Whether a node that a NodeOp lets go is taken by a later round of the upgrade that made it.
pub fn comes_back(upgrade: &NodeOpUpgrade, op: &NodeOp) -> bool {
    let own = op.status.as_ref().and_then(|status| status.release.as_ref());
    let known = || upgrade.status.as_ref().and_then(|status| status.release.as_ref());
    upgrade.spec.is_continuous() && own.or_else(known).is_some()
}

/// Says in the status of an upgrade whose run is over how its nodes are now; returns those that the next
/// round takes, and looks again when the next one may be.
pub fn look(
    snapshot: &Snapshot,
    upgrade: &NodeOpUpgrade,
    status: &mut NodeOpUpgradeStatus,
) -> Planned<Vec<String>> {
    let nodes = Nodes::of(snapshot, upgrade, status);
    let wake = nodes.next_look.map(Effects::wake_at).unwrap_or_default();
    judge(snapshot, status, &nodes.drifted);
    let idle = idle(snapshot, upgrade, status, &nodes);
    let own = status.message.take().unwrap_or_default();
    let own = own.split_once(ALSO).map_or(own.as_str(), |(own, _)| own);
    let also = said(&nodes, idle.as_ref(), !conditions::is_drifted(&status.conditions));
    status.message = Some(if also.is_empty() { own.to_owned() } else { format!("{own}{ALSO}{also}") });
    if let Some(counts) = &mut status.counts {
        counts.current = if idle == Some(Idle::Paused) { "(paused)".into() } else { String::new() };
    }
    if idle.is_some() {
        return Planned::from(Vec::new()).with(wake);
    }
    let room = limit(upgrade).map_or(usize::MAX, |limit| match nodes.out_of_service.len() {
        0 => usize::MAX,
        away => limit.saturating_sub(away),
    });
    let taken: Vec<String> = nodes.ready.into_iter().take(room.min(MAX_NODE_NAMES)).collect();
    Planned::from(taken).with(wake)
}

/// How many nodes may be in progress at once, if there is a limit.
fn limit(upgrade: &NodeOpUpgrade) -> Option<usize> {
    usize::try_from(upgrade.spec.concurrency).ok().filter(|limit| *limit > 0)
}

impl Nodes {
    fn of(snapshot: &Snapshot, upgrade: &NodeOpUpgrade, status: &NodeOpUpgradeStatus) -> Self {
        let mut all = Self::default();
        let Some(release) = &status.release else { return all };
        let uid = upgrade.metadata.uid.as_deref().unwrap_or_default();
        let generation = status.round.as_ref().map_or(0, |round| round.generation);
        let newer = Newer::than(snapshot, upgrade);
        let selector = upgrade.spec.node_selector.as_ref();
        // Most nodes are as they should be, and there may be thousands.
        let nodes = &snapshot.nodes;
        let out = [NodeClass::NotReady, NodeClass::Marked]
            .into_iter()
            .flat_map(|class| nodes.by_name(class).keys());
        let min_ready = SignedDuration::from_secs(upgrade.spec.min_ready_seconds.unwrap_or(0).into());
        let wait = min_ready.max(READY_FOR);
        let back_lately: BTreeMap<&String, Timestamp> =
            snapshot.back_lately(wait).map(|(node, since)| (&node.name, later(since, wait))).collect();
        let out = out.chain(back_lately.keys().copied());
        // Of another pool, which runs another release, all nodes are passed by in each round.
        let selected = |name: &&String| nodes.get(*name).is_some_and(|node| node.is_selected_by(selector));
        let looked_at: BTreeSet<&String> =
            nodes.running_another(release).chain(out).filter(selected).collect();
        let lost = lost(status);
        for (name, node) in looked_at.into_iter().filter_map(|name| Some((name, nodes.get(name)?))) {
            let runs = node.release();
            let other = runs.filter(|runs| *runs != release);
            // One that ran what it should, and well for a while, has not been brought down by the upgrade.
            let kept = node.unschedulable && node.kept_cordon.is_some();
            let until = back_lately.get(name).copied();
            let down = !node.ready || until.is_some();
            let away = kept || down && (runs != Some(release) || attempts::went_down(snapshot, node));
            if other.is_none() && !away || node.deleting {
                continue;
            }
            let tried = node.machine_id.as_ref().is_some_and(|id| lost.contains(id));
            let was_lost = tried && nodes.has_own_machine_id(node);
            let attempt = match attempts::of(node, uid, generation) {
                Attempt::None if was_lost => Attempt::Had,
                attempt => attempt,
            };
            if attempt == Attempt::Had {
                if away {
                    all.next_look = all.next_look.into_iter().chain(until).min();
                    all.out_of_service.push(name.clone());
                }
                let newer = || newer.on(node).map(|by| by.to_string());
                all.drifted.extend(other.map(|runs| Drifted {
                    node: name.clone(),
                    runs: runs.clone(),
                    newer: newer(),
                    was_lost,
                }));
            } else if other.is_some() {
                let next_try = attempt.waits_until(snapshot.now);
                all.next_look = all.next_look.into_iter().chain(next_try).min();
                match next_try.map(|_| Left::ToNothing).or_else(|| left(node, attempt, &newer)) {
                    Some(why) => all.left.entry(why).or_default().push(name.clone()),
                    None => all.ready.push(name.clone()),
                }
            }
        }
        all
    }
}

/// The machines that the run has tried and whose Nodes were deleted before that had come to its end. Nothing
/// on the Node of one that joins again says so: where a cloud controller deletes the Nodes of machines that
/// are away, an image that does not boot would be tried again and again.
pub fn lost(status: &NodeOpUpgradeStatus) -> Vec<String> {
    let before = status.round.iter().flat_map(|round| &round.lost);
    let now = status.node_statuses.values().filter_map(|entry| entry.machine_id.as_ref());
    let mut lost: Vec<String> = before.cloned().collect();
    for machine in now {
        lost.retain(|one| one != machine);
        lost.push(machine.clone());
    }
    let forgotten = lost.len().saturating_sub(MAX_LOST);
    lost.split_off(forgotten)
}

fn left(node: &NodeView, attempt: Attempt, newer: &Newer<'_>) -> Option<Left> {
    if attempt == Attempt::Unreadable {
        return Some(Left::Unreadable);
    }
    if node.labels.on_hold() {
        return Some(Left::OnHold);
    }
    if let Some(by) = newer.on(node) {
        return Some(Left::Newer(by.to_string()));
    }
    (!node.ready).then_some(Left::NotReady)
}

/// `Ready` is not said while a node that was tried is known to run something else.
fn judge(snapshot: &Snapshot, status: &mut NodeOpUpgradeStatus, drifted: &[Drifted]) {
    let at = Moment { generation: status.observed_generation, now: snapshot.now };
    let was = conditions::is_drifted(&status.conditions);
    let release = status.release.clone().unwrap_or_default();
    let (phase, standing, message) = match drifted.first() {
        Some(_) if !was && status.phase != Some(UpgradePhase::Completed) => return,
        Some(first) => {
            let others = match drifted.len() {
                1 => String::new(),
                many => format!(" ({} others run another release, too)", many - 1),
            };
            (UpgradePhase::Failed, Standing::Drifted, format!("{}{others}", tried(first, &release)))
        }
        None if !was => return,
        None => (UpgradePhase::Completed, Standing::Completed, format!("all nodes run {release} again")),
    };
    conditions::set(&mut status.conditions, standing, &message, at);
    status.phase = Some(phase);
    let how = if phase == UpgradePhase::Failed { "failed" } else { "completed successfully" };
    status.message = Some(format!("Upgrade operation {how}: {message}"));
}

/// What is said of a node that was tried, and what helps.
fn tried(Drifted { node, runs, newer, was_lost }: &Drifted, release: &str) -> String {
    if let Some(newer) = newer {
        return format!(
            "node {node} runs {runs}, not {release}: {newer}, which is newer, decides; delete one of the two, or change \
             nodeSelector of one"
        );
    }
    if *was_lost {
        return format!(
            "node {node} runs {runs}, not {release}, and its Node was deleted while this run had its attempt at it: look at \
             the node, then change the upgrade to have it tried again"
        );
    }
    format!(
        "node {node} runs {runs}, not {release}, and this run has had its attempt at it: look at the node, then change the \
         upgrade, or take the annotation {} off the node, to have it tried again",
        names::ATTEMPTED
    )
}

fn idle(
    snapshot: &Snapshot,
    upgrade: &NodeOpUpgrade,
    status: &NodeOpUpgradeStatus,
    nodes: &Nodes,
) -> Option<Idle> {
    let spec = &upgrade.spec;
    // Of one that was lost nobody knows what it was about to do.
    let open = status.counts.as_ref().is_none_or(|counts| counts.pending + counts.running > 0);
    let unproved = |one: &Condition| one.type_ == condition::VERIFIED && one.reason == reason::NOT_PROVED;
    let failed = status.counts.as_ref().is_some_and(|counts| counts.failed > 0)
        || status.conditions.iter().any(unproved);
    let away = nodes.out_of_service.len();
    if let Some(time) = spec.not_after.as_ref().filter(|time| time.0 <= snapshot.now) {
        Some(Idle::Expired(time.0))
    } else if spec.paused == Some(true) {
        Some(Idle::Paused)
    } else if spec.stop_on_failure == Some(true) && failed {
        Some(Idle::Stopped)
    } else if open {
        Some(Idle::Unfinished)
    } else if status.release.is_none() {
        Some(Idle::ReleaseUnknown)
    } else if limit(upgrade).is_some_and(|limit| away >= limit) && !nodes.ready.is_empty() {
        Some(Idle::OutOfService(nodes.out_of_service.clone()))
    } else {
        None
    }
}

/// What is said behind the message of the run.
fn said(nodes: &Nodes, idle: Option<&Idle>, tells_of_drift: bool) -> String {
    let mut parts = Vec::new();
    if let Some(why) = idle {
        // What one sees for itself of a node that is not Ready does not count as long as nothing is taken.
        let away = nodes.left.get(&Left::NotReady).into_iter().flatten();
        let mut waiting: Vec<&String> = nodes.ready.iter().chain(away).collect();
        waiting.sort();
        parts.push(match waiting.is_empty() {
            true => format!("nothing new is taken: {why}"),
            false => format!("{} {}: {why}", listed(&waiting), verb(waiting.len(), "waits", "wait")),
        });
    }
    let left = nodes.left.iter().filter(|(why, _)| idle.is_none() || **why != Left::NotReady);
    parts.extend(
        left.map(|(why, names)| format!("{} {}: {why}", listed(names), verb(names.len(), "waits", "wait"))),
    );
    let drifted: Vec<&String> =
        nodes.drifted.iter().filter(|_| tells_of_drift).map(|one| &one.node).collect();
    if !drifted.is_empty() {
        let run = verb(drifted.len(), "runs", "run");
        parts
            .push(format!("{} {run} another release, and had the one attempt of this run", listed(&drifted)));
    }
    parts.join("; ")
}

fn verb(count: usize, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(at) => write!(f, "its time was over at {at:.0} (notAfter)"),
            Self::Paused => f.write_str("paused (spec.paused)"),
            Self::Stopped => f.write_str("the last run failed (stopOnFailure); change the upgrade to go on"),
            Self::Unfinished => f.write_str(
                "the last run ended before it had taken all its nodes; change the upgrade to go on",
            ),
            Self::ReleaseUnknown => f.write_str(
                "which release the image brings is not known, and so not which nodes do not run it",
            ),
            Self::OutOfService(nodes) => {
                write!(f, "tried by this run, and out of service since: {}", listed(nodes))
            }
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady => f.write_str("not Ready"),
            Self::OnHold => write!(f, "held by the label {}", names::HOLD),
            Self::ToNothing => f.write_str("a preflight that could not run is tried again an hour later"),
            Self::Newer(upgrade) => write!(f, "{upgrade}, which is newer, comes first"),
            Self::Unreadable => {
                write!(f, "the annotation {} cannot be read; take it off the node", names::ATTEMPTED)
            }
        }
    }
}
