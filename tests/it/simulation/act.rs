//! What an operator's action does to the cluster: compare-and-swap, preconditions, and writes whose answer is
//! lost.

use std::sync::Arc;

use kairos_operator::{
    api::nodeop::{NodeOp, Phase},
    plan::model::{
        action::{Action, NodeChange, Target},
        id::OpRef,
        intent,
        snapshot::{Eviction, JobState, JobView, Owner, Refusal, Role},
    },
};

use super::{
    hints,
    kubelet::containers,
    operator::{Operator, rv},
    world::{JobMind, World, node_key, op_key},
};

impl Operator {
    /// Carries one action out, or fails to, or does so without learning of it.
    pub fn perform(&mut self, world: &mut World, action: Action) {
        let lost = world.faults && world.rng.chance(3);
        let unanswered = world.faults && world.rng.chance(3);
        world.note(format!(
            "operator {}: {}{}",
            self.name,
            brief(&action),
            if lost { " (lost)" } else { "" }
        ));
        if lost {
            return self.give_up(world);
        }
        // Whether it was written or not: a NodeOp whose write had no answer is read live before it is planned
        // again.
        if let Some(op) = self.apply(world, action) {
            self.written.insert(op_key(&op), op);
        }
        if unanswered {
            self.give_up(world);
        }
    }

    /// After an error the rest of a plan may be carried out or not.
    fn give_up(&mut self, world: &mut World) {
        if world.rng.chance(50) {
            self.queue.clear();
        }
    }

    fn apply(&mut self, world: &mut World, action: Action) -> Option<Arc<NodeOp>> {
        match action {
            Action::PatchStatus { op, status, notices: _ } => {
                let mut live = world.current(&op)?;
                world.check_status(&live, &status);
                live.status = Some(*status);
                return Some(world.put_op(live));
            }
            Action::SetFinalizers { op, finalizers } | Action::Finalize { op, finalizers } => {
                let mut live = world.current(&op)?;
                live.metadata.finalizers = Some(finalizers);
                return Some(world.put_op(live));
            }
            Action::PatchNode { name, resource_version, change } => {
                world.patch(&name, &resource_version, &change)
            }
            // Nodes are not asked to say anything in their conditions. The world has no upgrades, and its
            // nodes are labelled so that nobody reads their facts.
            Action::PatchNodeConditions { .. }
            | Action::CreateChild { .. }
            | Action::PropagateSpec { .. }
            | Action::PatchUpgradeStatus { .. }
            | Action::DeleteOp { .. }
            | Action::CreateFactsPod { .. } => {
                panic!("nobody asked for this: {action:?}")
            }
            Action::CreatePreflightPod { op, node, name } => {
                // One that a leader with an old view makes for an operation that is over disturbs nothing.
                world.make_pod(&name, owner(&op), &node, Role::Preflight, containers(Role::Preflight, false));
            }
            Action::CreateWaiter { op, node, name, job, succeeded } => {
                if world.make_pod(&name, owner(&op), &node, Role::Waiter, containers(Role::Waiter, true)) {
                    world.check_new(&op);
                    let pod = world.pods.live()[&("default".into(), name)].uid.clone();
                    world.recorded.extend(succeeded.map(|succeeded| (pod.clone(), succeeded)));
                    world.waits_for.insert(pod, job);
                }
            }
            Action::CreateJob { op, node, locks: _, name } => world.create_job(&op, &node, &name),
            Action::ResumeJob { job, resource_version, op: _, notice: _ } => {
                world.resume(&job, &resource_version)
            }
            Action::ExtendJob { job, deadline_seconds } => world.extend(&job, deadline_seconds),
            Action::SettleJob { job, boot } => world.settle(&job, boot),
            Action::DeleteJob { job, after_its_pods: _, why: _ } => {
                world.job_of(&job.uid).iter().for_each(|job| world.check_delete(job));
                world.delete_job(&job);
            }
            Action::DeletePod { pod, why: _ } => {
                world.check_ending(&pod);
                world.delete_pod(&pod);
            }
            Action::Evict { node, pod, grace_period_seconds: _ } => self.evict(world, &node, &pod),
        }
        None
    }

    fn evict(&mut self, world: &mut World, node: &str, pod: &Target) {
        let key = (pod.namespace.clone(), pod.name.clone());
        if world.homes.get(&key).is_none_or(|home| home.node != node || home.pod.uid != pod.uid) {
            return;
        }
        world.check_evict(node);
        let now = world.time();
        let of_node = Arc::make_mut(self.evictions.entry(node.into()).or_default());
        let before = of_node.get(&pod.uid).and_then(|last| last.refusal.clone());
        let refusal = world.evict(&key, &pod.uid).err().map(|message| Refusal {
            since: before.map_or(now, |before| before.since),
            message,
            retry_after: None,
            permanent: false,
        });
        of_node.insert(pod.uid.clone(), Eviction { at: now, under_way: false, refusal });
    }
}

impl World {
    /// The live NodeOp, if it is still at the version that was planned from.
    fn current(&mut self, op: &NodeOp) -> Option<NodeOp> {
        let live = self.ops.get(&op_key(op)).filter(|live| rv(live) == rv(op));
        if live.is_none() {
            self.note("  conflict");
        }
        live.map(|live| (*live).clone())
    }

    fn patch(&mut self, name: &str, resource_version: &str, change: &NodeChange) {
        let live = self.nodes.get(&node_key(name)).filter(|node| node.resource_version == resource_version);
        let Some(node) = live else {
            return self.note("  conflict");
        };
        self.check_patch(&node, change);
        self.set_node(name, |node| {
            node.unschedulable = change.unschedulable.unwrap_or(node.unschedulable);
            // Both stand in one annotation.
            if change.kept_cordon.is_some() || change.cordoned_by.is_some() {
                (node.cordoned_by, node.kept_cordon) =
                    (change.cordoned_by.clone().flatten(), change.kept_cordon.as_deref().cloned());
            }
            node.claimed_by = change.claimed_by.clone().unwrap_or_else(|| node.claimed_by.clone());
            hints::apply(node, change);
        });
        self.check_hints(name);
        self.check_balancers(&node);
    }

    /// Something is made for a NodeOp.
    fn check_new(&mut self, op: &NodeOp) {
        let live = self.op_of(&uid(op));
        let over = live.is_some_and(|live| {
            live.status.as_ref().and_then(|status| status.phase).is_some_and(Phase::is_final)
        });
        if over && !self.rivals {
            self.broken(format!("something is made for {}, which is over", uid(op)));
        }
    }

    fn create_job(&mut self, op: &NodeOp, node: &str, name: &str) {
        let key = ("default".to_owned(), name.to_owned());
        if self.jobs.live().contains_key(&key) {
            return;
        }
        self.check_new(op);
        let job = JobView {
            namespace: key.0,
            name: key.1,
            uid: self.uid("job"),
            resource_version: String::new(),
            owner: owner(op),
            node: node.into(),
            suspended: true,
            deleting: false,
            state: JobState::Active,
            generation: Some(1),
            started_at: None,
            deadline_seconds: Some(op.spec.active_deadline_seconds.unwrap_or(intent::JOB_DEADLINE)),
            failed: 0,
            has_pod: false,
            has_ready_pod: false,
            settled_in: None,
        };
        let entry = op.status.as_ref().and_then(|status| status.node_statuses.get(node));
        let records_success_in = entry.and_then(|entry| entry.succeeded_in.clone());
        let mind = JobMind { foreground: self.rng.chance(50), records_success_in, ..JobMind::default() };
        self.minds.insert(job.uid.clone(), mind);
        self.put_job(job);
    }

    fn resume(&mut self, target: &Target, resource_version: &str) {
        let seen = self.job_of(&target.uid).filter(|job| job.resource_version == resource_version);
        let Some(job) = seen.filter(|job| job.suspended && !job.deleting) else {
            return;
        };
        assert_eq!(job.settled_in, None, "Job {} is let run again after its success", job.name);
        self.check_left(&job.node, &job.owner.uid);
        self.minds.get_mut(&job.uid).unwrap().let_go = Some(self.now);
        let started_at = Some(self.time());
        self.change_spec(JobView { suspended: false, started_at, ..(*job).clone() });
    }

    fn extend(&mut self, target: &Target, deadline_seconds: i64) {
        if let Some(job) = self.job_of(&target.uid) {
            self.change_spec(JobView { deadline_seconds: Some(deadline_seconds), ..(*job).clone() });
        }
    }

    fn settle(&mut self, target: &Target, boot: String) {
        if let Some(job) = self.job_of(&target.uid) {
            self.change_spec(JobView { suspended: true, settled_in: Some(boot), ..(*job).clone() });
        }
    }

    pub fn delete_job(&mut self, target: &Target) {
        if let Some(job) = self.job_of(&target.uid) {
            self.put_job(JobView { deleting: true, ..(*job).clone() });
        }
    }

    pub fn delete_pod(&mut self, target: &Target) {
        let pod = self.pods.get(&(target.namespace.clone(), target.name.clone()));
        if let Some(pod) = pod.filter(|pod| pod.uid == target.uid) {
            self.set_pod(&pod, |pod| pod.deleting = true);
        }
    }
}

fn owner(op: &NodeOp) -> Owner {
    let me = OpRef::of(op);
    Owner::nodeop(&me.name, &me.uid)
}

fn uid(op: &NodeOp) -> String {
    op.metadata.uid.clone().unwrap()
}

/// An action on one line, without names that are only hashes.
pub fn brief(action: &Action) -> String {
    match action {
        Action::PatchStatus { op, status, notices: _ } => {
            let old = op.status.clone().unwrap_or_default();
            let changed = status
                .node_statuses
                .iter()
                .filter(|(node, entry)| old.node_statuses.get(node) != Some(entry));
            let mut parts: Vec<String> = changed
                .map(|(node, entry)| {
                    let step = entry.step.map(|step| format!("/{step:?}")).unwrap_or_default();
                    let held = if entry.node_uid.is_some() { "" } else { ", free" };
                    let reboot =
                        entry.reboot_status.map(|reboot| format!(", reboot {reboot:?}")).unwrap_or_default();
                    let message = entry.message.clone().unwrap_or_default();
                    format!("{node} {:?}{step}{held}{reboot} \"{message}\"", entry.phase)
                })
                .collect();
            if old.phase != status.phase || parts.is_empty() {
                parts.push(format!(
                    "{:?}: {}",
                    status.phase.unwrap(),
                    status.message.clone().unwrap_or_default()
                ));
            }
            format!("status of {}: {}", op.metadata.name.clone().unwrap_or_default(), parts.join("; "))
        }
        Action::PatchNodeConditions { .. }
        | Action::CreateChild { .. }
        | Action::PropagateSpec { .. }
        | Action::PatchUpgradeStatus { .. }
        | Action::DeleteOp { .. }
        | Action::CreateFactsPod { .. } => {
            format!("{action:?}")
        }
        Action::SetFinalizers { op, finalizers } => format!("finalizers of {}: {finalizers:?}", name(op)),
        Action::Finalize { op, finalizers } => format!("conclude {}: {finalizers:?}", name(op)),
        Action::PatchNode { name, resource_version: _, change } => {
            let claim = change.claimed_by.as_ref().map(|by| {
                by.as_ref().map_or_else(|| " unclaim".into(), |by| format!(" claim for {}", by.name))
            });
            let cordon = change.unschedulable.map(|on| if on { " cordon" } else { " uncordon" });
            let mark = change
                .cordoned_by
                .as_ref()
                .filter(|_| cordon.is_none())
                .map(|by| if by.is_some() { " inherit cordon" } else { " drop mark" });
            let kept = change
                .kept_cordon
                .as_ref()
                .map(|kept| if kept.deleted { " tell of kept cordon" } else { " keep cordon" });
            let parts = [claim.as_deref(), cordon, mark, kept];
            format!("node {name}:{}", parts.map(Option::unwrap_or_default).concat())
        }
        Action::CreatePreflightPod { op, node, name: _ } => {
            format!("make preflight of {} on {node}", name(op))
        }
        Action::CreateWaiter { op, node, .. } => format!("make waiter of {} on {node}", name(op)),
        Action::CreateJob { op, node, locks: _, name: _ } => {
            format!("make Job of {} on {node}, suspended", name(op))
        }
        Action::ResumeJob { job, resource_version: _, op: _, notice: _ } => {
            format!("let Job {} run", job.name)
        }
        Action::ExtendJob { job, deadline_seconds: _ } => format!("put off the deadline of Job {}", job.name),
        Action::SettleJob { job, boot: _ } => format!("settle Job {}", job.name),
        Action::DeleteJob { job, after_its_pods: _, why } => format!("delete Job {}: {why}", job.name),
        Action::DeletePod { pod, why } => format!("delete pod {}: {why}", pod.name),
        Action::Evict { node, pod, .. } => format!("evict {} from {node}", pod.name),
    }
}

fn name(op: &NodeOp) -> String {
    op.metadata.name.clone().unwrap_or_default()
}
