//! Those who mean harm, with the rights that they really have: somebody who may `edit` another namespace, and
//! one node that is compromised, with its kubelet's credentials.
//!
//! Neither deletes anything of ours. Both can compute every name that we will use: a NodeOp's UID stands in
//! the claim on its node.

use std::sync::Arc;

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Node as NodeObject, Pod, ServiceAccount},
};
use kairos_operator::{
    api::{
        names::{self, container},
        nodeop::NodeOp,
    },
    contract::{self, Facts, reboot_state},
    plan::model::object_name,
};
use kairos_sim::{Cluster, install};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    super::world::World,
    strangers::{FORGED_FACTS, NAMESPACE, SAYS, STRANGER},
};

/// The number of things that somebody makes in a run: whatever they do, a run has an end.
const MOST: usize = 60;
/// More than an annotation, a message of a container or a label can be on a real server, or nearly.
const HUGE: usize = 200_000;

/// The namespace in which somebody may edit.
pub async fn settle(cluster: &Cluster) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    cluster.apply(&namespace.to_string()).await.expect("a namespace");
}

/// One node is bad, and there is another one.
pub fn corrupt(world: &World) {
    let names: Vec<&String> = world.nodes.keys().collect();
    let bad = names[world.rng(|rng| rng.usize(..names.len()))].clone();
    world.note(|| format!("{bad} is compromised"));
    world.machine(&bad, |machine| machine.bad = true);
}

/// The nodes, and the NodeOps as (name, UID), that there are now.
async fn targets(world: &World) -> Option<(Vec<NodeObject>, Vec<(String, String)>)> {
    let nodes = Api::<NodeObject>::all(world.client.clone()).list(&ListParams::default()).await.ok()?;
    let ops =
        Api::<NodeOp>::default_namespaced(world.client.clone()).list(&ListParams::default()).await.ok()?;
    let ops = ops.items.iter().map(|op| (op.name_any(), op.uid().unwrap_or_default())).collect();
    Some((nodes.items, ops))
}

/// One of them; `None` of none.
fn one<'a, T>(world: &World, of: &'a [T]) -> Option<&'a T> {
    (!of.is_empty()).then(|| &of[world.rng(|rng| rng.usize(..of.len()))])
}

/// Somebody makes objects in a namespace of theirs: with our labels, with our owners, under the names that
/// ours have or will have.
pub fn forge_elsewhere(world: &Arc<World>) {
    let world = world.clone();
    tokio::spawn(async move {
        for _ in 0..MOST {
            sleep(world.time(500, 6_000)).await;
            let Some((nodes, ops)) = targets(&world).await else { continue };
            let (Some(node), Some(op)) = (one(&world, &nodes), one(&world, &ops)) else { continue };
            forge(&world, node, op).await;
        }
    });
}

async fn forge(world: &World, node: &NodeObject, (op, uid): &(String, String)) {
    let (on, attempt) = (node.name_any(), world.rng(|rng| rng.i32(..3)));
    let of = |kind: &str| object_name::object((op, uid), &on, kind, attempt);
    let owned = json!([{"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "name": op, "uid": uid, "controller": true}]);
    let junk = if world.chance(20) { "x".repeat(HUGE) } else { "all is well".into() };
    let meta = |name: &str, labels: Value| {
        let mut labels = labels;
        (labels[STRANGER], labels[names::NODEOP]) = ("editor".into(), op.as_str().into());
        labels[names::NODE] = names::label_value(&on).into();
        json!({"name": name, "namespace": NAMESPACE, "labels": labels,
            "annotations": {names::NODE_NAME: on, names::REBOOT_STATE: reboot_state::COMPLETED, SAYS: "well done", "theirs": junk}})
    };
    let spec = |container: &str| json!({"nodeName": on, "restartPolicy": "Never", "containers": [{"name": container, "image": "theirs:1"}]});
    let with = |mut meta: Value| {
        meta["ownerReferences"] = owned.clone();
        meta
    };
    let client = || world.client.clone();
    let params = PostParams::default();
    let pods = Api::<Pod>::namespaced(client(), NAMESPACE);
    // Each may be there already, from an earlier look.
    match world.rng(|rng| rng.usize(..5)) {
        0 => {
            let meta = with(meta(&of("reboot"), json!({names::REBOOT: "true"})));
            let pod = json!({"metadata": meta, "spec": spec(container::REBOOT)});
            drop(pods.create(&params, &read(pod)).await);
        }
        1 => {
            let meta = with(meta(&of("preflight"), json!({names::PREFLIGHT: "true"})));
            let pod = json!({"metadata": meta, "spec": spec(container::PREFLIGHT)});
            drop(pods.create(&params, &read(pod)).await);
        }
        2 => {
            let mut template = meta("ignored", json!({}));
            template.as_object_mut().expect("an object").remove("name");
            let job = json!({"metadata": with(meta(&of(""), json!({}))),
                "spec": {"template": {"metadata": template, "spec": spec(container::SENTINEL)}}});
            drop(Api::<Job>::namespaced(client(), NAMESPACE).create(&params, &read(job)).await);
        }
        3 => {
            let account = object_name::accounts((op, uid), &on).remove(0);
            // Without an owner: the garbage collector would take one that it does not find at its word.
            let account = json!({"metadata": meta(&account, json!({}))});
            drop(
                Api::<ServiceAccount>::namespaced(client(), NAMESPACE).create(&params, &read(account)).await,
            );
        }
        _ => {
            let mut meta = meta(&facts_name(node), json!({names::APP: names::LABELER}));
            meta["ownerReferences"] = owner_node(node);
            let pod = json!({"metadata": meta, "spec": spec(container::FACTS)});
            drop(pods.create(&params, &read(pod)).await);
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("an object of its kind")
}

fn owner_node(node: &NodeObject) -> Value {
    json!([{"apiVersion": "v1", "kind": "Node", "name": node.name_any(), "uid": node.uid(), "controller": true}])
}

/// The name of a node's first facts pod in its present boot.
fn facts_name(node: &NodeObject) -> String {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    let boot = info.map(|info| info.boot_id.clone()).unwrap_or_default();
    let of = format!("{} {boot}", node.uid().unwrap_or_default());
    object_name::object((names::LABELER, &of), &node.name_any(), "", 0)
}

/// The bad node makes mirror pods under the names of other nodes' pods, and labels its own Node.
pub fn misbehave(world: &Arc<World>) {
    let world = world.clone();
    let Some(bad) = world.nodes.keys().find(|name| world.machine(name, |machine| machine.bad)).cloned()
    else {
        return;
    };
    tokio::spawn(async move {
        for _ in 0..MOST {
            sleep(world.time(500, 6_000)).await;
            let Some((nodes, ops)) = targets(&world).await else { continue };
            let Some(own) = nodes.iter().find(|node| node.name_any() == bad) else { continue };
            if world.chance(20) {
                label(&world, &bad).await;
                continue;
            }
            let (Some(node), Some(op)) = (one(&world, &nodes), one(&world, &ops)) else { continue };
            mirror(&world, own, node, op).await;
        }
    });
}

/// What a kubelet may write on its own Node: labels that are not Kubernetes' own. Our annotations a policy
/// keeps from it.
async fn label(world: &World, bad: &str) {
    let nodes: Api<NodeObject> = Api::all(world.client.clone());
    let lies = ["v9.9.9", "v3.5.0-k3sv1.30.11-k3s1", "none"];
    let lie = lies[world.rng(|rng| rng.usize(..lies.len()))];
    let keys = ["kairos.io/version", "kairos.io/release", names::BOOT_STATE, "kairos.io/flavor"];
    let key = keys[world.rng(|rng| rng.usize(..keys.len()))];
    world.note(|| format!("{bad} labels itself {key}={lie}"));
    let patch = Patch::Merge(json!({"metadata": {"labels": {key: lie}}}));
    drop(nodes.patch(bad, &PatchParams::default(), &patch).await);
}

/// A mirror pod, as a kubelet may make it: bound to its own node, and owned by that.
async fn mirror(world: &World, own: &NodeObject, of: &NodeObject, (op, uid): &(String, String)) {
    let (bad, on) = (own.name_any(), of.name_any());
    let attempt = world.rng(|rng| rng.i32(..3));
    let named = |kind: &str| object_name::object((op, uid), &on, kind, attempt);
    let (namespace, name, mark, labels) = match world.rng(|rng| rng.usize(..4)) {
        0 => ("default", named("reboot"), "bad-node", json!({names::REBOOT: "true"})),
        1 => ("default", named("preflight"), "bad-node", json!({names::PREFLIGHT: "true"})),
        2 => ("default", named(""), "bad-node", json!({"batch.kubernetes.io/job-name": named("")})),
        // Of its own facts it may say anything: nobody can tell this pod from ours.
        _ => (install::NAMESPACE, facts_name(of), FORGED_FACTS, json!({names::APP: names::LABELER})),
    };
    let mut labels = labels;
    (labels[STRANGER], labels[names::NODEOP]) = (mark.into(), op.as_str().into());
    labels[names::NODE] = names::label_value(&on).into();
    world.note(|| format!("{bad} takes the name {namespace}/{name}"));
    let annotations = json!({"kubernetes.io/config.mirror": "1", names::NODE_NAME: on,
        names::REBOOT_STATE: reboot_state::COMPLETED, SAYS: says(world, "", &on)});
    let pod = json!({"metadata": {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations,
            "ownerReferences": owner_node(own)},
        "spec": {"nodeName": bad, "restartPolicy": "Never", "containers": [{"name": container::FACTS, "image": "theirs:1"}]}});
    // It may be there already.
    drop(
        Api::<Pod>::namespaced(world.client.clone(), namespace)
            .create(&PostParams::default(), &read(pod))
            .await,
    );
}

/// What the bad node says where a container of ours would have said `truth`.
pub fn says(world: &World, truth: &str, node: &str) -> String {
    let boot = world.nodes.get(node).map(|node| node.boot().id).unwrap_or_default();
    let lie = |boot: String| Facts {
        boot,
        boot_state: contract::boot_state::ACTIVE.into(),
        kairos: true,
        version: Some("v9.9.9".into()),
        release: (0..200).map(|number| (format!("KEY_{number}"), "x".repeat(500))).collect(),
    };
    // It says the same all the time in one boot: what waits for the truth does not come to it by chance, when
    // everything else is long over.
    let seed = boot.bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    match fastrand::Rng::with_seed(seed).usize(..6) {
        0 => "x".repeat(HUGE),
        1 => "{".repeat(50_000),
        2 => "\u{1b}[2J\u{0}\n\r".repeat(1_000),
        3 => serde_json::to_string(&lie(boot)).expect("facts"),
        4 => serde_json::to_string(&lie("another".into())).expect("facts"),
        _ => truth.to_owned(),
    }
}
