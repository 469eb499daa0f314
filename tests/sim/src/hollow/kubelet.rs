//! What may be odd about one node: its clock, its kubelet, its room for pods, its sandboxes, its runtime.
//! Nothing is, unless a test says so.
//!
//! A kubelet that has stopped leaves containers running: it reports nothing, starts nothing, and does not
//! hear that a pod is to end. One that is full refuses pods, unless they are critical: for these it ends
//! others, whatever their budgets say.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::Pod,
    jiff::{SignedDuration, Timestamp},
};
use kube::ResourceExt;

use super::{node::Node, register};
use crate::watch;

/// Why a kubelet ends a pod that it had taken in, or does not take one in: reason and message of the pod's
/// status.
pub type Verdict = (&'static str, String);

/// From this priority on a pod is critical.
const CRITICAL: i32 = 2_000_000_000;

/// A pod's right to its place.
#[derive(Debug)]
struct Tenant {
    priority: i32,
    /// Nobody ends a static pod.
    fixed: bool,
    over: bool,
    doom: watch::Sender<Option<Verdict>>,
}

#[derive(Debug, Default)]
struct State {
    clock: SignedDuration,
    room: Option<usize>,
    refusal: Option<Verdict>,
    sandbox: Option<String>,
    start: Option<String>,
    lingering: Duration,
    tenants: BTreeMap<String, Tenant>,
    /// What a kubelet that has stopped has not heard of.
    unheard: Vec<(String, Option<Arc<Pod>>)>,
}

/// A node's kubelet.
#[derive(Debug)]
pub struct Kubelet {
    state: Mutex<State>,
    up: watch::Sender<bool>,
}

impl Default for Kubelet {
    fn default() -> Self {
        Self { state: Mutex::default(), up: watch::channel(true).0 }
    }
}

impl Kubelet {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the kubelet runs.
    pub async fn running(&self) {
        // An error means that the node is gone, and with it whoever waits here.
        let _ = self.up.subscribe().wait_for(|up| *up).await;
    }

    /// Keeps what a kubelet that has stopped does not hear; false: it hears it.
    pub fn misses(&self, uid: &str, pod: Option<&Arc<Pod>>) -> bool {
        let stopped = !*self.up.borrow();
        if stopped {
            self.state().unheard.push((uid.to_owned(), pod.cloned()));
        }
        stopped
    }

    /// Takes a pod in, or says why not. What is told to the receiver ends the pod later.
    pub fn admit(&self, pod: &Pod) -> Result<watch::Receiver<Option<Verdict>>, Verdict> {
        let mut state = self.state();
        let (priority, uid) = (priority(pod), pod.uid().unwrap_or_default());
        let known = state.tenants.contains_key(&uid);
        if let Some(refusal) = state.refusal.clone().filter(|_| !known) {
            return Err(refusal);
        }
        let used = state.tenants.iter().filter(|(other, tenant)| **other != uid && !tenant.over).count();
        if let Some(room) = state.room.filter(|room| used >= *room && !known) {
            let victim = state
                .tenants
                .values_mut()
                .filter(|tenant| !tenant.over && !tenant.fixed && tenant.priority < CRITICAL);
            match victim.min_by_key(|tenant| tenant.priority).filter(|_| priority >= CRITICAL) {
                Some(victim) => {
                    victim.over = true;
                    victim.doom.send_replace(Some((
                        "Preempting",
                        "Preempted in order to admit critical pod".into(),
                    )));
                }
                None => {
                    let words = "Pod was rejected: Node didn't have enough resource: pods, requested: 1";
                    return Err(("OutOfpods", format!("{words}, used: {used}, capacity: {room}")));
                }
            }
        }
        let (doom, doomed) = watch::channel(None);
        state.tenants.insert(uid, Tenant { priority, fixed: is_mirror(pod), over: false, doom });
        Ok(doomed)
    }

    /// A pod's containers have ended, and it needs its place no more.
    pub fn leave(&self, uid: &str) {
        if let Some(tenant) = self.state().tenants.get_mut(uid) {
            tenant.over = true;
        }
    }

    /// A pod's object is gone.
    pub fn forget(&self, uid: &str) {
        self.state().tenants.remove(uid);
    }

    /// For how long the processes of a pod go on after it was deleted by force.
    pub fn lingering(&self) -> Duration {
        self.state().lingering
    }

    /// Why the container runtime cannot start any container.
    pub fn start_trouble(&self) -> Option<String> {
        self.state().start.clone()
    }

    /// Why no sandbox can be made.
    pub fn sandbox_trouble(&self) -> Option<String> {
        self.state().sandbox.clone()
    }
}

impl Node {
    /// The time by the node's own clock.
    pub fn now(&self) -> Timestamp {
        let off = self.kubelet().state().clock;
        let now = crate::clock::now();
        now.checked_add(off).unwrap_or(now)
    }

    /// Sets the node's clock off from the server's.
    pub fn set_clock(&self, off: SignedDuration) {
        self.kubelet().state().clock = off;
    }

    /// How many pods the node takes; the scheduler sees it from the next report on.
    pub async fn set_room(&self, pods: usize) {
        self.kubelet().state().room = Some(pods);
        register::report(self).await;
    }

    /// How many pods the node takes.
    pub fn room(&self) -> Option<usize> {
        self.kubelet().state().room
    }

    /// Whether the kubelet refuses every new pod, with this reason and message.
    pub fn refuse_pods(&self, verdict: Option<Verdict>) {
        self.kubelet().state().refusal = verdict;
    }

    /// Lets the processes of pods that are deleted by force go on for this time, if they ignore SIGTERM: as
    /// where a kubelet is away, or a process does not end.
    pub fn linger(&self, time: Duration) {
        self.kubelet().state().lingering = time;
    }

    /// Whether new pods get no sandbox, with these words of the runtime. Only Events say so: no container has
    /// a status.
    pub fn fail_sandboxes(&self, words: Option<&str>) {
        self.kubelet().state().sandbox = words.map(str::to_owned);
    }

    /// Whether the container runtime fails to start each container, with these words: `StartError`, exit code
    /// 128. It has been there, as far as the restart policy knows.
    pub fn fail_starts(&self, words: Option<&str>) {
        self.kubelet().state().start = words.map(str::to_owned);
    }

    /// Stops the kubelet, and leaves the containers running. After a while the node shows as not Ready.
    pub fn stop_kubelet(&self) {
        if !self.boot().up || !self.kubelet().up.send_if_modified(|up| std::mem::replace(up, false)) {
            return;
        }
        let (node, number) = (self.clone(), self.boot().number);
        self.spawn(async move {
            tokio::time::sleep(node.config().not_ready_after).await;
            if !*node.kubelet().up.borrow() && node.boot().number == number && node.boot().up {
                register::mark_unknown(&node).await;
            }
        });
    }

    /// Starts the kubelet again: it reports, and hears what it missed. A boot does the same.
    pub async fn start_kubelet(&self) {
        if self.boot().up {
            register::report(self).await;
        }
        self.hear();
    }

    /// The kubelet runs, and hears what it missed.
    pub(super) fn hear(&self) {
        self.kubelet().up.send_replace(true);
        let unheard = std::mem::take(&mut self.kubelet().state().unheard);
        for (uid, pod) in unheard {
            match pod {
                Some(pod) => self.pod_changed(pod),
                None => self.pod_gone(&uid),
            }
        }
    }
}

/// Whether a pod stands for a static one, which the kubelet runs from a file.
pub fn is_mirror(pod: &Pod) -> bool {
    pod.annotations().contains_key("kubernetes.io/config.mirror")
}

fn priority(pod: &Pod) -> i32 {
    let spec = pod.spec.as_ref();
    match spec.and_then(|spec| spec.priority_class_name.as_deref()) {
        Some("system-node-critical") => CRITICAL + 1000,
        Some("system-cluster-critical") => CRITICAL,
        _ if is_mirror(pod) => CRITICAL + 1000,
        _ => spec.and_then(|spec| spec.priority).unwrap_or_default(),
    }
}
