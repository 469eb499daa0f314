//! Kubernetes' own controllers: Jobs, garbage, pods of lost nodes, and the workload's scheduler and budgets.

use std::sync::Arc;

use kairos_operator::{
    api::names::container,
    plan::model::snapshot::{JobState, JobView, NodePod, Owner, PodPhase, Role},
};

use super::{
    kubelet::containers,
    world::{Home, World, controller, node_key},
};

impl World {
    /// One round of the Job controller.
    pub fn job_controller(&mut self) {
        for job in self.jobs.live().values().cloned().collect::<Vec<_>>() {
            if self.rng.chance(60) {
                self.job_round(&job);
            }
        }
    }

    fn job_round(&mut self, job: &Arc<JobView>) {
        let job = &self.count_failed(job);
        let pods: Vec<_> =
            self.pods.live().values().filter(|pod| pod.owner.uid == job.uid).cloned().collect();
        let set = |world: &mut Self, state| world.put_job(JobView { state, ..(**job).clone() });
        if job.deleting {
            let foreground = self.minds[&job.uid].foreground;
            for pod in pods.iter().filter(|pod| !pod.deleting) {
                self.set_pod(pod, |pod| pod.deleting = true);
            }
            if !foreground || pods.is_empty() {
                let rv = self.next_rv();
                self.jobs.remove(&(job.namespace.clone(), job.name.clone()), rv);
            }
            return;
        }
        let open = pods.iter().filter(|pod| !pod.phase.is_final()).count();
        match &job.state {
            JobState::Complete | JobState::Failed(_) => return,
            JobState::Failing(_) if open > 0 => return,
            JobState::Failing(why) => return set(self, JobState::Failed(why.clone())),
            JobState::Active => {}
        }
        if pods.iter().any(|pod| pod.phase == PodPhase::Succeeded) && open == 0 {
            return set(self, JobState::Complete);
        }
        if job.suspended {
            return;
        }
        let mind = &self.minds[&job.uid];
        let backoff = self.history.ops[&job.owner.uid].spec.backoff_limit.unwrap_or(6);
        if mind.failures > backoff {
            return set(self, JobState::Failing("BackoffLimitExceeded".into()));
        }
        let late = mind
            .let_go
            .zip(job.deadline_seconds)
            .is_some_and(|(at, seconds)| self.now > at.saturating_add(seconds));
        if late {
            for pod in pods.iter().filter(|pod| !pod.phase.is_final() && !pod.deleting) {
                self.set_pod(pod, |pod| pod.deleting = true);
            }
            return set(self, JobState::Failing("DeadlineExceeded".into()));
        }
        if open == 0 {
            self.job_pod(job);
        }
    }

    /// Counts the pods that have failed, or are gone.
    fn count_failed(&mut self, job: &Arc<JobView>) -> Arc<JobView> {
        let over = job.suspended || job.deleting || job.state != JobState::Active;
        if over {
            return job.clone();
        }
        let pods: Vec<_> = self.pods.live().values().filter(|pod| pod.owner.uid == job.uid).collect();
        let lost = |uid: &String| pods.iter().all(|pod| pod.uid != *uid || pod.phase == PodPhase::Failed);
        let mind = self.minds.get_mut(&job.uid).unwrap();
        let known = mind.known.len();
        mind.known.retain(|uid| !lost(uid));
        mind.failures += i32::try_from(known - mind.known.len()).unwrap();
        if mind.failures != job.failed {
            let failed = mind.failures;
            self.put_job(JobView { failed, ..(**job).clone() });
        }
        self.jobs.live()[&(job.namespace.clone(), job.name.clone())].clone()
    }

    fn job_pod(&mut self, job: &JobView) {
        let mind = self.minds.get_mut(&job.uid).unwrap();
        mind.pods += 1;
        let name = format!("{}-{}", job.name, mind.pods);
        let records = mind.records_success_in.is_some();
        let reboot = self.history.ops[&job.owner.uid].spec.reboot_on_success.unwrap_or(false);
        let containers: &[&str] =
            if records { &[container::SENTINEL] } else { containers(Role::Job, reboot) };
        self.make_pod(&name, Owner::job(&job.name, &job.uid), &job.node, Role::Job, containers);
        let uid = self.pods.live()[&(job.namespace.clone(), name)].uid.clone();
        self.minds.get_mut(&job.uid).unwrap().known.insert(uid);
    }

    /// Garbage collection by owner, and of pods whose node is gone.
    pub fn garbage(&mut self) {
        for job in self.jobs.live().values().cloned().collect::<Vec<_>>() {
            if !job.deleting && self.op_of(&job.owner.uid).is_none() && self.rng.chance(30) {
                self.put_job(JobView { deleting: true, ..(*job).clone() });
            }
        }
        for pod in self.pods.live().values().cloned().collect::<Vec<_>>() {
            let owned = match pod.role {
                Role::Job => self.job_of(&pod.owner.uid).is_some(),
                Role::Waiter | Role::Preflight | Role::Facts => self.op_of(&pod.owner.uid).is_some(),
                Role::Stranger => true,
            };
            if !owned && !pod.deleting && self.rng.chance(30) {
                self.set_pod(&pod, |pod| pod.deleting = true);
            }
            if !self.nodes.live().contains_key(&node_key(&pod.node)) && self.rng.chance(30) {
                self.remove_pod(&pod);
            }
        }
    }

    /// A workload pod of a group; without a node it waits for one.
    pub fn add_home(&mut self, group: &str, node: &str, change: impl FnOnce(&mut NodePod)) {
        let uid = self.uid("work");
        let mut pod = NodePod {
            namespace: "work".into(),
            name: format!("{group}-{uid}"),
            labels: [("app".to_owned(), group.to_owned())].into(),
            created: self.time(),
            controller: Some(controller("ReplicaSet", group)),
            uid,
            ..NodePod::default()
        };
        change(&mut pod);
        let (node, bound) = (node.to_owned(), self.now);
        let rv = self.next_rv();
        self.homes.put((pod.namespace.clone(), pod.name.clone()), Home { node, bound, pod }, rv);
    }

    /// Pods that are being deleted end and are made again; those without a node get one.
    pub fn workload(&mut self) {
        for (key, home) in self.homes.live().clone() {
            if home.node.is_empty() && !self.faults {
                self.remove_homes("");
            } else if home.node.is_empty() {
                // The scheduler had chosen the node before it was cordoned, and binds the pod now.
                let chosen_before = self.rng.chance(10);
                let open: Vec<String> = self
                    .nodes
                    .live()
                    .values()
                    .filter(|node| (!node.unschedulable || chosen_before) && node.ready)
                    .map(|node| node.name.clone())
                    .collect();
                if let Some(node) = self.rng.pick(&open).cloned() {
                    let rv = self.next_rv();
                    let mut home = (*home).clone();
                    (home.node, home.bound) = (node, self.now);
                    self.homes.put(key.clone(), home, rv);
                }
            }
            if home.node.is_empty() {
                continue;
            }
            let away = self.machines.get(&home.node).is_none_or(|machine| machine.down.is_some());
            let gone = !self.nodes.live().contains_key(&node_key(&home.node));
            if gone || (home.pod.ends_by.is_some() && !away && self.rng.chance(40)) {
                let rv = self.next_rv();
                self.homes.remove(&key, rv);
                let group = home.pod.labels["app"].clone();
                if group.starts_with('g') {
                    self.add_home(&group, "", |_| {});
                }
            }
        }
    }

    /// The workload of a node is gone (`""`: that of none).
    pub fn remove_homes(&mut self, node: &str) {
        for (key, _) in self.homes.live().clone().into_iter().filter(|(_, home)| home.node == node) {
            let rv = self.next_rv();
            self.homes.remove(&key, rv);
        }
    }

    /// The Eviction API: `Err` is a budget's no.
    pub fn evict(&mut self, key: &(String, String), uid: &str) -> Result<(), String> {
        let Some(home) = self.homes.get(key).filter(|home| home.pod.uid == uid) else {
            return Ok(());
        };
        if home.pod.ends_by.is_some() {
            return Ok(());
        }
        let group = home.pod.labels["app"].clone();
        let away = self.homes.live().values().any(|other| {
            let mate = other.pod.labels["app"] == group;
            mate && (other.node.is_empty() || other.pod.ends_by.is_some())
        });
        if away || self.blocked.get(&group).is_some_and(|until| self.tick < *until) {
            return Err(format!("Cannot evict pod as it would violate the pod's disruption budget {group}."));
        }
        let mut home = (*home).clone();
        home.pod.ends_by = Some(self.time());
        let rv = self.next_rv();
        self.homes.put(key.clone(), home, rv);
        Ok(())
    }
}
