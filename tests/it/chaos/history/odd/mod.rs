//! What must hold in odd worlds, and in those that are not: places of workload, waiters, cordons, names of
//! others.

mod bounds;
mod reasons;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kairos_operator::{
    api::{
        names::container,
        nodeop::{NodeOp, NodeOpStatus, NodeStatus, Phase, RebootStatus, Step},
    },
    plan::model::id::OpRef,
};
use kairos_sim::{Change, ChangeKind};

use super::{CORDONED_BY, OPS, Past, UPGRADES, intent, owner, text};
use crate::chaos::{
    world::{Event, Init, Record, World},
    worlds::{self, Disk, Kind, STRANGER},
};

/// In a calm world a node that somebody uncordoned is cordoned again within this time.
const UNCORDONED: Duration = Duration::from_secs(15);
/// Between a waiter's last look at its own pod and its deed lie a request or two.
const LOOKED: Duration = Duration::from_secs(60);
/// A node is given up this time after its pullTimeoutSeconds at the latest.
const SLACK: Duration = Duration::from_secs(90);
/// A final entry may hold its slot for this time without a word.
const SILENT: Duration = Duration::from_secs(90);

/// Why nothing is asked of what a compromised node's own entry says.
const BAD: &str = "bad";

/// What is known beside the objects.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The store went back, and these changes were made by that.
    pub restored: bool,
    swaps: Vec<(u64, u64)>,
    /// Waiters that run, by the UIDs of their pods: the UID of the NodeOp, and the node.
    pub watching: BTreeMap<String, (String, String)>,
    /// When a pod was told to end, or was gone, by UID.
    ending: BTreeMap<String, Duration>,
    /// Jobs for which a machine went down.
    pub left: BTreeSet<String>,
    /// When an entry took another Node object for its machine; and when an operator wrote last.
    pub adopted: BTreeMap<(String, String), Duration>,
    pub wrote: Duration,
    /// Nodes in progress that somebody uncordoned, and when.
    bare: BTreeMap<String, Duration>,
    /// What the agent or the preflight of a NodeOp ran on a node.
    pub ran: BTreeMap<(String, String), String>,
    /// What the operation's containers of a NodeOp ran anywhere.
    pub contents: BTreeMap<String, BTreeSet<String>>,
    /// The release in a node's active image, once an agent has changed it.
    pub installed: BTreeMap<String, String>,
    /// What the tag that moves meant, and since when.
    pub tag: Vec<(Duration, String)>,
    /// Since when a NodeOp is there.
    pub born: BTreeMap<String, Duration>,
    /// Since when an entry is in its step, and in which.
    pub steps: BTreeMap<(String, String), (Duration, Phase, Option<Step>)>,
    /// The last step before an entry was final.
    pub last: BTreeMap<(String, String), Option<Step>>,
    /// Entries that are final and hold their slot: since when, and whether the status said why.
    holds: BTreeMap<(String, String), (Duration, bool)>,
    /// Jobs that had a pod whose container that records the success could not be started.
    pub unrecorded: BTreeSet<String>,
    /// Jobs in which the operation succeeded, in a pod that failed of a container of somebody else.
    pub beside: BTreeSet<String>,
    /// Pods of a Job that a kubelet refused, or a runtime did not start, by Job.
    pub refused: BTreeMap<String, u64>,
    /// Nodes on which no operation that reboots, or none at all, can go on, and why.
    pub hopeless: BTreeMap<String, &'static str>,
    /// Nodes that do not reboot as soon as they are asked.
    pub slow: BTreeSet<String>,
    /// Upgrades that have said that all is verified.
    pub sworn: BTreeSet<String>,
    /// The release that a node says it runs in its present boot, and since when it says so.
    pub releases: BTreeMap<String, (String, Duration)>,
    lost: BTreeSet<String>,
}

impl Known {
    pub fn of(world: &World, book: &[Record]) -> Self {
        let mut known = Self::default();
        for node in world.nodes.keys() {
            let (disk, none, deaf, init, bad) =
                world.machine(node, |it| (it.disk, it.no_sandbox, it.deaf_waiters, it.init, it.bad));
            let why = [(disk != Disk::Good, "disk"), (deaf, "waiter"), (none, "sandbox"), (bad, BAD)];
            known.hopeless.extend(why.into_iter().filter(|(is, _)| *is).map(|(_, why)| (node.clone(), why)));
            if init != Init::Obeys {
                known.slow.insert(node.clone());
            }
        }
        let swap = |record: &Record| match &record.event {
            Event::Restored { from } => Some((*from, record.version)),
            _ => None,
        };
        known.swaps = book.iter().filter_map(swap).collect();
        known
    }
}

impl Past<'_> {
    /// Whether the node is compromised: what it says of itself may be believed, whatever it is.
    pub(super) fn is_bad(&self, node: &str) -> bool {
        self.odd.hopeless.get(node) == Some(&BAD)
    }

    /// Before anything else is made of a change.
    pub(super) fn odd_change(&mut self, change: &Change) {
        if ["nodes", OPS, UPGRADES].contains(&change.key.table.as_ref()) {
            self.is_small(change);
        }
        if self.odd.swaps.iter().any(|(from, to)| (*from + 1..=*to).contains(&change.version)) {
            self.odd.restored = true;
        }
        let strange =
            change.before.as_ref().is_some_and(|before| !before["metadata"]["labels"][STRANGER].is_null());
        let account =
            ["serviceaccounts", "roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io"];
        if strange && account.contains(&change.key.table.as_ref()) {
            self.broken(format!(
                "{} {} of somebody else is {:?}",
                change.key.table, change.key.name, change.kind
            ));
        }
        let late: Vec<String> = self
            .odd
            .bare
            .iter()
            .filter(|(_, at)| self.at > **at + UNCORDONED)
            .map(|(node, _)| node.clone())
            .collect();
        for node in late {
            self.odd.bare.remove(&node);
            // Who leads may be away, and a webhook may be.
            if self.scenario.is_calm() && !self.scenario.is(Kind::Refusals) {
                self.broken(format!(
                    "{node} is in progress, somebody uncordoned it, and {} s later it still is uncordoned",
                    UNCORDONED.as_secs()
                ));
            }
        }
        if change.key.table.as_ref() == "nodes"
            && (change.object["spec"]["unschedulable"] == true || change.kind == ChangeKind::Deleted)
        {
            self.odd.bare.remove(&change.key.name);
        }
    }

    /// A pod changed.
    pub(super) fn pod(&mut self, change: &Change) {
        let pod = &change.object;
        let (uid, node, name) = (
            text(pod, "/metadata/uid").to_owned(),
            text(pod, "/spec/nodeName").to_owned(),
            change.key.name.clone(),
        );
        let labels = &pod["metadata"]["labels"];
        if change.kind == ChangeKind::Deleted || !text(pod, "/metadata/deletionTimestamp").is_empty() {
            self.odd.ending.entry(uid.clone()).or_insert(self.at);
        }
        if worlds::is_ours(pod) && node.starts_with("windows-") && change.kind == ChangeKind::Added {
            self.broken(format!("{name} is made for {node}, which runs Windows"));
        }
        if text(pod, "/status/reason") == "Preempting" && self.odd.lost.insert(uid) {
            self.broken(format!(
                "{name} is ended by the kubelet of {node}, which needs its place for a critical pod"
            ));
        }
        let statuses =
            || ["initContainerStatuses", "containerStatuses"].map(|list| &pod["status"][list]).into_iter();
        let each = || statuses().filter_map(|list| list.as_array()).flatten();
        let not_started =
            |status: &serde_json::Value| text(status, "/state/terminated/reason") == "StartError";
        let unrecorded =
            |status: &serde_json::Value| status["name"] == container::SENTINEL && not_started(status);
        if let Some(job) =
            labels["batch.kubernetes.io/controller-uid"].as_str().filter(|_| each().any(unrecorded))
        {
            self.odd.unrecorded.insert(job.to_owned());
        }
        let started = each().next().is_some() && !each().any(not_started);
        let failed = text(pod, "/status/phase") == "Failed"
            && change.before.as_ref().is_some_and(|b| text(b, "/status/phase") != "Failed");
        if let (true, false, Some(job)) =
            (failed, started, labels["batch.kubernetes.io/controller-uid"].as_str())
        {
            *self.odd.refused.entry(job.to_owned()).or_default() += 1;
        }
    }

    /// Somebody uncordoned a node: if it is in progress, that is to be undone.
    pub(super) fn uncordoned(&mut self, node: &str) {
        let Some(op) = self.claim(node) else { return };
        let Some(object) = self.ops.get(&op) else { return };
        let entry = self.entry(&op, node).unwrap_or_default();
        let holds = match entry.step {
            // One that is being given up is not held any more, however long its end takes: that of a waiter
            // whose label somebody took off is seen once a minute.
            _ if entry.given_up.is_some() => false,
            Some(Step::Drain) => true,
            Some(Step::Job) => entry.deadline.is_none(),
            _ => false,
        };
        if intent(object).cordon
            && holds
            && entry.phase == Phase::Running
            && object.metadata.deletion_timestamp.is_none()
        {
            self.odd.bare.insert(node.to_owned(), self.at);
        }
    }

    /// A waiter is about to reboot its node.
    pub(super) fn acts(&mut self, pod: &str, node: &str) {
        if self.odd.ending.get(pod).is_some_and(|since| self.at > *since + LOOKED) {
            self.broken(format!("{node} is rebooted by a waiter that was told to end"));
        }
    }

    /// No waiter may act any more once its node is given back, or its reboot is cancelled.
    pub(super) fn watched(&mut self, op: &str, node: &str, what: &str) {
        let proved = |entry: NodeStatus| {
            entry.phase.is_final() && entry.reboot_status == Some(RebootStatus::Completed)
        };
        if self.rivals() || self.entry(op, node).is_some_and(proved) {
            return;
        }
        let ready = self.nodes.get(node).is_some_and(|node| {
            let conditions = node.pointer("/status/conditions").and_then(serde_json::Value::as_array);
            conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
        });
        let lives = |uid: &String| {
            let pod = self.pods.values().find(|pod| text(pod, "/metadata/uid") == uid);
            // Told to end on a node that is away, it sees that before it acts. One that is over was seen to
            // be.
            pod.is_some_and(|pod| {
                let over = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
                !over && (ready || text(pod, "/metadata/deletionTimestamp").is_empty())
            })
        };
        let live = self.odd.watching.iter().any(|(uid, (of, on))| of == op && on == node && lives(uid));
        if live {
            self.broken(format!("{node} {what} by {op}, whose waiter lives"));
        }
    }

    /// Members of etcd are missing when another one goes.
    pub(super) fn thin(&mut self, node: &str, without: &[String]) {
        // A member that leaves by itself is not seen to be away for most of a minute; see `second_member`.
        if self.scenario.is_calm() && !self.scenario.is(Kind::MembersLeave) {
            self.broken(format!("{node} is rebooted while the etcd of {without:?} takes no part"));
        }
    }

    /// An entry is written.
    pub(super) fn moved(
        &mut self,
        op: &NodeOp,
        node: &str,
        (old, entry): (&NodeStatus, &NodeStatus),
        now: &NodeOpStatus,
    ) {
        let uid = op.metadata.uid.clone().unwrap_or_default();
        let key = (uid.clone(), node.to_owned());
        if old.node_uid.is_some() && entry.node_uid.is_some() && old.node_uid != entry.node_uid {
            self.odd.adopted.insert(key.clone(), self.at);
        }
        // A preflight begins anew, with all of its time, in each boot; and a waiter that had to wait for the
        // room that the drain makes, once, and one after a waiter that stood.
        let anew = entry.step == Some(Step::Preflight) && old.new_boot != entry.new_boot
            || entry.waiter_since.is_some() && old.waiter_since != entry.waiter_since;
        if anew || old.phase != entry.phase || old.step != entry.step || !self.odd.steps.contains_key(&key) {
            if entry.phase.is_final() {
                self.odd.last.insert(key.clone(), old.step);
            }
            self.odd.steps.insert(key.clone(), (self.at, entry.phase, entry.step));
            if !matches!(entry.step, Some(Step::Drain | Step::Job)) {
                self.odd.bare.remove(node);
            }
        }
        if entry.given_up.is_some() || entry.deadline.is_some() && entry.step == Some(Step::Job) {
            self.odd.bare.remove(node);
        }
        self.given_up(op, &key, entry);
        self.is_true(op, node, (old, entry));
        let failed = entry.phase == Phase::Failed && !old.phase.is_final();
        if failed && matches!(entry.reboot_status, Some(RebootStatus::Cancelled | RebootStatus::Pending)) {
            // A Job that has failed, or is gone, lets no waiter act.
            if self.jobs.values().any(|job| job.op == key.0 && job.node == node && !job.over) {
                self.watched(&uid, node, "is cancelled");
            }
            let job = self
                .jobs
                .iter()
                .find(|(uid, job)| job.op == key.0 && job.node == node && self.odd.left.contains(*uid));
            let cancelled = entry.reboot_status == Some(RebootStatus::Cancelled);
            if job.is_some() && cancelled && !self.rivals() {
                self.broken(format!(
                    "{uid} says that it called the reboot of {node} off, which went down as it was asked: {:?}",
                    entry.message
                ));
            }
        }
        if entry.phase == Phase::Running && old.phase != Phase::Running {
            self.room_beside_failures(op, node, now);
        }
        if entry.phase == Phase::Failed && old.phase != Phase::Failed {
            self.words(&key, entry);
        }
        self.reasons(&key, entry, now);
    }

    /// A node on which nothing could start, or write, failed with the words that say so.
    fn words(&mut self, key: &(String, String), entry: &NodeStatus) {
        let words: &[&str] = match self.odd.hopeless.get(&key.1) {
            Some(&"sandbox") => &["sandbox"],
            Some(&"disk") => &["Read-only file system", "No space left"],
            _ => return,
        };
        let message = entry.message.as_deref().unwrap_or_default();
        // Before that, and of a drain or a command of its own, a node may fail for another reason.
        let other = [
            "drain",
            "the command failed",
            "this node must not",
            "deleted",
            "interrupted",
            "the node rebooted while",
            "replaced the image",
            "an earlier upgrade",
            "has written",
            "on this node, and was",
            "OutOfpods",
            "ImagePullBackOff",
        ]
        .iter()
        .any(|it| message.contains(it));
        // Where somebody deletes the pods of Jobs, nobody is left to say it.
        let nobody = self.scenario.is(Kind::Lingering) && message.contains("none of its pods is left");
        let told = nobody || words.iter().any(|words| message.contains(words));
        if self.scenario.is_calm() && !other && !told && !self.rivals() {
            self.broken(format!("{} fails {} and does not say why: {message:?}", key.0, key.1));
        }
    }

    /// A failed node that keeps its cordon is down as well.
    fn room_beside_failures(&mut self, op: &NodeOp, node: &str, now: &NodeOpStatus) {
        let me = OpRef::of(op).uid;
        let keeps = |(name, entry): &(&String, &NodeStatus)| {
            let live = self.nodes.get(*name);
            let cordoned = live.is_some_and(|live| {
                live["spec"]["unschedulable"] == true && owner(live, CORDONED_BY).as_ref() == Some(&me)
            });
            entry.phase == Phase::Failed && entry.node_uid.is_none() && cordoned
        };
        let failed = now.node_statuses.iter().filter(keeps).count();
        let held = now
            .node_statuses
            .values()
            .filter(|entry| entry.phase == Phase::Running || entry.node_uid.is_some())
            .count();
        if failed > 0 && intent(op).concurrency.is_some_and(|limit| held + failed > limit) && !self.rivals() {
            self.broken(format!(
                "{me} takes {node}, and {failed} nodes that failed are still cordoned by it"
            ));
        }
    }
}
