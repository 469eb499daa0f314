//! A Node, as much of it as is read. A kubelet tells of up to fifty images with all their names, and the
//! server of who manages which field: most of the object, in each of the heartbeats that thousands of nodes
//! send. None of that is given a place in memory.
//!
//! Whoever is root on a node writes its labels, annotations and status as he likes, up to the size of an
//! object, and the API server looks at none of it. What is read has bounds that no honest node reaches: what
//! one node says is kept with it, and stands in the statuses of operations that have other nodes, too.

use std::fmt;

use k8s_openapi::{
    api::core::v1 as core,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};

use super::{
    bounded::short,
    labels::Labels,
    metadata,
    names::{self, node_condition},
    read_as::read_as,
    times,
};

/// Bytes of an id, or of a version. A boot id has 36, a machine's id 32, and no version comes near. One that
/// is longer is read as that of a node that says none.
const MAX_ID: usize = 128;
/// Bytes of the type, the reason or the message of a condition: ours name a NodeOp, of 360 bytes at most.
const MAX_SAID: usize = 1024;
/// The condition by which a kubelet says that it serves its node.
pub const READY: &str = "Ready";
/// The condition by which a kubelet says that it is short of disk.
pub const DISK_PRESSURE: &str = "DiskPressure";
/// Types of the conditions that are looked at. Others are passed over: a Node may have any number.
const CONDITIONS: [&str; 6] = [
    READY,
    DISK_PRESSURE,
    names::ETCD_CONDITION,
    node_condition::MAINTENANCE_IN_PROGRESS,
    node_condition::DRAIN_IN_PROGRESS,
    node_condition::DRAINED,
];

/// The part of a Node that decides something. It is read and never written: changes are patches.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "Read")]
pub struct Node {
    /// All of it but the labels.
    pub metadata: ObjectMeta,
    pub labels: Labels,
    pub spec: Option<NodeSpec>,
    pub status: Option<NodeStatus>,
}

/// A Node as it is told.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Read {
    #[serde(deserialize_with = "metadata::of_node")]
    metadata: (ObjectMeta, Labels),
    spec: Option<NodeSpec>,
    status: Option<NodeStatus>,
}

impl From<Read> for Node {
    fn from(read: Read) -> Self {
        let Read { metadata: (metadata, labels), spec, status } = read;
        Self { metadata, labels, spec, status }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    pub unschedulable: Option<bool>,
    /// A taint says that an autoscaler removes the machine. Of all taints that is kept.
    #[serde(rename = "taints", deserialize_with = "is_being_removed")]
    pub is_being_removed: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeStatus {
    #[serde(deserialize_with = "conditions")]
    pub conditions: Option<Vec<NodeCondition>>,
    pub node_info: Option<NodeSystemInfo>,
    pub volumes_attached: Option<Vec<AttachedVolume>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeCondition {
    #[serde(rename = "type", deserialize_with = "short::<_, MAX_SAID>")]
    pub type_: String,
    #[serde(deserialize_with = "short::<_, MAX_SAID>")]
    pub status: String,
    #[serde(deserialize_with = "times::near")]
    pub last_transition_time: Option<Time>,
    #[serde(deserialize_with = "times::near")]
    pub last_heartbeat_time: Option<Time>,
    #[serde(deserialize_with = "short::<_, MAX_SAID>")]
    pub reason: String,
    #[serde(deserialize_with = "short::<_, MAX_SAID>")]
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSystemInfo {
    #[serde(rename = "bootID", deserialize_with = "short::<_, MAX_ID>")]
    pub boot_id: String,
    #[serde(rename = "machineID", deserialize_with = "short::<_, MAX_ID>")]
    pub machine_id: String,
    #[serde(deserialize_with = "short::<_, MAX_ID>")]
    pub operating_system: String,
    #[serde(deserialize_with = "short::<_, MAX_ID>")]
    pub architecture: String,
    #[serde(deserialize_with = "short::<_, MAX_ID>")]
    pub kubelet_version: String,
}

impl Node {
    /// Whether it is being deleted, or its machine is about to be removed: an autoscaler drains it first, and
    /// its Node is deleted minutes later.
    pub fn is_on_its_way_out(&self) -> bool {
        let is_being_removed = self.spec.as_ref().is_some_and(|spec| spec.is_being_removed);
        self.metadata.deletion_timestamp.is_some() || is_being_removed
    }
}

/// A taint, of which nothing but the key says anything to us.
#[derive(Deserialize)]
struct Taint {
    #[serde(default, deserialize_with = "short::<_, MAX_SAID>")]
    key: String,
}

/// Whether a taint is one of an autoscaler that removes the machine. However many taints there are, each
/// takes a byte.
#[derive(Deserialize)]
#[serde(from = "Taint")]
struct Removes(bool);

impl From<Taint> for Removes {
    fn from(taint: Taint) -> Self {
        Self(names::REMOVES_NODE.contains(&taint.key.as_str()))
    }
}

fn is_being_removed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let taints = Option::<Vec<Removes>>::deserialize(deserializer)?;
    Ok(taints.into_iter().flatten().any(|taint| taint.0))
}

/// The first condition of each type that is looked at.
fn conditions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<NodeCondition>>, D::Error> {
    struct Read(Vec<NodeCondition>);

    impl<'de> Deserialize<'de> for Read {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct List;

            impl<'de> Visitor<'de> for List {
                type Value = Read;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("conditions")
                }

                fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Read, A::Error> {
                    let mut kept: Vec<NodeCondition> = Vec::new();
                    while let Some(found) = list.next_element::<NodeCondition>()? {
                        let counts = CONDITIONS.contains(&found.type_.as_str())
                            && kept.iter().all(|kept| kept.type_ != found.type_);
                        kept.extend(Some(found).filter(|_| counts));
                    }
                    Ok(Read(kept))
                }
            }

            deserializer.deserialize_seq(List)
        }
    }

    Ok(Option::<Read>::deserialize(deserializer)?.map(|read| read.0))
}

/// That there is one is all that is asked.
#[derive(Clone, Debug, Deserialize)]
pub struct AttachedVolume {}

read_as!(Node, core::Node);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

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
        assert_eq!(node.labels.iter().collect::<Vec<_>>(), [("a", "b")]);
        assert_eq!(json!([meta.labels, meta.annotations]), json!([null, {"c": "d"}]));
        assert_eq!(node.spec.unwrap().unschedulable, Some(true));
        let status = node.status.unwrap();
        let ready = &status.conditions.unwrap()[0];
        assert_eq!((ready.type_.as_str(), ready.status.as_str()), ("Ready", "True"));
        assert_eq!(ready.reason, "KubeletReady");
        let info = status.node_info.unwrap();
        assert_eq!((info.boot_id.as_str(), info.machine_id.as_str()), ("b", "m"));
        assert_eq!((info.operating_system.as_str(), info.architecture.as_str()), ("linux", "amd64"));
        assert_eq!(info.kubelet_version, "v1.36.2");
        assert_eq!(status.volumes_attached.map(|volumes| volumes.len()), Some(1));
    }

    /// Autoscalers say by a taint that they remove a machine, minutes before its Node is deleted, if it ever
    /// is by them.
    #[test]
    fn a_node_is_on_its_way_out_once_it_is_deleted_or_an_autoscaler_says_so() {
        let is_leaving = |deleted: bool, taints: Value| {
            let meta = json!({"name": "n1", "deletionTimestamp": deleted.then_some("2026-05-28T20:26:40Z")});
            let object = json!({"metadata": meta, "spec": {"taints": taints}});
            serde_json::from_value::<Node>(object).unwrap().is_on_its_way_out()
        };
        let taint = |key: &str| json!({"key": key, "effect": "NoSchedule", "value": "1780000000"});
        for key in ["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted", "karpenter.sh/disruption"] {
            assert!(is_leaving(false, json!([taint("a"), taint(key)])), "{key}");
        }
        let others =
            [taint("node.kubernetes.io/unschedulable"), taint("DeletionCandidateOfClusterAutoscaler")];
        for taints in [json!(null), json!([]), json!(others), json!([{"effect": "NoExecute"}])] {
            assert!(!is_leaving(false, taints.clone()) && is_leaving(true, taints.clone()), "{taints}");
        }
        let many = (0..20_000).map(|number| taint(&format!("a{number}")));
        let last = taint("ToBeDeletedByClusterAutoscaler");
        assert!(is_leaving(false, many.chain([last]).collect()));
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

    /// What a kubelet may write on its own Node, or whoever has its credentials.
    #[test]
    fn of_a_node_of_megabytes_some_kilobytes_are_kept_and_what_decides_about_it_is_among_them() {
        let long = "x".repeat(200_000);
        let mut labels: serde_json::Map<String, Value> =
            (0..20_000).map(|number| (format!("a{number:06}"), "".into())).collect();
        labels.insert("node-role.kubernetes.io/control-plane".into(), "".into());
        labels.insert("node-restriction.kubernetes.io/zone".into(), "safe".into());
        labels.insert(names::HOLD.into(), "true".into());
        let mut annotations = labels.clone();
        annotations.insert(names::CLAIMED_BY.into(), "ns/op@uid".into());
        annotations.insert(names::FACTS_OF.into(), long.clone().into());
        let says = |type_: &str| json!({"type": type_, "status": "True", "reason": long, "message": long});
        let mut said: Vec<_> = (0..5_000)
            .map(|number| says(&format!("Any{number}")))
            .map(|mut any| {
                any["message"] = json!("m");
                any["reason"] = json!("r");
                any
            })
            .collect();
        said.extend([says(READY), says(READY), says(names::ETCD_CONDITION)]);
        let node = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n1", "uid": "u", "labels": labels, "annotations": annotations,
                "finalizers": (0..1000).map(|number| format!("example.com/{number}")).collect::<Vec<_>>()},
            "status": {"conditions": said,
                "nodeInfo": {"bootID": long, "machineID": long, "operatingSystem": long, "architecture": long, "kubeletVersion": long}}});
        let read: Node = serde_json::from_str(&node.to_string()).unwrap();
        let kept = format!("{read:?}").len();
        assert!(kept < 200_000, "{kept} bytes");
        let (labels, annotations) = (read.labels, read.metadata.annotations.unwrap());
        assert!(labels.len() < 2_000 && annotations.len() < 2_000, "{} {}", labels.len(), annotations.len());
        for name in
            ["node-role.kubernetes.io/control-plane", "node-restriction.kubernetes.io/zone", names::HOLD]
        {
            assert!(labels.contains_key(name), "{name}");
        }
        assert_eq!(annotations.get(names::CLAIMED_BY).map(String::as_str), Some("ns/op@uid"));
        assert_eq!(annotations.get(names::FACTS_OF), None, "that is not ours");
        let status = read.status.unwrap();
        let said: Vec<_> = status
            .conditions
            .iter()
            .flatten()
            .map(|said| (said.type_.as_str(), said.status.as_str()))
            .collect();
        assert_eq!(said, [(READY, "True"), (names::ETCD_CONDITION, "True")]);
        let info = status.node_info.unwrap();
        assert_eq!(
            [info.boot_id, info.machine_id, info.operating_system, info.architecture, info.kubelet_version],
            [""; 5]
        );
    }

    /// What feature discovery and the distributions set is far less than the bound.
    #[test]
    fn five_hundred_labels_with_long_names_are_all_kept() {
        let labels: serde_json::Map<String, Value> = (0..500)
            .map(|number| {
                (
                    format!("feature.node.kubernetes.io/cpu-hardware_multithreading.{number:03}"),
                    "x".repeat(63).into(),
                )
            })
            .collect();
        let node = json!({"metadata": {"name": "n1", "labels": labels}});
        let read: Node = serde_json::from_value(node).unwrap();
        assert_eq!(read.labels.len(), 500);
    }

    /// Five thousand nodes with a hundred labels of feature discovery each fit into a container of 64 MiB.
    #[test]
    fn a_nodes_labels_take_their_own_bytes_and_eight_each() {
        let label = |number: usize| format!("feature.node.kubernetes.io/cpu-cpuid.F{number:04}");
        for count in [0, 1, 8, 24, 100, 500] {
            let told: serde_json::Map<String, Value> =
                (0..count).map(|number| (label(number), "true".into())).collect();
            let bytes: usize = told.keys().map(|key| key.len() + "true".len()).sum();
            let node = json!({"metadata": {"name": "n1", "labels": told}});
            let read: Node = serde_json::from_value(node).unwrap();
            assert_eq!((read.labels.len(), read.labels.takes()), (count, bytes + 8 * count));
        }
    }
}
