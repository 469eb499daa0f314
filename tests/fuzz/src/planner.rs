//! The planner, on whatever stands in the cluster: specs and statuses that a user edited, pods that a kubelet
//! lies about, Jobs and annotations of somebody else.
//!
//! The input is lines of `pointer=value`, each of which sets one field of the objects below (a value that is
//! no JSON is a text; an empty one removes the field). So a case can be read, and half of one is one too.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
    serde::de::DeserializeOwned,
    serde_json::{self, Value, json},
};
use kairos_operator::{
    api::{
        child,
        job::Job,
        node::Node,
        nodeop::{NodeOp, NodeOpSpec, NodeOpStatus},
        pod::Pod,
        run,
        upgrade::{NodeOpUpgrade, NodeOpUpgradeSpec},
    },
    observe::view,
    plan::{
        check::broken,
        model::{
            action::{Action, NodeChange},
            effects::Plan,
            id::{Key, OpRef},
            identity::Identified,
            object_name::object,
            question::{Answer, Question},
            snapshot::{PersistentFailure, PlannerConfig, Sightings, Snapshot},
        },
        plan,
    },
};

use super::text;

/// The present; the objects were made in the hour before.
const NOW: i64 = 1_767_225_600;
/// What one node's sentence in a status may have: 5,000 nodes share what etcd takes for one object.
const MAX_SENTENCE: usize = 1100;

fn node(name: &str) -> Value {
    json!({"metadata": {"name": name, "uid": name, "resourceVersion": "1", "labels": {"kubernetes.io/os": "linux"}, "annotations": {}},
        "spec": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"bootID": "b1", "architecture": "",
            "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "",
            "operatingSystem": "", "osImage": "", "systemUUID": ""}}})
}

/// `owner` is apiVersion, kind, name and UID.
fn owned(owner: [&str; 4], name: &str, labels: Value) -> Value {
    let [version, kind, of, uid] = owner;
    json!({"name": name, "namespace": "ns", "uid": name, "resourceVersion": "1", "creationTimestamp": "2025-12-31T23:30:00Z", "labels": labels,
        "annotations": {"operator.kairos.io/node-name": "n1"},
        "ownerReferences": [{"apiVersion": version, "kind": kind, "name": of, "uid": uid, "controller": true}]})
}

const OP: [&str; 4] = ["operator.kairos.io/v1alpha1", "NodeOp", "op", "op"];

/// A container that has ended.
fn ended(name: &str, code: i32, message: &str) -> Value {
    json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": code, "reason": "Error", "message": message}}})
}

/// A NodeOp that reboots two nodes, with one of them in progress and all that was made for it, and a
/// NodeOpUpgrade with its NodeOp.
fn objects() -> Value {
    let name = |kind: &str| object(("op", "op"), "n1", kind, 0);
    let spec = json!({"command": ["true"], "cordon": true, "rebootOnSuccess": true, "concurrency": 1, "drainOptions": {"enabled": true}});
    let running = json!({"phase": "Running", "step": "Job", "nodeUid": "n1", "jobName": name(""), "jobUid": name(""), "boot": "b1", "attempt": 0});
    let sentinel = json!({"job": name(""), "jobUid": name(""), "boot": "b1", "time": ""}).to_string();
    let pod = |role: &str, kind: &str, statuses: Value| {
        json!({"metadata": owned(OP, &name(kind), json!({"kairos.io/nodeop": "op", role: "true"})),
            "spec": {"nodeName": "n1", "containers": []}, "status": {"phase": "Running", "containerStatuses": statuses}})
    };
    let mut job_pod =
        pod("x", "", json!([ended("nodeop", 1, "no"), ended("sentinel-creator", 0, &sentinel)]));
    job_pod["metadata"]["ownerReferences"][0] = json!({"apiVersion": "batch/v1", "kind": "Job", "name": name(""), "uid": name(""), "controller": true});
    let meta = |name: &str| json!({"name": name, "namespace": "ns", "uid": name, "resourceVersion": "1", "generation": 1, "creationTimestamp": "2025-12-31T23:00:00Z"});
    let mut made = json!({"metadata": meta("up"), "spec": {"upgrade": {"active": true, "recovery": false, "force": false, "debug": false}}});
    made["metadata"]["ownerReferences"] = json!([{"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade", "name": "up", "uid": "up", "controller": true}]);
    let of_child: NodeOpSpec = serde_json::from_value(made["spec"].clone()).expect("a spec");
    let upgraded: NodeOpUpgradeSpec =
        serde_json::from_value(json!({"image": "kairos:v2", "concurrency": 1})).expect("a spec");
    assert_ne!(of_child.concurrency, upgraded.concurrency, "there is something to pass on");
    let run = run::hash(&child::spec(&upgraded));
    json!({
        "now": NOW,
        "nodes": [node("n1"), node("n2"), node("n3")],
        "ops": [{"metadata": meta("op"), "spec": spec, "status": {"phase": "Running", "observedGeneration": 1,
            "nodeStatuses": {"n1": running, "n2": {"phase": "Pending"}}}}, made],
        "upgrades": [{"metadata": meta("up"), "spec": {"image": "kairos:v2", "concurrency": 1}, "status": {"phase": "Running", "nodeOpUid": "up", "run": run}}],
        "jobs": [{"metadata": owned(OP, &name(""), json!({"kairos.io/nodeop": "op"})), "spec": {"suspend": false, "template": {}}, "status": {}}],
        "pods": [job_pod, pod("kairos.io/reboot", "reboot", json!([])), pod("kairos.io/preflight", "preflight", json!([ended("preflight", 0, "no")]))],
        "facts": [{"metadata": owned(["v1", "Node", "n2", "n2"], &object(("kairos-node-labeler", "n2 b1"), "n2", "", 0), json!({"app": "kairos-node-labeler"})),
            "spec": {"nodeName": "n2", "containers": []}, "status": {"phase": "Failed", "containerStatuses": [ended("node-labeler", 1, "no")]}}],
        "residents": [{"metadata": {"name": "app", "namespace": "ns", "uid": "app"}, "spec": {"nodeName": "n1", "containers": []}}],
        "gone": [],
    })
}

/// Sets a field; what lies between is made if it is missing.
fn set(object: &mut Value, pointer: &str, value: Option<Value>) -> Option<()> {
    let (parent, key) = pointer.rsplit_once('/')?;
    let mut place = object;
    for part in parent.split('/').skip(1) {
        place = match place {
            Value::Array(items) => items.get_mut(part.parse::<usize>().ok()?)?,
            Value::Object(fields) => fields.entry(part.replace("~1", "/")).or_insert_with(|| json!({})),
            _ => return None,
        };
    }
    match (place, value) {
        (Value::Array(items), Some(value)) => *items.get_mut(key.parse::<usize>().ok()?)? = value,
        (Value::Array(items), None) => {
            drop(key.parse::<usize>().ok().filter(|at| *at < items.len()).map(|at| items.remove(at)))
        }
        (Value::Object(fields), Some(value)) => drop(fields.insert(key.replace("~1", "/"), value)),
        (Value::Object(fields), None) => drop(fields.remove(&key.replace("~1", "/"))),
        _ => return None,
    }
    Some(())
}

fn read<K: DeserializeOwned, V>(
    from: &Value,
    meta: impl Fn(&K) -> &ObjectMeta,
    parse: impl Fn(&K) -> V,
) -> BTreeMap<Key, Arc<V>> {
    let objects = from
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|object| serde_json::from_value::<K>(object.clone()).ok());
    let key = |object: &K| {
        (meta(object).namespace.clone().unwrap_or_default(), meta(object).name.clone().unwrap_or_default())
    };
    objects.map(|object| (key(&object), Arc::new(parse(&object)))).collect()
}

fn snapshot(objects: &Value) -> Option<Snapshot> {
    let pods = |from: &str| read(&objects[from], |pod: &Pod| &pod.metadata, |pod| view::pod(pod, "ns"));
    let ops = read(&objects["ops"], |op: &NodeOp| &op.metadata, Clone::clone);
    let me = |op: &NodeOp| OpRef::of(op);
    let gone = objects["gone"].as_array().into_iter().flatten().filter_map(|name| {
        let name = name.as_str()?.to_owned();
        let key = ("ns".to_owned(), name.clone());
        Some([
            Question::Node(name.clone()),
            Question::Job(key.clone()),
            Question::Pod(key),
            Question::Op(OpRef { namespace: "ns".into(), name, uid: "x".into() }),
        ])
    });
    let mut answers: BTreeMap<Question, Answer> =
        gone.flatten().map(|question| (question, Answer::NotFound)).collect();
    answers.insert(Question::AllNodeOps, Answer::Found);
    answers.extend(
        ops.values().flat_map(|op| {
            [Question::Op, Question::OwnedWorkload].map(|about| (about(me(op)), Answer::Found))
        }),
    );
    let failure = PersistentFailure {
        since: Timestamp::from_second(NOW - 30).ok()?,
        message: "a webhook says no".into(),
    };
    let mut snapshot = Snapshot {
        now: Timestamp::from_second(objects["now"].as_i64()?).ok()?,
        leading_since: Timestamp::from_second(NOW - 60).ok()?,
        config: PlannerConfig {
            namespace: "ns".into(),
            own_pod: Some(("ns".into(), "me".into())),
            ..PlannerConfig::default()
        },
        nodes: read(&objects["nodes"], |node: &Node| &node.metadata, |node| view::node(node.clone()))
            .into_iter()
            .map(|((_, name), node)| (name, node))
            .collect(),
        ops: ops.into(),
        upgrades: read(&objects["upgrades"], |up: &NodeOpUpgrade| &up.metadata, Clone::clone).into(),
        facts_pods: pods("facts").into(),
        jobs: read(&objects["jobs"], |job: &Job| &job.metadata, view::job).into(),
        pods: pods("pods").into(),
        drained_pods: [(
            "n1".to_owned(),
            Arc::new(
                read(&objects["residents"], |pod: &Pod| &pod.metadata, view::resident)
                    .into_values()
                    .collect(),
            ),
        )]
        .into(),
        evictions: <_>::default(),
        answers,
        failures: [(
            Action::PatchNode {
                name: "n1".into(),
                resource_version: "1".into(),
                change: NodeChange::default(),
            }
            .id(),
            failure,
        )]
        .into(),
        ..Snapshot::default()
    };
    let mut sightings = Sightings::default();
    sightings.note(&snapshot);
    snapshot.sightings = Arc::new(sightings);
    Some(snapshot)
}

/// The plan is made, is the same again, says why each node waits in a sentence, and begins nothing for what
/// is over.
pub fn planner(data: &[u8]) {
    let Some((snapshot, planned)) = planned(data) else { return };
    assert_eq!(format!("{planned:?}"), format!("{:?}", plan(&snapshot)));
    assert_eq!(broken(&snapshot, &planned), [""; 0]);
    for action in &planned.actions {
        match action {
            Action::PatchStatus { op, status, .. } => sentences(op, status),
            Action::PatchNode { change, .. } => {
                assert!(format!("{change:?}").len() <= 64 * 1024 + data.len())
            }
            _ => {}
        }
    }
}

/// What the planner makes of a case, and of what.
pub fn planned(data: &[u8]) -> Option<(Snapshot, Plan)> {
    let lines = text(data)?;
    let mut objects = objects();
    for line in lines.lines().take(64) {
        let Some((pointer, value)) = line.split_once('=') else { continue };
        let value = (!value.is_empty())
            .then(|| serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.into())));
        set(&mut objects, pointer, value);
    }
    let snapshot = snapshot(&objects)?;
    let planned = plan(&snapshot);
    Some((snapshot, planned))
}

fn sentences(op: &NodeOp, status: &NodeOpStatus) {
    for (name, node) in &status.node_statuses {
        let old = op
            .status
            .as_ref()
            .and_then(|old| old.node_statuses.get(name))
            .and_then(|old| old.message.as_ref());
        let length = node.message.as_ref().filter(|new| Some(*new) != old).map_or(0, String::len);
        assert!(length <= MAX_SENTENCE, "{length} bytes for {name}");
    }
}
