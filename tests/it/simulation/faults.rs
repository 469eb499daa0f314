//! What goes wrong, and what people do meanwhile.

use kairos_operator::{
    api::nodeop::{NodeOp, Phase, Step},
    plan::model::{
        action::Target,
        snapshot::{JobView, PodView, Role},
    },
};

use super::{
    operator::Operator,
    world::{World, node_key, time},
};

impl World {
    /// Perhaps one fault.
    pub fn fault(&mut self, operators: &mut [Operator]) {
        if self.rng.chance(75) {
            return;
        }
        let nodes: Vec<String> = self.machines.keys().cloned().collect();
        let Some(node) = self.rng.pick(&nodes).cloned() else { return };
        match self.rng.below(22) {
            0..=2 => self.reboot_by_itself(&node),
            3 if self.rng.chance(40) => {
                self.note(format!("fault: {node} dies"));
                let back = if self.rng.chance(60) { self.tick + self.rng.span(30, 120) } else { i64::MAX };
                self.take_down(&node, back, false);
            }
            4 if self.rng.chance(40) => self.delete_node(&node),
            5 if self.rng.chance(40) => self.replace_node(&node),
            6..=7 => self.human(&node),
            8 => self.delete_some_job(),
            9..=11 => self.delete_some_pod(),
            12 if self.rng.chance(30) => self.delete_some_op(),
            13 if self.rng.chance(30) => {
                let jump = self.rng.span(60, 900);
                self.note(format!("fault: the clock jumps by {jump} s"));
                self.now += jump;
            }
            14..=17 => {
                let which = self.rng.below(operators.len());
                self.note(format!("fault: operator {which} crashes"));
                operators[which] = Operator::new(which, self);
            }
            19..=20 => self.delete_op_of_new_waiter(),
            18 => {
                let (group, until) = (format!("g{}", self.rng.below(3)), self.tick + self.rng.span(20, 80));
                self.blocked.insert(group, until);
            }
            _ => {}
        }
    }

    fn reboot_by_itself(&mut self, node: &str) {
        if self.machines[node].down.is_none() {
            self.note(format!("fault: {node} reboots by itself"));
            let (back, graceful) = (self.tick + self.rng.span(2, 30), self.rng.chance(50));
            self.take_down(node, back, graceful);
        }
    }

    pub fn delete_node(&mut self, node: &str) {
        self.note(format!("fault: {node} is deleted"));
        let rv = self.next_rv();
        self.nodes.remove(&node_key(node), rv);
        self.machines.remove(node);
        let pods: Vec<_> = self.pods.live().values().filter(|pod| pod.node == node).cloned().collect();
        for pod in pods {
            self.procs.remove(&pod.uid);
        }
        self.remove_homes(node);
    }

    /// Another machine joins under the name of one that is gone.
    fn replace_node(&mut self, node: &str) {
        let control_plane =
            self.nodes.get(&node_key(node)).is_some_and(|node| node.has_control_plane_label());
        self.delete_node(node);
        self.note(format!("fault: another machine joins as {node}"));
        self.add_node(node, control_plane);
    }

    pub fn human(&mut self, node: &str) {
        let Some(view) = self.nodes.get(&node_key(node)) else { return };
        if view.unschedulable {
            self.note(format!("a human uncordons {node}"));
            self.machines.get_mut(node).unwrap().human = false;
            self.set_node(node, |node| node.unschedulable = false);
        } else if view.cordoned_by.is_none() && view.kept_cordon.is_none() {
            // With a mark of ours on the node nobody could tell a human's cordon from our own.
            self.note(format!("a human cordons {node}"));
            self.machines.get_mut(node).unwrap().human = true;
            self.set_node(node, |node| node.unschedulable = true);
        }
    }

    fn delete_some_job(&mut self) {
        let jobs: Vec<_> = self.jobs.live().values().cloned().collect();
        if let Some(job) = self.rng.pick(&jobs).cloned() {
            self.note(format!("fault: Job {} is deleted by hand", job.name));
            self.delete_job(&target_of_job(&job));
        }
    }

    fn delete_some_pod(&mut self) {
        let pods: Vec<_> = self
            .pods
            .live()
            .values()
            .filter(|pod| pod.role != Role::Preflight || self.tick % 2 == 0)
            .cloned()
            .collect();
        let Some(pod) = self.rng.pick(&pods).cloned() else { return };
        self.note(format!("fault: {:?} pod on {} is deleted by hand", pod.role, pod.node));
        if self.rng.chance(50) {
            self.delete_pod(&target_of_pod(&pod));
        } else if self.rng.chance(50) {
            self.remove_pod(&pod);
        } else {
            self.procs.remove(&pod.uid);
            self.set_pod(&pod, |pod| {
                super::world::end(
                    pod,
                    kairos_operator::plan::model::snapshot::PodPhase::Failed,
                    "Evicted",
                    143,
                )
            });
        }
    }

    fn delete_some_op(&mut self) {
        let ops: Vec<_> = self.ops.live().values().cloned().collect();
        if let Some(op) = self.rng.pick(&ops).cloned() {
            self.delete_op(&op);
        }
    }

    /// The NodeOp goes just when the reboot's waiter was lost and made again.
    pub fn delete_op_of_new_waiter(&mut self) {
        let fresh = |pod: &PodView| {
            pod.role == Role::Waiter && !self.procs.contains_key(&pod.uid) && !pod.phase.is_final()
        };
        let pods = self.pods.live().values().filter(|pod| fresh(pod));
        let due = |pod: &PodView| {
            self.entry(&pod.owner.uid, &pod.node).is_some_and(|entry| entry.step == Some(Step::Reboot))
        };
        let op = pods.filter(|pod| due(pod)).find_map(|pod| self.op_of(&pod.owner.uid));
        op.iter().for_each(|op| self.delete_op(op));
    }

    /// A waiter that has not looked yet is lost.
    pub fn lose_waiter(&mut self) {
        let waiters = self
            .pods
            .live()
            .values()
            .filter(|pod| pod.role == Role::Waiter && self.procs.contains_key(&pod.uid));
        let due = |pod: &PodView| {
            self.entry(&pod.owner.uid, &pod.node).is_some_and(|entry| entry.job_uid.is_some())
        };
        let lost = waiters.filter(|pod| due(pod)).find(|pod| self.op_of(&pod.owner.uid).is_some()).cloned();
        if let Some(pod) = lost.filter(|pod| {
            self.op_of(&pod.owner.uid).is_some_and(|op| op.metadata.deletion_timestamp.is_none())
        }) {
            self.remove_pod(&pod);
        }
    }

    pub fn delete_op(&mut self, op: &NodeOp) {
        self.note(format!("{:?} is deleted", op.metadata.name));
        let mut op = op.clone();
        op.metadata
            .deletion_timestamp
            .get_or_insert_with(|| k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time(self.now)));
        self.put_op(op);
    }

    /// Somebody looks after the nodes that failed and hold their slot; `false` if there is none.
    pub fn look_after_failed_nodes(&mut self) -> bool {
        let ops = self
            .ops
            .live()
            .values()
            .filter(|op| !op.status.as_ref().and_then(|s| s.phase).is_some_and(Phase::is_final));
        let entries = ops.flat_map(|op| op.status.iter().flat_map(|status| &status.node_statuses));
        let failed: Vec<String> = entries
            .filter(|(_, entry)| entry.holds_slot == Some(true))
            .map(|(node, _)| node.clone())
            .collect();
        let cordoned = |node: &String| self.nodes.get(&node_key(node)).is_some_and(|node| node.unschedulable);
        let Some(node) = failed.into_iter().find(cordoned) else { return false };
        self.human(&node);
        true
    }

    /// The end of all faults: machines that are away for good are taken out of the cluster, or repaired.
    pub fn mend(&mut self) {
        self.faults = false;
        self.blocked.clear();
        // Workload that finds no node would hold its budget for ever; somebody scales it down.
        self.remove_homes("");
        for node in self.machines.keys().cloned().collect::<Vec<_>>() {
            let Some(until) = self.machines[&node].down else { continue };
            if until > self.tick + 60 && self.rng.chance(50) {
                self.delete_node(&node);
            } else if until > self.tick + 60 {
                self.machines.get_mut(&node).unwrap().down = Some(self.tick + 5);
            }
        }
    }
}

fn target_of_job(job: &JobView) -> Target {
    Target { namespace: job.namespace.clone(), name: job.name.clone(), uid: job.uid.clone() }
}

fn target_of_pod(pod: &PodView) -> Target {
    Target { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() }
}
