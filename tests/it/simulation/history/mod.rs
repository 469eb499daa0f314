//! What must never be, checked on what really happens in the world, whatever the planner says.

mod moment;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kairos_operator::{
    api::nodeop::{NodeOp, NodeOpStatus, NodeStatus, Phase, RebootStatus, Step},
    plan::{
        check,
        model::{
            action::{NodeChange, Target},
            id::OpRef,
            intent::Intent,
            snapshot::{JobState, JobView, NodeView, PodView, Role},
        },
    },
};

use super::{
    moments::LATE,
    world::{Home, World, boot_id, node_key},
};

/// What happened.
#[derive(Debug, Default)]
pub struct History {
    /// Every NodeOp that ever was, by UID, in its last version.
    pub ops: BTreeMap<String, NodeOp>,
    pub gone: BTreeSet<String>,
    /// Every Job that ever was, by UID, in its last version.
    pub jobs: BTreeMap<String, JobView>,
    /// The Jobs whose command was started, by NodeOp's UID and node.
    pub runs: BTreeMap<(String, String), BTreeSet<String>>,
    /// When a drain was said to have started, by NodeOp's UID and node.
    pub drains: BTreeMap<(String, String), i64>,
    /// Where a Job was about to be let go, by NodeOp's UID and node.
    pub started: BTreeSet<(String, String)>,
    /// Machine and boot in which the command last succeeded, by NodeOp's UID and node.
    pub successes: BTreeMap<(String, String), (String, u32)>,
    /// Jobs whose success was followed by a reboot of ours.
    pub reboots: BTreeSet<String>,
    /// When an operation took a node out of load balancers.
    pub unbalanced: BTreeMap<String, i64>,
    pub broken: Vec<String>,
}

impl World {
    pub fn broken(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.note(format!("BROKEN: {what}"));
        self.history.broken.push(what);
    }

    /// A Job's container starts.
    pub fn check_run(&mut self, pod: &PodView) {
        let Some(job) = self.history.jobs.get(&pod.owner.uid).cloned() else {
            return;
        };
        let (op, node) = (job.owner.uid.clone(), pod.node.clone());
        self.note(format!("the command of {op} starts on {node}"));
        let runs = self.history.runs.entry((op.clone(), node.clone())).or_default();
        runs.insert(job.uid.clone());
        if runs.len() > 1 {
            self.broken(format!("the command of {op} runs on {node} in a second Job"));
        }
        let Some(object) = self.op_of(&op) else { return };
        let entry = self.entry(&op, &node).unwrap_or_default();
        if entry.phase != Phase::Running
            || entry.step != Some(Step::Job)
            || entry.job_uid.as_ref() != Some(&job.uid)
        {
            self.broken(format!("the command of {op} starts on {node}, whose entry is {entry:?}"));
        }
        self.check_drained(&object, &node);
        let view = self.nodes.get(&node_key(&node));
        let same = view.as_ref().is_some_and(|view| Some(&view.uid) == entry.node_uid.as_ref());
        let claim = view.as_ref().and_then(|view| view.claimed_by.clone());
        if same && claim != Some(OpRef::of(&object)) {
            self.broken(format!("the command of {op} starts on {node}, which is claimed by {claim:?}"));
        }
    }

    /// Whatever the drain had to evict is gone before the command starts.
    fn check_drained(&mut self, op: &NodeOp, node: &str) {
        let drain = (op.metadata.uid.clone().unwrap(), node.to_owned());
        let started = self.history.drains.get(&drain).copied().filter(|_| Intent::of(op).drain.is_some());
        let Some(started) = started else { return };
        let homes = self.homes.live().values().filter(|home| home.node == node && home.bound < started);
        let left: Vec<_> = homes
            .filter(|home| home.pod.labels["app"].starts_with('g'))
            .map(|home| home.pod.name.clone())
            .collect();
        if !left.is_empty() {
            self.broken(format!("the command starts on {node}, and {left:?} are still there"));
        }
    }

    /// Whoever came after the drain was asked to leave, if there was time for that.
    fn check_kept_clear(&mut self, node: &str) {
        let homes = self.homes.live().values().filter(|home| home.node == node && home.bound + 4 < self.now);
        let unasked = |home: &&Arc<Home>| home.pod.labels["app"] == LATE && home.pod.ends_by.is_none();
        let left: Vec<_> = homes.filter(unasked).map(|home| home.pod.name.clone()).collect();
        if !left.is_empty() {
            self.broken(format!("{node} goes down with {left:?}, which nobody asked to leave"));
        }
    }

    /// A waiter is about to ask its node to reboot.
    pub fn check_reboot(&mut self, pod: &PodView, job: &str) {
        let (op, node) = (pod.owner.uid.clone(), pod.node.clone());
        self.check_kept_clear(&node);
        let machine = &self.machines[&node];
        let boot = boot_id(&machine.uid, machine.boot);
        // What the status has recorded of a Job stands for its sentinel; that it was true is checked below.
        let recorded = self.recorded.get(&pod.uid).map(|recorded| recorded.sentinel(job));
        let Some(sentinel) = machine.sentinels.get(job).cloned().or(recorded) else {
            return self.broken(format!("{node} is rebooted without a sentinel"));
        };
        if sentinel.boot != boot || !self.history.reboots.insert(sentinel.job_uid.clone()) {
            self.broken(format!("{node} is rebooted a second time for one success of {op}"));
        }
        let complete =
            self.history.jobs.get(&sentinel.job_uid).is_some_and(|job| job.state == JobState::Complete);
        if !complete {
            self.broken(format!("{node} is rebooted, and the Job of {op} is not Complete"));
        }
        let entry = self.entry(&op, &node);
        if entry.is_some_and(|entry| entry.phase.is_final()) {
            self.broken(format!("{node} is rebooted for {op} after its entry was final"));
        }
    }

    /// A status is written over `old`.
    pub fn check_status(&mut self, op: &NodeOp, new: &NodeOpStatus) {
        let uid = op.metadata.uid.clone().unwrap();
        let old = op.status.clone().unwrap_or_default();
        if check::is_changed_after_its_end(&old, new) {
            self.broken(format!("{uid} is changed though it is {:?}", old.phase));
        }
        let intent = Intent::of(op);
        let failed = old.node_statuses.values().any(|entry| entry.phase == Phase::Failed);
        for (node, entry) in &new.node_statuses {
            let before = old.node_statuses.get(node).cloned().unwrap_or_default();
            if entry.drain_started_at.is_some() {
                self.history.drains.entry((uid.clone(), node.clone())).or_insert(self.now);
            }
            if entry.job_uid.is_some() {
                self.history.started.insert((uid.clone(), node.clone()));
            }
            if before.phase.is_final()
                && (before.phase != entry.phase || before.reboot_status != entry.reboot_status)
            {
                self.broken(format!("the final entry of {node} in {uid} becomes {entry:?}"));
            }
            let live = self.nodes.get(&node_key(node));
            let claimed = live.is_some_and(|live| {
                Some(&live.uid) == before.node_uid.as_ref() && live.claimed_by == Some(OpRef::of(op))
            });
            // Of two planners one may still have a claim under way that the other gives up.
            if entry.node_uid.is_none() && claimed && !self.rivals {
                self.broken(format!("{uid} says that it gave {node} back, and still claims it"));
            }
            if failed
                && intent.stop_on_failure
                && before.phase == Phase::Pending
                && entry.phase == Phase::Running
            {
                self.broken(format!("{uid} takes {node} after a failure"));
            }
            if entry.phase == Phase::Completed && before.phase == Phase::Running {
                self.check_success(&uid, node, entry.reboot_status, intent.reboot);
            }
            let untouched = entry.phase == Phase::Failed && entry.job_name.is_none();
            let ran = self.history.runs.contains_key(&(uid.clone(), node.clone()));
            let cancelled = op.metadata.deletion_timestamp.is_some();
            if before.phase == Phase::Running && untouched && ran && !cancelled && !self.rivals {
                self.broken(format!("{uid} says that it left {node} as it was, where its command has run"));
            }
            if entry.phase.is_final() && before.phase == Phase::Running && !self.rivals {
                self.check_cancelled(&uid, node);
            }
        }
        let taken = |entry: &&NodeStatus| {
            entry.phase == Phase::Running || entry.node_uid.is_some() || entry.holds_slot == Some(true)
        };
        let held = new.node_statuses.values().filter(taken);
        // One that was done may go down when the next one was taken already.
        let takes = new.node_statuses.iter().any(|(node, entry)| {
            let before = old.node_statuses.get(node).map(|entry| entry.phase);
            entry.phase == Phase::Running && before != Some(Phase::Running)
        });
        if takes && intent.concurrency.is_some_and(|limit| held.count() > limit) {
            self.broken(format!("{uid} has too many nodes in progress"));
        }
        let stuck =
            new.node_statuses.values().any(|entry| matches!(entry.phase, Phase::Preflight | Phase::Running));
        if stuck && new.phase.is_some_and(Phase::is_final) {
            self.broken(format!("{uid} is over and nodes of it are not"));
        }
    }

    /// A node is reported as done.
    fn check_success(&mut self, op: &str, node: &str, reboot: Option<RebootStatus>, asked: bool) {
        let Some((machine, boot)) = self.history.successes.get(&(op.to_owned(), node.to_owned())).cloned()
        else {
            return self.broken(format!("{op} reports success on {node}, where its command did not succeed"));
        };
        let now = self.machines.get(node).map(|machine| (machine.uid.clone(), machine.boot));
        // A node that was deleted since then is proof of nothing.
        let rebooted = now.is_none_or(|now| now.0 != machine || now.1 > boot);
        if asked && (reboot != Some(RebootStatus::Completed) || !rebooted) {
            self.broken(format!("{op} reports success on {node}, reboot {reboot:?}, rebooted {rebooted}"));
        }
    }

    /// Nothing of an operation may start once its entry is final: its Job has ended, or was told to.
    fn check_cancelled(&mut self, op: &str, node: &str) {
        let ours = |job: &&Arc<JobView>| job.owner.uid == op && job.node == node;
        let left =
            self.jobs.live().values().filter(ours).find(|job| job.state == JobState::Active && !job.deleting);
        if let Some(job) = left.cloned() {
            self.broken(format!(
                "the entry of {node} in {op} is final, and Job {} can still start",
                job.name
            ));
        }
    }

    /// A pod is deleted by an operator: never the waiter of an operation that goes on.
    pub fn check_ending(&mut self, target: &Target) {
        let pod = self
            .pods
            .get(&(target.namespace.clone(), target.name.clone()))
            .filter(|pod| pod.uid == target.uid);
        let Some(pod) = pod.filter(|pod| pod.role == Role::Waiter && !pod.phase.is_final() && !pod.deleting)
        else {
            return;
        };
        let Some(op) = self.op_of(&pod.owner.uid).filter(|op| op.metadata.deletion_timestamp.is_none())
        else {
            return;
        };
        let entry = self.entry(&pod.owner.uid, &pod.node).unwrap_or_default();
        let node = self.nodes.get(&node_key(&pod.node)).map(|node| node.uid.clone());
        let job = entry
            .job_uid
            .as_ref()
            .and_then(|uid| self.job_of(uid))
            .filter(|job| !job.deleting && !job.suspended);
        let goes_on = job.is_some_and(|job| matches!(job.state, JobState::Active | JobState::Complete));
        let held = entry.phase == Phase::Running
            && entry.step == Some(Step::Job)
            && entry.deadline.is_none()
            && entry.node_uid == node;
        if held && goes_on && !self.rivals && !self.is_held_back(&pod.node) {
            self.broken(format!(
                "the waiter of {:?} on {} is ended while its Job goes on",
                op.metadata.name, pod.node
            ));
        }
    }

    /// Whether the reboot of this node has to wait: it is of the control plane, and another node of that is
    /// away, or was so lately that a cache may show it so, or that it is not trusted yet.
    fn is_held_back(&self, node: &str) -> bool {
        const LATELY: usize = 130;
        let is_member = |view: &NodeView| view.labels.has_control_plane_label();
        let away = |view: &Arc<NodeView>| view.name != node && is_member(view) && !view.ready;
        self.nodes.get(&node_key(node)).is_some_and(|view| is_member(&view))
            && (self.nodes.oldest(LATELY)..=self.nodes.newest())
                .any(|version| self.nodes.at(version).values().any(away))
    }

    /// A node is patched by an operator.
    pub fn check_patch(&mut self, node: &NodeView, change: &NodeChange) {
        if change.unschedulable == Some(false)
            && self.machines.get(&node.name).is_some_and(|machine| machine.human)
        {
            self.broken(format!("a human's cordon of {} is removed", node.name));
        }
        if let (Some(Some(new)), Some(old)) = (&change.claimed_by, &node.claimed_by)
            && new != old
        {
            self.broken(format!("{} is taken from {old} by {new}", node.name));
        }
        if let Some(Some(new)) = &change.claimed_by
            && self.entry(&new.uid, &node.name).is_none_or(|entry| entry.phase != Phase::Running)
            && !self.rivals
        {
            self.broken(format!("{} is claimed for {new}, which does not work on it", node.name));
        }
        if change.claimed_by == Some(None) {
            self.check_release(node);
        }
        if let Some(Some(new)) = &change.claimed_by
            && node.has_control_plane_label()
            && self.history.ops.get(&new.uid).is_some_and(|op| Intent::of(op).disturbs())
        {
            self.check_quorum(node);
        }
    }

    /// A node is given back: it is not in progress any more, and nothing of ours runs on it.
    fn check_release(&mut self, node: &NodeView) {
        let Some(of) = node.claimed_by.clone() else { return };
        let entry = self.entry(&of.uid, &node.name);
        // After the reboot its sentinel is old: a waiter can do nothing but say so and end.
        let present = self.machines.get(&node.name).map(|machine| (machine.uid.clone(), machine.boot));
        let success = self.history.successes.get(&(of.uid.clone(), node.name.clone()));
        let rebooted = success.is_some() && success != present.as_ref();
        let proved = entry.as_ref().is_some_and(|entry| entry.reboot_status == Some(RebootStatus::Completed));
        if entry
            .is_some_and(|entry| entry.phase == Phase::Running && entry.node_uid.as_ref() == Some(&node.uid))
        {
            self.broken(format!("{} is given back while {of} works on it", node.name));
        }
        let up = self
            .machines
            .get(&node.name)
            .filter(|machine| machine.down.is_none())
            .map(|machine| machine.boot);
        let runs = |pod: &PodView| {
            let same = self.procs.get(&pod.uid).is_some_and(|proc| Some(proc.boot) == up);
            let harmless = pod.role == Role::Preflight || (pod.role == Role::Waiter && (proved || rebooted));
            same && !pod.phase.is_final() && !harmless && self.nodeop_of(pod).as_ref() == Some(&of.uid)
        };
        let left: Vec<String> = self
            .pods
            .live()
            .values()
            .filter(|pod| pod.node == node.name && runs(pod))
            .map(|pod| pod.name.clone())
            .collect();
        if !left.is_empty() && !self.rivals {
            self.broken(format!("{} is given back while {left:?} runs on it", node.name));
        }
    }

    /// A Job is deleted by an operator: never one that runs as it should.
    pub fn check_delete(&mut self, job: &JobView) {
        let Some(op) = self.op_of(&job.owner.uid).filter(|op| op.metadata.deletion_timestamp.is_none())
        else {
            return;
        };
        let entry = self.entry(&job.owner.uid, &job.node).unwrap_or_default();
        let node = self.nodes.get(&node_key(&job.node)).map(|node| node.uid.clone());
        let expected = entry.phase == Phase::Running
            && entry.job_uid.as_ref() == Some(&job.uid)
            && entry.node_uid == node;
        let unpullable = self.scripts[&job.owner.uid].unpullable.contains(&job.node);
        // Of two planners one may let it go while the other, which saw no waiter, gives it up.
        let race = self.rivals && self.minds[&job.uid].let_go.is_some_and(|at| at + 2 >= self.now);
        if expected && !unpullable && !race && !job.suspended && job.state == JobState::Active {
            self.broken(format!("the running Job of {:?} on {} is deleted", op.metadata.name, job.node));
        }
    }

    /// A control-plane node is taken; no other one is known to be away.
    fn check_quorum(&mut self, node: &NodeView) {
        let others = self
            .nodes
            .live()
            .values()
            .filter(|other| other.has_control_plane_label() && other.name != node.name && !other.ready);
        let long = |name: &String| {
            let machine = self.machines.get(name);
            machine.is_some_and(|machine| machine.down.is_some() && self.tick > machine.silent_since + 20)
        };
        let away: Vec<String> = others.map(|other| other.name.clone()).filter(long).collect();
        if !away.is_empty() {
            self.broken(format!("{} is taken while {away:?} are away", node.name));
        }
    }

    /// A pod is evicted from a node.
    pub fn check_evict(&mut self, node: &str) {
        let claim = self.nodes.get(&node_key(node)).and_then(|view| view.claimed_by.clone());
        claim.iter().for_each(|of| self.check_left(node, &of.uid));
        let owner = claim.and_then(|of| self.entry(&of.uid, node));
        // What comes to the node after its drain goes while the operation runs.
        let drains = |step| matches!(step, Some(Step::Drain | Step::Job));
        let draining = owner.is_some_and(|entry| entry.phase == Phase::Running && drains(entry.step));
        // A machine that has just joined under the name of one being drained is not known for another one
        // until the node is seen again. The eviction goes by UID and budget all the same.
        let uid = self.nodes.get(&node_key(node)).map(|view| view.uid.clone());
        let drained = |op: &NodeOp| {
            let entry = op.status.as_ref().and_then(|status| status.node_statuses.get(node));
            entry.is_some_and(|entry| drains(entry.step) && entry.node_uid != uid)
        };
        let replaced = self.ops.live().values().any(|op| drained(op));
        if !draining && !replaced && !self.rivals {
            self.broken(format!("a pod is evicted from {node}, which no NodeOp drains"));
        }
    }
}
