//! What all parts of one run share: the cluster, the machines behind its nodes, the weather, and the book of
//! what really happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kairos_operator::contract::{Sentinel, UpgradeResult};
use kairos_sim::{InProcess, Registry, watch};
use tokio::time::Instant;

use super::{
    lock::Lock,
    wire::Weather,
    worlds::{Disk, Kind},
};

/// What happened on a node, or was done to it by people. The operator has no part in this book.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A Job's command, or an upgrade's agent, began.
    Began { job: String },
    /// It is not running any more, however it ended.
    Ended { job: String },
    /// It succeeded.
    /// `reboots`: whether a reboot has to follow, if one was asked for.
    Succeeded { job: String, reboots: bool },
    /// Init or the kernel was asked to reboot, for this Job, by the waiter in this pod.
    Asked { job: String, pod: String },
    /// The machine goes down because it was asked to, for this Job.
    Leaves { job: String },
    /// Other members of etcd do not take part just when a member is asked to reboot.
    Thin { without: Vec<String> },
    /// A waiter began to watch: its pod, and the UID of its NodeOp.
    Watches { pod: String, op: String },
    /// It does not run any more.
    Rests { pod: String },
    /// A container of an operation started, with what is in its image. Its owner is a NodeOp or a Job.
    Ran { owner: String, content: String, preflight: bool },
    /// An agent has put a release into the active image.
    Installed { release: String },
    /// By that the only image that the node has ever booted is gone: what an agent had written in the same
    /// boot, which nobody has tried, is the fallback now, and nobody had asked for that by `force`.
    Overwrote { job: String },
    /// The tag that moves means this from now on.
    Tag { content: String },
    /// The store went back; before, this was its version.
    Restored { from: u64 },
    /// The first container of a boot found this release booted, from the active image or from the one before
    /// it.
    Booted { release: String, state: &'static str },
    /// A write of this life of an operator reached the server, in the place of a node.
    Wrote { what: String },
    /// Somebody who is not the operator told autoscalers something about the node.
    Told { name: &'static str, value: Option<String> },
    /// Somebody who is not the operator set or removed the cordon.
    Human { cordoned: bool },
}

/// An event, and when: after this version of the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub version: u64,
    pub at: Duration,
    pub node: String,
    pub boot: String,
    pub event: Event,
}

/// A machine's disk and firmware: what outlives a boot.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub sentinels: BTreeMap<String, Sentinel>,
    pub results: BTreeMap<String, UpgradeResult>,
    /// The release of the active image.
    pub active: String,
    /// The file that it is.
    pub inode: u64,
    /// The boot in which an agent wrote it.
    pub written_in: Option<String>,
    /// A boot, and what it booted.
    pub booted: (String, Image),
    /// New images do not boot here: the machine falls back to the one that it began with.
    pub falls_back: bool,
    /// Counts changes of the state directory.
    pub changes: u64,
    /// The boot whose init was asked.
    pub asked: Option<String>,
    /// Init cannot be asked, or does nothing about it.
    pub init: Init,
    /// The state directory.
    pub disk: Disk,
    /// The node's lock.
    pub lock: Lock,
    /// It never makes a sandbox.
    pub no_sandbox: bool,
    /// No waiter gets ready on it.
    pub deaf_waiters: bool,
    /// Whoever has it writes in the place of its kubelet.
    pub bad: bool,
}

/// An image that was booted.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pub release: String,
    /// One of [`kairos_operator::contract::boot_state`].
    pub state: &'static str,
}

/// How a machine's init takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Init {
    #[default]
    Obeys,
    Deaf,
    Hangs,
    /// The kernel hangs, too: it never goes down.
    Stuck,
}

/// What a NodeOp's containers will do.
#[derive(Clone, Debug, Default)]
pub struct Fates {
    /// How often the command fails on a node before it succeeds.
    pub failures: BTreeMap<String, u32>,
    /// Nodes that cannot pull the image.
    pub unpullable: Vec<String>,
    /// Nodes on which the agent says that it succeeded, and has installed nothing.
    pub lies: Vec<String>,
    /// Nodes that the preflight skips (true) or refuses.
    pub preflight: BTreeMap<String, bool>,
    /// Somebody has asked for it.
    pub arrived: bool,
}

#[derive(Debug)]
struct Inner {
    rng: fastrand::Rng,
    machines: BTreeMap<String, Machine>,
    fates: BTreeMap<String, Fates>,
    book: Vec<Record>,
    log: Vec<(u64, String)>,
    /// How many names strangers have taken.
    names: u32,
}

/// As long as this is there, something odd is still to come.
#[derive(Debug)]
pub struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Shared by everything in a run.
pub struct World {
    pub service: InProcess,
    pub client: kube::Client,
    pub weather: Mutex<Weather>,
    /// Told when a state directory changes.
    pub disks: watch::Sender<u64>,
    pub nodes: BTreeMap<String, kairos_sim::Node>,
    pub operator_token: String,
    /// How this world is odd.
    pub worlds: BTreeSet<Kind>,
    /// All that takes time takes the same on each node.
    even: bool,
    pub registry: Registry,
    busy: Arc<AtomicUsize>,
    started: Instant,
    inner: Mutex<Inner>,
}

/// When the cluster's time begins.
pub const BEGINNING: Timestamp = Timestamp::constant(1_780_000_000, 0);

impl World {
    pub fn new(
        seed: u64,
        cluster: &kairos_sim::Cluster,
        operator_token: String,
        worlds: BTreeSet<Kind>,
        even: bool,
    ) -> Arc<Self> {
        let nodes: BTreeMap<String, kairos_sim::Node> =
            cluster.nodes().map(|node| (node.name().to_owned(), node.clone())).collect();
        let machine = Machine { active: OLD.into(), ..Machine::default() };
        let machines = nodes.keys().map(|name| (name.clone(), machine.clone())).collect();
        let rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
        let inner =
            Inner { rng, machines, fates: BTreeMap::new(), book: Vec::new(), log: Vec::new(), names: 0 };
        Arc::new(Self {
            service: cluster.service(""),
            client: cluster.client(),
            weather: Mutex::new(Weather::new(seed)),
            disks: watch::channel(0).0,
            nodes,
            operator_token,
            worlds,
            even,
            registry: cluster.registry(),
            busy: Arc::default(),
            started: Instant::now(),
            inner: Mutex::new(inner),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn rng<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.inner().rng)
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&self, percent: u32) -> bool {
        self.rng(|rng| rng.u32(..100) < percent)
    }

    /// A time of `low` to `high` milliseconds, both included.
    pub fn time(&self, low: u64, high: u64) -> Duration {
        if self.even {
            return Duration::from_millis(low.midpoint(high));
        }
        Duration::from_millis(self.rng(|rng| rng.u64(low..=high)))
    }

    pub fn machine<T>(&self, node: &str, look: impl FnOnce(&mut Machine) -> T) -> T {
        look(self.inner().machines.get_mut(node).expect("a machine"))
    }

    /// Changes a machine's state directory, and tells whoever watches it.
    pub fn disk<T>(&self, node: &str, change: impl FnOnce(&mut Machine) -> T) -> T {
        let done = self.machine(node, |machine| {
            machine.changes += 1;
            change(machine)
        });
        self.disks.send_modify(|changes| *changes += 1);
        done
    }

    pub fn fates<T>(&self, op: &str, look: impl FnOnce(&mut Fates) -> T) -> T {
        look(self.inner().fates.entry(op.to_owned()).or_default())
    }

    /// Writes into the book what happened on no node, but to somebody or something else.
    fn happens_to(&self, who: &str, event: Event) {
        let record = Record {
            version: self.service.version(),
            at: self.elapsed(),
            node: who.into(),
            boot: String::new(),
            event,
        };
        self.inner().book.push(record);
    }

    /// Writes into the book that an operator has written.
    pub fn wrote(&self, who: &str, what: &str) {
        self.happens_to(who, Event::Wrote { what: what.into() });
    }

    /// Writes into the book what the tag that moves means.
    pub fn tag_means(&self, content: &str) {
        self.happens_to("", Event::Tag { content: content.into() });
    }

    /// Writes into the book that the store went back.
    pub fn restored(&self, from: u64) {
        self.happens_to("", Event::Restored { from });
    }

    pub fn is(&self, kind: Kind) -> bool {
        self.worlds.contains(&kind)
    }

    /// Says that something odd is still to come.
    pub fn busy(&self) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(self.busy.clone())
    }

    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// Whether a stranger may take one more name, of `most` in all.
    pub fn takes_name(&self, most: u32) -> bool {
        let mut inner = self.inner();
        inner.names += 1;
        inner.names <= most
    }

    /// Members of etcd other than this node's that do not take part now.
    pub fn outside_quorum(&self, node: &str) -> Vec<String> {
        let others = self.nodes.values().filter(|other| other.is_control_plane() && other.name() != node);
        others.filter(|other| !other.in_quorum()).map(|other| other.name().to_owned()).collect()
    }

    /// Writes into the book.
    pub fn happens(&self, node: &str, event: Event) {
        self.note(|| format!("{node}: {event:?}"));
        let boot = self.nodes[node].boot().id;
        let record =
            Record { version: self.service.version(), at: self.elapsed(), node: node.into(), boot, event };
        self.inner().book.push(record);
    }

    pub fn book(&self) -> Vec<Record> {
        self.inner().book.clone()
    }

    /// A line for whoever plays the seed again.
    pub fn note(&self, text: impl FnOnce() -> String) {
        let version = self.service.version();
        let line = format!("{:>10.3} v{version} {}", self.elapsed().as_secs_f64(), text());
        self.inner().log.push((version, line));
    }

    pub fn log(&self) -> Vec<(u64, String)> {
        self.inner().log.clone()
    }
}

/// The release that nodes run at the beginning.
pub const OLD: &str = "v3.4.2-k3sv1.30.11+k3s1";

/// The server's time now, as an operator sees it whose clock is off by these seconds.
pub fn time_off_by(seconds: i64) -> Timestamp {
    kairos_sim::clock::now().saturating_add(SignedDuration::from_secs(seconds)).expect("within time")
}
