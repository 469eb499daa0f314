//! The condition `Verified` of an upgrade that is over.

use crate::{
    api::{
        names::reason,
        node_statuses::NodeStatuses,
        nodeop::{NodeStatus, Phase, RebootStatus},
    },
    plan::{model::intent::Intent, rollout::status::Drifted},
};

/// How many nodes are named at most.
const MAX_NAMES: usize = 10;

/// What the condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// One word in CamelCase.
    pub reason: &'static str,
    pub message: String,
}

impl Verified {
    fn new(status: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into() }
    }
}

/// Whether it was proved that the upgraded nodes run what they were upgraded to.
///
/// Each node is judged by what happened on it, and not by what was asked for: an upgrade of both images may
/// have written the recovery image alone, and one that asks for a reboot may have needed none.
pub fn verified(intent: &Intent, nodes: &NodeStatuses, drifted: &[Drifted]) -> Verified {
    let named = |wanted: &dyn Fn(&NodeStatus) -> bool| {
        let names: Vec<&str> = nodes
            .iter()
            .filter(|(_, node)| wanted(node))
            .map(|(name, _)| name.as_str())
            .take(MAX_NAMES)
            .collect();
        Some(names.join(", ")).filter(|names| !names.is_empty())
    };
    // What the Go operator finished was never looked at.
    let rebooted = |node: &NodeStatus| {
        let booted = node.reboot_status == Some(RebootStatus::Completed) || node.verified.is_some();
        node.phase == Phase::Completed && booted
    };
    if let Some(failed) = named(&|node| node.phase == Phase::Failed) {
        return Verified::new("False", "NodesFailed", format!("failed: {failed}"));
    }
    if let Some(unknown) = named(&|node| rebooted(node) && node.verified != Some(true)) {
        let message = format!("what these nodes run is not known: {unknown}");
        return Verified::new("Unknown", reason::NOT_PROVED, message);
    }
    if let Some(untouched) = named(&|node| !node.phase.is_final()) {
        return Verified::new("Unknown", "NotStarted", format!("not started: {untouched}"));
    }
    if nodes.is_empty() {
        return Verified::new("Unknown", reason::NO_NODES, "no node was upgraded");
    }
    // Of one of thousands the name of its Job is not kept.
    let ran =
        |node: &NodeStatus| node.job_name.is_some() || node.last_updated.is_none() && !node.is_skipped();
    let unproved = |node: &NodeStatus| ran(node) && node.verified != Some(true);
    if let Some(unproved) = named(&unproved) {
        let message = format!("what was installed was not booted, and so not proved: {unproved}");
        return Verified::new("Unknown", "NotRebooted", message);
    }
    // Our own check has said of at least one that it runs the release; of the others it was said that they
    // are not there any more, or are another operation's.
    let found_at = |node: &NodeStatus| node.target.is_some();
    if !nodes.values().any(|node| rebooted(node) || found_at(node)) {
        let message = "no node was upgraded, or found at the image's release; the message of each says why";
        return Verified::new("Unknown", "NotUpgraded", message);
    }
    if !drifted.is_empty() {
        return by_now(drifted);
    }
    if !nodes.values().any(rebooted) {
        let message = "no node had to be upgraded, as the message of each says";
        return Verified::new("True", "NothingToDo", message);
    }
    // Of one of thousands it is not kept whether it rebooted.
    let booted = |node: &NodeStatus| {
        node.reboot_status == Some(RebootStatus::Completed)
            || intent.reboot && node.verified == Some(true) && node.last_updated.is_none()
    };
    if !nodes.values().any(booted) {
        let message = "the own record of every node that was upgraded says so; nothing was booted";
        return Verified::new("True", "Recorded", message);
    }
    Verified::new("True", "Proved", "every node that was upgraded runs the image's release")
}

/// What was proved, and is not so any more.
fn by_now(drifted: &[Drifted]) -> Verified {
    let says = |one: &Drifted| match &one.runs {
        Some(runs) => format!("{} ({runs})", one.node),
        None => one.node.clone(),
    };
    let named = |which: &dyn Fn(&&Drifted) -> bool| {
        let names: Vec<String> = drifted.iter().filter(which).map(says).take(MAX_NAMES).collect();
        names.join(", ")
    };
    let newer = drifted.iter().find_map(|one| one.newer.as_ref());
    let newer = newer.map(|newer| format!("; {newer} is newer")).unwrap_or_default();
    let others = named(&|one| one.runs.is_some());
    if others.is_empty() {
        let unread = named(&|_| true);
        let message = format!("what these nodes run by now is not known: {unread}{newer}");
        return Verified::new("Unknown", reason::DRIFTED, message);
    }
    let message = format!("these nodes were upgraded, and run another release by now: {others}{newer}");
    Verified::new("False", reason::DRIFTED, message)
}
