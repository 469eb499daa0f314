//! Tests of what is seen of nodes, pods and containers.

use serde_json::{Value, json};

use super::*;

fn read(namespace: &str, label: &str, owner: Value) -> PodView {
    let owners = if owner.is_null() { json!([]) } else { json!([owner]) };
    let meta = json!({"name": "p", "namespace": namespace, "uid": "u", "labels": {label: "true"}, "ownerReferences": owners});
    pod(&serde_json::from_value(json!({"metadata": meta})).unwrap(), "own")
}

/// Whoever has a node's credentials writes what he likes in the status of our pods there.
#[test]
fn what_a_node_writes_is_kept_in_part_and_no_record_is_made_of_a_part() {
    let long = "ä".repeat(2 * MAX_TEXT);
    let record = format!("{{\"boot\":\"b1\"}}{}", " ".repeat(2 * MAX_TEXT));
    let ended = |message: &str| {
        json!({"name": "c", "image": "i", "imageID": long, "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 0, "reason": long, "message": message}},
        "lastState": {"terminated": {"exitCode": 1, "message": long}}})
    };
    let statuses: Vec<Value> = (0..2 * MAX_CONTAINERS).map(|_| ended(&record)).collect();
    let object = json!({"metadata": {"name": "p", "annotations": {names::REBOOT_STATE: long}},
        "status": {"phase": "Failed", "reason": long, "message": long, "containerStatuses": statuses}});
    let view = pod(&serde_json::from_value(object).unwrap(), "own");
    assert!(format!("{view:?}").len() < MAX_CONTAINERS * 5 * (MAX_TEXT + 1000));
    assert_eq!((view.containers.len(), view.reboot_state), (MAX_CONTAINERS, None));
    assert_eq!(view.containers[0].state.parsed_message::<Value>(), None);
}

#[test]
fn a_label_alone_makes_no_pod_ours() {
    let owner = |api_version: &str, kind: &str| json!({"apiVersion": api_version, "kind": kind, "name": "o", "uid": "ou", "controller": true});
    let ours = "operator.kairos.io/v1alpha1";
    for (namespace, label, by, role) in [
        ("ns", names::REBOOT, owner(ours, "NodeOp"), Role::Waiter),
        ("ns", names::PREFLIGHT, owner(ours, "NodeOp"), Role::Preflight),
        ("ns", names::NODEOP, owner("batch/v1", "Job"), Role::Job),
        ("own", names::APP, owner("v1", "Node"), Role::Facts),
        ("ns", names::APP, owner("v1", "Node"), Role::Stranger),
        ("ns", names::REBOOT, Value::Null, Role::Stranger),
        ("ns", names::PREFLIGHT, Value::Null, Role::Stranger),
        ("ns", names::NODEOP, Value::Null, Role::Stranger),
        ("ns", names::NODEOP, owner("apps/v1", "DaemonSet"), Role::Stranger),
        ("ns", names::NODEOP, owner("no.such.group/v1", "Job"), Role::Stranger),
        ("ns", names::REBOOT, owner("no.such.group/v1", "NodeOp"), Role::Stranger),
        ("own", names::APP, owner("no.such.group/v1", "Node"), Role::Stranger),
    ] {
        assert_eq!(read(namespace, label, by.clone()).role, role, "{namespace} {label} {by}");
    }
}

#[test]
fn a_container_is_seen_with_its_last_end_and_the_content_that_it_runs() {
    let last = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "Read-only file system"}});
    let status = json!({"name": "reboot", "image": "i", "imageID": "i@sha256:1", "ready": false, "restartCount": 2,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": last});
    let status = json!({"reason": "Evicted", "message": "disk", "containerStatuses": [status]});
    let seen = pod(&serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap(), "own");
    let container = &seen.containers[0];
    let last = Ended { code: 1, reason: "Error".into(), message: "Read-only file system".into() };
    assert_eq!(
        (container.last.as_ref(), container.restarts, container.image_id.as_str()),
        (Some(&last), 2, "i@sha256:1")
    );
    assert_eq!(seen.reason, "Evicted: disk");
}

/// As a kubelet of 1.36 writes it when it ends a pod whose image cannot be pulled.
#[test]
fn a_container_that_is_ended_before_it_was_created_has_not_begun() {
    let state = json!({"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown",
        "message": "The container could not be located when the pod was terminated"}});
    let never = json!({"name": "nodeop", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state,
        "lastState": {}});
    let has_begun = |change: Value| {
        let mut status = never.clone();
        status.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let status = json!({"phase": "Failed", "containerStatuses": [status]});
        pod(&serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap(), "own").has_begun()
    };
    assert!(!has_begun(json!({})));
    assert!(has_begun(json!({"imageID": "i@sha256:1"})));
    assert!(has_begun(json!({"containerID": "containerd://1"})));
    assert!(has_begun(json!({"restartCount": 1})));
    assert!(has_begun(json!({"lastState": state})));
    assert!(has_begun(json!({"state": {"terminated": {"exitCode": 137, "reason": "Error"}}})));
}

#[test]
fn the_distribution_says_whether_etcd_votes() {
    let votes = |labels: Value, condition: Value| {
        let info = json!({"machineID": "m", "operatingSystem": "linux", "architecture": "arm64", "bootID": "b", "systemUUID": "",
            "kernelVersion": "", "osImage": "", "containerRuntimeVersion": "", "kubeletVersion": "", "kubeProxyVersion": ""});
        let status = json!({"conditions": [condition], "nodeInfo": info});
        let seen =
            node(serde_json::from_value(json!({"metadata": {"labels": labels}, "status": status})).unwrap());
        assert_eq!(
            (seen.machine_id.as_deref(), seen.os.as_str(), seen.arch.as_str()),
            (Some("m"), "linux", "arm64")
        );
        (seen.etcd_votes, seen.etcd_said)
    };
    let says = |status: &str, reason: &str| json!({"type": "EtcdIsVoter", "status": status, "reason": reason, "message": "m"});
    let member = || json!({names::ETCD_LABEL: "true"});
    assert_eq!(votes(member(), says("True", "MemberNotLearner")), (Some(true), String::new()));
    assert_eq!(votes(member(), says("False", "MemberIsLearner")), (Some(false), "MemberIsLearner: m".into()));
    assert_eq!(votes(member(), says("False", "NotAMember")).0, Some(false), "it was one");
    assert_eq!(
        votes(json!({}), says("False", "NotAMember")),
        (None, String::new()),
        "a control plane without etcd"
    );
    assert_eq!(votes(member(), json!({"type": "Ready", "status": "True"})).0, None, "kubeadm says nothing");
}

/// One report of a kubelet is no recovery; a second one, by the same clock, says that the first was followed
/// by none that said otherwise.
#[test]
fn what_a_kubelet_says_of_itself_is_read_by_its_own_clock_alone() {
    let seen = |status: &str, heartbeat: &str, info: Value| {
        let ready = json!({"type": "Ready", "status": status, "lastTransitionTime": "2001-01-01T00:00:00Z", "lastHeartbeatTime": heartbeat});
        let status = json!({"conditions": [ready], "nodeInfo": info});
        let view =
            node(serde_json::from_value(json!({"metadata": {"name": "n1"}, "status": status})).unwrap());
        (view.stays_ready, view.bootless)
    };
    let machine = || json!({"bootID": "b", "kubeletVersion": "v1.34.0"});
    assert_eq!(seen("True", "2001-01-01T00:00:59Z", machine()), (false, false));
    assert_eq!(seen("True", "2001-01-01T00:01:00Z", machine()), (true, false));
    assert_eq!(seen("False", "2001-01-01T00:09:00Z", machine()), (false, false));
    let (began, far) = ("2001-01-01T00:00:00Z", "2000-01-01T00:00:00Z");
    assert_eq!(seen("True", began, json!({"kubeletVersion": "kwok"})), (false, true));
    assert_eq!(seen("False", far, json!({})), (false, false), "its kubelet has not reported yet");
}

#[test]
fn a_node_that_is_short_of_disk_says_so_in_a_condition() {
    for (said, short) in [("True", true), ("False", false), ("Unknown", false)] {
        let status = json!({"conditions": [{"type": "DiskPressure", "status": said}, {"type": "Ready", "status": "True"}]});
        let seen =
            node(serde_json::from_value(json!({"metadata": {"name": "n1"}, "status": status})).unwrap());
        assert_eq!((seen.disk_pressure, seen.ready), (short, true), "{said}");
    }
}
