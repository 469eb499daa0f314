//! Claims and cordons, at every change of a node.

use std::{collections::BTreeSet, time::Duration};

use kairos_operator::api::{names, nodeop::Phase};
use kairos_sim::{Change, ChangeKind};
use serde_json::Value;

use super::{super::worlds::Kind, CLAIMED_BY, CORDONED_BY, Past, intent, owner, text};

/// Within this time an operator has seen that a member went away, and its waiter is ended.
const ACTS: Duration = Duration::from_secs(60);

/// Between the record of a Node that was made again and its claim lies a plan, and what else that one writes.
const CLAIMS: Duration = Duration::from_secs(5);

fn cordoned(node: &Value) -> bool {
    node.pointer("/spec/unschedulable").and_then(Value::as_bool).unwrap_or(false)
}

fn control_plane(node: &Value) -> bool {
    let labels = &node["metadata"]["labels"];
    // A member of etcd counts, whatever else it is.
    names::CONTROL_PLANE_LABELS
        .iter()
        .chain([&"node-role.kubernetes.io/etcd"])
        .any(|label| !labels[*label].is_null())
}

impl Past<'_> {
    pub(super) fn node(&mut self, change: &Change, gone: bool) {
        let name = change.key.name.clone();
        if gone {
            self.nodes.remove(&name);
            self.human.remove(&name);
            self.members_away.remove(&name);
            self.labelled(&name);
            // Whoever drains it hears of that a moment later, and may have asked for another eviction by
            // then.
            self.drained.insert(name, self.at);
            return;
        }
        if change.kind == ChangeKind::Added {
            self.joined.insert(name.clone(), self.at);
            self.joined_with_hints(change);
        }
        if change.kind == ChangeKind::Modified && !self.human_versions.contains(&change.version) {
            self.patched(change);
            self.hinted(change);
            self.balanced(change);
            self.says(change);
        }
        self.says_release(&name, &change.object);
        if control_plane(&change.object) && !is_ready(&change.object) {
            self.members_away.entry(name.clone()).or_insert(self.at);
        } else {
            self.members_away.remove(&name);
        }
        self.nodes.insert(name, change.object.clone());
        self.held();
    }

    /// A node is rebooted. Where nothing keeps an operator from seeing it, and from ending a waiter, no
    /// member of the control plane is while another one has been away for long.
    pub(super) fn second_member(&mut self, op: &str, node: &str) {
        let is_member = self.nodes.get(node).is_some_and(|node| control_plane(node));
        // Somebody took our label off the waiter, or nobody may delete it.
        let hindered = [Kind::Strangers, Kind::Refusals].iter().any(|kind| self.scenario.is(*kind));
        if !is_member || !self.scenario.is_calm() || hindered || self.is_bad(node) {
            return;
        }
        let away = |(other, since): &(&String, &Duration)| *other != node && self.at > **since + ACTS;
        if let Some((other, _)) = self.members_away.iter().find(away) {
            self.broken(format!("{node} is rebooted for {op} while {other} is away"));
        }
    }

    /// Whether the machine's Node was made again, and nobody has led since that was recorded: its claim is
    /// the next write, and the Job controller makes a further pod of a Job that runs meanwhile. An operator
    /// that does anything at all later than that has had its time to claim the node, and is judged.
    pub(super) fn is_to_be_claimed_again(&self, op: &str, node: &str) -> bool {
        let adopted = self.odd.adopted.get(&(op.to_owned(), node.to_owned()));
        self.claim(node).is_none() && adopted.is_some_and(|at| self.odd.wrote <= *at + CLAIMS)
    }

    /// Somebody who is not a human changed a node.
    fn patched(&mut self, change: &Change) {
        let (name, after) = (&change.key.name, &*change.object);
        let Some(before) = change.before.as_deref() else { return };
        match (cordoned(before), cordoned(after)) {
            (true, false) if self.human.contains(name) => {
                self.broken(format!("a human's cordon of {name} is removed"))
            }
            (true, false) if owner(before, CORDONED_BY).is_none() => {
                self.broken(format!("{name} is uncordoned, and the cordon was nobody's"));
            }
            (false, true) if owner(after, CORDONED_BY).is_none() => {
                self.broken(format!("{name} is cordoned in nobody's name"))
            }
            _ => {}
        }
        match (owner(before, CLAIMED_BY), owner(after, CLAIMED_BY)) {
            (Some(old), Some(new)) if old != new => {
                self.broken(format!("{name} is taken from {old} by {new}"))
            }
            (Some(old), None) => self.released(name, after, &old),
            (None, Some(new)) => self.tries(&new, after),
            _ => {}
        }
    }

    /// A node is given back: it is not in progress any more, and nothing of ours runs on it.
    fn released(&mut self, name: &str, node: &Value, op: &str) {
        let entry = self.entry(op, name);
        let uid = text(node, "/metadata/uid");
        if entry.is_some_and(|entry| entry.phase == Phase::Running && entry.node_uid.as_deref() == Some(uid))
            && !self.rivals()
        {
            self.broken(format!("{name} is given back while {op} works on it"));
        }
        let runs = self
            .running
            .iter()
            .any(|(job, on)| on == name && self.jobs.get(job).is_some_and(|job| job.op == op));
        // A kubelet that has stopped while its containers go on cannot be told from a machine that is gone,
        // where a pod that is deleted never comes to its end.
        let unheard = self.scenario.is(Kind::KubeletsStop) && !is_ready(node);
        // And of what goes on in a pod that was deleted by force nobody knows but the node.
        if runs && !unheard && !self.scenario.is(Kind::Lingering) {
            self.broken(format!("{name} is given back while the operation of {op} runs on it"));
        }
        self.watched(op, name, "is given back");
    }

    /// How many nodes are in progress at once, for one operation and for control planes.
    fn held(&mut self) {
        let mut found = Vec::new();
        let claims: Vec<(String, String, bool)> = self
            .nodes
            .iter()
            .filter_map(|(name, node)| Some((name.clone(), owner(node, CLAIMED_BY)?, control_plane(node))))
            .collect();
        for uid in self.known.keys() {
            let claimed = claims.iter().filter(|(_, of, _)| of == uid).map(|(name, _, _)| name);
            // A node that it failed on and left cordoned is down as well.
            let left = self
                .nodes
                .iter()
                .filter(|(_, node)| cordoned(node) && owner(node, CORDONED_BY).as_ref() == Some(uid));
            let held: BTreeSet<&String> = claimed.chain(left.map(|(name, _)| name)).collect();
            if self.allowed(uid).is_some_and(|limit| held.len() > limit) {
                found.push(format!("{uid} has {held:?} in progress"));
            }
        }
        let disturbs = |uid: &String| self.known.get(uid).is_some_and(|op| intent(op).disturbs());
        let quorum: Vec<&String> = claims
            .iter()
            .filter(|(_, of, master)| *master && disturbs(of))
            .map(|(name, _, _)| name)
            .collect();
        if quorum.len() > 1 {
            found.push(format!("control-plane nodes {quorum:?} are in progress together"));
        }
        found.into_iter().for_each(|what| self.broken(what));
    }
}

pub(super) fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
