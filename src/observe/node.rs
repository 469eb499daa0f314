//! A Node, as much of it as is read. A kubelet tells of up to fifty images with all their names, and the
//! server of who manages which field: most of the object, in each of the heartbeats that thousands of nodes
//! send. None of that is given a place in memory.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{
    api::core::v1 as core,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::Resource;
use serde::{Deserialize, Deserializer};

/// The part of a Node that decides something. It is read and never written: changes are patches.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    pub spec: Option<NodeSpec>,
    pub status: Option<NodeStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    pub unschedulable: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeStatus {
    pub conditions: Option<Vec<NodeCondition>>,
    pub node_info: Option<NodeSystemInfo>,
    pub volumes_attached: Option<Vec<AttachedVolume>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeCondition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
    pub reason: Option<String>,
    pub message: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSystemInfo {
    #[serde(rename = "bootID")]
    pub boot_id: String,
    #[serde(rename = "machineID")]
    pub machine_id: String,
    pub operating_system: String,
    pub architecture: String,
    pub kubelet_version: String,
}

/// That there is one is all that is asked.
#[derive(Clone, Debug, Deserialize)]
pub struct AttachedVolume {}

/// The metadata without `managedFields`, which the type of the field would keep.
fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kept {
        name: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
    }
    let kept = Kept::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: kept.name,
        uid: kept.uid,
        resource_version: kept.resource_version,
        creation_timestamp: kept.creation_timestamp,
        deletion_timestamp: kept.deletion_timestamp,
        labels: kept.labels,
        annotations: kept.annotations,
        ..ObjectMeta::default()
    })
}

impl Resource for Node {
    type DynamicType = ();
    type Scope = <core::Node as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        core::Node::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        core::Node::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        core::Node::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        core::Node::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_decides_is_read_and_the_rest_is_passed_over() {
        let node: Node = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n1", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-05-28T20:26:40Z",
                "labels": {"a": "b"}, "annotations": {"c": "d"}, "managedFields": [{"manager": "kubelet", "fieldsV1": {}}]},
            "spec": {"podCIDR": "10.0.0.0/24", "unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
                "images": [{"names": ["i"], "sizeBytes": 1}],
                "nodeInfo": {"bootID": "b", "machineID": "m", "operatingSystem": "linux", "architecture": "amd64"},
                "volumesAttached": [{"name": "v", "devicePath": ""}]},
        }))
        .unwrap();
        let view = super::super::view::node(&node);
        assert_eq!((view.name.as_str(), view.uid.as_str(), view.resource_version.as_str()), ("n1", "u", "7"));
        assert_eq!((view.boot_id.as_str(), view.machine_id.as_str()), ("b", "m"));
        assert_eq!((view.os.as_str(), view.arch.as_str()), ("linux", "amd64"));
        assert!(view.ready && view.unschedulable && view.volumes_attached && !view.deleting);
        assert_eq!(view.labels.get("a").map(String::as_str), Some("b"));
        assert!(node.metadata.managed_fields.is_none());
    }

    /// A node that has just joined, and one of which a field is there and null.
    #[test]
    fn what_is_not_there_is_not_asked_for() {
        for object in [
            json!({"metadata": {"name": "n1"}}),
            json!({"metadata": {"name": "n1"}, "spec": null, "status": {"nodeInfo": null}}),
        ] {
            let node: Node = serde_json::from_value(object).unwrap();
            assert_eq!(super::super::view::node(&node).boot_id, "");
        }
    }
}
