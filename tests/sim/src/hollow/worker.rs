//! One pod on one node: what a kubelet does about it, from the first look to the last deletion.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};

use super::{
    model::{Doing, Ended, PodModel},
    node::{Boot, Node},
    root,
    run::{Exit, is_applet, run},
    script::{Outcome, Run, by_default},
};
use crate::watch;

/// The hand by which a node holds a pod.
#[derive(Debug)]
pub struct Worker {
    pod: watch::Sender<Option<Arc<Pod>>>,
}

impl Worker {
    /// Begins to care for a pod.
    pub fn start(node: &Node, pod: Arc<Pod>) -> Self {
        let (sender, seen) = watch::channel(Some(pod.clone()));
        let life = Life { model: watch::channel(PodModel::new(&pod)).0, reported: watch::channel(0).0, node: node.clone(), pod, seen };
        node.spawn(async move { life.live().await });
        Self { pod: sender }
    }

    /// Tells what became of the pod's object; `None`: it is gone.
    pub fn tell(&self, pod: Option<Arc<Pod>>) {
        self.pod.send_replace(pod);
    }
}

/// Why a boot's work on a pod ended.
enum End {
    Over,
    Down,
    Gone,
    Deleted(Duration),
    Deadline,
}

struct Life {
    node: Node,
    pod: Arc<Pod>,
    seen: watch::Receiver<Option<Arc<Pod>>>,
    model: watch::Sender<PodModel>,
    reported: watch::Sender<u64>,
}

impl Life {
    async fn live(self) {
        let phase = self.pod.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
        if !matches!(phase.as_str(), "Succeeded" | "Failed") {
            let report = self.report_changes();
            let work = self.work();
            tokio::select! {
                biased;
                () = work => {}
                () = report => {}
            }
        }
        // A pod that is over stays until somebody deletes it; then the kubelet has the last word.
        if let Some(_grace) = self.deletion().await {
            self.delete().await;
        }
        let mut seen = self.seen.clone();
        // An error means that the node let go.
        let _ = seen.wait_for(Option::is_none).await;
        let _ = std::fs::remove_dir_all(self.node.places(&self.pod).pod);
    }

    /// Works through boots until the pod is over or gone.
    async fn work(&self) {
        let mut boots = self.node.follow();
        loop {
            let Ok(boot) = boots.wait_for(|b| b.up).await.map(|b| b.clone()) else { return };
            if !self.resume() {
                break;
            }
            match self.boot_long(&boot).await {
                End::Over => break,
                End::Down => {}
                End::Gone => return,
                End::Deleted(_) => {
                    self.finish(137, None);
                    break;
                }
                End::Deadline => {
                    let message = "Pod was active on the node longer than the specified deadline".to_owned();
                    self.finish(137, Some(("DeadlineExceeded", message)));
                    break;
                }
            }
        }
        self.flush().await;
    }

    /// Works on the pod in one boot. What runs is killed when this returns.
    async fn boot_long(&self, boot: &Boot) -> End {
        let (stop, stopped) = watch::channel(false);
        let mut boots = self.node.follow();
        let number = boot.number;
        let down = async move {
            let _ = boots.wait_for(|b| !b.up || b.number != number).await;
        };
        let work = self.run_all(boot, &stopped);
        tokio::pin!(work, down);
        let first = tokio::select! {
           biased;
            () = &mut down => return End::Down,
            grace = self.deletion() => grace.map_or(End::Gone, End::Deleted),
            () = self.deadline() => End::Deadline,
            () = &mut work => End::Over,
        };
        let grace = match first {
            End::Deleted(grace) => grace,
            // The same grace as on deletion; nobody waits for it here.
            End::Deadline => Duration::from_secs(1),
            other => return other,
        };
        stop.send_replace(true);
        tokio::select! {
            biased;
            () = &mut down => return End::Down,
            () = self.gone() => return End::Gone,
            _ = tokio::time::timeout(grace, &mut work) => {}
        }
        first
    }

    /// After a boot: what ran before has ended. False if the pod does not go on.
    fn resume(&self) -> bool {
        let policy = self.policy();
        let ran = |c: &super::model::ContainerModel| !matches!(c.now, Doing::Waiting(_)) || c.restarts > 0;
        let interrupted = {
            let model = self.model.borrow();
            model.init.iter().chain(&model.main).any(ran)
        };
        if !interrupted {
            return true;
        }
        if policy == "Never" {
            self.finish(255, None);
            return false;
        }
        self.change(|model| {
            model.end_all(255, "Unknown");
            let kept = |c: &super::model::ContainerModel| policy == "OnFailure" && matches!(&c.now, Doing::Ended(e) if e.code == 0);
            let main = model.main.iter_mut().filter(|c| !kept(c));
            for container in model.init.iter_mut().chain(main) {
                if let Doing::Ended(ended) = std::mem::replace(&mut container.now, Doing::Waiting("PodInitializing")) {
                    container.last = Some(ended);
                    container.restarts += 1;
                }
            }
            model.phase = "Pending";
        });
        true
    }

    async fn run_all(&self, boot: &Boot, stop: &watch::Receiver<bool>) {
        let spec = self.pod.spec.clone().unwrap_or_default();
        for index in 0..spec.init_containers.as_ref().map_or(0, Vec::len) {
            if !self.run_until_done(boot, true, index, stop).await {
                if !*stop.borrow() {
                    self.finish(0, None);
                }
                return;
            }
        }
        join_all((0..spec.containers.len()).map(|index| self.run_until_done(boot, false, index, stop))).await;
        if !*stop.borrow() {
            self.finish(0, None);
        }
    }

    /// Runs a container as often as the restart policy wants; true if it ended well.
    async fn run_until_done(&self, boot: &Boot, init: bool, index: usize, stop: &watch::Receiver<bool>) -> bool {
        let policy = self.policy();
        loop {
            if let Some(Doing::Ended(ended)) = self.model.borrow().clone().containers(init).get(index).map(|c| c.now.clone()) {
                return ended.code == 0;
            }
            let Some((code, _)) = self.run_once(boot, init, index, stop).await else {
                stopped(stop).await;
                return false;
            };
            let again = !*stop.borrow()
                && if init { code != 0 && policy != "Never" } else { policy == "Always" || (policy == "OnFailure" && code != 0) };
            if !again {
                return code == 0;
            }
            let restarts = self.change(|model| {
                let container = &mut model.containers(init)[index];
                if let Doing::Ended(ended) = std::mem::replace(&mut container.now, Doing::Waiting("CrashLoopBackOff")) {
                    container.last = Some(ended);
                }
                container.restarts += 1;
                container.restarts
            });
            let back_off = Duration::from_millis(50) * 2_u32.pow(restarts.clamp(0, 6).unsigned_abs());
            tokio::select! {
                biased;
                () = tokio::time::sleep(back_off) => {}
                () = stopped(stop) => return false,
            }
        }
    }

    /// Runs a container once; `None` if its image cannot be pulled, or the pod is to end.
    async fn run_once(&self, boot: &Boot, init: bool, index: usize, stop: &watch::Receiver<bool>) -> Option<Exit> {
        // A pod that is to end starts nothing more, and nothing at all if it was deleted while its node was away.
        if *stop.borrow() {
            return None;
        }
        let spec = self.pod.spec.clone().unwrap_or_default();
        let container =
            if init { spec.init_containers.unwrap_or_default().get(index).cloned() } else { spec.containers.get(index).cloned() }?;
        let restarts = self.model.borrow().clone().containers(init)[index].restarts;
        let places = self.node.places(&self.pod);
        let this = Run {
            node: self.node.name().into(),
            boot: boot.id.clone(),
            root: root::path(&places, &container),
            pod: self.pod.clone(),
            container,
            restarts,
        };
        let image = this.container.image.as_ref().and_then(|image| self.node.config().images.get(image));
        // A thousand workload pods that nobody looks into need no directories.
        let error = if self.is_looked_into(&this) { root::prepare(&places, image.map(AsRef::as_ref), &this).err() } else { None };
        let outcome = match error {
            Some(error) => Some(Outcome::Exit(Duration::ZERO, 128, format!("cannot make the container's root: {error}"))),
            None => self.outcome(&this),
        };
        if matches!(outcome, Some(Outcome::NoImage)) {
            self.change(|model| model.containers(init)[index].now = Doing::Waiting("ImagePullBackOff"));
            return None;
        }
        let started = crate::clock::now();
        self.change(|model| {
            model.containers(init)[index].now = Doing::Running(started);
            if !init {
                model.phase = "Running";
            }
        });
        let (code, message) = run(&self.node, &this, outcome, stop.clone()).await;
        let reason = if code == 0 { "Completed" } else { "Error" };
        let ended = Ended { code, reason, message: message.clone(), started: Some(started), at: crate::clock::now() };
        self.change(|model| model.containers(init)[index].now = Doing::Ended(ended));
        Some((code, message))
    }

    fn is_looked_into(&self, run: &Run) -> bool {
        let scripts = &self.node.config().scripts;
        self.node.config().disks && (is_applet(run) || !scripts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_empty())
    }

    /// What a run does; `None`: it is a process.
    fn outcome(&self, run: &Run) -> Option<Outcome> {
        let config = self.node.config();
        let scripts = config.scripts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let scripted = scripts.iter().rev().find_map(|script| script(run));
        let process = scripted.is_none() && is_applet(run) && config.operator.is_some();
        (!process).then(|| scripted.unwrap_or_else(|| by_default(run, config.script_time)))
    }

    fn policy(&self) -> String {
        self.pod.spec.as_ref().and_then(|s| s.restart_policy.clone()).unwrap_or_else(|| "Always".into())
    }

    /// The pod is over: what still runs ended with this code, and the phase follows from the containers.
    fn finish(&self, code: i32, reason: Option<(&'static str, String)>) {
        self.change(|model| {
            model.end_all(code, if code == 255 { "Unknown" } else { "Error" });
            model.phase = if reason.is_none() && model.all_succeeded() { "Succeeded" } else { "Failed" };
            model.reason = reason;
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut PodModel) -> T) -> T {
        let mut result = None;
        self.model.send_modify(|model| {
            result = Some(change(model));
            model.version += 1;
        });
        #[expect(clippy::expect_used, reason = "the closure above has run")]
        result.expect("set")
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.node.client(), &self.pod.namespace().unwrap_or_default())
    }

    /// Reports every change until the pod's object is not there any more.
    async fn report_changes(&self) {
        let mut model = self.model.subscribe();
        let mut boots = self.node.follow();
        let address = self.node.address();
        loop {
            let Ok(boot) = boots.wait_for(|b| b.up).await.map(|b| b.number) else { return };
            let now = model.borrow_and_update().clone();
            let patch = now.patch(&self.pod.uid().unwrap_or_default(), &address, &address);
            let answer = self.api().patch_status(&self.pod.name_any(), &PatchParams::default(), &Patch::Strategic(&patch)).await;
            match answer {
                Ok(_) => drop(self.reported.send_replace(now.version)),
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return std::future::pending().await,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            }
            debug_assert!(boot > 0, "boots are counted from 1");
            if model.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until the last change is reported, or the object is gone.
    async fn flush(&self) {
        let version = self.model.borrow().version;
        let mut reported = self.reported.subscribe();
        tokio::select! {
            biased;
            _ = reported.wait_for(|r| *r >= version) => {}
            () = self.gone() => {}
        }
    }

    async fn gone(&self) {
        let mut seen = self.seen.clone();
        let _ = seen.wait_for(Option::is_none).await;
    }

    /// Waits until the pod is to be deleted, and tells the grace; `None` if it is gone already.
    async fn deletion(&self) -> Option<Duration> {
        let mut seen = self.seen.clone();
        let found = seen.wait_for(|pod| pod.as_ref().is_none_or(|p| p.metadata.deletion_timestamp.is_some())).await.ok()?;
        let pod = (*found).clone()?;
        let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
    }

    async fn deadline(&self) {
        let Some(seconds) = self.pod.spec.as_ref().and_then(|s| s.active_deadline_seconds) else { return std::future::pending().await };
        let spent = crate::clock::now().duration_since(self.model.borrow().started).as_millis();
        let left = u64::try_from(i128::from(seconds) * 1000 - spent).unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(left)).await;
    }

    async fn delete(&self) {
        let mut boots = self.node.follow();
        let preconditions = Preconditions { uid: self.pod.uid(), resource_version: None };
        let parameters = DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..DeleteParams::default() };
        loop {
            if boots.wait_for(|b| b.up).await.is_err() {
                return;
            }
            match self.api().delete(&self.pod.name_any(), &parameters).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

/// Waits until the pod's containers have been told to end.
async fn stopped(stop: &watch::Receiver<bool>) {
    // An error means that this boot's work is over, and with it this future.
    let _ = stop.clone().wait_for(|stop| *stop).await;
}
