//! The shape of the CRDs: what the Go operator's have, and what `kubectl get` and `kubectl explain` show.

use kairos_operator::api::{nodeop::NodeOp, upgrade::NodeOpUpgrade};
use kube::CustomResourceExt;
use serde_json::{Value, json};

fn crd(kind: &str) -> Value {
    serde_json::to_value(if kind == "NodeOp" { NodeOp::crd() } else { NodeOpUpgrade::crd() }).unwrap()
}

/// The schema of a field, by its path with dots; `[]` is a list's item.
fn field(kind: &str, path: &str) -> Value {
    let mut schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    for name in path.split('.') {
        schema = if name == "[]" { schema["items"].clone() } else { schema["properties"][name].clone() };
        assert!(!schema.is_null(), "{kind} has no {path}");
    }
    schema
}

#[test]
fn defaults_are_those_of_the_go_operator() {
    for (path, default) in [
        ("spec.hostMountPath", json!("/host")),
        ("spec.cordon", json!(false)),
        ("spec.uncordonOnFailure", json!(false)),
        ("spec.rebootOnSuccess", json!(false)),
        ("spec.stopOnFailure", json!(false)),
        ("spec.paused", json!(false)),
        ("spec.imagePullPolicy", Value::Null),
        ("spec.concurrency", json!(0)),
        ("spec.drainOptions.enabled", json!(false)),
        ("spec.drainOptions.force", json!(false)),
        ("spec.drainOptions.ignoreDaemonSets", json!(true)),
        ("spec.drainOptions.deleteEmptyDirData", json!(false)),
        ("spec.preflight.activeDeadlineSeconds", json!(120)),
        ("spec.imagePullSecrets.[].name", json!("")),
        ("spec.image", Value::Null),
        ("spec.backoffLimit", Value::Null),
        ("spec.command", Value::Null),
        ("spec.drainOptions", Value::Null),
        ("spec.drainOptions.timeoutSeconds", Value::Null),
        ("spec.preflight", Value::Null),
    ] {
        assert_eq!(field("NodeOp", path)["default"], default, "{path}");
    }
    assert_eq!(field("NodeOpUpgrade", "spec.concurrency")["default"], 0);
}

#[test]
fn an_upgrade_leaves_its_defaults_to_the_controller() {
    for (name, schema) in field("NodeOpUpgrade", "spec")["properties"].as_object().unwrap() {
        assert!(name == "concurrency" || schema.get("default").is_none(), "{name}");
    }
    for (name, schema) in field("NodeOpUpgrade", "spec.drainOptions")["properties"].as_object().unwrap() {
        assert!(
            schema.get("default").is_none(),
            "drainOptions.{name}: a default could not be told from the user's own word"
        );
    }
}

#[test]
fn types_of_kubernetes_are_corrected() {
    for kind in ["NodeOp", "NodeOpUpgrade"] {
        assert_eq!(field(kind, "spec.nodeSelector")["x-kubernetes-map-type"], "atomic");
        assert_eq!(
            field(kind, "spec.nodeSelector.matchExpressions.[].operator")["enum"],
            json!(["In", "NotIn", "Exists", "DoesNotExist"])
        );
        assert!(field(kind, "spec.imagePullSecrets.[]").get("required").is_none());
        assert_eq!(field(kind, "status.nodeStatuses")["x-kubernetes-map-type"], "atomic");
        assert_eq!(field(kind, "status.conditions")["x-kubernetes-list-map-keys"], json!(["type"]));
    }
}

#[test]
fn phases_are_those_of_the_contract() {
    let node = field("NodeOp", "status.nodeStatuses")["additionalProperties"]["properties"].clone();
    assert_eq!(node["phase"]["enum"], json!(["Pending", "Preflight", "Running", "Completed", "Failed"]));
    assert_eq!(node["rebootStatus"]["enum"], json!(["not-requested", "pending", "completed", "cancelled"]));
    assert_eq!(
        field("NodeOpUpgrade", "status.phase")["enum"],
        json!(["Initializing", "Pending", "Running", "Completed", "Failed"])
    );
}

#[test]
fn every_field_is_described_and_none_is_nullable() {
    fn walk(path: &str, schema: &Value, missing: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if property["description"].as_str().unwrap_or_default().is_empty() {
                missing.push(format!("{path}: no description"));
            }
            if property["nullable"] == true && !path.ends_with(".status") {
                missing.push(format!("{path}: nullable"));
            }
            walk(&path, property, missing);
        }
        for inner in ["items", "additionalProperties"] {
            if schema[inner].is_object() {
                walk(path, &schema[inner], missing);
            }
        }
    }
    let mut missing = Vec::new();
    for kind in ["NodeOp", "NodeOpUpgrade"] {
        let schema = &crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert!(schema["description"].as_str().unwrap().contains("root on the nodes"));
        walk(kind, schema, &mut missing);
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn kubectl_get_shows_how_far_it_is() {
    for (kind, short, columns) in [
        ("NodeOp", "nop", vec!["Phase", "Done", "Failed", "Current", "Image", "Age", "Message"]),
        (
            "NodeOpUpgrade",
            "nou",
            vec!["Phase", "Done", "Failed", "Current", "Release", "Image", "Age", "Message"],
        ),
    ] {
        let spec = &crd(kind)["spec"];
        assert_eq!(spec["names"]["shortNames"], json!([short]));
        assert_eq!(spec["names"]["categories"], json!(["kairos"]));
        assert_eq!(spec["scope"], "Namespaced");
        let version = &spec["versions"][0];
        assert_eq!(version["subresources"], json!({ "status": {} }));
        let shown: Vec<&str> = version["additionalPrinterColumns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap())
            .collect();
        assert_eq!(shown, columns);
        for column in version["additionalPrinterColumns"].as_array().unwrap() {
            let path = column["jsonPath"].as_str().unwrap().trim_start_matches('.');
            assert!(path.starts_with("metadata.") || field(kind, path)["type"] == column["type"], "{path}");
        }
    }
}
