//! One pod on one node: what a kubelet does about it, from the first look to the last deletion.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};

use super::{
    kubelet::Verdict,
    model::{Doing, PodModel},
    node::{Boot, Node},
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
        let model = watch::channel(PodModel::new(&pod, node.now())).0;
        let life = Life { model, reported: watch::channel(0).0, node: node.clone(), pod, seen };
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
    /// The kubelet needs its place for a critical pod.
    Doomed(Verdict),
}

/// A pod's life on its node.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) node: Node,
    pub(super) pod: Arc<Pod>,
    seen: watch::Receiver<Option<Arc<Pod>>>,
    pub(super) model: watch::Sender<PodModel>,
    reported: watch::Sender<u64>,
}

impl Life {
    async fn live(self) {
        let phase = self.pod.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
        if !matches!(phase.as_str(), "Succeeded" | "Failed") {
            let admitted = self.node.kubelet().admit(&self.pod);
            let report = self.report_changes();
            let work = async {
                match admitted {
                    Ok(doomed) => self.work(doomed).await,
                    Err(verdict) => self.refuse(verdict).await,
                }
            };
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
    async fn work(&self, doomed: watch::Receiver<Option<Verdict>>) {
        let mut boots = self.node.follow();
        loop {
            let Ok(boot) = boots.wait_for(|b| b.up).await.map(|b| b.clone()) else { return };
            if !self.resume() {
                break;
            }
            match self.boot_long(&boot, &doomed).await {
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
                End::Doomed(verdict) => {
                    self.finish(137, Some(verdict));
                    break;
                }
            }
        }
        self.flush().await;
    }

    /// Works on the pod in one boot. What runs is killed when this returns.
    async fn boot_long(&self, boot: &Boot, doomed: &watch::Receiver<Option<Verdict>>) -> End {
        let (stop, stopped) = watch::channel(false);
        let mut boots = self.node.follow();
        let number = boot.number;
        let down = async move {
            let _ = boots.wait_for(|b| !b.up || b.number != number).await;
        };
        let work = async {
            if self.model.borrow().halted {
                return std::future::pending().await;
            }
            self.run_all(boot, &stopped).await;
        };
        tokio::pin!(work, down);
        let first = tokio::select! {
           biased;
            () = &mut down => return End::Down,
            grace = self.deletion() => grace.map_or(End::Gone, End::Deleted),
            verdict = doom(doomed) => End::Doomed(verdict),
            () = self.deadline() => End::Deadline,
            () = &mut work => End::Over,
        };
        let grace = match first {
            End::Deleted(grace) => grace,
            // The same grace as on deletion; nobody waits for it here.
            End::Deadline | End::Doomed(_) => Duration::from_secs(1),
            // Deleted by force. Nobody sees any more what goes on.
            End::Gone => self.node.kubelet().lingering(),
            other => return other,
        };
        stop.send_replace(true);
        let gone = matches!(first, End::Gone);
        tokio::select! {
            biased;
            () = &mut down => return End::Down,
            () = self.gone(), if !gone => {
                tokio::select! {
                    biased;
                    () = &mut down => return End::Down,
                    _ = tokio::time::timeout(self.node.kubelet().lingering(), &mut work) => return End::Gone,
                }
            }
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
            let is_over = self.change(|model| {
                model.end_all(255, "Unknown", self.node.now());
                // No new sandbox is made for a pod of which a container is known, and it has not failed
                // either (computePodActions, getPhase). It stands there until somebody deletes it.
                model.halted = !model.is_over_without_sandbox();
                model.phase = "Pending";
                !model.halted
            });
            if is_over {
                self.finish(255, None);
            }
            return !is_over;
        }
        self.change(|model| {
            model.end_all(255, "Unknown", self.node.now());
            let kept = |c: &super::model::ContainerModel| {
                policy == "OnFailure" && matches!(&c.now, Doing::Ended(e) if e.code == 0)
            };
            let main = model.main.iter_mut().filter(|c| !kept(c));
            for container in model.init.iter_mut().chain(main) {
                if let Doing::Ended(ended) =
                    std::mem::replace(&mut container.now, Doing::Waiting("PodInitializing"))
                {
                    container.last = Some(ended);
                    container.restarts += 1;
                }
            }
            model.phase = "Pending";
        });
        true
    }

    /// The kubelet does not take the pod in.
    async fn refuse(&self, verdict: Verdict) {
        self.change(|model| (model.phase, model.reason, model.refused) = ("Failed", Some(verdict), true));
        self.flush().await;
    }

    pub(super) fn policy(&self) -> String {
        self.pod.spec.as_ref().and_then(|s| s.restart_policy.clone()).unwrap_or_else(|| "Always".into())
    }

    /// The pod is over: what still runs ended with this code, and the phase follows from the containers.
    pub(super) fn finish(&self, code: i32, reason: Option<(&'static str, String)>) {
        self.change(|model| {
            model.end_all(code, if code == 255 { "Unknown" } else { "Error" }, self.node.now());
            model.phase = if reason.is_none() && model.all_succeeded() { "Succeeded" } else { "Failed" };
            model.reason = reason;
        });
        self.node.kubelet().leave(&self.pod.uid().unwrap_or_default());
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut PodModel) -> T) -> T {
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
            self.node.kubelet().running().await;
            let now = model.borrow_and_update().clone();
            let patch = now.patch(&self.pod.uid().unwrap_or_default(), &address, &address);
            let answer = self
                .api()
                .patch_status(&self.pod.name_any(), &PatchParams::default(), &Patch::Strategic(&patch))
                .await;
            match answer {
                Ok(_) => drop(self.reported.send_replace(now.version)),
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                    return std::future::pending().await;
                }
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
        let found = seen
            .wait_for(|pod| pod.as_ref().is_none_or(|p| p.metadata.deletion_timestamp.is_some()))
            .await
            .ok()?;
        let pod = (*found).clone()?;
        let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
    }

    async fn deadline(&self) {
        let Some(seconds) = self.pod.spec.as_ref().and_then(|s| s.active_deadline_seconds) else {
            return std::future::pending().await;
        };
        let spent = self.node.now().duration_since(self.model.borrow().started).as_millis();
        let left = u64::try_from(i128::from(seconds) * 1000 - spent).unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(left)).await;
    }

    async fn delete(&self) {
        let mut boots = self.node.follow();
        let preconditions = Preconditions { uid: self.pod.uid(), resource_version: None };
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        loop {
            if boots.wait_for(|b| b.up).await.is_err() {
                return;
            }
            self.node.kubelet().running().await;
            match self.api().delete(&self.pod.name_any(), &parameters).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

/// Waits until the pod's containers have been told to end.
pub(super) async fn stopped(stop: &watch::Receiver<bool>) {
    // An error means that this boot's work is over, and with it this future.
    let _ = stop.clone().wait_for(|stop| *stop).await;
}

/// Waits until the kubelet needs the pod's place.
async fn doom(doomed: &watch::Receiver<Option<Verdict>>) -> Verdict {
    let mut doomed = doomed.clone();
    // An error means that the node is gone.
    let found = doomed.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
    match found {
        Some(verdict) => verdict,
        None => std::future::pending().await,
    }
}
