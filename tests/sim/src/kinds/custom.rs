//! Custom resources: a CustomResourceDefinition becomes a resource that is served, checked and printed.

use kube_cel::{CompiledSchema, Validator, compile_schema};
use serde_json::{Value, json};

use super::{Column, Form, Kind, schema};
use crate::{
    json::{flag, list, set, text, texts},
    server::error::{ApiError, ApiResult, Cause},
};

/// Faults after which rules are not looked at, …
const BLOCKING: [&str; 5] = [
    "FieldValueRequired",
    "FieldValueNotSupported",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueTypeInvalid",
];
/// … and what is said of that.
const UNCHECKED: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

/// The schema of one version of a custom resource.
pub struct CustomSchema {
    /// `openAPIV3Schema`, as it was sent.
    pub raw: Value,
    rules: CompiledSchema,
    /// No rule looks at what stands below `status`.
    rules_spare_status: bool,
}

impl std::fmt::Debug for CustomSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CustomSchema").finish_non_exhaustive()
    }
}

impl CustomSchema {
    /// Drops what the schema does not name.
    pub fn prune(&self, object: &Value) -> Value {
        let mut object = object.clone();
        schema::prune_root(&self.raw, &mut object);
        object
    }

    /// Writes the schema's defaults.
    pub fn default(&self, object: &Value) -> Value {
        kube_cel::apply_defaults(&self.raw, object)
    }

    /// Faults by the schema, then by its CEL rules. A fault in a value that is unchanged passes, as in a
    /// server that ratchets (1.30 and later).
    pub fn check(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = schema::check_root(&self.raw, object);
        causes.retain(|cause| !is_unchanged(&cause.field, object, old));
        // Rules cost more than all else. A write of the status changes nothing that they look at.
        let only_status =
            self.rules_spare_status && old.is_some_and(|old| differ_in_status_only(object, old));
        if only_status {
            return causes;
        }
        if causes.iter().any(|cause| BLOCKING.contains(&cause.reason)) {
            causes.push(Cause::invalid(schema::NOWHERE, &Value::Null, UNCHECKED));
            return causes;
        }
        let Err(errors) = Validator::new().validate_compiled(&self.rules, object, old) else {
            return causes;
        };
        let errors = errors.into_vec();
        let errors = errors
            .iter()
            .filter(|error| error.rule.contains("oldSelf") || !is_unchanged(&error.field_path, object, old));
        causes.extend(errors.map(|error| {
            let (path, why) = (error.field_path.trim_start_matches('.'), &error.message);
            let value = schema::at_path(object, path).filter(|_| self.is_rule_of(path, &error.rule));
            match value.filter(|value| !value.is_object() && !value.is_array()) {
                Some(value) => Cause::invalid(path, value, why),
                // Of a map or a list the value is left out, and so it is where a rule on one names a field.
                None => Cause {
                    reason: "FieldValueInvalid",
                    field: path.into(),
                    message: format!("Invalid value: {why}"),
                },
            }
        }));
        causes
    }

    /// Whether a rule stands at this path itself, not above it.
    fn is_rule_of(&self, path: &str, rule: &str) -> bool {
        let mut steps = path.split(['.', '[']).filter(|step| !step.is_empty());
        let at = steps.try_fold(&self.raw, |at, step| match step.strip_suffix(']') {
            Some(_) => at.get("items"),
            None => at.pointer("/properties")?.get(step).or_else(|| at.get("additionalProperties")),
        });
        at.is_some_and(|schema| {
            list(schema, "/x-kubernetes-validations").iter().any(|own| text(own, "/rule") == rule)
        })
    }
}

fn differ_in_status_only(object: &Value, old: &Value) -> bool {
    ["/spec", "/metadata/name"].iter().all(|path| object.pointer(path) == old.pointer(path))
}

fn is_unchanged(path: &str, object: &Value, old: Option<&Value>) -> bool {
    let Some(old) = old else { return false };
    match (schema::at_path(object, path), schema::at_path(old, path)) {
        (Some(new), Some(old)) => new == old,
        // A field that is required and absent in both: its parent decides.
        (None, None) => {
            path.rsplit_once('.').is_some_and(|(parent, _)| is_unchanged(parent, object, Some(old)))
        }
        _ => false,
    }
}

/// The resources that a CustomResourceDefinition defines, one for each served version.
pub fn kinds_of(definition: &Value) -> ApiResult<Vec<Kind>> {
    list(definition, "/spec/versions")
        .iter()
        .filter(|v| flag(v, "/served"))
        .map(|v| kind_of(definition, v))
        .collect()
}

fn kind_of(definition: &Value, version: &Value) -> ApiResult<Kind> {
    let raw =
        version.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_else(|| json!({"type": "object"}));
    let rules = compile(definition, &raw)?;
    let of_status = raw.pointer("/properties/status").map(Value::to_string).unwrap_or_default();
    let rules_spare_status = !of_status.contains("x-kubernetes-validations");
    let name = |field: &str| text(definition, &format!("/spec/names/{field}")).to_owned();
    let column = |c: &Value| Column {
        name: text(c, "/name").into(),
        kind: text(c, "/type").into(),
        path: text(c, "/jsonPath").into(),
        priority: crate::json::int(c, "/priority").unwrap_or_default(),
    };
    let singular = if name("singular").is_empty() { name("kind").to_lowercase() } else { name("singular") };
    Ok(Kind {
        table: super::table_name(text(definition, "/spec/group"), &name("plural")),
        group: text(definition, "/spec/group").into(),
        version: text(version, "/name").into(),
        kind: name("kind"),
        plural: name("plural"),
        singular,
        namespaced: text(definition, "/spec/scope") == "Namespaced",
        status: version.pointer("/subresources/status").is_some(),
        short: texts(definition, "/spec/names/shortNames").map(str::to_owned).collect(),
        categories: texts(definition, "/spec/names/categories").map(str::to_owned).collect(),
        fields: list(version, "/selectableFields")
            .iter()
            .map(|f| text(f, "/jsonPath").trim_start_matches('.').into())
            .collect(),
        columns: list(version, "/additionalPrinterColumns").iter().map(column).collect(),
        form: Form::Custom(Box::new(CustomSchema { raw, rules, rules_spare_status })),
    })
}

fn compile(definition: &Value, raw: &Value) -> ApiResult<CompiledSchema> {
    let rules = compile_schema(raw);
    let mut causes: Vec<Cause> = rules
        .compilation_errors()
        .iter()
        .map(|e| Cause::invalid("spec.validation.openAPIV3Schema", &Value::Null, e.to_string()))
        .collect();
    if text(raw, "/type") != "object" {
        causes.push(Cause::required("spec.validation.openAPIV3Schema.type", "must be object at the root"));
    }
    let wanted = format!("{}.{}", text(definition, "/spec/names/plural"), text(definition, "/spec/group"));
    if text(definition, "/metadata/name") != wanted {
        causes.push(Cause::invalid(
            "metadata.name",
            &text(definition, "/metadata/name").into(),
            format!("must be spec.names.plural+\".\"+spec.group: {wanted}"),
        ));
    }
    if causes.is_empty() {
        return Ok(rules);
    }
    Err(ApiError::invalid(
        "CustomResourceDefinition.apiextensions.k8s.io",
        text(definition, "/metadata/name"),
        &causes,
    ))
}

/// Says in the definition's status that its names are accepted and its resource is served.
pub fn establish(definition: &mut Value, now: &str) {
    let stored: Vec<Value> = list(definition, "/spec/versions")
        .iter()
        .filter(|v| flag(v, "/storage"))
        .map(|v| v["name"].clone())
        .collect();
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now});
    let names = definition.pointer("/spec/names").cloned().unwrap_or_default();
    if list(definition, "/status/conditions").is_empty() {
        let conditions = [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ];
        set(definition, "/status/conditions", conditions.to_vec());
    }
    set(definition, "/status/acceptedNames", names);
    set(definition, "/status/storedVersions", stored);
}
