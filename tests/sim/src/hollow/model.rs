//! What a kubelet knows about a pod of its node, and the status that it reports.

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use serde_json::{Value, json};

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit code.
    pub code: i32,
    /// `Completed`, `Error`, …
    pub reason: &'static str,
    /// Content of its termination log.
    pub message: String,
    /// When it had started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub at: Timestamp,
}

/// What a container does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It waits, for this reason.
    Waiting(&'static str),
    /// It runs since then.
    Running(Timestamp),
    /// It is over.
    Ended(Ended),
}

/// A container of a pod.
#[derive(Clone, Debug)]
pub struct ContainerModel {
    name: String,
    image: String,
    /// The image that it was started from, by its digest; empty before.
    pub image_id: String,
    /// What it does now.
    pub now: Doing,
    /// How it ended the last time.
    pub last: Option<Ended>,
    /// How often it was started again.
    pub restarts: i32,
    /// An init container that is restarted always: a native sidecar, which runs beside the others.
    pub sidecar: bool,
    /// It runs, and its startup probe has succeeded if it has one.
    pub started: bool,
}

/// A pod.
#[derive(Clone, Debug)]
pub struct PodModel {
    /// Counts changes.
    pub version: u64,
    /// Phase.
    pub phase: &'static str,
    /// Why the pod failed, if not by its containers.
    pub reason: Option<(&'static str, String)>,
    /// The kubelet did not take it in: it has no containers.
    pub refused: bool,
    /// Its kubelet starts no more container of it: its sandbox is gone, and one of them was known before.
    pub halted: bool,
    /// When the node took it in.
    pub started: Timestamp,
    /// Init containers.
    pub init: Vec<ContainerModel>,
    /// Containers.
    pub main: Vec<ContainerModel>,
}

impl PodModel {
    /// A pod that was just taken in.
    pub fn new(pod: &Pod, now: Timestamp) -> Self {
        let model = |c: &k8s_openapi::api::core::v1::Container, reason| ContainerModel {
            name: c.name.clone(),
            image: c.image.clone().unwrap_or_default(),
            image_id: String::new(),
            now: Doing::Waiting(reason),
            last: None,
            restarts: 0,
            sidecar: false,
            started: false,
        };
        let spec = pod.spec.clone().unwrap_or_default();
        let init: Vec<_> = spec
            .init_containers
            .iter()
            .flatten()
            .map(|c| ContainerModel { sidecar: is_sidecar(c), ..model(c, "PodInitializing") })
            .collect();
        let main = spec
            .containers
            .iter()
            .map(|c| model(c, if init.is_empty() { "ContainerCreating" } else { "PodInitializing" }))
            .collect();
        Self {
            version: 1,
            phase: "Pending",
            reason: None,
            refused: false,
            halted: false,
            started: now,
            init,
            main,
        }
    }

    /// The containers of either sort.
    pub fn containers(&mut self, init: bool) -> &mut Vec<ContainerModel> {
        if init { &mut self.init } else { &mut self.main }
    }

    /// Ends whatever runs, as a kubelet does that finds its containers gone or has to end the pod.
    pub fn end_all(&mut self, code: i32, reason: &'static str, at: Timestamp) {
        for container in self.init.iter_mut().chain(&mut self.main) {
            let started = match container.now {
                Doing::Ended(_) => continue,
                Doing::Running(since) => Some(since),
                // What never started did not end: it stays as it is.
                Doing::Waiting(_) => continue,
            };
            container.now = Doing::Ended(Ended { code, reason, message: String::new(), started, at });
        }
    }

    /// Whether all containers ended well. How a sidecar did is no part of it.
    pub fn all_succeeded(&self) -> bool {
        let counts = self.init.iter().chain(&self.main).filter(|c| !c.sidecar);
        counts.into_iter().all(|c| matches!(&c.now, Doing::Ended(e) if e.code == 0))
    }

    /// Whether a pod that is never restarted is over once its sandbox is gone: an init container has failed,
    /// or each of its containers has ended.
    pub fn is_over_without_sandbox(&self) -> bool {
        let failed = |c: &ContainerModel| !c.sidecar && matches!(&c.now, Doing::Ended(e) if e.code != 0);
        self.init.iter().any(failed) || self.main.iter().all(|c| matches!(c.now, Doing::Ended(_)))
    }

    /// Whether the pod is over.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, "Succeeded" | "Failed")
    }

    /// The patch of the pod's status. Conditions are merged by type, so that others' stay.
    pub fn patch(&self, uid: &str, host_ip: &str, pod_ip: &str) -> Value {
        let initialized = self.init.iter().all(|c| match &c.now {
            Doing::Ended(e) => c.sidecar || e.code == 0,
            Doing::Running(_) => c.sidecar && c.started,
            Doing::Waiting(_) => false,
        });
        let ready = !self.is_over() && self.main.iter().all(|c| matches!(c.now, Doing::Running(_)));
        let condition =
            |kind: &str, is: bool| json!({"type": kind, "status": if is { "True" } else { "False" }});
        let statuses = |containers: &[ContainerModel]| -> Vec<Value> {
            if self.refused { Vec::new() } else { containers.iter().map(ContainerModel::status).collect() }
        };
        let mut status = json!({
            "phase": self.phase, "startTime": self.started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "hostIP": host_ip, "podIP": pod_ip, "podIPs": [{"ip": pod_ip}],
            "conditions": [condition("Initialized", initialized), condition("Ready", ready), condition("ContainersReady", ready), condition("PodScheduled", true)],
            "containerStatuses": statuses(&self.main),
            "initContainerStatuses": statuses(&self.init),
        });
        if let Some((reason, message)) = &self.reason {
            status["reason"] = (*reason).into();
            status["message"] = message.clone().into();
        }
        json!({"metadata": {"uid": uid}, "status": status})
    }
}

/// Whether an init container is a native sidecar.
pub fn is_sidecar(container: &k8s_openapi::api::core::v1::Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

impl ContainerModel {
    fn status(&self) -> Value {
        let running = matches!(self.now, Doing::Running(_));
        let state = match &self.now {
            Doing::Waiting(reason) => json!({"waiting": {"reason": reason}}),
            Doing::Running(since) => {
                json!({"running": {"startedAt": since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}})
            }
            Doing::Ended(ended) => json!({"terminated": ended.status()}),
        };
        let last =
            self.last.as_ref().map_or_else(|| json!({}), |ended| json!({"terminated": ended.status()}));
        json!({
            "name": self.name, "image": self.image, "imageID": self.image_id,
            "ready": running && self.started, "started": running && self.started,
            "restartCount": self.restarts, "state": state, "lastState": last,
        })
    }
}

impl Ended {
    fn status(&self) -> Value {
        let time = |t: Timestamp| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut status = json!({"exitCode": self.code, "reason": self.reason, "finishedAt": time(self.at)});
        if let Some(started) = self.started {
            status["startedAt"] = time(started).into();
        }
        if !self.message.is_empty() {
            status["message"] = self.message.clone().into();
        }
        status
    }
}
