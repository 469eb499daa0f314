//! What `kubectl apply -k manifests/default` sends, without kubectl: the files of `manifests/` with namespace
//! and prefix.
//!
//! It knows what those kustomizations do, and no more: namespace and prefix of names and of what refers to
//! them. The operator's Deployment is left out, for here the operator is a process of its own.

use std::{fs, path::Path};

use anyhow::Context;
use serde_json::Value;

/// The operator's namespace.
pub const NAMESPACE: &str = "operator-system";
/// The operator's ServiceAccount.
pub const ACCOUNT: &str = "operator-kairos-operator";
const PREFIX: &str = "operator-";

/// The objects in the directory `manifests`, in an order in which they can be applied, as one text.
pub fn manifests(directory: &Path) -> anyhow::Result<String> {
    let mut objects = Vec::new();
    for part in ["crd", "operator", "rbac", "network-policy"] {
        for object in part_of(&directory.join(part))? {
            objects.push(finished(object));
        }
    }
    objects.sort_by_key(|object| object["kind"] != "Namespace");
    let texts: Vec<String> = objects.iter().map(Value::to_string).collect();
    Ok(texts.join("\n---\n"))
}

/// The objects of a kustomization's own resources.
fn part_of(directory: &Path) -> anyhow::Result<Vec<Value>> {
    let kustomization = documents(&directory.join("kustomization.yaml"))?;
    let resources =
        kustomization.first().and_then(|k| k["resources"].as_array()).cloned().unwrap_or_default();
    let mut objects = Vec::new();
    for resource in resources.iter().filter_map(Value::as_str) {
        objects.extend(
            documents(&directory.join(resource))?
                .into_iter()
                .filter(|o| o["kind"] != "Deployment" && o.is_object()),
        );
    }
    Ok(objects)
}

fn documents(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_saphyr::from_multiple(&text).with_context(|| format!("reading {}", path.display()))
}

fn finished(mut object: Value) -> Value {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    match kind.as_str() {
        "Namespace" => object["metadata"]["name"] = NAMESPACE.into(),
        "CustomResourceDefinition" => {}
        _ => prefix(&mut object["metadata"]["name"]),
    }
    if object["metadata"].get("namespace").is_some() {
        object["metadata"]["namespace"] = NAMESPACE.into();
    }
    if object.get("roleRef").is_some() {
        prefix(&mut object["roleRef"]["name"]);
    }
    for subject in object.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
        prefix(&mut subject["name"]);
        subject["namespace"] = NAMESPACE.into();
    }
    if kind == "ValidatingAdmissionPolicyBinding" {
        prefix(&mut object["spec"]["policyName"]);
    }
    object
}

fn prefix(name: &mut Value) {
    *name = format!("{PREFIX}{}", name.as_str().unwrap_or_default()).into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_what_refers_to_them_get_the_prefix() {
        let text = manifests(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests")).unwrap();
        let objects: Vec<Value> =
            text.split("\n---\n").map(|text| serde_json::from_str(text).unwrap()).collect();
        let of = |kind: &str, name: &str| {
            objects.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name)
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
        assert!(objects.iter().all(|o| o["kind"] != "Deployment"));
    }
}
