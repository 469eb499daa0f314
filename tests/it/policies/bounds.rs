//! What the operator's own account is kept from: the thefts that its rights alone would allow.

use kairos_operator::manifests;

use super::*;
use crate::reconcile::OPERATOR;

/// What the policy makes of a request of the operator.
fn judge(resource: &str, old: Option<&Value>, new: Option<&Value>) -> Verdict {
    Policy::read("operator-policy.yaml").judge(&operator(), resource, old, new)
}

/// The operator's account under its own name, with the rights of its printed role.
fn operator() -> User {
    User { name: OPERATOR.into(), ..User::operator() }
}

/// Why the policy refuses a request of the operator, if it does.
pub fn refusal(resource: &str, old: Option<&Value>, new: Option<&Value>) -> Option<String> {
    match judge(resource, old, new) {
        Verdict::Passes => None,
        verdict => Some(format!("{verdict:?}")),
    }
}

/// Names as they are made: an account's and a waiter's.
const ACCOUNT: &str = "op-0a1b2c3d4e-reboot";
const WAITER: &str = "op-n1-reboot-0a1b2c3d4e";

fn owned(name: &str) -> Value {
    json!({"name": name, "namespace": "default", "uid": "u", "ownerReferences": [{"apiVersion": "operator.kairos.io/v1alpha1",
        "kind": "NodeOp", "name": "op", "uid": "o", "controller": true}]})
}

/// A preflight's pod, or anything like it.
fn pod() -> Value {
    json!({"metadata": owned("op-n1-preflight"), "spec": {"automountServiceAccountToken": false, "serviceAccountName": "default",
        "nodeName": "n1", "volumes": [{"name": "host-root", "hostPath": {"path": "/"}}],
        "containers": [{"name": "preflight", "image": "os:v1",
            "env": [{"name": "HOST_DIR", "value": "/host"}, {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}]}})
}

/// A pod of a Job of ours, as the controller of Jobs makes it.
fn pod_of_job() -> Value {
    let owner =
        json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "op-n1", "uid": "j", "controller": true}]);
    let pod = with(pod(), "/metadata/labels", json!({"kairos.io/nodeop": "op"}));
    with(pod, "/metadata/ownerReferences", owner)
}

/// A reboot waiter, as it is after the server has added its token.
fn waiter() -> Value {
    let pod = with(pod(), "/metadata/labels", json!({"kairos.io/reboot": "true"}));
    let pod = with(pod, "/spec/serviceAccountName", json!(ACCOUNT));
    let pod = with(pod, "/spec/automountServiceAccountToken", json!(true));
    with(
        pod,
        "/spec/volumes",
        json!([{"name": "sentinel-volume", "hostPath": {"path": "/usr/local"}}, {"name": "kube-api-access-x7k2q", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "kube-root-ca.crt"}},
            {"downwardAPI": {"items": []}}, {"configMap": {"name": "openshift-service-ca.crt"}}]}}]),
    )
}

fn job() -> Value {
    json!({"metadata": owned("op-n1"), "spec": {"suspend": true, "template": {"spec": pod()["spec"]}}})
}

fn role() -> Value {
    json!({"metadata": owned(ACCOUNT), "rules": [
        {"apiGroups": [""], "resources": ["pods"], "resourceNames": [WAITER], "verbs": ["get", "patch"]},
        {"apiGroups": ["batch"], "resources": ["jobs"], "resourceNames": ["j"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]}]})
}

fn binding() -> Value {
    json!({"metadata": owned(ACCOUNT), "roleRef": {"kind": "Role", "name": ACCOUNT},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": "default"}]})
}

/// The pod that reads a node's facts.
fn facts() -> Value {
    let mut pod = pod();
    pod["metadata"] = json!({"name": "facts", "namespace": "operator-system", "ownerReferences": [{"apiVersion": "v1",
        "kind": "Node", "name": "n1", "uid": "n", "controller": true}]});
    pod
}

#[test]
fn what_the_operator_does_passes() {
    let account = json!({"metadata": owned(ACCOUNT)});
    for (resource, object) in [
        ("pods", pod()),
        ("pods", waiter()),
        ("pods", facts()),
        ("jobs", job()),
        ("serviceaccounts", account),
        ("roles", role()),
        ("rolebindings", binding()),
    ] {
        assert_eq!(judge(resource, None, Some(&object)), Verdict::Passes, "{resource} {object}");
        assert_eq!(judge(resource, Some(&object), None), Verdict::Passes, "{resource} {object}");
    }
    // With which its kubelet does not go on.
    assert_eq!(judge("pods", Some(&pod_of_job()), None), Verdict::Passes);
    let resumed = with(job(), "/spec/suspend", json!(false));
    assert_eq!(judge("jobs", Some(&job()), Some(&resumed)), Verdict::Passes);
    let granted = with(role(), "/rules", json!([{"resources": ["events"], "verbs": ["create"]}]));
    assert_eq!(judge("roles", Some(&role()), Some(&granted)), Verdict::Passes);
}

/// Each was done with the operator's token, or would have been, before there was this policy.
#[test]
fn each_theft_is_refused() {
    let account = |name: &str| json!({"metadata": {"name": name, "namespace": "kube-system"}});
    let foreign = |object: Value| without(object, "/metadata", "ownerReferences");
    let spec = |key: &str, value: Value| with(pod(), &format!("/spec/{key}"), value);
    let of_job = |key: &str, value: Value| with(job(), &format!("/spec/template/spec/{key}"), value);
    let stolen = "clusterrole-aggregation-controller";
    let secret = json!([{"name": "s", "secret": {"secretName": "s"}}]);
    let token = json!([{"name": "kube-api-access-x", "projected": {}}]);
    let env = json!([{"name": "c", "env": [{"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]);
    let all = json!([{"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]}]);
    let projected = |source: Value| {
        let volume = json!([{"name": "kube-api-access-x", "projected": {"sources": [source]}}]);
        with(waiter(), "/spec/volumes", volume)
    };
    let disguised = with(waiter(), "/spec/serviceAccountName", json!(stolen));
    let mut elsewhere = facts();
    elsewhere["metadata"]["namespace"] = json!("kube-system");
    let mut uncontrolled = pod();
    uncontrolled["metadata"]["ownerReferences"][0]["controller"] = json!(false);
    let controlled = |object: Value| {
        with(object, "/metadata/ownerReferences", pod()["metadata"]["ownerReferences"].clone())
    };
    let everything = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let all_pods = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "patch"]}]);
    let named = |pods: &[&str]| json!([{"apiGroups": [""], "resources": ["pods"], "resourceNames": pods, "verbs": ["get", "patch"]}]);
    let two_pods = named(&[WAITER, "op-n2-reboot-0a1b2c3d4e"]);
    // The rights that whoever has them is not bounded by the policy.
    let unbounded = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["create"]}]);
    let more_verbs = json!([{"resources": ["pods"], "resourceNames": [WAITER], "verbs": ["get", "delete"]}]);
    let bound = with(binding(), "/roleRef", json!({"kind": "ClusterRole", "name": "cluster-admin"}));
    let given = with(
        binding(),
        "/subjects",
        json!([{"kind": "ServiceAccount", "name": "mine", "namespace": "default"}]),
    );
    let created = [
        ("pods", foreign(pod())),
        ("pods", pod_of_job()),
        ("pods", uncontrolled),
        ("pods", elsewhere),
        ("pods", spec("serviceAccountName", json!(stolen))),
        ("pods", spec("automountServiceAccountToken", json!(true))),
        ("pods", without(pod(), "/spec", "automountServiceAccountToken")),
        ("pods", spec("volumes", secret.clone())),
        ("pods", spec("volumes", token)),
        ("pods", spec("volumes", json!([{"name": "v", "csi": {"driver": "secrets-store.csi.k8s.io"}}]))),
        ("pods", spec("containers", env.clone())),
        ("pods", spec("containers", all)),
        ("pods", spec("initContainers", env)),
        ("pods", disguised),
        // The account of somebody's, or of a NodeOp of the Go operator.
        ("pods", with(waiter(), "/spec/serviceAccountName", json!("backup-reboot"))),
        ("pods", with(waiter(), "/spec/volumes", secret.clone())),
        ("pods", projected(json!({"secret": {"name": "s"}}))),
        ("pods", projected(json!({"configMap": {"name": "settings"}}))),
        ("jobs", foreign(job())),
        ("jobs", of_job("serviceAccountName", json!(stolen))),
        ("jobs", of_job("automountServiceAccountToken", json!(true))),
        ("jobs", of_job("volumes", secret)),
        ("serviceaccounts", account(ACCOUNT)),
        ("serviceaccounts", json!({"metadata": owned("default")})),
        ("serviceaccounts", json!({"metadata": owned("backup-reboot")})),
        ("roles", with(role(), "/rules", everything)),
        ("roles", with(role(), "/rules", all_pods)),
        ("roles", with(role(), "/rules", unbounded)),
        ("roles", with(role(), "/rules", two_pods)),
        ("roles", with(role(), "/rules", more_verbs)),
        ("roles", with(role(), "/rules", named(&["mydb-0"]))),
        ("roles", with(role(), "/rules", named(&[WAITER, "mydb-0"]))),
        ("rolebindings", bound),
        ("rolebindings", given),
    ];
    for (resource, object) in &created {
        assert!(
            matches!(judge(resource, None, Some(object)), Verdict::Refused(_)),
            "{resource} {object}: {:?}",
            judge(resource, None, Some(object))
        );
    }
    let image = with(pod(), "/spec/containers", json!([{"name": "preflight", "image": "evil"}]));
    let template =
        with(job(), "/spec/template/spec/containers", json!([{"name": "nodeop", "image": "evil"}]));
    let taken = controlled(foreign(role()));
    let changed = [
        ("pods", pod(), image),
        ("pods", foreign(pod()), foreign(pod())),
        ("jobs", job(), template),
        ("jobs", foreign(job()), job()),
        ("roles", foreign(role()), taken),
        ("roles", role(), foreign(role())),
    ];
    for (resource, old, new) in &changed {
        let verdict = judge(resource, Some(old), Some(new));
        assert!(matches!(verdict, Verdict::Refused(_)), "{resource} {old} {new}: {verdict:?}");
    }
    let reader = "extension-apiserver-authentication-reader";
    let deleted = [
        ("pods", foreign(pod())),
        ("pods", without(pod_of_job(), "/metadata", "labels")),
        ("roles", account(reader)),
        ("rolebindings", account(reader)),
        ("serviceaccounts", account(stolen)),
        ("jobs", foreign(job())),
    ];
    for (resource, object) in &deleted {
        let verdict = judge(resource, Some(object), None);
        assert!(matches!(verdict, Verdict::Refused(_)), "{resource} {object}: {verdict:?}");
    }
}

#[test]
fn nobody_else_is_concerned_by_the_operators_bounds() {
    let policy = Policy::read("operator-policy.yaml");
    let plain = without(pod(), "/metadata", "ownerReferences");
    for user in
        [User::admin(), User::waiter("u1"), User::new("system:serviceaccount:kube-system:job-controller")]
    {
        assert_eq!(policy.judge(&user, "pods", None, Some(&plain)), Verdict::NotConcerned, "{}", user.name);
    }
    assert_eq!(policy.0["failurePolicy"], "Fail", "said in its header");
}

/// Kustomize puts namespace and prefix in front of the account, and cannot in an expression.
#[test]
fn the_policy_is_for_the_account_that_is_installed() {
    let read = |path: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests").join(path);
        serde_saphyr::from_multiple::<Value>(&fs::read_to_string(path).unwrap()).unwrap()
    };
    let overlay = read("default/kustomization.yaml").remove(0);
    let part = |key: &str| overlay[key].as_str().unwrap().to_owned();
    let account =
        read("rbac/operator.yaml").into_iter().find(|object| object["kind"] == "ServiceAccount").unwrap();
    let name = format!("{}{}", part("namePrefix"), account["metadata"]["name"].as_str().unwrap());
    assert_eq!(format!("system:serviceaccount:{}:{name}", part("namespace")), OPERATOR);
}

/// Its manifests stay when somebody goes back to a version from before them, which would be refused all
/// that it makes.
#[test]
fn an_older_version_with_its_own_role_is_not_concerned() {
    let foreign = json!({"metadata": {"name": "up-reboot", "namespace": "default", "uid": "u"}});
    let judge = |user: &User| {
        Policy::read("operator-policy.yaml").judge(user, "serviceaccounts", None, Some(&foreign))
    };
    assert!(matches!(judge(&operator()), Verdict::Refused(_)));
    let mut older = operator();
    older.rights.get_or_insert_default().insert("events.k8s.io|events|patch".into());
    assert_eq!(judge(&older), Verdict::NotConcerned);
}

/// The rights of the Go operator's role in all its versions that the policies here ask about.
const GO: [&str; 7] = [
    "|pods|delete",
    "|serviceaccounts|create",
    "batch|jobs|create",
    "operator.kairos.io|nodeops/status|patch",
    "rbac.authorization.k8s.io|roles|create",
    "rbac.authorization.k8s.io|clusterroles|create",
    "rbac.authorization.k8s.io|clusterrolebindings|create",
];

/// It runs under the same account when somebody goes back to it, and ends at its start if it may not make its
/// labeler's.
#[test]
fn the_go_operator_with_its_own_role_is_not_concerned() {
    let named = |name: &str| json!({"metadata": {"name": name, "namespace": "operator-system"}});
    let owned = with(named("op-reboot"), "/metadata/namespace", json!("default"));
    let reboots = json!({"metadata": {"name": "op-n1-reboot", "namespace": "default"}, "spec": {"serviceAccountName": "op-reboot",
        "containers": [{"name": "reboot", "image": "os:v1"}]}});
    let go = User { rights: Some(GO.map(str::to_owned).into()), ..operator() };
    for (resource, object) in
        [("serviceaccounts", named("kairos-node-labeler")), ("serviceaccounts", owned), ("pods", reboots)]
    {
        let judge =
            |user: &User| Policy::read("operator-policy.yaml").judge(user, resource, None, Some(&object));
        assert!(matches!(judge(&operator()), Verdict::Refused(_)), "{resource} {object}");
        assert_eq!(judge(&go), Verdict::NotConcerned, "{resource} {object}");
        assert_eq!(judge(&User { name: "jane".into(), ..go.clone() }), Verdict::NotConcerned);
    }
    // Neither half of what the account holds under these manifests reaches ClusterRoles.
    for grant in manifests::OPERATOR.iter().chain(manifests::LEADER) {
        let reaches = |resource: &&&str| resource.starts_with("clusterrole") || **resource == "*";
        assert_eq!(grant.resources.iter().find(reaches), None, "{grant:?}");
    }
}

/// Whoever may patch the status of nodes may say that one has rebooted, or is Ready.
#[test]
fn of_a_nodes_status_it_changes_what_is_said_of_operations_and_nothing_else() {
    let ready = json!({"type": "Ready", "status": "True", "message": "kubelet is posting ready status"});
    let drained = json!({"type": "Drained", "status": "True", "message": "ns/op@u: the node is drained"});
    let draining =
        json!({"type": "DrainInProgress", "status": "True", "message": "ns/op@u: the node is being drained"});
    let maintained = json!({"type": "MaintenanceInProgress", "status": "True", "message": "ns/op@u: an operation has the node"});
    let node = json!({"metadata": {"name": "n1", "labels": {"a": "b"}},
        "status": {"conditions": [ready], "capacity": {"cpu": "4"}, "nodeInfo": {"bootID": "b1"}}});
    let says = |conditions: &[&Value]| with(node.clone(), "/status/conditions", json!(conditions));
    let judge = |old: &Value, new: &Value| judge("nodes/status", Some(old), Some(new));
    for (old, new) in [
        (says(&[&ready]), says(&[&ready, &maintained, &draining])),
        (says(&[&ready, &draining]), says(&[&ready, &drained])),
        (says(&[&draining, &ready]), says(&[&ready])),
        (without(node.clone(), "/status", "conditions"), says(&[&drained])),
    ] {
        assert_eq!(judge(&old, &new), Verdict::Passes, "{old} {new}");
    }
    let unknown = with(ready.clone(), "/status", json!("Unknown"));
    let attached = json!([{"name": "disk", "devicePath": "/dev/sdb"}]);
    for new in [
        says(&[]),
        says(&[&unknown]),
        says(&[&unknown, &drained]),
        says(&[&ready, &json!({"type": "MaintenancePlanned", "status": "True"})]),
        with(node.clone(), "/status/nodeInfo", json!({"bootID": "b2"})),
        with(node.clone(), "/status/capacity", json!({"cpu": "400"})),
        with(node.clone(), "/status/addresses", json!([{"type": "InternalIP", "address": "10.0.0.66"}])),
        with(node.clone(), "/status/volumesAttached", attached),
        without(node.clone(), "/status", "nodeInfo"),
        with(node.clone(), "/metadata/labels", json!({"a": "c"})),
        with(node.clone(), "/metadata/annotations", json!({"a": "b"})),
    ] {
        let verdict = judge(&node, &new);
        let refused = matches!(&verdict, Verdict::Refused(said) if said.contains("MaintenanceInProgress, DrainInProgress and Drained"));
        assert!(refused, "{new}: {verdict:?}");
    }
}

/// What it may do to a node is what it does: whoever may label nodes and take taints off moves workload as he
/// likes.
#[test]
fn of_a_node_it_changes_its_own_marks_and_the_labels_of_load_balancers_and_remediators_and_nothing_else() {
    of_a_node_it_changes_its_own_marks_and(names::NOT_BALANCED);
    of_a_node_it_changes_its_own_marks_and(names::NOT_REMEDIATED);
}

fn of_a_node_it_changes_its_own_marks_and(label: &str) {
    let autoscaler = names::KEEPS_FROM_SCALE_DOWN[0].0;
    let taints = json!([{"key": "dedicated", "effect": "NoSchedule"}]);
    let node = json!({"metadata": {"name": "n1", "labels": {"a": "b"}, "annotations": {"c": "d"}},
        "spec": {"taints": taints, "providerID": "p"}, "status": {}});
    let set = |node: &Value, kind: &str, key: &str, value: &str| {
        with(node.clone(), &format!("/metadata/{kind}/{}", key.replace('/', "~1")), json!(value))
    };
    let labelled = |value: &str| set(&node, "labels", label, value);
    let claimed = set(
        &set(&labelled("true"), "annotations", names::CLAIMED_BY, "ns/op@u"),
        "annotations",
        autoscaler,
        "true",
    );
    let claimed = with(claimed, "/spec/unschedulable", json!(true));
    let bare = without(without(node.clone(), "/metadata", "labels"), "/metadata", "annotations");
    for (old, new) in [
        (node.clone(), claimed.clone()),
        (claimed, node.clone()),
        (bare.clone(), with(bare.clone(), "/metadata/labels", json!({label: "true"}))),
        (node.clone(), set(&node, "labels", names::MANAGED, "true")),
        (labelled("theirs"), with(labelled("theirs"), "/spec/unschedulable", json!(true))),
    ] {
        assert_eq!(judge("nodes", Some(&old), Some(&new)), Verdict::Passes, "{old} {new}");
    }
    for (old, new) in [
        (node.clone(), labelled("false")),
        (labelled("theirs"), node.clone()),
        (labelled("theirs"), labelled("true")),
        (node.clone(), set(&node, "labels", "a", "c")),
        (node.clone(), without(node.clone(), "/metadata/labels", "a")),
        (node.clone(), set(&node, "labels", "node-role.kubernetes.io/control-plane", "")),
        (node.clone(), set(&node, "annotations", "c", "e")),
        (node.clone(), without(node.clone(), "/metadata", "annotations")),
        (node.clone(), without(node.clone(), "/spec", "taints")),
        (node.clone(), with(node.clone(), "/spec/providerID", json!("q"))),
    ] {
        let verdict = judge("nodes", Some(&old), Some(&new));
        assert!(
            matches!(&verdict, Verdict::Refused(said) if said.contains("and nothing else")),
            "{new}: {verdict:?}"
        );
    }
}
