//! Machines whose disks, sandboxes or reboots are not as they should be, and what is in images and pods.

use std::sync::Arc;

use kairos_operator::{api::names::container, contract::Sentinel, node::host::reserve::ROOM};
use kairos_sim::Cluster;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    super::world::{Init, World},
    Kind,
};

/// What a webhook adds to pods.
pub const SIDECAR: &str = "mesh-proxy";
/// What it adds before all other containers.
pub const INIT: &str = "mesh-init";
/// How a mesh is told to leave a pod alone.
const NOT_HERE: [(&str, &str); 2] = [("sidecar.istio.io/inject", "false"), ("linkerd.io/inject", "disabled")];
/// The tag that moves.
pub const TAG: &str = "kairos:latest";

/// The state directory of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disk {
    #[default]
    Good,
    ReadOnly,
    /// A file can be made, and not one byte be put into it.
    Full,
    /// It takes what is written before an operation, and is read-only from the operation's end on.
    Breaks,
}

/// How the applets name the directory to people.
const DIRECTORY: &str = "the node's state directory (/usr/local/.kairos by default)";

impl Disk {
    fn error(self) -> &'static str {
        match self {
            Self::Full => "No space left on device (os error 28)",
            _ => "Read-only file system (os error 30)",
        }
    }

    /// What the waiter says, which keeps room for the sentinel of a Job, as `StateDir::prepare` does. A
    /// sentinel that is there already needs no room.
    pub fn prepare(self, job: &str, is_there: bool) -> Result<(), String> {
        match self {
            Self::ReadOnly | Self::Full if !is_there => Err(format!(
                "{DIRECTORY} takes no sentinel: keeping {ROOM} bytes free: writing /state/.{job}.json.reserve: {}",
                self.error()
            )),
            _ => Ok(()),
        }
    }

    /// What the sentinel's applet says, for which no retry of the Job is of any use.
    pub fn write(self, sentinel: &Sentinel) -> Result<(), String> {
        if self == Self::Good {
            return Ok(());
        }
        let known = "the operation succeeded and is not run again, but its record could not be written";
        let writing = format!("writing /sentinel/{}.json: {}", sentinel.job, self.error());
        Err(format!("{known}: {writing}. Mend {DIRECTORY}, then reboot the node"))
    }

    /// What the upgrade says before it starts the agent.
    pub fn start(self, job: &str) -> Result<(), String> {
        match self {
            Self::Good | Self::Breaks => Ok(()),
            Self::ReadOnly | Self::Full => Err(format!(
                "kairos-agent was not started; {DIRECTORY} cannot be used: keeping {ROOM} bytes free: writing {job}: {}",
                self.error()
            )),
        }
    }

    /// What it says when the agent is done and that cannot be recorded.
    pub fn conclude(self, job: &str) -> Result<(), String> {
        if self == Self::Good { Ok(()) } else { Err(format!("writing {job}.upgrade.json: {}", self.error())) }
    }
}

/// Spoils some machines for good.
pub fn spoil(world: &World, kind: Kind) {
    for node in world.nodes.keys() {
        if !world.chance(30) {
            continue;
        }
        match kind {
            Kind::Sandboxes => {
                world.nodes[node]
                    .fail_sandboxes(Some("plugin type=\"calico\" failed (add): no free address in the pool"));
                world.machine(node, |machine| machine.no_sandbox = true);
            }
            Kind::Disks => {
                let disk = [Disk::ReadOnly, Disk::Full, Disk::Breaks][world.rng(|rng| rng.usize(..3))];
                world.machine(node, |machine| machine.disk = disk);
            }
            Kind::DeafWaiters => world.machine(node, |machine| machine.deaf_waiters = true),
            _ => world.machine(node, |machine| machine.init = Init::Stuck),
        }
        world.note(|| format!("{kind:?}: {node}"));
    }
}

/// The tag means one release, and some nodes have an older one of it in their caches.
pub fn shelve(world: &World) {
    world.registry.push(TAG, "kairos:v3.5.0");
    world.tag_means("kairos:v3.5.0");
    for node in world.nodes.keys() {
        if world.chance(50) {
            world.registry.preload(node, TAG, "kairos:v3.4.2");
        }
    }
}

/// The tag is pushed again, once.
pub fn move_tag(world: &Arc<World>) {
    let (world, busy) = (world.clone(), world.busy());
    tokio::spawn(async move {
        sleep(world.time(1_000, 200_000)).await;
        world.note(|| format!("{TAG} is pushed again"));
        world.registry.push(TAG, "kairos:v3.6.0");
        world.tag_means("kairos:v3.6.0");
        drop(busy);
    });
}

/// Every pod of the namespace gets a further container, and one that goes before all others, unless it says
/// that it wants none and this mesh listens.
pub fn inject(cluster: &Cluster, world: &World) {
    let listens = world.chance(50);
    world.note(|| format!("a webhook injects {SIDECAR}, and heeds marks against it: {listens}"));
    cluster.admission().mutate(move |table, object| {
        let ours = table == "pods"
            && object["metadata"]["namespace"] == "default"
            && object["metadata"]["labels"]["group"].is_null();
        let marked = |(name, value): (&str, &str)| {
            object["metadata"]["annotations"][name] == value || object["metadata"]["labels"][name] == value
        };
        if !ours || (listens && NOT_HERE.into_iter().any(marked)) {
            return;
        }
        if let Some(containers) = object.pointer_mut("/spec/containers").and_then(Value::as_array_mut) {
            containers.push(json!({"name": SIDECAR, "image": "mesh:1"}));
        }
        let init = json!({"name": INIT, "image": "mesh:1"});
        match object.pointer_mut("/spec/initContainers").and_then(Value::as_array_mut) {
            Some(containers) => containers.insert(0, init),
            None => object["spec"]["initContainers"] = json!([init]),
        }
    });
}

/// What runs in a pod that is deleted by force goes on for a while, though no longer than a kubelet lets it
/// by itself, which is the grace period; and in some of these worlds the Job controller makes another pod
/// while it does.
pub fn linger(cluster: &Cluster, world: &World) {
    for node in world.nodes.values() {
        node.linger(world.time(10_000, 30_000));
    }
    let hasty = world.chance(50);
    world.note(|| format!("commands outlive their pods; the Job controller waits for none: {hasty}"));
    cluster.admission().mutate(move |table, object| {
        // With a policy of failures a Job waits for the end of its pods, as one that is followed by a reboot
        // must.
        let text = object.to_string();
        let plain = ![container::SENTINEL, container::INSTALL].into_iter().any(|name| text.contains(name));
        if hasty
            && table == "jobs.batch"
            && plain
            && let Some(spec) = object["spec"].as_object_mut()
        {
            spec.remove("podFailurePolicy");
            spec.insert("podReplacementPolicy".into(), json!("TerminatingOrFailed"));
        }
    });
}
