//! How a control-plane node shows whether its etcd takes part again after a boot: a condition of the Node
//! (k3s, RKE2), the mirror pods of its static pods (kubeadm), or not at all.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{node::Node, register};

/// The static pods of a kubeadm control-plane node that matter to its peers.
const STATIC_PODS: [&str; 2] = ["etcd", "kube-apiserver"];
const NAMESPACE: &str = "kube-system";

/// Who tells of a node's etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    /// The node condition `EtcdIsVoter`.
    Condition,
    /// The Ready condition of mirror pods.
    MirrorPods,
    /// Both, as with RKE2: the condition says of each member that etcd counts that it votes, also while it is
    /// away; the mirror pods tell how it is.
    Both,
    /// Nobody.
    Nothing,
}

impl Tells {
    fn in_condition(self) -> bool {
        matches!(self, Self::Condition | Self::Both)
    }

    fn in_mirror_pods(self) -> bool {
        matches!(self, Self::MirrorPods | Self::Both)
    }
}

/// A member of etcd on a node.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub tells: Tells,
    /// How long after the kubelet's first report of a boot it takes part.
    pub joins_after: Duration,
    /// The boot in which it takes part.
    pub joined: u32,
}

impl Node {
    /// Puts a member of etcd on the node, which takes part in this boot already.
    pub async fn set_etcd(&self, tells: Tells, joins_after: Duration) {
        *self.etcd() = Some(Member { tells, joins_after, joined: self.boot().number });
        if tells.in_mirror_pods() {
            make_mirrors(self).await;
        }
        show(self, true).await;
    }

    /// Whether the node is up and its etcd takes part.
    pub fn in_quorum(&self) -> bool {
        let boot = self.boot();
        boot.up && self.etcd().is_none_or(|member| member.joined == boot.number)
    }

    /// The object of a static pod is gone or is to go, as when somebody deletes it: the kubelet runs the pod
    /// on, takes the object away, and makes another one.
    pub(super) fn mirror_ended(&self) {
        let node = self.clone();
        self.spawn(async move {
            node.kubelet().running().await;
            let (boot, member) = (node.boot(), *node.etcd());
            if let Some(member) = member.filter(|member| boot.up && member.tells.in_mirror_pods()) {
                show(&node, member.joined == boot.number).await;
            }
        });
    }

    /// The node has reported a boot.
    pub(super) fn rejoin(&self) {
        let Some(member) = *self.etcd() else { return };
        let (node, number) = (self.clone(), self.boot().number);
        self.spawn(async move {
            show(&node, false).await;
            tokio::time::sleep(member.joins_after).await;
            if node.boot().number != number {
                return;
            }
            if let Some(member) = node.etcd().as_mut() {
                member.joined = number;
            }
            show(&node, true).await;
        });
    }
}

/// The condition that a boot's first report says, where there is one.
pub fn condition(node: &Node) -> Option<Value> {
    let member = (*node.etcd())?;
    let votes = member.joined == node.boot().number || member.tells == Tells::Both;
    let status = if votes { "True" } else { "False" };
    member
        .tells
        .in_condition()
        .then(|| json!({"type": "EtcdIsVoter", "status": status, "reason": if votes { "MemberIsVoter" } else { "MemberIsLearner" }}))
}

async fn show(node: &Node, joined: bool) {
    let Some(member) = *node.etcd() else { return };
    if let Some(condition) = condition(node) {
        register::write(node, json!({"status": {"conditions": [condition]}})).await;
    }
    if member.tells.in_mirror_pods() {
        let status = if joined { "True" } else { "False" };
        let patch = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}, {"type": "ContainersReady", "status": status}]}});
        for name in STATIC_PODS {
            let pods: Api<Pod> = Api::namespaced(node.client(), NAMESPACE);
            let object = pods.get_opt(&pod_name(name, node)).await.ok().flatten();
            if object.is_some_and(|pod| pod.metadata.deletion_timestamp.is_some()) {
                let _ = pods.delete(&pod_name(name, node), &DeleteParams::default().grace_period(0)).await;
            }
            // The Node may have been deleted, and the pod with it: the kubelet makes it anew.
            if pods
                .patch_status(&pod_name(name, node), &PatchParams::default(), &Patch::Strategic(&patch))
                .await
                .is_err()
            {
                make_mirrors(node).await;
                let _ = pods
                    .patch_status(&pod_name(name, node), &PatchParams::default(), &Patch::Strategic(&patch))
                    .await;
            }
        }
    }
}

fn pod_name(name: &str, node: &Node) -> String {
    format!("{name}-{}", node.name())
}

async fn make_mirrors(node: &Node) {
    let nodes: Api<NodeObject> = Api::all(node.client());
    let Ok(Some(uid)) = nodes.get(node.name()).await.map(|node| node.uid()) else { return };
    for name in STATIC_PODS {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
                "name": pod_name(name, node), "namespace": NAMESPACE, "labels": {"component": name, "tier": "control-plane"},
                "annotations": {"kubernetes.io/config.mirror": name, "kubernetes.io/config.source": "file"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node.name(), "uid": uid, "controller": true}]},
            "spec": {"nodeName": node.name(), "hostNetwork": true, "priorityClassName": "system-node-critical",
                "tolerations": [{"operator": "Exists"}], "containers": [{"name": name, "image": format!("{name}:1")}]}});
        let pods: Api<Pod> = Api::namespaced(node.client(), NAMESPACE);
        if let Ok(pod) = serde_json::from_value(pod) {
            // It may be there already.
            let _ = pods.create(&PostParams::default(), &pod).await;
        }
    }
}
