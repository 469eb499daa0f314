//! Structural schemas: dropping unknown fields, and the checks that CEL does not make.

use serde_json::{Map, Value};

use crate::{
    json::{flag, int, list, map, text},
    server::error::Cause,
};

/// Fields that every object has, whatever its schema says.
const ALWAYS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// The field of a fault that a server does not place.
pub const NOWHERE: &str = "<nil>";

/// Drops unknown fields of a whole object.
pub fn prune_root(schema: &Value, object: &mut Value) {
    let kept: Vec<Option<Value>> = ALWAYS.iter().map(|field| object.get(field).cloned()).collect();
    prune(schema, object);
    for (field, value) in ALWAYS.iter().zip(kept) {
        crate::json::put(object, &format!("/{field}"), value);
    }
}

fn prune(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => prune_map(schema, fields),
        Value::Array(items) => {
            if let Some(of) = schema.get("items") {
                items.iter_mut().for_each(|item| prune(of, item));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn prune_map(schema: &Value, fields: &mut Map<String, Value>) {
    let known = map(schema, "/properties");
    let others = schema.get("additionalProperties").filter(|a| a.is_object());
    let keep = flag(schema, "/x-kubernetes-preserve-unknown-fields")
        || others.is_some()
        || flag(schema, "/additionalProperties");
    fields.retain(|key, _| keep || known.is_some_and(|k| k.contains_key(key)));
    // A null that has a default is as good as absent.
    fields.retain(|key, value| {
        let of = known.and_then(|k| k.get(key));
        !(value.is_null() && of.is_some_and(|s| !flag(s, "/nullable")))
    });
    for (key, value) in fields {
        if let Some(of) = known.and_then(|k| k.get(key)).or(others) {
            prune(of, value);
        }
    }
}

/// Faults of a whole object by its schema.
pub fn check_root(schema: &Value, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut object = object.clone();
    for field in ALWAYS {
        crate::json::take(&mut object, &format!("/{field}"));
    }
    let mut schema = schema.clone();
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|r| !ALWAYS.iter().any(|a| r == a));
    }
    check(&schema, &object, "", &mut causes);
    causes
}

fn check(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && flag(schema, "/nullable") {
        return;
    }
    if !type_fits(schema, value) {
        let wanted = text(schema, "/type");
        let message = format!(
            "Invalid value: \"{}\": {path} in body must be of type {wanted}: \"{}\"",
            type_of(value),
            type_of(value)
        );
        causes.push(Cause { reason: "FieldValueTypeInvalid", field: path.into(), message });
        return;
    }
    let allowed = list(schema, "/enum");
    if !allowed.is_empty() && !allowed.contains(value) {
        causes.push(Cause::unsupported(path, value, allowed));
    }
    match value {
        Value::Object(fields) => check_map(schema, fields, path, causes),
        Value::Array(items) => check_list(schema, items, path, causes),
        Value::Number(number) => {
            check_number(schema, number.as_f64().unwrap_or_default(), value, path, causes)
        }
        Value::String(string) => check_string(schema, string, value, path, causes),
        Value::Null | Value::Bool(_) => {}
    }
    check_combined(schema, value, path, causes);
}

fn check_map(schema: &Value, fields: &Map<String, Value>, path: &str, causes: &mut Vec<Cause>) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    for key in crate::json::texts(schema, "/required").filter(|key| !fields.contains_key(*key)) {
        causes.push(Cause::required(join(key), ""));
    }
    let length = fields.len();
    at_most(schema, "/maxProperties", length, path, causes);
    at_least(
        schema,
        "/minProperties",
        length,
        &length.into(),
        "should have at least",
        "properties",
        path,
        causes,
    );
    for (key, value) in fields {
        let of = schema.get("properties").and_then(|p| p.get(key));
        if let Some(of) = of.or_else(|| schema.get("additionalProperties").filter(|a| a.is_object())) {
            check(of, value, &join(key), causes);
        }
    }
}

fn check_list(schema: &Value, items: &[Value], path: &str, causes: &mut Vec<Cause>) {
    let length = items.len();
    at_least(schema, "/minItems", length, &length.into(), "should have at least", "items", path, causes);
    at_most(schema, "/maxItems", length, path, causes);
    if let Some(of) = schema.get("items") {
        for (i, item) in items.iter().enumerate() {
            check(of, item, &format!("{path}[{i}]"), causes);
        }
    }
    let keys: Vec<&str> = crate::json::texts(schema, "/x-kubernetes-list-map-keys").collect();
    for (i, item) in items.iter().enumerate() {
        let same = |other: &Value| !keys.is_empty() && keys.iter().all(|k| other.get(k) == item.get(k));
        if items[..i].iter().any(same) {
            causes.push(Cause {
                reason: "FieldValueDuplicate",
                field: format!("{path}[{i}]"),
                message: format!("Duplicate value: {item}"),
            });
        }
    }
}

fn check_number(schema: &Value, number: f64, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let bound = |field: &str| schema.get(field).and_then(Value::as_f64);
    if let Some(least) = bound("minimum").filter(|least| number < *least) {
        causes.push(Cause::invalid(
            path,
            value,
            format!("{path} in body should be greater than or equal to {least}"),
        ));
    }
    if let Some(most) = bound("maximum").filter(|most| number > *most) {
        causes.push(Cause::invalid(
            path,
            value,
            format!("{path} in body should be less than or equal to {most}"),
        ));
    }
    if text(schema, "/format") == "int32" && value.as_i64().is_none_or(|n| i32::try_from(n).is_err()) {
        let why = format!("Checked value must be of type integer with format int32 in {path}");
        causes.push(Cause::invalid(NOWHERE, &"".into(), why));
    }
}

fn check_string(schema: &Value, string: &str, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let length = string.chars().count();
    at_least(schema, "/minLength", length, value, "should be at least", "chars long", path, causes);
    if let Some(most) =
        int(schema, "/maxLength").filter(|most| i64::try_from(length).is_ok_and(|l| l > *most))
    {
        // It says bytes and counts characters.
        let message = format!("Too long: may not be more than {most} bytes");
        causes.push(Cause { reason: "FieldValueTooLong", field: path.into(), message });
    }
    let pattern = text(schema, "/pattern");
    if !pattern.is_empty() && !regex::Regex::new(pattern).is_ok_and(|r| r.is_match(string)) {
        causes.push(Cause::invalid(path, value, format!("{path} in body should match '{pattern}'")));
    }
    if text(schema, "/format") == "date-time" && string.parse::<k8s_openapi::jiff::Timestamp>().is_err() {
        let message = format!("Invalid value: {value}: {path} in body must be of type date-time: {value}");
        causes.push(Cause { reason: "FieldValueTypeInvalid", field: path.into(), message });
    }
}

fn check_combined(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let fits = |of: &Value| {
        let mut found = Vec::new();
        check(of, value, path, &mut found);
        found.is_empty()
    };
    for of in list(schema, "/allOf") {
        check(of, value, path, causes);
    }
    let any = list(schema, "/anyOf");
    if !any.is_empty() && !any.iter().any(fits) {
        causes.push(Cause::invalid(
            path,
            value,
            format!("{path} in body must validate at least one schema (anyOf)"),
        ));
    }
    let one = list(schema, "/oneOf");
    if !one.is_empty() && one.iter().filter(|of| fits(of)).count() != 1 {
        causes.push(Cause::invalid(
            path,
            value,
            format!("{path} in body must validate one and only one schema (oneOf)"),
        ));
    }
    if schema.get("not").is_some_and(fits) {
        causes.push(Cause::invalid(
            path,
            value,
            format!("{path} in body must not validate the schema (not)"),
        ));
    }
}

#[expect(clippy::too_many_arguments, reason = "one sentence for all three bounds is worth the list")]
fn at_least(
    schema: &Value,
    field: &str,
    length: usize,
    shown: &Value,
    verb: &str,
    unit: &str,
    path: &str,
    causes: &mut Vec<Cause>,
) {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    if let Some(least) = int(schema, field).filter(|least| length < *least) {
        causes.push(Cause::invalid(path, shown, format!("{path} in body {verb} {least} {unit}")));
    }
}

fn at_most(schema: &Value, field: &str, length: usize, path: &str, causes: &mut Vec<Cause>) {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    if let Some(most) = int(schema, field).filter(|most| length > *most) {
        let message = format!("Too many: {length}: must have at most {most} items");
        causes.push(Cause { reason: "FieldValueTooMany", field: path.into(), message });
    }
}

fn type_fits(schema: &Value, value: &Value) -> bool {
    if flag(schema, "/x-kubernetes-int-or-string") {
        return value.is_string() || value.is_i64() || value.is_u64();
    }
    match text(schema, "/type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        // A server reads a number beyond 64 bits as a float, which is no integer.
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        _ => true,
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The value at a path such as `spec.list[2].field`.
pub fn at_path<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let path = path.replace('[', ".").replace(']', "");
    path.split('.').filter(|part| !part.is_empty()).try_fold(object, |at, part| match at {
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        other => other.get(part),
    })
}
