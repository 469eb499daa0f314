//! A Node, as much of it as is read. A kubelet tells of up to fifty images with all their names, and the
//! server of who manages which field: most of the object, in each of the heartbeats that thousands of nodes
//! send. None of that is given a place in memory.

use k8s_openapi::{
    api::core::v1 as core,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde::Deserialize;

use super::{metadata, read_as::read_as, times};

/// The part of a Node that decides something. It is read and never written: changes are patches.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    #[serde(deserialize_with = "metadata::read")]
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
#[serde(default, rename_all = "camelCase")]
pub struct NodeCondition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
    #[serde(deserialize_with = "times::near")]
    pub last_transition_time: Option<Time>,
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

read_as!(Node, core::Node);

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
                "nodeInfo": {"bootID": "b", "machineID": "m", "operatingSystem": "linux", "architecture": "amd64", "kubeletVersion": "v1.36.2"},
                "volumesAttached": [{"name": "v", "devicePath": ""}]},
        }))
        .unwrap();
        let meta = &node.metadata;
        assert_eq!((meta.name.as_deref(), meta.uid.as_deref()), (Some("n1"), Some("u")));
        assert_eq!(meta.resource_version.as_deref(), Some("7"));
        assert!(meta.creation_timestamp.is_some() && meta.managed_fields.is_none());
        assert_eq!(json!([meta.labels, meta.annotations]), json!([{"a": "b"}, {"c": "d"}]));
        assert_eq!(node.spec.unwrap().unschedulable, Some(true));
        let status = node.status.unwrap();
        let ready = &status.conditions.unwrap()[0];
        assert_eq!((ready.type_.as_str(), ready.status.as_str()), ("Ready", "True"));
        assert_eq!(ready.reason.as_deref(), Some("KubeletReady"));
        let info = status.node_info.unwrap();
        assert_eq!((info.boot_id.as_str(), info.machine_id.as_str()), ("b", "m"));
        assert_eq!((info.operating_system.as_str(), info.architecture.as_str()), ("linux", "amd64"));
        assert_eq!(info.kubelet_version, "v1.36.2");
        assert_eq!(status.volumes_attached.map(|volumes| volumes.len()), Some(1));
    }

    /// A node that has just joined, and one of which a field is there and null.
    #[test]
    fn what_is_not_there_is_not_asked_for() {
        for object in [
            json!({"metadata": {"name": "n1"}}),
            json!({"metadata": {"name": "n1"}, "spec": null, "status": {"nodeInfo": null}}),
        ] {
            let node: Node = serde_json::from_value(object).unwrap();
            assert!(node.status.and_then(|status| status.node_info).is_none());
        }
    }
}
