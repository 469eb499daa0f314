//! What an event costs that changes nothing: a node's heartbeat.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{api::core::v1::Node as NodeObject, jiff::SignedDuration};
use kairos_operator::{
    api::node::Node,
    observe::{cache::Cache, view},
};
use kairos_sim::meter;
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::WatchEvent,
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{line::Traffic, passes::Passes, rollout};
use crate::chaos::{run, scenario::Scenario};

/// Versions of nodes in a second, for a minute.
const EVERY: Duration = Duration::from_millis(10);
const EVENTS: u32 = 6_000;
/// Heartbeats of which each part is timed by itself.
const TIMED: u32 = 100_000;

/// A Node as kubelets write it, with what fills most of it: images, and who manages which field.
fn node(name: &str, version: u64, beat: i64) -> Value {
    let at = kairos_sim::clock::now() + SignedDuration::from_secs(beat);
    let at = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let labels: serde_json::Map<String, Value> = (0..24)
        .map(|number| (format!("feature.node.kubernetes.io/cpu-cpuid.F{number:02}"), "true".into()))
        .chain([("kubernetes.io/hostname".into(), name.into()), ("kubernetes.io/os".into(), "linux".into())])
        .collect();
    let condition = |kind: &str, status: &str| {
        json!({"type": kind, "status": status, "reason": format!("KubeletSays{kind}"),
        "message": "kubelet says that there is nothing to be said", "lastTransitionTime": "2026-05-28T20:26:40Z", "lastHeartbeatTime": at})
    };
    let images: Vec<Value> = (0..25)
        .map(|number| {
            let names = [
                format!("registry.example.com/team/application-{number}@sha256:{number:064}"),
                format!("registry.example.com/team/application-{number}:v1.{number}.0"),
            ];
            json!({"names": names, "sizeBytes": 100_000_000 + number})
        })
        .collect();
    let fields: serde_json::Map<String, Value> =
        (0..40).map(|number| (format!("f:field-{number:02}"), json!({"f:a": {}, "f:b": {}}))).collect();
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "uid": "5f3759df-1fc1-4b2e-9d2e-0123456789ab", "resourceVersion": version.to_string(),
            "creationTimestamp": "2026-05-28T20:26:40Z", "labels": labels,
            "annotations": {"node.alpha.kubernetes.io/ttl": "0", "volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            "managedFields": [{"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "time": at,
                "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": fields}, "subresource": "status"}]},
        "spec": {"podCIDR": "10.42.0.0/24", "podCIDRs": ["10.42.0.0/24"], "providerID": format!("k3s://{name}")},
        "status": {"conditions": [condition("MemoryPressure", "False"), condition("DiskPressure", "False"),
                condition("PIDPressure", "False"), condition("Ready", "True")],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": name}],
            "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"}, "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "nodeInfo": {"bootID": "b1", "machineID": "m1", "systemUUID": "s1", "kernelVersion": "6.8.0", "osImage": "Kairos",
                "containerRuntimeVersion": "containerd://2.0", "kubeletVersion": "v1.36.2", "kubeProxyVersion": "",
                "operatingSystem": "linux", "architecture": "amd64"},
            "images": images}})
}

/// The mean of many, in microseconds.
fn micros(took: Duration, events: u32) -> f64 {
    took.as_secs_f64() * 1e6 / f64::from(events)
}

/// Prints what each part of a heartbeat takes by itself.
pub fn print_parts() {
    // As API servers write it, with the type first. Of a line with the object first, all is kept, as it came
    // in, until it is known how to read it.
    let text = format!(r#"{{"type":"MODIFIED","object":{}}}"#, node("n1", 1, 0));
    let read = |text: &str| match serde_json::from_str::<WatchEvent<Node>>(text) {
        Ok(WatchEvent::Modified(node)) => node,
        other => panic!("{other:?}"),
    };
    let time = |work: &mut dyn FnMut(u32)| {
        let begun = Instant::now();
        (0..TIMED).for_each(&mut *work);
        micros(begun.elapsed(), TIMED)
    };
    let parse = time(&mut |_| drop(std::hint::black_box(read(std::hint::black_box(&text)))));
    let seen = read(&text);
    let copy = time(&mut |_| drop(std::hint::black_box(seen.clone())));
    let look = time(&mut |_| drop(std::hint::black_box(view::node(seen.clone())))) - copy;
    let shown = view::node(seen.clone());
    let again = time(&mut |_| drop(std::hint::black_box(shown.clone())));
    let mut cache = Cache::default();
    cache.apply(view::version(&seen.metadata), shown.clone());
    let apply = time(&mut |beat| {
        let mut version = view::version(&seen.metadata);
        version.resource_version = (2 + beat).to_string();
        assert!(!cache.apply(version, shown.clone()), "it says nothing new");
    }) - again;
    println!(
        "A heartbeat of {:.1} kB, {TIMED} times: {parse:.1} µs to read it, {look:.1} to see it, {apply:.1} to take it",
        text.len() as f64 / 1e3
    );
}

/// Plays a minute of heartbeats, and a second; what it takes that is not the simulation's.
async fn minute<F: Future<Output = ()>>(
    names: &[String],
    after: u32,
    beats: impl Fn(&str, i64) -> F,
) -> Duration {
    let before = meter::spent();
    for (beat, name) in (after + 1..=after + EVENTS).zip(names.iter().cycle()) {
        sleep(EVERY).await;
        beats(name, i64::from(beat)).await;
    }
    sleep(Duration::from_secs(1)).await;
    meter::spent().operator - before.operator
}

/// Prints what heartbeats take of the operator altogether: read from its watch, seen, and taken.
pub async fn print(nodes: usize, passes: Passes) {
    let scenario = Scenario { measured: true, ..Scenario::calm(nodes) };
    let (cluster, world) = run::cluster(1, &scenario).await;
    let api = Api::<NodeObject>::all(world.client.clone());
    let names: Vec<String> = world.nodes.keys().cloned().collect();
    let beats = |name: &str, beat: i64| {
        let (mut object, api, name) = (node(name, 0, beat), api.clone(), name.to_owned());
        let status = object["status"].take();
        let meta = json!({"labels": object["metadata"]["labels"]});
        async move {
            let said = json!({"metadata": meta, "status": {"conditions": status["conditions"], "images": status["images"]}});
            let params = PatchParams::default();
            if beat == 0 {
                api.patch(&name, &params, &Patch::Merge(&said)).await.expect("a patch");
            }
            api.patch_status(&name, &params, &Patch::Merge(&said)).await.expect("a patch");
        }
    };
    for name in &names {
        beats(name, 0).await;
    }
    // What the world itself takes of the time that is not the simulation's: it is in the figure as well.
    let by_world = minute(&names, 0, &beats).await;
    let running = rollout::operate(&cluster, &world, &Arc::new(Traffic::default()));
    // What nodes run is read first; nothing is to come of it any more.
    sleep(Duration::from_secs(3600)).await;
    passes.forget();
    let spent = minute(&names, EVENTS, &beats).await;
    let bytes = cluster.get("nodes", "", &names[0]).map_or(0, |node| node.to_string().len());
    println!(
        "Idle, {nodes} nodes, {EVENTS} heartbeats of {:.1} kB in a minute: {:.1} µs each, of which {:.1} are taken without an operator; {} passes",
        bytes as f64 / 1e3,
        micros(spent, EVENTS),
        micros(by_world, EVENTS),
        passes.summary().count
    );
    running.abort();
}
