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
        "pods" => pod_spec(object, "/spec"),
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
        ("enableServiceLinks", json!(true)),
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
    let restart = text(object, "/spec/template/spec/restartPolicy");
    if !matches!(restart, "Never" | "OnFailure") {
        causes.push(Cause::unsupported(
            "spec.template.spec.restartPolicy",
            &restart.into(),
            &["OnFailure".into(), "Never".into()],
        ));
    }
    if object.pointer("/spec/podFailurePolicy").is_some() && restart != "Never" {
        causes.push(Cause::invalid(
            "spec.template.spec.restartPolicy",
            &restart.into(),
            "only \"Never\" is supported when podFailurePolicy is specified",
        ));
    }
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
    for field in ["template", "selector", "completionMode", "podFailurePolicy"] {
        let pointer = format!("/spec/{field}");
        // Scheduling fields of a suspended Job may change, which nobody here does.
        if object.pointer(&pointer) != old.pointer(&pointer) {
            causes.push(Cause::invalid(format!("spec.{field}"), &Value::Null, "field is immutable"));
        }
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
