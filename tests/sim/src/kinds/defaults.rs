//! Defaults and checks of built-in kinds, as far as an operator can notice them.

use serde_json::{Value, json};

use super::Kind;
use crate::{
    json::{flag, int, list, map, set, set_default, text},
    server::error::Cause,
};

/// Writes the defaults of a built-in kind.
pub fn fill(kind: &Kind, object: &mut Value) {
    set(object, "/apiVersion", kind.api_version());
    set(object, "/kind", kind.kind.clone());
    if kind.is_custom() {
        return;
    }
    match kind.table() {
        "pods" => {
            pod_spec(object, "/spec");
            set_default(object, "/spec/enableServiceLinks", true);
        }
        "nodes" => node(object),
        "jobs.batch" => job(object),
        "deployments.apps" => deployment(object),
        "replicasets.apps" | "statefulsets.apps" | "replicationcontrollers" => {
            set_default(object, "/spec/replicas", 1);
            pod_spec(object, "/spec/template/spec");
        }
        "daemonsets.apps" => {
            set_default(object, "/spec/updateStrategy/type", "RollingUpdate");
            pod_spec(object, "/spec/template/spec");
        }
        "namespaces" => {
            set_default(object, "/spec/finalizers", json!(["kubernetes"]));
            set_default(object, "/status/phase", "Active");
        }
        "services" => set_default(object, "/spec/type", "ClusterIP"),
        "secrets" => secret(object),
        _ => {}
    }
}

fn pod_spec(object: &mut Value, at: &str) {
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("securityContext", json!({})),
    ] {
        set_default(object, &format!("{at}/{field}"), value);
    }
    for field in ["containers", "initContainers"] {
        let Some(containers) = object.pointer_mut(&format!("{at}/{field}")).and_then(Value::as_array_mut)
        else {
            continue;
        };
        for container in containers {
            let image = text(container, "/image");
            let floating = image.ends_with(":latest")
                || !image.rsplit('/').next().unwrap_or_default().contains([':', '@']);
            set_default(container, "/imagePullPolicy", if floating { "Always" } else { "IfNotPresent" });
            set_default(container, "/terminationMessagePath", "/dev/termination-log");
            set_default(container, "/terminationMessagePolicy", "File");
            set_default(container, "/resources", json!({}));
        }
    }
}

/// What a kubelet has not told yet is empty, not absent.
fn node(object: &mut Value) {
    for field in [
        "architecture",
        "bootID",
        "containerRuntimeVersion",
        "kernelVersion",
        "kubeProxyVersion",
        "kubeletVersion",
        "machineID",
        "operatingSystem",
        "osImage",
        "systemUUID",
    ] {
        set_default(object, &format!("/status/nodeInfo/{field}"), "");
    }
}

fn job(object: &mut Value) {
    if object.pointer("/spec/completions").is_none() && object.pointer("/spec/parallelism").is_none() {
        set_default(object, "/spec/completions", 1);
    }
    set_default(object, "/spec/parallelism", 1);
    set_default(object, "/spec/backoffLimit", 6);
    set_default(object, "/spec/completionMode", "NonIndexed");
    set_default(object, "/spec/suspend", false);
    let policy =
        if object.pointer("/spec/podFailurePolicy").is_some() { "Failed" } else { "TerminatingOrFailed" };
    set_default(object, "/spec/podReplacementPolicy", policy);
    pod_spec(object, "/spec/template/spec");
}

fn deployment(object: &mut Value) {
    set_default(object, "/spec/replicas", 1);
    set_default(object, "/spec/strategy/type", "RollingUpdate");
    set_default(object, "/spec/revisionHistoryLimit", 10);
    set_default(object, "/spec/progressDeadlineSeconds", 600);
    pod_spec(object, "/spec/template/spec");
}

fn secret(object: &mut Value) {
    set_default(object, "/type", "Opaque");
}

/// What a Job's controller adds on creation: the selector and labels that tie pods to it by UID.
pub fn job_identity(object: &mut Value) {
    if flag(object, "/spec/manualSelector") {
        return;
    }
    let (name, uid) = (text(object, "/metadata/name").to_owned(), text(object, "/metadata/uid").to_owned());
    set(object, "/spec/selector", json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
    for (label, value) in [
        ("batch.kubernetes.io~1controller-uid", &uid),
        ("batch.kubernetes.io~1job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ] {
        set(object, &format!("/spec/template/metadata/labels/{label}"), value.clone());
    }
}

/// Faults of a built-in kind.
pub fn check(kind: &Kind, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    match kind.table() {
        "pods" => {
            check_pod_spec(object, "/spec", &mut causes);
            check_pod_change(object, old, &mut causes);
        }
        "jobs.batch" => check_job(object, old, &mut causes),
        "leases.coordination.k8s.io" => check_lease(object, &mut causes),
        "configmaps" => check_size(object, &mut causes),
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => {
            let role = &object["roleRef"];
            if old.is_some_and(|old| old["roleRef"] != *role) {
                causes.push(Cause::invalid("roleRef", role, "cannot change roleRef"));
            }
        }
        "deployments.apps" | "replicasets.apps" | "daemonsets.apps" | "statefulsets.apps" => {
            check_pod_spec(object, "/spec/template/spec", &mut causes);
            check_selector(object, &mut causes);
        }
        _ => {}
    }
    causes
}

fn check_pod_spec(object: &Value, at: &str, causes: &mut Vec<Cause>) {
    let field = at.trim_start_matches('/').replace('/', ".");
    if list(object, &format!("{at}/containers")).is_empty() {
        causes.push(Cause::required(format!("{field}.containers"), ""));
    }
    let volumes: Vec<&str> =
        list(object, &format!("{at}/volumes")).iter().map(|v| text(v, "/name")).collect();
    for part in ["initContainers", "containers"] {
        for (i, container) in list(object, &format!("{at}/{part}")).iter().enumerate() {
            let path = format!("{field}.{part}[{i}]");
            let name = text(container, "/name");
            if name.is_empty() || name.len() > 63 || !super::names::is_subdomain(name) || name.contains('.') {
                causes.push(Cause::invalid(
                    format!("{path}.name"),
                    &name.into(),
                    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'",
                ));
            }
            if text(container, "/image").is_empty() {
                causes.push(Cause::required(format!("{path}.image"), ""));
            }
            for (j, mount) in list(container, "/volumeMounts").iter().enumerate() {
                let volume = text(mount, "/name");
                if !volumes.contains(&volume) {
                    let message = format!("Not found: \"{volume}\"");
                    causes.push(Cause {
                        reason: "FieldValueNotFound",
                        field: format!("{path}.volumeMounts[{j}].name"),
                        message,
                    });
                }
            }
        }
    }
}

/// Of a pod's spec only images, tolerations and the deadline may change.
fn check_pod_change(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let Some(old) = old else { return };
    let fixed = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for field in [
            "activeDeadlineSeconds",
            "tolerations",
            "terminationGracePeriodSeconds",
            "nodeName",
            "schedulingGates",
        ] {
            crate::json::take(&mut spec, &format!("/{field}"));
        }
        for part in ["containers", "initContainers"] {
            for container in spec.get_mut(part).and_then(Value::as_array_mut).into_iter().flatten() {
                crate::json::take(container, "/image");
            }
        }
        spec
    };
    if fixed(object) != fixed(old) {
        let message = "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        causes.push(Cause { reason: "FieldValueForbidden", field: "spec".into(), message: message.into() });
    }
}

fn check_job(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    check_pod_spec(object, "/spec/template/spec", causes);
    let (restart, field) =
        (text(object, "/spec/template/spec/restartPolicy"), "spec.template.spec.restartPolicy");
    if restart == "Always" {
        causes.push(Cause::required(field, "valid values: \"OnFailure\", \"Never\""));
    } else if !matches!(restart, "Never" | "OnFailure") {
        causes.push(Cause::unsupported(field, &restart.into(), &["OnFailure".into(), "Never".into()]));
    }
    if object.pointer("/spec/podFailurePolicy").is_some() {
        if restart != "Never" {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            causes.push(Cause::invalid(field, &restart.into(), why));
        }
        let replaced = text(object, "/spec/podReplacementPolicy");
        if replaced != "Failed" {
            let field = "spec.podReplacementPolicy";
            causes.push(Cause::unsupported(field, &replaced.into(), &["Failed".into()]));
        }
    }
    check_failure_policy(object, causes);
    for field in
        ["backoffLimit", "parallelism", "completions", "activeDeadlineSeconds", "ttlSecondsAfterFinished"]
    {
        if let Some(value) = int(object, &format!("/spec/{field}")).filter(|n| *n < 0) {
            causes.push(Cause::invalid(
                format!("spec.{field}"),
                &value.into(),
                "must be greater than or equal to 0",
            ));
        }
    }
    let Some(old) = old else { return };
    // Scheduling fields of a suspended Job may change, which nobody here does.
    for field in ["template.spec", "selector", "completions", "completionMode", "podFailurePolicy"] {
        let pointer = format!("/spec/{}", field.replace('.', "/"));
        let value = object.pointer(&pointer);
        if value != old.pointer(&pointer) {
            causes.push(Cause::immutable(format!("spec.{field}"), value.unwrap_or(&Value::Null)));
        }
    }
}

fn check_failure_policy(object: &Value, causes: &mut Vec<Cause>) {
    let containers =
        ["initContainers", "containers"].map(|part| list(object, &format!("/spec/template/spec/{part}")));
    for (i, rule) in list(object, "/spec/podFailurePolicy/rules").iter().enumerate() {
        let path = format!("spec.podFailurePolicy.rules[{i}].onExitCodes");
        let name = text(rule, "/onExitCodes/containerName");
        let known = containers.iter().copied().flatten().any(|container| text(container, "/name") == name);
        if !name.is_empty() && !known {
            let why = "must be one of the container or initContainer names in the pod template";
            causes.push(Cause::invalid(format!("{path}.containerName"), &name.into(), why));
        }
        for (j, value) in list(rule, "/onExitCodes/values").iter().enumerate() {
            if *value == 0 && text(rule, "/onExitCodes/operator") == "In" {
                let why = "must not be 0 for the In operator";
                causes.push(Cause::invalid(format!("{path}.values[{j}]"), value, why));
            }
        }
    }
}

fn check_lease(object: &Value, causes: &mut Vec<Cause>) {
    if let Some(seconds) = int(object, "/spec/leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
        causes.push(Cause::invalid("spec.leaseDurationSeconds", &seconds.into(), "must be greater than 0"));
    }
}

/// Bytes of what a ConfigMap holds.
const MAX_DATA: usize = 1024 * 1024;

fn check_size(object: &Value, causes: &mut Vec<Cause>) {
    let data = map(object, "/data").into_iter().flatten();
    if data.map(|(_, value)| value.as_str().map_or(0, str::len)).sum::<usize>() > MAX_DATA {
        let message = format!("Too long: may not be more than {MAX_DATA} bytes");
        causes.push(Cause { reason: "FieldValueTooLong", field: String::new(), message });
    }
}

fn check_selector(object: &Value, causes: &mut Vec<Cause>) {
    let labels = object.pointer("/spec/template/metadata/labels");
    for (key, value) in map(object, "/spec/selector/matchLabels").into_iter().flatten() {
        if labels.and_then(|l| l.get(key)) != Some(value) {
            causes.push(Cause::invalid(
                "spec.template.metadata.labels",
                &labels.cloned().unwrap_or_default(),
                "`selector` does not match template `labels`",
            ));
        }
    }
}
