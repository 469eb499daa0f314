//! Discovery: which groups, versions and resources there are.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::kinds::{Kind, Registry};

/// Answers a discovery path; `None` for any other.
pub fn answer(registry: &Registry, path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    match parts.as_slice() {
        ["version"] => Some(
            json!({"major": "1", "minor": "33", "gitVersion": "v1.33.0+kairos-sim", "platform": "linux/amd64", "goVersion": "none", "compiler": "rustc", "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z"}),
        ),
        ["healthz" | "livez" | "readyz"] => Some("ok".into()),
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        ["apis"] => Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups(registry)})),
        ["api", version] => resources(registry, "", version),
        ["apis", name] => groups(registry).into_iter().find(|g| g["name"] == *name),
        ["apis", group, version] => resources(registry, group, version),
        _ => None,
    }
}

/// Groups with their versions.
fn groups(registry: &Registry) -> Vec<Value> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for kind in registry.all().filter(|k| !k.group.is_empty()) {
        let versions = groups.entry(&kind.group).or_default();
        if !versions.contains(&kind.version.as_str()) {
            versions.push(&kind.version);
        }
    }
    groups.entry("authorization.k8s.io").or_default().push("v1");
    let version = |group: &str, version: &str| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    groups
        .into_iter()
        .map(|(group, versions)| {
            let all: Vec<Value> = versions.iter().map(|v| version(group, v)).collect();
            json!({"kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": all, "preferredVersion": version(group, versions[0])})
        })
        .collect()
}

fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut resources: Vec<Value> = registry
        .all()
        .filter(|k| k.group == group && k.version == version)
        .flat_map(|k| entries(k))
        .collect();
    if (group, version) == ("authorization.k8s.io", "v1") {
        resources.push(json!({"name": "selfsubjectaccessreviews", "singularName": "", "namespaced": false, "kind": "SelfSubjectAccessReview", "verbs": ["create"]}));
    }
    if resources.is_empty() {
        return None;
    }
    let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": resources}))
}

fn entries(kind: &Kind) -> Vec<Value> {
    let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    let mut entries = vec![json!({
        "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
        "verbs": verbs, "shortNames": kind.short, "categories": kind.categories,
    })];
    let mut sub = |name: &str, of: &str, verbs: &[&str]| {
        entries.push(json!({"name": format!("{}/{name}", kind.plural), "singularName": "", "namespaced": kind.namespaced, "kind": of, "verbs": verbs}));
    };
    if kind.status {
        sub("status", &kind.kind, &["get", "patch", "update"]);
    }
    match kind.table() {
        "pods" => {
            sub("eviction", "Eviction", &["create"]);
            sub("binding", "Binding", &["create"]);
            // kubectl drain looks for the group and version of the eviction here.
            if let Some(eviction) = entries.iter_mut().find(|e| e["name"] == "pods/eviction") {
                eviction["group"] = "policy".into();
                eviction["version"] = "v1".into();
            }
        }
        "serviceaccounts" => sub("token", "TokenRequest", &["create"]),
        _ => {}
    }
    entries
}
