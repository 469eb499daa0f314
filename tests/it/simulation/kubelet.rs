//! What happens on a machine: its kubelet runs our pods, one small step at a time, and a reboot may fall
//! between any two.

use std::sync::Arc;

use kairos_operator::{
    api::names::container,
    contract::{EXIT_PERMANENT, Sentinel, reboot_state},
    plan::model::snapshot::{ContainerState, JobState, PodPhase, PodView, Role},
};

use super::world::{Proc, Stage, World, boot_id, end, ended, node_key, waiting};

impl World {
    /// One round of a node's kubelet.
    pub fn kubelet(&mut self, node: &str) {
        let Some(machine) = self.machines.get(node).filter(|machine| machine.down.is_none()).cloned() else {
            return;
        };
        if self.nodes.get(&node_key(node)).is_none_or(|view| view.uid != machine.uid) {
            return;
        }
        if !machine.reported {
            let ready = self.rng.chance(70);
            self.machines.get_mut(node).unwrap().reported = true;
            self.set_node(node, |view| {
                view.boot_id = boot_id(&machine.uid, machine.boot);
                view.ready = ready;
            });
            return;
        }
        if self.nodes.get(&node_key(node)).is_some_and(|view| !view.ready) && self.rng.chance(50) {
            self.set_node(node, |view| view.ready = true);
        }
        let pods: Vec<_> = self.pods.live().values().filter(|pod| pod.node == node).cloned().collect();
        for pod in pods {
            if self.machines[node].down.is_some() {
                return;
            }
            if self.rng.chance(70) {
                self.run(&pod, machine.boot);
            }
        }
    }

    fn run(&mut self, pod: &Arc<PodView>, boot: u32) {
        let proc = self.procs.get(&pod.uid).cloned();
        if pod.deleting {
            return self.stop(pod, proc.filter(|proc| proc.boot == boot).as_ref());
        }
        if pod.phase.is_final() {
            return;
        }
        match proc {
            None => self.start(pod, boot),
            Some(proc) if proc.boot != boot => self.interrupted(pod, boot),
            Some(proc) => match pod.role {
                Role::Waiter => self.waiter(pod, &proc.stage),
                Role::Job => self.job(pod, &proc.stage),
                Role::Preflight | Role::Facts | Role::Stranger => self.preflight(pod, &proc.stage),
            },
        }
    }

    /// The kubelet ends a pod that was deleted. A waiter between its last look and its request may still go
    /// on: it cannot know. One that has asked stays until the node goes.
    fn stop(&mut self, pod: &Arc<PodView>, proc: Option<&Proc>) {
        match proc.map(|proc| &proc.stage) {
            Some(Stage::Asked) if self.rng.chance(80) => {}
            Some(stage @ (Stage::Checked | Stage::Told)) if self.rng.chance(50) => {
                self.waiter(pod, &stage.clone())
            }
            _ => self.remove_pod(pod),
        }
    }

    fn set_stage(&mut self, pod: &PodView, stage: Stage) {
        if let Some(proc) = self.procs.get_mut(&pod.uid) {
            proc.stage = stage;
        }
    }

    fn start(&mut self, pod: &Arc<PodView>, boot: u32) {
        let owner = self.nodeop_of(pod);
        let script = owner.as_ref().and_then(|uid| self.scripts.get(uid));
        let unpullable = script.is_some_and(|script| script.unpullable.contains(&pod.node));
        if unpullable && pod.role == Role::Job {
            return self.set_pod(pod, |pod| pod.containers[0].state = waiting("ErrImagePull"));
        }
        let records = self.minds.get(&pod.owner.uid).and_then(|mind| mind.records_success_in.clone());
        if records.as_ref().is_some_and(|when| *when != boot_id(&self.machines[&pod.node].uid, boot)) {
            return self.set_pod(pod, |pod| {
                end(pod, PodPhase::Failed, "", EXIT_PERMANENT.into());
            });
        }
        let stage = match pod.role {
            Role::Job if records.is_some() => Stage::Sentinel,
            Role::Waiter => Stage::Begin,
            Role::Job | Role::Preflight | Role::Facts | Role::Stranger => Stage::Run(self.rng.span(1, 12)),
        };
        if pod.role == Role::Job && records.is_none() {
            self.check_run(pod);
        }
        self.procs.insert(pod.uid.clone(), Proc { boot, stage });
        let since = self.time();
        self.set_pod(pod, |pod| {
            pod.phase = PodPhase::Running;
            pod.containers[0].state = ContainerState::Running { since };
        });
    }

    /// The machine rebooted under a pod: the kubelet finds it dead. Only a waiter may be started again.
    fn interrupted(&mut self, pod: &Arc<PodView>, boot: u32) {
        if pod.role == Role::Waiter && self.rng.chance(60) {
            let stage = Stage::Begin;
            self.procs.insert(pod.uid.clone(), Proc { boot, stage });
            return;
        }
        self.set_pod(pod, |pod| {
            end(pod, PodPhase::Failed, "", 137);
            for container in &mut pod.containers {
                if let ContainerState::Ended { code: 137, reason, .. } = &mut container.state {
                    *reason = "ContainerStatusUnknown".into();
                }
            }
        });
    }

    /// UID of the NodeOp that a pod belongs to.
    pub fn nodeop_of(&self, pod: &PodView) -> Option<String> {
        match pod.role {
            Role::Waiter | Role::Preflight | Role::Facts => Some(pod.owner.uid.clone()),
            Role::Job => self.history.jobs.get(&pod.owner.uid).map(|job| job.owner.uid.clone()),
            Role::Stranger => None,
        }
    }

    fn job(&mut self, pod: &Arc<PodView>, stage: &Stage) {
        let Some(job) = self.history.jobs.get(&pod.owner.uid).cloned() else {
            return;
        };
        let op = job.owner.uid.clone();
        match stage {
            Stage::Run(left) if *left > 0 => self.set_stage(pod, Stage::Run(left - 1)),
            Stage::Run(_) => {
                let failures =
                    self.scripts.get_mut(&op).and_then(|script| script.failures.get_mut(&pod.node));
                let fails = failures.filter(|left| **left > 0).map(|left| *left -= 1).is_some();
                if fails {
                    return self.set_pod(pod, |pod| {
                        end(pod, PodPhase::Failed, "", 1);
                    });
                }
                let machine = (self.machines[&pod.node].uid.clone(), self.machines[&pod.node].boot);
                self.note(format!("the command of {op} succeeded on {} in boot {}", pod.node, machine.1));
                self.history.successes.insert((op, pod.node.clone()), machine);
                if pod.containers.len() < 2 {
                    return self.set_pod(pod, |pod| end(pod, PodPhase::Succeeded, "", 0));
                }
                self.set_pod(pod, |pod| pod.containers[0].state = ended(0, ""));
                self.set_stage(pod, Stage::Sentinel);
            }
            Stage::Sentinel => {
                let time = self.now.to_string();
                let machine = self.machines.get_mut(&pod.node).unwrap();
                let sentinel = Sentinel {
                    job: job.name.clone(),
                    job_uid: job.uid.clone(),
                    boot: boot_id(&machine.uid, machine.boot),
                    time,
                    ..Sentinel::default()
                };
                let words = serde_json::to_string(&sentinel).unwrap();
                machine.sentinels.insert(job.name, sentinel);
                if self.rng.chance(90) {
                    self.set_pod(pod, |pod| {
                        end(pod, PodPhase::Succeeded, "", 0);
                        pod.containers.last_mut().unwrap().state = ended(0, &words);
                    });
                }
            }
            _ => unreachable!("{stage:?}"),
        }
    }

    fn preflight(&mut self, pod: &Arc<PodView>, stage: &Stage) {
        if let Stage::Run(left) = stage
            && *left > 0
        {
            return self.set_stage(pod, Stage::Run(left - 1));
        }
        let script = self.scripts.get(&pod.owner.uid).and_then(|script| script.preflight.get(&pod.node));
        let (phase, state) = match script.cloned() {
            None => (PodPhase::Succeeded, ended(0, "")),
            Some(Some(skip)) => (PodPhase::Succeeded, ended(0, &skip)),
            Some(None) => (PodPhase::Failed, ended(3, "no")),
        };
        self.set_pod(pod, |pod| {
            pod.phase = phase;
            pod.containers[0].state = state;
        });
    }

    /// The reboot waiter, line by line as `design.md` 5 has it.
    fn waiter(&mut self, pod: &Arc<PodView>, stage: &Stage) {
        let name = self.waits_for[&pod.uid].clone();
        let (uid, boot) = (self.machines[&pod.node].uid.clone(), self.machines[&pod.node].boot);
        match stage {
            // A patch of the annotation may fail; it is tried again.
            Stage::Begin if self.rng.chance(80) => {
                if pod.reboot_state.is_none() {
                    self.set_pod(pod, |pod| pod.reboot_state = Some(reboot_state::WAITING.into()));
                }
                self.set_stage(pod, Stage::Watch);
            }
            Stage::Watch => self.watch(pod, &name),
            Stage::Checked => {
                self.set_pod(pod, |pod| pod.reboot_state = Some(reboot_state::REBOOTING.into()));
                self.set_stage(pod, Stage::Told);
            }
            Stage::Told => {
                self.check_reboot(pod, &name);
                self.set_stage(pod, Stage::Asked);
                // One in a hundred gets stuck on its way down, and does not come back for long.
                let hangs = self.faults && self.rng.chance(3);
                let back = self.tick + if hangs { 2000 } else { self.rng.span(3, 40) };
                let graceful = self.rng.chance(60);
                self.note(format!("{} is rebooted by its waiter", pod.node));
                self.take_down(&pod.node, back, graceful);
            }
            Stage::Completed => {
                let sentinels = &mut self.machines.get_mut(&pod.node).unwrap().sentinels;
                sentinels.retain(|job, sentinel| *job != name || sentinel.boot == boot_id(&uid, boot));
                self.set_pod(pod, |pod| end(pod, PodPhase::Succeeded, "", 0));
            }
            Stage::Begin | Stage::Asked => {}
            Stage::Run(_) | Stage::Sentinel => unreachable!("{stage:?}"),
        }
    }

    fn watch(&mut self, pod: &Arc<PodView>, name: &str) {
        let machine = &self.machines[&pod.node];
        let recorded = self.recorded.get(&pod.uid);
        let sentinel = machine.sentinels.get(name).cloned();
        let Some(sentinel) = sentinel.or_else(|| Some(recorded?.sentinel(name))) else {
            return;
        };
        let due = sentinel.boot == boot_id(&machine.uid, machine.boot);
        let job = self.jobs.get(&("default".into(), name.to_owned()));
        let seen = job.filter(|job| job.uid == sentinel.job_uid).map(|job| job.state.clone());
        let is_recorded = recorded.is_some_and(|recorded| recorded.job_uid == sentinel.job_uid);
        match if is_recorded { Some(JobState::Complete) } else { seen } {
            Some(JobState::Complete) if due => self.set_stage(pod, Stage::Checked),
            // Also of an earlier boot: the pod that wrote it may have failed after all, and the Job tries
            // again.
            Some(JobState::Active | JobState::Failing(_)) => {}
            Some(JobState::Complete) | None if !due => {
                self.set_pod(pod, |pod| pod.reboot_state = Some(reboot_state::COMPLETED.into()));
                self.set_stage(pod, Stage::Completed);
            }
            Some(JobState::Failed(_) | JobState::Complete) | None => {
                self.machines.get_mut(&pod.node).unwrap().sentinels.remove(name);
                self.set_pod(pod, |pod| end(pod, PodPhase::Failed, "", 1));
            }
        }
    }
}

/// The containers of a pod of each role.
pub fn containers(role: Role, reboot: bool) -> &'static [&'static str] {
    match (role, reboot) {
        (Role::Waiter, _) => &[container::REBOOT],
        (Role::Preflight | Role::Facts | Role::Stranger, _) => &[container::PREFLIGHT],
        (Role::Job, true) => &[container::NODEOP, container::SENTINEL],
        (Role::Job, false) => &[container::NODEOP],
    }
}
