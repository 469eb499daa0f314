//! What a node says about itself, and the disk that it starts with.

use std::{fs, io, path::Path, time::Duration};

use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{etcd, kairos, node::Node};

/// Lays out a node's disk.
pub fn make_disk(disk: &Path) -> io::Result<()> {
    for dir in ["etc", "usr/local", "usr/lib", "run", "var/log", "proc"] {
        fs::create_dir_all(disk.join(dir))?;
    }
    fs::write(disk.join("etc/os-release"), "NAME=\"openSUSE Leap\"\nID=\"opensuse-leap\"\n")?;
    kairos::install(disk, "v3.4.2")
}

/// Creates the Node, or takes over one that is there already.
pub async fn register(node: &Node) -> anyhow::Result<()> {
    let nodes: Api<NodeObject> = Api::all(node.client());
    let mut labels = json!({
        "kubernetes.io/hostname": node.name(), "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "amd64",
    });
    if node.is_control_plane() {
        // k3s, which Kairos carries, writes a value here; kubeadm leaves it empty.
        labels["node-role.kubernetes.io/control-plane"] = "true".into();
    }
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name(), "labels": labels}, "spec": {}, "status": status(node, None)});
    match nodes.create(&PostParams::default(), &serde_json::from_value(object)?).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            report(node).await;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Reports the present boot, and that the node is Ready. A Node that was deleted is registered again, as a
/// kubelet does when it starts.
pub async fn report(node: &Node) {
    if !write(node, json!({"status": status(node, None)})).await {
        // The node came back to a cluster that does not know it any more.
        let again = Box::pin(register(node));
        if let Err(error) = again.await {
            tracing::warn!(node = node.name(), %error, "cannot register");
        }
    }
}

/// What the node controller says about a node that does not report any more.
pub async fn mark_unknown(node: &Node) {
    let why = ("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.");
    let now = time(crate::clock::now());
    write(node, json!({"status": {"conditions": [ready(why, &now)]}})).await;
}

/// Patches the status until the API takes it; false if there is no such Node.
pub(super) async fn write(node: &Node, patch: Value) -> bool {
    let nodes: Api<NodeObject> = Api::all(node.client());
    loop {
        match nodes.patch_status(node.name(), &PatchParams::default(), &Patch::Strategic(&patch)).await {
            Ok(_) => return true,
            Err(kube::Error::Api(status)) if status.code == 404 => return false,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// A time as Kubernetes writes it, by the node's clock or, for what the node controller says, by the
/// server's.
fn time(at: k8s_openapi::jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn ready((status, reason, message): (&str, &str, &str), now: &str) -> Value {
    json!({"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": now, "lastHeartbeatTime": now})
}

fn status(node: &Node, why: Option<(&str, &str, &str)>) -> Value {
    let now = time(node.now());
    let ready = ready(why.unwrap_or(("True", "KubeletReady", "kubelet is posting ready status")), &now);
    let fine = |kind: &str, reason: &str| json!({"type": kind, "status": "False", "reason": reason, "lastTransitionTime": now, "lastHeartbeatTime": now});
    let room = node.room().unwrap_or(110).to_string();
    let resources = json!({"cpu": "4", "memory": "8Gi", "pods": room, "ephemeral-storage": "100Gi"});
    let mut conditions = vec![
        fine("MemoryPressure", "KubeletHasSufficientMemory"),
        fine("DiskPressure", "KubeletHasNoDiskPressure"),
        fine("PIDPressure", "KubeletHasSufficientPID"),
        ready,
    ];
    conditions.extend(etcd::condition(node));
    json!({
        "conditions": conditions,
        "addresses": [{"type": "InternalIP", "address": node.address()}, {"type": "Hostname", "address": node.name()}],
        "capacity": resources, "allocatable": resources,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "machineID": format!("machine-{}", node.name()), "systemUUID": format!("system-{}", node.name()), "bootID": node.boot().id,
            "kernelVersion": "6.8.0-sim", "osImage": "Kairos (simulated)", "containerRuntimeVersion": "sim://1.0",
            "kubeletVersion": "v1.33.0+kairos-sim", "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
        },
    })
}
