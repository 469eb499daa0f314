//! What is said of an operation, against what machines did; and what machines do, against what was said
//! before.

use std::{collections::BTreeSet, time::Duration};

use kairos_operator::{
    api::{
        names::container,
        nodeop::{NodeOp, NodeOpStatus, NodeStatus, Phase, RebootStatus, Step},
    },
    contract::boot_state,
    plan::check,
};
use kairos_sim::Change;
use serde_json::Value;

use super::{
    super::worlds::{Kind, SIDECAR},
    CLAIMED_BY, Past, intent,
    nodes::is_ready,
    owner, text,
};

/// For this time a machine that joins under the name of a node in progress may be taken for the old one:
/// between the operator's last live read and the start of the operation lies a write that is on its way.
const UNNOTICED: Duration = Duration::from_secs(7);

impl Past<'_> {
    pub(super) fn operation(&mut self, change: &Change, gone: bool) {
        let op: NodeOp = match serde_json::from_value((*change.object).clone()) {
            Ok(op) => op,
            Err(error) => return self.broken(format!("a NodeOp cannot be read: {error}")),
        };
        let uid = op.metadata.uid.clone().unwrap_or_default();
        if gone {
            self.ops.remove(&uid);
            return;
        }
        self.odd.born.entry(uid.clone()).or_insert(self.at);
        let before = self.ops.get(&uid).and_then(|op| op.status.clone()).unwrap_or_default();
        if let Some(status) = &op.status
            && before != *status
        {
            self.said(&op, &uid, &before, status);
        }
        self.known.insert(uid.clone(), op.clone());
        self.ops.insert(uid, op);
    }

    fn said(&mut self, op: &NodeOp, uid: &str, before: &NodeOpStatus, now: &NodeOpStatus) {
        if check::is_changed_after_its_end(before, now) {
            self.broken(format!("{uid} is changed though it is {:?}", before.phase));
        }
        self.targets(op, uid, before, now);
        self.admits(op, uid, before, now);
        let intent = intent(op);
        let failed = before.node_statuses.values().any(|entry| entry.phase == Phase::Failed);
        for node in before.node_statuses.keys().filter(|node| !now.node_statuses.contains_key(node)) {
            self.broken(format!("{uid} forgets {node}"));
        }
        for (node, entry) in &now.node_statuses {
            let old = before.node_statuses.get(node).cloned().unwrap_or_default();
            if old.phase.is_final() && (old.phase != entry.phase || old.reboot_status != entry.reboot_status)
            {
                self.broken(format!("the final entry of {node} in {uid} becomes {entry:?}"));
            }
            if failed
                && intent.stop_on_failure
                && old.phase == Phase::Pending
                && entry.phase == Phase::Running
            {
                self.broken(format!("{uid} takes {node} after a failure"));
            }
            if entry.phase == Phase::Running && old.phase != Phase::Running {
                self.takes(op, node);
            }
            if old.step == Some(Step::Drain) {
                self.drained.insert(node.clone(), self.at);
            }
            if entry.drain_started_at.is_some() {
                self.drains.entry((uid.to_owned(), node.clone())).or_insert(self.at);
            }
            if entry.phase == Phase::Completed && old.phase == Phase::Running {
                self.succeeded(op, uid, node, entry);
            }
            if entry.phase == Phase::Failed && old.phase == Phase::Running {
                self.failed(op, uid, node, entry);
            }
            self.moved(op, node, (&old, entry), now);
            let live = self
                .nodes
                .get(node)
                .filter(|live| old.node_uid.as_deref() == Some(text(live, "/metadata/uid")));
            let claimed = live.and_then(|live| owner(live, CLAIMED_BY)).as_deref() == Some(uid);
            if entry.node_uid.is_none() && old.node_uid.is_some() && claimed && !self.rivals() {
                self.broken(format!("{uid} says that it gave {node} back, and still claims it"));
            }
            if entry.phase == Phase::Failed && entry.message.as_ref().is_none_or(String::is_empty) {
                self.broken(format!("{uid} does not say why {node} failed"));
            }
        }
        let open =
            now.node_statuses.values().any(|entry| matches!(entry.phase, Phase::Preflight | Phase::Running));
        if open && now.phase.is_some_and(Phase::is_final) {
            self.broken(format!("{uid} is over and nodes of it are not"));
        }
        let all = now.node_statuses.values().all(|entry| entry.phase == Phase::Completed);
        let expired = now.conditions.iter().any(|one| one.type_ == "Complete" && one.reason == "Expired");
        if now.phase == Some(Phase::Completed) && !all && !expired {
            self.broken(format!("{uid} is Completed and nodes of it are not"));
        }
    }

    /// A node is reported as done: the operation succeeded on it and, where that was asked, it has left that
    /// boot since.
    fn succeeded(&mut self, op: &NodeOp, uid: &str, node: &str, entry: &NodeStatus) {
        if self.is_bad(node) {
            return;
        }
        let intent = intent(op);
        let ours = |job: &String| self.jobs.get(job).is_some_and(|job| job.op == uid && job.node == node);
        let last = self.successes.iter().rev().find(|(job, on, _)| on == node && ours(job)).cloned();
        let Some((_, _, boot)) = last else {
            // An upgrade that finds the release in place has done nothing, and says so. One that a boot
            // interrupted finds it in place after that boot, if an earlier one had installed it and its
            // reboot was cancelled.
            let in_place =
                entry.reboot_status == Some(RebootStatus::NotRequested) || self.runs_target(op, node);
            if !(intent.upgrade && in_place) {
                self.broken(format!(
                    "{uid} reports success on {node}, where its operation did not succeed: {entry:?}"
                ));
            }
            return;
        };
        let same = self.nodes.get(node).is_some_and(|live| text(live, "/status/nodeInfo/bootID") == boot);
        // The recovery image alone needs no boot.
        if intent.reboot && !boot.is_empty() && (entry.reboot_status != Some(RebootStatus::Completed) || same)
        {
            self.broken(format!(
                "{uid} reports success on {node}, reboot {:?}, still in the old boot: {same}",
                entry.reboot_status
            ));
        }
        if intent.upgrade && intent.reboot {
            self.check_upgraded(op, uid, node, entry);
        }
    }

    /// A node that is given back as it was is one on which no command has begun.
    fn failed(&mut self, op: &NodeOp, uid: &str, node: &str, entry: &NodeStatus) {
        let ran = self.runs.contains_key(&(uid.to_owned(), node.to_owned()));
        let cancelled = op.metadata.deletion_timestamp.is_some();
        if entry.job_name.is_none() && ran && !cancelled && !self.rivals() && !self.is_bad(node) {
            self.broken(format!(
                "{uid} says that it left {node} as it was, where its operation has begun: {entry:?}"
            ));
        }
    }

    /// An upgrade is done where the node runs the image's release, from the active image; or it says that it
    /// does not know.
    fn check_upgraded(&mut self, op: &NodeOp, uid: &str, node: &str, entry: &NodeStatus) {
        if !(self.runs_target(op, node) || entry.verified == Some(false)) || entry.verified.is_none() {
            self.broken(format!(
                "{uid} reports {node} as upgraded: {entry:?}; it runs {:?}",
                self.booted.get(node)
            ));
        }
    }

    /// Whether the node has booted the release of an upgrade's image, from the active image.
    pub(super) fn runs_target(&self, op: &NodeOp, node: &str) -> bool {
        let target = self.target(op, node);
        self.booted
            .get(node)
            .is_some_and(|(release, state)| *release == target && *state == boot_state::ACTIVE)
    }

    /// An operation's command or agent starts on a machine.
    pub(super) fn began(&mut self, job: &str, node: &str) {
        self.running.push((job.to_owned(), node.to_owned()));
        let Some(known) = self.jobs.get(job).cloned() else {
            return self.broken(format!("an operation of no Job runs on {node}"));
        };
        let op = known.op;
        self.disturbed(&op, node);
        let runs = self.runs.entry((op.clone(), node.to_owned())).or_default();
        let first = runs.insert(job.to_owned());
        if runs.len() > 1 {
            self.broken(format!("the operation of {op} runs on {node} in a second Job"));
        }
        let Some(object) = self.known.get(&op).cloned() else { return };
        if intent(&object).upgrade && self.successes.iter().any(|(done, _, _)| done == job) {
            self.broken(format!("the agent of {op} runs on {node} again after its success"));
        }
        if self.running.iter().filter(|(_, on)| on == node).count() > 1 {
            self.broken(format!("two operations run on {node} at once"));
        }
        self.again(job, &op, node);
        self.check_room(&op);
        if !self.ops.contains_key(&op) {
            return;
        }
        // A kubelet that is away starts nothing: the container was there before, and has waited for the
        // node's lock since. Until the kubelet is back nobody can end it.
        if self.nodes.get(node).is_some_and(|node| !is_ready(node)) {
            return;
        }
        let entry = self.entry(&op, node).unwrap_or_default();
        if entry.phase != Phase::Running
            || entry.step != Some(Step::Job)
            || entry.job_uid.as_deref() != Some(job)
        {
            self.broken(format!("the operation of {op} starts on {node}, whose entry is {entry:?}"));
        }
        let claimed = self.claim(node).as_deref() == Some(&op) || self.is_to_be_claimed_again(&op, node);
        if self.is_same(node, &entry) && !claimed {
            self.broken(format!(
                "the operation of {op} starts on {node}, which is claimed by {:?}",
                self.claim(node)
            ));
        }
        // A further try is the Job controller's, which knows no machines.
        let replaced = self.nodes.contains_key(node) && !self.is_same(node, &entry);
        if first && replaced && self.joined.get(node).is_some_and(|joined| self.at > *joined + UNNOTICED) {
            self.broken(format!(
                "the operation of {op} starts on another machine than it was meant for, under the name {node}"
            ));
        }
        self.check_drained(&object, node);
    }

    /// Whether the node is still the one that an entry was begun for.
    pub(super) fn is_same(&self, node: &str, entry: &NodeStatus) -> bool {
        self.nodes
            .get(node)
            .is_some_and(|live| entry.node_uid.as_deref() == Some(text(live, "/metadata/uid")))
    }

    /// Not more operations run than may.
    fn check_room(&mut self, op: &str) {
        let on: BTreeSet<&String> = self
            .running
            .iter()
            .filter(|(job, _)| self.jobs.get(job).is_some_and(|job| job.op == op))
            .map(|(_, on)| on)
            // Somebody took the machine out of the cluster while its kubelet was away: nobody can end what
            // runs there, and nobody waits for it.
            .filter(|on| self.nodes.contains_key(*on))
            .collect();
        // What goes on in a pod that was deleted by force takes no slot: nobody knows of it but the node.
        if self.allowed(op).is_some_and(|limit| on.len() > limit) && !self.scenario.is(Kind::Lingering) {
            self.broken(format!("the operation of {op} runs on {on:?} at once"));
        }
    }

    /// Whatever the drain had to evict is gone before the operation starts.
    fn check_drained(&mut self, op: &NodeOp, node: &str) {
        let drain = (op.metadata.uid.clone().unwrap_or_default(), node.to_owned());
        let began = self.drains.get(&drain).copied().filter(|_| intent(op).drain.is_some());
        let Some(began) = began else { return };
        let there = |pod: &&super::Object| {
            text(pod, "/spec/nodeName") == node
                && text(pod, "/metadata/labels/group").starts_with('g')
                && self.bound.get(text(pod, "/metadata/uid")).is_some_and(|bound| *bound < began)
        };
        let left: Vec<String> =
            self.pods.values().filter(there).map(|pod| text(pod, "/metadata/name").to_owned()).collect();
        if !left.is_empty() {
            self.broken(format!("the operation starts on {node}, and {left:?} are still there"));
        }
    }

    /// Notes a Job's pod that failed of a container of somebody else, after the operation had succeeded in
    /// it.
    pub(super) fn failed_beside(&mut self, pod: &Value) {
        let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
        let ended = |name: &str| {
            let mut named = statuses.into_iter().flatten().filter(|status| status["name"] == name);
            named.find_map(|status| status.pointer("/state/terminated/exitCode")?.as_i64())
        };
        let theirs = ended(SIDECAR).is_some_and(|code| code != 0);
        if pod["status"]["phase"] == "Failed" && theirs && ended(container::SENTINEL) == Some(0) {
            let job = text(pod, "/metadata/ownerReferences/0/uid").to_owned();
            self.odd.beside.insert(job);
        }
    }

    /// A machine is asked to reboot.
    pub(super) fn asked(&mut self, job: &str, node: &str, boot: &str) {
        let Some(known) = self.jobs.get(job).cloned() else {
            return self.broken(format!("{node} is rebooted for no Job"));
        };
        let op = known.op.clone();
        // A Job that only records the success of the one before it runs nothing itself.
        let jobs = &self.jobs;
        let ours = |of: &String| jobs.get(of).is_some_and(|job| job.op == op && job.node == node);
        let successes: Vec<&str> =
            self.successes.iter().filter(|(of, _, _)| ours(of)).map(|(_, _, when)| when.as_str()).collect();
        let (wanted, in_this_boot) = (successes.len(), successes.contains(&boot));
        if !in_this_boot {
            self.broken(format!("{node} is rebooted for {op}, which did not succeed in this boot"));
        }
        let boots = self.asked.entry((op.clone(), node.to_owned())).or_default();
        let is_first = boots.insert(boot.to_owned());
        let times = boots.len();
        if is_first {
            self.second_member(&op, node);
        }
        if times > wanted {
            self.broken(format!("{node} is rebooted {times} times for {wanted} successes of {op}"));
        }
        if !known.complete && !self.odd.beside.contains(job) {
            self.broken(format!("{node} is rebooted, and the Job of {op} is not Complete"));
        }
        match self.entry(&op, node) {
            Some(entry) if entry.phase.is_final() => {
                self.broken(format!("{node} is rebooted for {op} after its entry was final: {entry:?}"))
            }
            Some(_) => {}
            None => self.broken(format!("{node} is rebooted for {op}, which is gone")),
        }
        // With its Node the claim goes too; until the garbage collector has found the pods, the machine does
        // what it was asked.
        let entry = self.entry(&op, node).unwrap_or_default();
        if self.is_same(node, &entry) && self.claim(node).as_deref() != Some(&op) && !self.rivals() {
            self.broken(format!("{node} is rebooted for {op}, and is claimed by {:?}", self.claim(node)));
        }
    }
}
