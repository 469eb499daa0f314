//! Nodes, their clocks and their kubelets.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::{api::core::v1::Node as NodeObject, jiff::SignedDuration};
use kairos_operator::{
    api::{
        names,
        nodeop::{NodeOp, Step},
    },
    plan::model::lifecycle::Lifecycle,
};
use kairos_sim::{Cluster, Fate, Tells};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::super::{
    history::text,
    world::{Event, World},
};

/// More than facts pods may be under way at once.
const DOZEN: usize = 12;
/// For this time odd things go on.
const LONG: Duration = Duration::from_secs(600);

/// Each clock is off by minutes, or by hours.
pub fn clocks(world: &World) {
    for (name, node) in &world.nodes {
        let seconds = world.rng(|rng| if rng.bool() { rng.i64(-900..900) } else { rng.i64(-20_000..20_000) });
        node.set_clock(SignedDuration::from_secs(seconds));
        world.note(|| format!("the clock of {name} is off by {seconds} s"));
    }
}

/// Some nodes have room for what is on them, and for no more.
pub async fn fill(cluster: &Cluster, world: &World) {
    let pods = cluster.list("pods");
    for (name, node) in &world.nodes {
        let here = pods.iter().filter(|pod| text(pod, "/spec/nodeName") == name).count();
        if here > 1 && world.chance(60) {
            node.set_room(here).await;
            world.note(|| format!("{name} takes {here} pods, and has them"));
        }
    }
}

/// The control planes are members of etcd, most of them with no other role.
pub async fn members(world: &World) {
    let nodes: Api<NodeObject> = Api::all(world.client.clone());
    let tells =
        [Tells::Condition, Tells::MirrorPods, Tells::Both, Tells::Nothing][world.rng(|rng| rng.usize(..4))];
    for (name, node) in world.nodes.iter().filter(|(_, node)| node.is_control_plane()) {
        if world.chance(80) {
            let labels = json!({"node-role.kubernetes.io/control-plane": null, "node-role.kubernetes.io/etcd": "true"});
            let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
            nodes.patch(name, &PatchParams::default(), &patch).await.expect("a node");
        }
        node.set_etcd(tells, world.time(5_000, 50_000)).await;
    }
    world.note(|| format!("members of etcd, shown by {tells:?}"));
}

fn object(name: &str, os: &str) -> NodeObject {
    let condition = json!({"type": "Ready", "status": "True", "reason": "KubeletReady"});
    let node = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": os, "kubernetes.io/arch": "amd64"}},
        "spec": {"taints": [{"key": "os", "value": os, "effect": "NoSchedule"}]},
        "status": {"conditions": [condition], "nodeInfo": {
            "machineID": format!("machine-{name}"), "systemUUID": format!("system-{name}"), "bootID": format!("boot-{name}"),
            "kernelVersion": "6", "osImage": os, "containerRuntimeVersion": "sim://1.0", "kubeletVersion": "v1.33.0",
            "kubeProxyVersion": "", "operatingSystem": os, "architecture": "amd64"}}});
    serde_json::from_value(node).expect("a Node")
}

/// Nodes that are Ready for some seconds, and are never heard of again.
pub fn join_and_die(world: &Arc<World>) {
    let (world, busy) = (world.clone(), world.busy());
    tokio::spawn(async move {
        sleep(world.time(2_000, 10_000)).await;
        let nodes: Api<NodeObject> = Api::all(world.client.clone());
        let names: Vec<String> = (1..=DOZEN).map(|number| format!("dead-{number}")).collect();
        for name in &names {
            nodes.create(&PostParams::default(), &object(name, "linux")).await.expect("a node");
        }
        sleep(world.time(500, 4_000)).await;
        let gone: Value = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}});
        for name in &names {
            nodes
                .patch_status(name, &PatchParams::default(), &Patch::Strategic(&gone))
                .await
                .expect("a node");
        }
        world.note(|| format!("{DOZEN} nodes went away"));
        drop(busy);
    });
}

/// Windows nodes, which are Ready and stay.
pub fn join_windows(world: &Arc<World>) {
    let (world, busy) = (world.clone(), world.busy());
    tokio::spawn(async move {
        sleep(world.time(0, 10_000)).await;
        let nodes: Api<NodeObject> = Api::all(world.client.clone());
        for number in 1..=DOZEN {
            nodes
                .create(&PostParams::default(), &object(&format!("windows-{number}"), "windows"))
                .await
                .expect("a node");
        }
        drop(busy);
    });
}

/// Does something to one node after the other, with pauses, for some minutes; each time it is undone before
/// the next.
async fn now_and_then(world: Arc<World>, pause: (u64, u64), change: impl AsyncFn(&World, &str)) {
    let busy = world.busy();
    let names: Vec<String> = world.nodes.keys().cloned().collect();
    let end = world.elapsed() + LONG;
    loop {
        sleep(world.time(pause.0, pause.1)).await;
        if world.elapsed() > end {
            break;
        }
        let node = names[world.rng(|rng| rng.usize(..names.len()))].clone();
        change(&world, &node).await;
    }
    drop(busy);
}

/// Words of a runtime that failed to start a container, and may start the next.
const NOT_STARTED: &str = "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc \
    create failed: unable to start container process: unable to apply cgroup configuration: failed to write 71: \
    openat2 cgroup.procs: no such file or directory: unknown";

/// Kubelets take no pod in for some seconds, or their runtimes start no container.
pub fn refuse(world: &Arc<World>) {
    let one = async |world: &World, node: &str| {
        let reasons = [
            (
                "OutOfpods",
                "Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 110, capacity: 110",
            ),
            (
                "OutOfcpu",
                "Pod was rejected: Node didn't have enough resource: cpu, requested: 100, used: 3900, capacity: 4000",
            ),
            ("Evicted", "The node had condition: [DiskPressure]."),
            ("UnexpectedAdmissionError", "Allocate failed due to no healthy devices present"),
        ];
        match reasons.get(world.rng(|rng| rng.usize(..=reasons.len()))) {
            Some((reason, message)) => {
                world.note(|| format!("{node} refuses pods: {reason}"));
                world.nodes[node].refuse_pods(Some((reason, (*message).into())));
            }
            None => {
                world.note(|| format!("{node} starts no containers"));
                world.nodes[node].fail_starts(Some(NOT_STARTED));
            }
        }
        sleep(world.time(3_000, 60_000)).await;
        world.nodes[node].refuse_pods(None);
        world.nodes[node].fail_starts(None);
        world.note(|| format!("{node} takes and starts pods again"));
    };
    tokio::spawn(now_and_then(world.clone(), (1_000, 40_000), one));
}

/// Nodes make no sandboxes for some seconds; those that never do are left so.
pub fn lose_sandboxes(world: &Arc<World>) {
    let one = async |world: &World, node: &str| {
        if world.machine(node, |machine| machine.no_sandbox) {
            return;
        }
        world.note(|| format!("{node} makes no sandboxes"));
        world.nodes[node].fail_sandboxes(Some("plugin type=\"calico\" failed (add): connection refused"));
        sleep(world.time(3_000, 80_000)).await;
        world.nodes[node].fail_sandboxes(None);
        world.note(|| format!("{node} makes sandboxes again"));
    };
    tokio::spawn(now_and_then(world.clone(), (1_000, 60_000), one));
}

/// Kubelets stop, and their containers do not. Now and then somebody deletes the Node meanwhile, which the
/// kubelet makes again when it starts.
pub fn stop_kubelets(world: &Arc<World>) {
    let one = async |world: &World, node: &str| {
        if !world.nodes[node].boot().up {
            return;
        }
        world.note(|| format!("the kubelet of {node} stops"));
        world.nodes[node].stop_kubelet();
        if world.chance(30) {
            world.note(|| format!("somebody deletes {node}"));
            let nodes: Api<NodeObject> = Api::all(world.client.clone());
            // It may be gone already.
            let _ = nodes.delete(node, &DeleteParams::default()).await;
        }
        sleep(world.time(5_000, 120_000)).await;
        world.note(|| format!("the kubelet of {node} starts"));
        world.nodes[node].start_kubelet().await;
    };
    tokio::spawn(now_and_then(world.clone(), (1_000, 60_000), one));
}

/// Somebody else's tool has said something of the drain of some nodes.
pub async fn say(world: &World) {
    let nodes: Api<NodeObject> = Api::all(world.client.clone());
    for name in world.nodes.keys() {
        let condition = Lifecycle::ALL[world.rng(|rng| rng.usize(..3))];
        if world.chance(30) {
            let entry = json!({"type": condition.kind(), "status": "False", "reason": "Theirs", "message": "kubectl drain"});
            let patch = Patch::Strategic(json!({"status": {"conditions": [entry]}}));
            // A node that is still to join says nothing.
            drop(nodes.patch_status(name, &PatchParams::default(), &patch).await);
        }
    }
}

/// Somebody tells autoscalers to leave a node, or not to, or nothing any more.
pub fn tell_autoscalers(world: &Arc<World>) {
    let one = async |world: &World, node: &str| {
        let nodes: Api<NodeObject> = Api::all(world.client.clone());
        let Ok(now) = nodes.get(node).await else { return };
        let (name, asks) = names::KEEPS_FROM_SCALE_DOWN[world.rng(|rng| rng.usize(..2))];
        let values = [None, Some("false"), Some("30m"), Some(asks)];
        let value = values[world.rng(|rng| rng.usize(..values.len()))].map(str::to_owned);
        // Whoever sets what we have set cannot be told from us.
        let claimed = now.annotations().contains_key(names::CLAIMED_BY);
        if (claimed && value.as_deref() == Some(asks)) || now.annotations().get(name) == value.as_ref() {
            return;
        }
        let patch =
            json!({"metadata": {"resourceVersion": now.resource_version(), "annotations": {name: value}}});
        if nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await.is_ok() {
            world.happens(node, Event::Told { name, value });
        }
    };
    tokio::spawn(now_and_then(world.clone(), (500, 10_000), one));
}

/// Labels a node for load balancers, or takes the label off. Whoever does what we have done cannot be told
/// from us.
async fn label(world: &World, node: &str, value: Option<&str>) {
    let nodes: Api<NodeObject> = Api::all(world.client.clone());
    let Ok(now) = nodes.get(node).await else { return };
    let (name, version) = (names::NOT_BALANCED, now.resource_version());
    let ours =
        now.annotations().contains_key(names::AUTOSCALER_HINTS) && value == Some(names::NOT_BALANCED_VALUE);
    if ours || now.labels().get(name).map(String::as_str) == value {
        return;
    }
    let patch = json!({"metadata": {"resourceVersion": version, "labels": {name: value}}});
    if nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await.is_ok() {
        world.happens(node, Event::Told { name, value: value.map(str::to_owned) });
    }
}

/// Somebody keeps load balancers off some nodes.
pub async fn label_some(world: &World) {
    for node in world.nodes.keys() {
        if world.chance(20) {
            label(world, node, Some("theirs")).await;
        }
    }
}

/// And off others, and lets them have nodes again.
pub fn keep_off(world: &Arc<World>) {
    let one = async |world: &World, node: &str| {
        let values = [None, None, Some("theirs"), Some("true"), Some("")];
        label(world, node, values[world.rng(|rng| rng.usize(..values.len()))]).await;
    };
    tokio::spawn(now_and_then(world.clone(), (2_000, 40_000), one));
}

/// A cloud controller deletes the Nodes of machines that are away.
pub fn delete_the_absent(world: &Arc<World>) {
    let world = world.clone();
    tokio::spawn(async move {
        let nodes: Api<NodeObject> = Api::all(world.client.clone());
        loop {
            sleep(Duration::from_secs(1)).await;
            for (name, node) in &world.nodes {
                let boot = node.boot();
                if boot.up
                    || !world.chance(25)
                    || nodes.get_opt(name).await.ok().flatten().is_none()
                    || node.boot() != boot
                {
                    continue;
                }
                world.note(|| format!("a cloud controller deletes {name}, which is away"));
                // It may be gone already.
                let _ = nodes.delete(name, &DeleteParams::default()).await;
            }
        }
    });
}

/// While the Job of one member of the control plane runs, another one goes away, for minutes.
pub fn leave(world: &Arc<World>) {
    let world = world.clone();
    tokio::spawn(async move {
        let ops: Api<NodeOp> = Api::default_namespaced(world.client.clone());
        let mut seen = BTreeSet::new();
        loop {
            sleep(Duration::from_secs(2)).await;
            let ops = ops.list(&ListParams::default()).await.map(|all| all.items).unwrap_or_default();
            let entries = ops.iter().flat_map(|op| {
                let nodes = op.status.iter().flat_map(|status| &status.node_statuses);
                nodes.map(|(name, entry)| (op.uid().unwrap_or_default(), name.clone(), entry.step))
            });
            let runs = entries.filter(|(_, name, step)| {
                *step == Some(Step::Job) && world.nodes.get(name).is_some_and(|node| node.is_control_plane())
            });
            for (op, name, _) in runs.collect::<Vec<_>>() {
                if seen.insert((op, name.clone())) && world.chance(70) {
                    let (world, busy) = (world.clone(), world.busy());
                    tokio::spawn(async move {
                        sleep(world.time(0, 60_000)).await;
                        let mut others = world.nodes.iter().filter(|(other, node)| {
                            **other != name && node.is_control_plane() && node.boot().up
                        });
                        if let Some((other, node)) = others.next_back() {
                            world.note(|| format!("{other} goes away while the Job of {name} runs"));
                            node.set_fate(Fate::Late(world.time(60_000, 400_000)));
                            node.reboot();
                        }
                        drop(busy);
                    });
                }
            }
        }
    });
}
