//! One hollow node: its disk, its boots, and the process that stands for its PID 1.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt};
use tokio::{process::Command, task::JoinSet};

use crate::{meter::metered, watch};

use super::{
    etcd::Member, kairos, kubelet::Kubelet, register, registry::Registry, root::Places, script::Script,
    worker::Worker,
};

/// What all nodes have in common.
#[derive(Clone)]
pub struct Config {
    /// Address of the API.
    pub server: String,
    /// Whether nodes have a disk, which is a directory.
    pub disks: bool,
    /// The operator's binary.
    pub operator: Option<PathBuf>,
    /// How long a node is away when it reboots.
    pub boot_time: Duration,
    /// How long a node must be away until it is marked NotReady (a real cluster: 40 s or more).
    pub not_ready_after: Duration,
    /// How long a container runs that no script is about.
    pub script_time: Duration,
    /// Scripts; the latest one that is about a run decides.
    pub scripts: Arc<Mutex<Vec<Script>>>,
    /// What images hold, by their names.
    pub images: Arc<BTreeMap<String, PathBuf>>,
    /// What tags mean, and what nodes have of them.
    pub registry: Registry,
    /// Everything that runs; ends with the cluster.
    pub tasks: Arc<Mutex<JoinSet<()>>>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("server", &self.server)
            .field("operator", &self.operator)
            .finish_non_exhaustive()
    }
}

/// A boot of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// What `/proc/sys/kernel/random/boot_id` says.
    pub id: String,
    /// Counts boots, from 1.
    pub number: u32,
    /// Whether the node is up; between two boots it is not.
    pub up: bool,
}

/// What comes of the next time that the node goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// It is back after the boot time.
    #[default]
    Back,
    /// It is back later.
    Late(Duration),
    /// It stays away until [`Node::power_on`].
    Gone,
}

/// A hollow node; clones are the same node.
#[derive(Clone, Debug)]
pub struct Node(Arc<Inner>);

struct Inner {
    name: String,
    index: usize,
    control_plane: bool,
    config: Config,
    client: Client,
    dir: PathBuf,
    boot: watch::Sender<Boot>,
    init: tokio::sync::Mutex<Option<(u32, u32)>>,
    fate: Mutex<(Fate, bool)>,
    boots: Mutex<Vec<String>>,
    power: tokio::sync::Notify,
    scrapped: OnceLock<()>,
    workers: Mutex<HashMap<String, Worker>>,
    kubelet: Kubelet,
    etcd: Mutex<Option<Member>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("name", &self.name).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    /// A node that has booted, but is not registered yet.
    pub(crate) fn new(
        name: &str,
        index: usize,
        control_plane: bool,
        config: Config,
        client: Client,
        dir: PathBuf,
    ) -> std::io::Result<Self> {
        if config.disks {
            register::make_disk(&dir.join("disk"))?;
        }
        let id = boot_id(name, 1);
        let boot = watch::channel(Boot { id: id.clone(), number: 1, up: true }).0;
        let inner = Inner {
            name: name.into(),
            index,
            control_plane,
            config,
            client,
            dir,
            boot,
            init: tokio::sync::Mutex::default(),
            fate: Mutex::default(),
            boots: Mutex::new(vec![id]),
            power: tokio::sync::Notify::new(),
            scrapped: OnceLock::new(),
            workers: Mutex::default(),
            kubelet: Kubelet::default(),
            etcd: Mutex::default(),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether it is a control-plane node.
    pub fn is_control_plane(&self) -> bool {
        self.0.control_plane
    }

    /// Its address, made up from its place among the nodes.
    pub fn address(&self) -> String {
        format!("10.77.{}.{}", self.0.index / 250, self.0.index % 250 + 1)
    }

    /// The directory that stands for its disk.
    pub fn disk(&self) -> PathBuf {
        self.0.dir.join("disk")
    }

    /// The present boot; while it is down, the last one.
    pub fn boot(&self) -> Boot {
        self.0.boot.borrow().clone()
    }

    /// Ids of all boots so far.
    pub fn boots(&self) -> Vec<String> {
        locked(&self.0.boots).clone()
    }

    /// What the containers of pods whose name starts so have printed, as far as they were processes.
    pub fn logs(&self, pod: &str) -> String {
        let Ok(dirs) = std::fs::read_dir(self.0.dir.join("logs")) else { return String::new() };
        let dirs = dirs.flatten().filter(|d| d.file_name().to_string_lossy().starts_with(pod));
        let files = dirs.filter_map(|d| std::fs::read_dir(d.path()).ok()).flat_map(|files| files.flatten());
        files.filter_map(|f| std::fs::read_to_string(f.path()).ok()).collect()
    }

    /// Decides what comes of the next time that the node goes down.
    pub fn set_fate(&self, fate: Fate) {
        locked(&self.0.fate).0 = fate;
    }

    /// From the next boot on, or now if nothing has asked for its init yet, init ignores that it is to reboot.
    pub fn ignore_reboots(&self, ignore: bool) {
        locked(&self.0.fate).1 = ignore;
    }

    /// The node reboots by itself, now.
    pub fn reboot(&self) {
        self.go_down(self.boot().number);
    }

    /// The node loses its power, until [`Node::power_on`].
    pub fn die(&self) {
        self.set_fate(Fate::Gone);
        self.reboot();
    }

    /// Ends a node's being gone.
    pub fn power_on(&self) {
        self.set_fate(Fate::Back);
        self.0.power.notify_one();
    }

    /// The machine is taken away: if it is down, it never boots again, whatever its fate was.
    pub fn scrap(&self) {
        self.0.scrapped.get_or_init(|| ());
    }

    /// Whether the machine was taken away.
    pub fn is_scrapped(&self) -> bool {
        self.0.scrapped.get().is_some()
    }

    pub(super) fn follow(&self) -> watch::Receiver<Boot> {
        self.0.boot.subscribe()
    }

    pub(super) fn client(&self) -> Client {
        self.0.client.clone()
    }

    pub(super) fn server(&self) -> &str {
        &self.0.config.server
    }

    pub(super) fn operator(&self) -> Option<&Path> {
        self.0.config.operator.as_deref()
    }

    pub(super) fn config(&self) -> &Config {
        &self.0.config
    }

    pub(super) fn kubelet(&self) -> &Kubelet {
        &self.0.kubelet
    }

    pub(super) fn etcd(&self) -> MutexGuard<'_, Option<Member>> {
        locked(&self.0.etcd)
    }

    pub(super) fn places(&self, pod: &Pod) -> Places {
        Places { disk: self.disk(), pod: self.0.dir.join("pods").join(pod.uid().unwrap_or_default()) }
    }

    pub(super) fn log_file(&self, pod: &Pod, container: &str) -> PathBuf {
        self.0.dir.join("logs").join(pod.name_any()).join(format!("{container}.log"))
    }

    /// Runs something as long as the cluster is there.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> tokio::task::AbortHandle {
        let mut tasks = locked(&self.0.config.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(metered(task))
    }

    /// Takes a pod in, or tells its worker what changed.
    pub(super) fn pod_changed(&self, pod: Arc<Pod>) {
        let Some(uid) = pod.uid() else { return };
        if self.0.kubelet.misses(&uid, Some(&pod)) {
            return;
        }
        let mut workers = locked(&self.0.workers);
        match workers.get(&uid) {
            Some(worker) => worker.tell(Some(pod)),
            None => drop(workers.insert(uid, Worker::start(self, pod))),
        }
    }

    /// A pod's object is gone.
    pub(super) fn pod_gone(&self, uid: &str) {
        if self.0.kubelet.misses(uid, None) {
            return;
        }
        if let Some(worker) = locked(&self.0.workers).remove(uid) {
            worker.tell(None);
        }
        self.0.kubelet.forget(uid);
    }

    /// UIDs of the pods that the node runs, or is to run.
    pub(super) fn pods(&self) -> Vec<String> {
        locked(&self.0.workers).keys().cloned().collect()
    }

    /// The process that stands for PID 1 in this boot. It is made when it is first asked for, and reads from
    /// a pipe that we hold, so that it ends with us whatever ends us.
    pub(super) async fn init_pid(&self) -> anyhow::Result<u32> {
        let mut init = self.0.init.lock().await;
        let number = self.boot().number;
        if let Some((boot, pid)) = *init
            && boot == number
        {
            return Ok(pid);
        }
        let mut command = Command::new("cat");
        if locked(&self.0.fate).1 {
            command = Command::new("sh");
            command.args(["-c", "trap '' 15 39; exec cat"]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or_else(|| anyhow::anyhow!("init ended at once"))?;
        *init = Some((number, pid));
        let node = self.clone();
        let mut boots = self.follow();
        self.spawn(async move {
            let pipe = child.stdin.take();
            let ended = tokio::select! {
                ended = child.wait() => ended.is_ok(),
                _ = boots.wait_for(|b| b.number != number || !b.up) => false,
            };
            drop(pipe);
            if ended {
                // Whatever ended PID 1 (a real-time signal that asks for a reboot, or worse): the node goes
                // down.
                node.go_down(number);
            }
        });
        Ok(pid)
    }

    /// Ends a boot: all processes are killed by their workers, which see the node go down.
    fn go_down(&self, number: u32) {
        let went = self.0.boot.send_if_modified(|boot| {
            let goes = boot.up && boot.number == number;
            boot.up &= !goes;
            goes
        });
        if went {
            let node = self.clone();
            self.spawn(async move { node.come_back(number).await });
        }
    }

    fn boot_disk(&self) {
        // What a boot clears.
        let _ = std::fs::remove_dir_all(self.disk().join("run"));
        let _ = std::fs::create_dir_all(self.disk().join("run"));
        if let Err(error) = kairos::boot(&self.disk()) {
            tracing::warn!(node = self.name(), %error, "cannot boot its image");
        }
    }

    async fn come_back(&self, number: u32) {
        let fate = std::mem::take(&mut locked(&self.0.fate).0);
        let away = async {
            match fate {
                Fate::Back => tokio::time::sleep(self.0.config.boot_time).await,
                Fate::Late(time) => tokio::time::sleep(time).await,
                Fate::Gone => self.0.power.notified().await,
            }
        };
        tokio::pin!(away);
        let noticed = tokio::select! {
            biased;
            () = &mut away => false,
            () = tokio::time::sleep(self.0.config.not_ready_after) => true,
        };
        if noticed {
            register::mark_unknown(self).await;
            away.await;
        }
        if self.is_scrapped() {
            return;
        }
        if self.0.config.disks {
            self.boot_disk();
        }
        let id = boot_id(&self.0.name, number + 1);
        locked(&self.0.boots).push(id.clone());
        self.0.boot.send_modify(|boot| *boot = Boot { id, number: number + 1, up: false });
        register::report(self).await;
        self.0.boot.send_modify(|boot| boot.up = true);
        self.hear();
        self.rejoin();
    }
}

/// A boot id that is the same in every run, for golden outputs.
fn boot_id(node: &str, number: u32) -> String {
    let seed = node
        .bytes()
        .fold(u64::from(number), |sum, byte| sum.wrapping_mul(1_099_511_628_211) ^ u64::from(byte));
    let mut random = fastrand::Rng::with_seed(seed);
    let (a, b) = (format!("{:016x}", random.u64(..)), format!("{:016x}", random.u64(..)));
    format!("{}-{}-4{}-8{}-{}", &a[..8], &a[8..12], &a[13..], &b[1..4], &b[4..])
}
