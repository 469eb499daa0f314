//! The containers of one pod: in their order, as often as the restart policy wants.

use std::time::Duration;

use futures::future::{join, join_all};
use k8s_openapi::{
    api::core::v1::{Container, Event},
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{
    model::{Doing, Ended, is_sidecar},
    node::Boot,
    registry, root,
    run::{Exit, is_applet, run},
    script::{Outcome, Run, by_default},
    worker::{Life, stopped},
};
use crate::watch;

/// How often a kubelet tries again to make a sandbox.
const SANDBOX_EVERY: Duration = Duration::from_secs(12);

impl Life {
    pub(super) async fn run_all(&self, boot: &Boot, stop: &watch::Receiver<bool>) {
        self.sandbox(stop).await;
        let inits = self.pod.spec.as_ref().and_then(|spec| spec.init_containers.clone()).unwrap_or_default();
        // Sidecars begin when it is their turn, and end after all others.
        let (turn, turns) = watch::channel(0);
        let (over, end) = watch::channel(false);
        let sidecars = (0..inits.len()).filter(|index| is_sidecar(&inits[*index]));
        let beside = join_all(sidecars.map(|index| self.run_beside(boot, index, turns.clone(), &end)));
        let others = async {
            self.run_in_order(boot, &inits, &turn, stop).await;
            over.send_replace(true);
        };
        // They outlive the main containers of a pod that is to end, and not its init containers.
        let early = async {
            stopped(stop).await;
            if *turn.borrow() <= inits.len() {
                over.send_replace(true);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            _ = join(others, beside) => {}
            () = early => {}
        }
        if !*stop.borrow() {
            self.finish(0, None);
        }
    }

    /// One init container after the other, then all containers. Ends when one fails, or the pod is to end.
    async fn run_in_order(
        &self,
        boot: &Boot,
        inits: &[Container],
        turn: &watch::Sender<usize>,
        stop: &watch::Receiver<bool>,
    ) {
        for (index, container) in inits.iter().enumerate() {
            let done = if is_sidecar(container) {
                turn.send_replace(index + 1);
                let mut model = self.model.subscribe();
                tokio::select! {
                    biased;
                    () = stopped(stop) => false,
                    found = model.wait_for(|model| model.init[index].started) => found.is_ok(),
                }
            } else {
                self.run_until_done(boot, true, index, stop).await
            };
            if !done {
                return;
            }
        }
        turn.send_replace(inits.len() + 1);
        let count = self.pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
        join_all((0..count).map(|index| self.run_until_done(boot, false, index, stop))).await;
    }

    /// Runs a sidecar from its turn on until the pod's other containers have ended, as often as it ends
    /// before.
    async fn run_beside(
        &self,
        boot: &Boot,
        index: usize,
        mut turns: watch::Receiver<usize>,
        end: &watch::Receiver<bool>,
    ) {
        tokio::select! {
            biased;
            () = stopped(end) => return,
            _ = turns.wait_for(|turn| *turn > index) => {}
        }
        loop {
            tokio::select! {
                biased;
                ended = self.run_once(boot, true, index, end) => {
                    if ended.is_none() {
                        return stopped(end).await;
                    }
                }
                () = self.start_up(boot, index) => {}
            }
            self.change(|model| model.init[index].started = false);
            if *end.borrow() || !self.pauses_before_again(true, index, end).await {
                return;
            }
        }
    }

    /// Waits until a sidecar runs, and asks its startup probe until that succeeds. Never ends.
    async fn start_up(&self, boot: &Boot, index: usize) {
        let mut model = self.model.subscribe();
        let running = |model: &super::model::PodModel| matches!(model.init[index].now, Doing::Running(_));
        let _ = model.wait_for(running).await;
        let container = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.init_containers.clone())
            .unwrap_or_default()
            .swap_remove(index);
        let probe = container.startup_probe.clone();
        let look = probe.as_ref().and_then(|probe| probe.exec.clone()).and_then(|exec| exec.command);
        let period = probe.and_then(|probe| probe.period_seconds).unwrap_or(10);
        while let Some(command) = &look {
            tokio::time::sleep(Duration::from_secs(period.unsigned_abs().into()) / 2).await;
            self.node.kubelet().running().await;
            let asked = Container { command: Some(command.clone()), args: None, ..container.clone() };
            let this = self.this(boot, asked, String::new(), 0);
            let outcome = self.outcome(&this, Outcome::code(0));
            // Nobody stops it: it is dropped with the container.
            let (_never, stop) = watch::channel(false);
            if run(&self.node, &this, outcome, stop).await.0 == 0 {
                break;
            }
        }
        self.change(|model| model.init[index].started = true);
        std::future::pending().await
    }

    /// Runs a container as often as the restart policy wants; true if it ended well.
    async fn run_until_done(
        &self,
        boot: &Boot,
        init: bool,
        index: usize,
        stop: &watch::Receiver<bool>,
    ) -> bool {
        let policy = self.policy();
        loop {
            if let Some(Doing::Ended(ended)) =
                self.model.borrow().clone().containers(init).get(index).map(|c| c.now.clone())
            {
                return ended.code == 0;
            }
            let Some((code, _)) = self.run_once(boot, init, index, stop).await else {
                stopped(stop).await;
                return false;
            };
            let again = !*stop.borrow()
                && if init {
                    code != 0 && policy != "Never"
                } else {
                    policy == "Always" || (policy == "OnFailure" && code != 0)
                };
            if !again {
                return code == 0;
            }
            if !self.pauses_before_again(init, index, stop).await {
                return false;
            }
        }
    }

    /// Waits before a container is started again; false if the pod is to end meanwhile.
    async fn pauses_before_again(&self, init: bool, index: usize, stop: &watch::Receiver<bool>) -> bool {
        let restarts = self.change(|model| {
            let container = &mut model.containers(init)[index];
            if let Doing::Ended(ended) =
                std::mem::replace(&mut container.now, Doing::Waiting("CrashLoopBackOff"))
            {
                container.last = Some(ended);
            }
            container.restarts += 1;
            container.restarts
        });
        let back_off = Duration::from_millis(50) * 2_u32.pow(restarts.clamp(0, 6).unsigned_abs());
        tokio::select! {
            biased;
            () = tokio::time::sleep(back_off) => true,
            () = stopped(stop) => false,
        }
    }

    /// A run of a container.
    fn this(&self, boot: &Boot, container: Container, content: String, restarts: i32) -> Run {
        Run {
            node: self.node.name().into(),
            boot: boot.id.clone(),
            root: root::path(&self.node.places(&self.pod), &container),
            pod: self.pod.clone(),
            container,
            content,
            restarts,
        }
    }

    /// Runs a container once; `None` if its image cannot be pulled, or the pod is to end.
    async fn run_once(
        &self,
        boot: &Boot,
        init: bool,
        index: usize,
        stop: &watch::Receiver<bool>,
    ) -> Option<Exit> {
        tokio::select! {
            biased;
            () = self.node.kubelet().running() => {}
            () = stopped(stop) => {}
        }
        // A pod that is to end starts nothing more, and nothing at all if it was deleted while its node was
        // away.
        if *stop.borrow() {
            return None;
        }
        let spec = self.pod.spec.clone().unwrap_or_default();
        let container = if init {
            spec.init_containers.unwrap_or_default().get(index).cloned()
        } else {
            spec.containers.get(index).cloned()
        }?;
        let restarts = self.model.borrow().clone().containers(init)[index].restarts;
        let places = self.node.places(&self.pod);
        let image = container.image.clone().unwrap_or_default();
        let policy = container.image_pull_policy.as_deref().unwrap_or_default();
        let content = self.node.config().registry.start(self.node.name(), &image, policy);
        let this = self.this(boot, container, content, restarts);
        // By whatever name it was asked for, what has no other content holds its own name.
        let images = &self.node.config().images;
        let files = images.get(&image).or_else(|| images.get(&this.content));
        // A thousand workload pods that nobody looks into need no directories.
        let error = if self.is_looked_into(&this) {
            root::prepare(&places, files.map(AsRef::as_ref), &this).err()
        } else {
            None
        };
        let outcome = match error {
            Some(error) => {
                Some(Outcome::Exit(Duration::ZERO, 128, format!("cannot make the container's root: {error}")))
            }
            None if is_sidecar(&this.container) => self.outcome(&this, Outcome::Forever),
            None => self.outcome(&this, by_default(&this, self.node.config().script_time)),
        };
        if matches!(outcome, Some(Outcome::NoImage)) {
            self.change(|model| model.containers(init)[index].now = Doing::Waiting("ImagePullBackOff"));
            return None;
        }
        let started = self.node.now();
        if let Some(message) = self.node.kubelet().start_trouble() {
            let ended = Ended {
                code: 128,
                reason: "StartError",
                message: message.clone(),
                started: Some(Timestamp::UNIX_EPOCH),
                at: started,
            };
            self.change(|model| model.containers(init)[index].now = Doing::Ended(ended));
            return Some((128, message));
        }
        self.change(|model| {
            let container = &mut model.containers(init)[index];
            container.now = Doing::Running(started);
            container.started = !container.sidecar;
            container.image_id = registry::image_id(&image, &this.content);
            if !init {
                model.phase = "Running";
            }
        });
        let (code, message) = run(&self.node, &this, outcome, stop.clone()).await;
        let reason = if code == 0 { "Completed" } else { "Error" };
        let ended =
            Ended { code, reason, message: message.clone(), started: Some(started), at: self.node.now() };
        self.change(|model| model.containers(init)[index].now = Doing::Ended(ended));
        Some((code, message))
    }

    fn is_looked_into(&self, run: &Run) -> bool {
        let scripts = &self.node.config().scripts;
        self.node.config().disks
            && (is_applet(run)
                || !scripts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_empty())
    }

    /// What a run does: `default` if no script is about it; `None`: it is a process.
    fn outcome(&self, run: &Run, default: Outcome) -> Option<Outcome> {
        let config = self.node.config();
        let scripts = config.scripts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let scripted = scripts.iter().rev().find_map(|script| script(run));
        let process = scripted.is_none() && is_applet(run) && config.operator.is_some();
        (!process).then(|| scripted.unwrap_or(default))
    }

    /// Waits until the node can make a sandbox. Until then the pod's Events alone say why it does not start.
    async fn sandbox(&self, stop: &watch::Receiver<bool>) {
        let mut count = 0;
        while let Some(words) = self.node.kubelet().sandbox_trouble() {
            count += 1;
            self.complain(&format!("Failed to create pod sandbox: {words}"), count).await;
            tokio::select! {
                biased;
                () = stopped(stop) => return,
                () = tokio::time::sleep(SANDBOX_EVERY) => {}
            }
        }
    }

    /// One Event per pod, which counts.
    async fn complain(&self, words: &str, count: i32) {
        let (namespace, pod) = (self.pod.namespace().unwrap_or_default(), self.pod.name_any());
        let events: Api<Event> = Api::namespaced(self.node.client(), &namespace);
        let (name, now) = (format!("{pod}.sandbox"), crate::server::now());
        let about = json!({"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": pod, "uid": self.pod.uid()});
        let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": namespace}, "type": "Warning",
            "reason": "FailedCreatePodSandBox", "message": words, "count": count, "involvedObject": about,
            "firstTimestamp": now, "lastTimestamp": now, "source": {"component": "kubelet", "host": self.node.name()}});
        let again = json!({"count": count, "message": words, "lastTimestamp": now});
        if events.patch(&name, &PatchParams::default(), &Patch::Merge(&again)).await.is_err()
            && let Ok(event) = serde_json::from_value(event)
        {
            // An Event that is lost is said again with the next try.
            let _ = events.create(&PostParams::default(), &event).await;
        }
    }
}
