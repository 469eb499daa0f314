//! What an installed CustomResourceDefinition lacks: the API server drops a field that it does not know
//! without a word, and refuses a value that it does not.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
    {JSONSchemaPropsOrArray as Items, JSONSchemaPropsOrBool as Additional},
};

use crate::api::names;

/// The paths of fields that `ours` has and `theirs` has not, at any depth of spec and status, and of values
/// that are allowed in one alone (`spec.mode: "Continuous"`). Of what is missing no more is named than its
/// root.
pub fn missing(ours: &CustomResourceDefinition, theirs: &CustomResourceDefinition) -> Vec<String> {
    let mut missing = Vec::new();
    match (schema(ours), schema(theirs)) {
        (Some(ours), Some(theirs)) => compare("", ours, theirs, &mut missing),
        (Some(_), None) => missing.push(format!("version {}", names::VERSION)),
        (None, _) => {}
    }
    missing
}

fn schema(crd: &CustomResourceDefinition) -> Option<&JSONSchemaProps> {
    let version = crd.spec.versions.iter().find(|version| version.name == names::VERSION)?;
    version.schema.as_ref()?.open_api_v3_schema.as_ref()
}

fn compare(path: &str, ours: &JSONSchemaProps, theirs: &JSONSchemaProps, missing: &mut Vec<String>) {
    // Below it everything is kept.
    if theirs.x_kubernetes_preserve_unknown_fields == Some(true) {
        return;
    }
    let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let mut below = |path: String, ours: &JSONSchemaProps, theirs: Option<&JSONSchemaProps>| match theirs {
        Some(theirs) => compare(&path, ours, theirs, missing),
        None => missing.push(path),
    };
    for (name, ours) in ours.properties.iter().flatten() {
        below(at(name), ours, theirs.properties.as_ref().and_then(|all| all.get(name)));
    }
    if let Some(Items::Schema(ours)) = &ours.items {
        let theirs = match &theirs.items {
            Some(Items::Schema(theirs)) => Some(&**theirs),
            Some(Items::Schemas(_)) | None => None,
        };
        below(format!("{path}[]"), ours, theirs);
    }
    match (&ours.additional_properties, &theirs.additional_properties) {
        (Some(Additional::Schema(ours)), Some(Additional::Schema(theirs))) => {
            below(at("*"), ours, Some(theirs));
        }
        (Some(Additional::Schema(ours)), None | Some(Additional::Bool(false))) => below(at("*"), ours, None),
        (Some(Additional::Bool(true)), None | Some(Additional::Bool(false))) => missing.push(at("*")),
        (_, Some(Additional::Bool(true))) | (None | Some(Additional::Bool(_)), _) => {}
    }
    if let Some(theirs) = &theirs.enum_ {
        let values = ours.enum_.iter().flatten().filter(|value| !theirs.contains(value));
        missing.extend(values.map(|value| format!("{path}: {}", value.0)));
    }
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::api::{nodeop::NodeOp, upgrade::NodeOpUpgrade};

    /// What is missing once the schema of a kind is changed so.
    fn without<K: CustomResourceExt>(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut crd = serde_json::to_value(K::crd()).unwrap();
        change(&mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
        missing(&K::crd(), &serde_json::from_value(crd).unwrap())
    }

    /// Removes what a pointer leads to.
    fn remove(schema: &mut Value, pointer: &str) {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = schema.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"));
        assert!(parent.as_object_mut().unwrap().remove(name).is_some(), "{pointer}");
    }

    #[test]
    fn a_field_is_missed_at_any_depth_of_spec_and_status() {
        assert!(without::<NodeOp>(|_| {}).is_empty() && without::<NodeOpUpgrade>(|_| {}).is_empty());
        let nodes = "/properties/status/properties/nodeStatuses";
        for (pointer, path) in [
            ("/properties/spec/properties/paused".to_owned(), "spec.paused"),
            ("/properties/spec/properties/drainOptions/properties/skip".to_owned(), "spec.drainOptions.skip"),
            ("/properties/spec/properties/loadBalancer".to_owned(), "spec.loadBalancer"),
            ("/properties/status/properties/images".to_owned(), "status.images"),
            (format!("{nodes}/additionalProperties/properties/nodeUid"), "status.nodeStatuses.*.nodeUid"),
            (format!("{nodes}/additionalProperties"), "status.nodeStatuses.*"),
            (
                "/properties/status/properties/conditions/items/properties/observedGeneration".to_owned(),
                "status.conditions[].observedGeneration",
            ),
            ("/properties/status".to_owned(), "status"),
        ] {
            assert_eq!(without::<NodeOp>(|schema| remove(schema, &pointer)), [path]);
        }
        let round = "/properties/status/properties/round/properties/number";
        assert_eq!(without::<NodeOpUpgrade>(|schema| remove(schema, round)), ["status.round.number"]);
    }

    #[test]
    fn a_value_is_missed_and_what_keeps_everything_misses_nothing() {
        let mode = "/properties/spec/properties/mode/enum";
        let once = without::<NodeOpUpgrade>(|schema| *schema.pointer_mut(mode).unwrap() = json!(["Once"]));
        assert_eq!(once, ["spec.mode: \"Continuous\""]);
        let kept = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        assert!(without::<NodeOp>(|schema| schema["properties"]["status"] = kept).is_empty());
        let mut other = NodeOp::crd();
        other.spec.versions[0].name = "v1".into();
        assert_eq!(missing(&NodeOp::crd(), &other), ["version v1alpha1"]);
    }
}
