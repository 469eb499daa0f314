//! All that an installation needs, as one list of objects: what `kubectl kustomize manifests/default` prints,
//! without kubectl, and for any image.
//!
//! The files under `manifests/` are for people and their overlays, and are the source; they are in the
//! binary, so that `kairos-operator manifests` installs the release that it is. That both say the same is
//! tested with kubectl itself, where it can be had (`tests/it/install.rs`).

use anyhow::Context;
use serde_json::Value;

use super::{Part, generate};
use crate::api::names;

/// The namespace, and the prefix of all names, are the Go operator's: it is replaced in place.
pub const NAMESPACE: &str = names::OPERATOR_NAMESPACE;
/// The operator's ServiceAccount.
pub const ACCOUNT: &str = "operator-kairos-operator";
const PREFIX: &str = "operator-";

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../manifests/", $path)))),*]
    };
}

/// What nobody generates, each with its path below `manifests/`.
const FILES: &[(&str, &str)] = files![
    "operator/namespace.yaml",
    "operator/priority-class.yaml",
    "operator/deployment.yaml",
    "operator/metrics-service.yaml",
    "rbac/waiter-policy.yaml",
    "rbac/node-policy.yaml",
    "rbac/node-role-policy.yaml",
    "rbac/operator-policy.yaml",
    "rbac/all-at-once-warning.yaml",
    "rbac/drain-warning.yaml",
    "rbac/selector-policy.yaml",
    "rbac/child-policy.yaml",
    "network-policy/operator.yaml",
];

/// Objects that others name come first. A Deployment is last: its pods need all the others.
const ORDER: [&str; 13] = [
    "Namespace",
    "CustomResourceDefinition",
    "ServiceAccount",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "PriorityClass",
    "NetworkPolicy",
    "Service",
    "Deployment",
];

/// Where an object names another one that bears the prefix.
const REFERENCES: [&str; 5] = [
    "/roleRef/name",
    "/subjects/0/name",
    "/spec/policyName",
    "/spec/template/spec/serviceAccountName",
    "/spec/template/spec/priorityClassName",
];

/// All objects of an installation whose pods run `image`, in an order in which they can be applied.
///
/// # Errors
///
/// None of a binary that was built: a test reads all files.
pub fn objects(image: &str) -> anyhow::Result<Vec<Value>> {
    let mut objects = Vec::new();
    for part in [Part::Crd, Part::Rbac] {
        for file in generate(part)? {
            read(&file.path, &file.text, &mut objects)?;
        }
    }
    for (path, text) in FILES {
        read(path, text, &mut objects)?;
    }
    for object in &mut objects {
        install(object, image);
    }
    objects.sort_by_key(|object| ORDER.iter().position(|kind| object["kind"] == *kind));
    Ok(objects)
}

fn read(path: &str, text: &str, into: &mut Vec<Value>) -> anyhow::Result<()> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).with_context(|| format!("reading manifests/{path}"))?;
    into.extend(documents);
    Ok(())
}

/// Gives an object the namespace and the names that it is installed under.
fn install(object: &mut Value, image: &str) {
    match object["kind"].as_str() {
        Some("Namespace") => object["metadata"]["name"] = NAMESPACE.into(),
        Some("CustomResourceDefinition") => {}
        _ => prefix(&mut object["metadata"]["name"]),
    }
    for namespace in ["/metadata/namespace", "/subjects/0/namespace"] {
        if let Some(namespace) = object.pointer_mut(namespace) {
            *namespace = NAMESPACE.into();
        }
    }
    for reference in REFERENCES {
        if let Some(name) = object.pointer_mut(reference) {
            prefix(name);
        }
    }
    if object["kind"] == "Deployment" {
        set_image(object, image);
    }
}

fn prefix(name: &mut Value) {
    *name = format!("{PREFIX}{}", name.as_str().unwrap_or_default()).into();
}

/// The operator's container. The pods that it makes run what it runs.
fn set_image(deployment: &mut Value, image: &str) {
    let containers = deployment.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        container["image"] = image.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_what_refers_to_them_get_the_prefix() {
        let objects = objects("registry.example/op@sha256:0").unwrap();
        let of = |kind: &str, name: &str| {
            objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        };
        assert_eq!(objects[0]["metadata"]["name"], NAMESPACE);
        assert_eq!(of("ServiceAccount", ACCOUNT).unwrap()["metadata"]["namespace"], NAMESPACE);
        let binding = of("ClusterRoleBinding", "operator-kairos-operator-rolebinding").unwrap();
        assert!(of("ClusterRole", binding["roleRef"]["name"].as_str().unwrap()).is_some());
        assert_eq!(
            (&binding["subjects"][0]["name"], &binding["subjects"][0]["namespace"]),
            (&ACCOUNT.into(), &NAMESPACE.into())
        );
        assert!(of("CustomResourceDefinition", "nodeops.operator.kairos.io").is_some());
        let last = objects.last().unwrap();
        assert_eq!(last["kind"], "Deployment");
        assert_eq!(last.to_string().matches("registry.example/op@sha256:0").count(), 1);
    }

    #[test]
    fn every_object_has_its_place_in_the_order() {
        for object in objects("image").unwrap() {
            assert!(ORDER.iter().any(|kind| object["kind"] == *kind), "{}", object["kind"]);
        }
    }
}
