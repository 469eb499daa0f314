//! What admission says: the words by which an operator tells a refusal that passes from one that stays.

use serde_json::{Value, json};

use super::{on_both, on_cluster, place::At};

on_both!(a_pod_without_its_account_is_refused, what_admission_adds_to_a_pod);

on_cluster!(
    a_policy_refuses_as_invalid_and_warns_in_a_header,
    a_quota_that_is_full_refuses_for_now,
    a_quota_that_demands_limits_refuses_for_good,
    pod_security_refuses_for_good,
);

async fn a_pod_without_its_account_is_refused(at: At) {
    let mut pod = super::place::pod("a", "n1", json!({}));
    pod["spec"]["serviceAccountName"] = json!("none");
    let refused = at.post("pods?dryRun=All", &pod).await;
    let account =
        format!("error looking up service account {}/none: serviceaccount \"none\" not found", at.namespace);
    assert_eq!(refused.refused(403, "Forbidden"), format!("pods \"a\" is forbidden: {account}"));
    assert_eq!(refused.body["details"], json!({"name": "a", "kind": "pods"}));
}

async fn what_admission_adds_to_a_pod(at: At) {
    let made = at.post("pods", &super::place::pod("a", "n1", json!({}))).await.ok();
    let spec = &made["spec"];
    assert_eq!(
        (&spec["serviceAccountName"], &spec["serviceAccount"]),
        (&json!("default"), &json!("default"))
    );
    assert_eq!(
        (&spec["enableServiceLinks"], &spec["preemptionPolicy"], &spec["priority"]),
        (&json!(true), &json!("PreemptLowerPriority"), &json!(0))
    );
    let toleration = |key: &str| json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
    assert_eq!(spec["tolerations"], json!([toleration("not-ready"), toleration("unreachable")]));
    assert_eq!(
        (&made["status"]["phase"], &made["status"]["qosClass"]),
        (&json!("Pending"), &json!("BestEffort"))
    );
    let mut all = super::place::pod("b", "n1", json!({}));
    all["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    let made = at.post("pods", &all).await.ok();
    assert_eq!(made["spec"]["tolerations"], json!([{"operator": "Exists"}]));
}

/// A ValidatingAdmissionPolicy of this name on the ConfigMaps of the namespace, with its binding.
async fn policy(at: &At, action: &str) -> String {
    let name = format!("{}-{}", at.namespace, action.to_lowercase());
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": at.namespace}});
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]});
    let validation = json!({"expression": "object.metadata.name != 'bad'", "message": "no such name"});
    let spec = json!({"matchConstraints": {"namespaceSelector": here, "resourceRules": [rule]}, "validations": [validation]});
    let group = "admissionregistration.k8s.io/v1";
    let policy = json!({"apiVersion": group, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name}, "spec": spec});
    at.install(&format!("/apis/{group}/validatingadmissionpolicies"), &policy).await;
    let binding = json!({"apiVersion": group, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": [action]}});
    at.install(&format!("/apis/{group}/validatingadmissionpolicybindings"), &binding).await;
    name
}

async fn a_policy_refuses_as_invalid_and_warns_in_a_header(at: At) {
    let bad = json!({"metadata": {"name": "bad"}});
    let warns = policy(&at, "Warn").await;
    let mut answer = at.post("configmaps?dryRun=All", &bad).await;
    while answer.warnings.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        answer = at.post("configmaps?dryRun=All", &bad).await;
    }
    let said = format!(
        "299 - \"Validation failed for ValidatingAdmissionPolicy '{warns}' with binding '{warns}': no such name\""
    );
    assert_eq!((answer.code, answer.warnings), (201, vec![said]));
    let denies = policy(&at, "Deny").await;
    let mut answer = at.post("configmaps?dryRun=All", &bad).await;
    while answer.code == 201 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        answer = at.post("configmaps?dryRun=All", &bad).await;
    }
    let why = format!(
        "configmaps \"bad\" is forbidden: ValidatingAdmissionPolicy '{denies}' with binding '{denies}' denied request: no such name"
    );
    assert_eq!(answer.refused(422, "Invalid"), why);
    at.post("configmaps?dryRun=All", &json!({"metadata": {"name": "good"}})).await.ok();
}

async fn quota(at: &At, hard: Value) {
    at.post("resourcequotas", &json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await.ok();
    at.until("resourcequotas/q", |quota| quota["status"]["hard"].is_object()).await;
}

async fn a_quota_that_is_full_refuses_for_now(at: At) {
    quota(&at, json!({"pods": "0"})).await;
    let refused = at.post("pods?dryRun=All", &super::place::pod("a", "n1", json!({}))).await;
    let why = "pods \"a\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0";
    assert_eq!(refused.refused(403, "Forbidden"), why);
}

async fn a_quota_that_demands_limits_refuses_for_good(at: At) {
    quota(&at, json!({"limits.cpu": "1"})).await;
    let refused = at.post("pods?dryRun=All", &super::place::pod("a", "n1", json!({}))).await;
    let why = "pods \"a\" is forbidden: failed quota: q: must specify limits.cpu for: c";
    assert_eq!(refused.refused(403, "Forbidden"), why);
}

async fn pod_security_refuses_for_good(at: At) {
    let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    at.merge(&format!("namespaces/{}", at.namespace), &label).await.ok();
    let mut pod = super::place::pod("a", "n1", json!({}));
    pod["spec"]["hostPID"] = json!(true);
    let mut refused = at.post("pods?dryRun=All", &pod).await;
    while refused.code == 201 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        refused = at.post("pods?dryRun=All", &pod).await;
    }
    let why =
        "pods \"a\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostPID=true)";
    assert_eq!(refused.refused(403, "Forbidden"), why);
}
