//! What the CRDs accept and refuse, case by case (`tests/fixtures/validation.yaml`), without a server.
//!
//! kube-cel evaluates the rules; the few structural checks that the cases need are below, in an API server's
//! words. Where the two differ a real API server is right: the same file can be run against one. What neither
//! tells offline is the server's estimate of a rule's cost, so a list that a rule looks into must have a
//! bound.

use kairos_operator::api::{nodeop::NodeOp, upgrade::NodeOpUpgrade};
use kube::CustomResourceExt;
use kube_cel::{Validator, apply_defaults};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    kind: String,
    spec: Value,
    was: Option<Value>,
    refused: Option<String>,
}

impl Case {
    fn refusals(&self) -> Vec<String> {
        refusals(&self.kind, &self.spec, self.was.as_ref())
    }
}

fn schema(kind: &str) -> Value {
    let crd = match kind {
        "NodeOp" => NodeOp::crd(),
        "NodeOpUpgrade" => NodeOpUpgrade::crd(),
        other => panic!("no kind {other}"),
    };
    serde_json::to_value(crd).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn cases() -> Vec<Case> {
    serde_saphyr::from_str(include_str!("../fixtures/validation.yaml")).unwrap()
}

/// The schema's own checks, as far as the cases need them.
fn structural(schema: &Value, value: &Value, errors: &mut Vec<String>) {
    let number = |key: &str| schema[key].as_f64();
    match value {
        Value::Object(fields) => {
            for name in schema["required"].as_array().into_iter().flatten() {
                if !fields.contains_key(name.as_str().unwrap()) {
                    errors.push(format!("{name}: Required value"));
                }
            }
            for (name, field) in fields {
                let inner = if schema["properties"].is_object() {
                    &schema["properties"][name]
                } else {
                    &schema["additionalProperties"]
                };
                if inner.is_null() {
                    errors.push(format!("unknown field {name}"));
                }
                structural(inner, field, errors);
            }
        }
        Value::Array(items) => {
            if number("minItems").is_some_and(|min| (items.len() as f64) < min) {
                errors.push(format!("should have at least {} items", schema["minItems"]));
            }
            if number("maxItems").is_some_and(|max| (items.len() as f64) > max) {
                errors.push(format!("must have at most {} items", schema["maxItems"]));
            }
            items.iter().for_each(|item| structural(&schema["items"], item, errors));
        }
        Value::String(text) => {
            if number("minLength").is_some_and(|min| (text.len() as f64) < min) {
                errors.push(format!("should be at least {} chars long", schema["minLength"]));
            }
            if number("maxLength").is_some_and(|max| (text.chars().count() as f64) > max) {
                errors.push(format!("may not be more than {} bytes", schema["maxLength"]));
            }
            if let Some(pattern) = schema["pattern"].as_str()
                && !regex::Regex::new(pattern).unwrap().is_match(text)
            {
                errors.push(format!("should match '{pattern}'"));
            }
            if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
                let values: Vec<String> =
                    schema["enum"].as_array().unwrap().iter().map(Value::to_string).collect();
                errors.push(format!("supported values: {}", values.join(", ")));
            }
        }
        Value::Number(given) => {
            if let Some(min) = number("minimum").filter(|min| given.as_f64().unwrap() < *min) {
                errors.push(format!("should be greater than or equal to {min}"));
            }
            if let Some(max) = number("maximum").filter(|max| given.as_f64().unwrap() > *max) {
                errors.push(format!("should be less than or equal to {max}"));
            }
            if schema["format"] == "int32" && i32::try_from(given.as_i64().unwrap()).is_err() {
                errors.push("must be of type integer with format int32".into());
            }
        }
        Value::Bool(_) | Value::Null => {}
    }
}

/// Everything that a server would say about `spec`, which was `was` before.
pub(super) fn refusals(kind: &str, spec: &Value, was: Option<&Value>) -> Vec<String> {
    let schema = schema(kind);
    let object = |spec: &Value| apply_defaults(&schema, &json!({ "spec": spec }));
    let new = object(spec);
    let old = was.map(object);
    let mut errors = Vec::new();
    structural(&schema, &new, &mut errors);
    if let Err(refused) = Validator::new().validate(&schema, &new, old.as_ref()) {
        errors.extend(refused.into_vec().iter().map(ToString::to_string));
    }
    errors
}

#[test]
fn each_case_is_accepted_or_refused_in_words_that_help() {
    let mut wrong = Vec::new();
    for case in cases() {
        let said = case.refusals();
        let right = match &case.refused {
            None => said.is_empty(),
            Some(words) => said.iter().any(|sentence| sentence.contains(words.as_str())),
        };
        if !right {
            wrong.push(format!("{}: expected {:?}, got {said:?}", case.name, case.refused));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_accepted_can_be_read() {
    for case in cases().into_iter().filter(|case| case.refused.is_none()) {
        let object = json!({ "apiVersion": "operator.kairos.io/v1alpha1", "kind": case.kind, "metadata": { "name": "x" }, "spec": case.spec });
        let object = apply_defaults(&schema(&case.kind), &object);
        match case.kind.as_str() {
            "NodeOp" => drop(
                serde_json::from_value::<NodeOp>(object)
                    .unwrap_or_else(|error| panic!("{}: {error}", case.name)),
            ),
            _ => drop(
                serde_json::from_value::<NodeOpUpgrade>(object)
                    .unwrap_or_else(|error| panic!("{}: {error}", case.name)),
            ),
        }
    }
}

/// Every rule is broken by a case, so that none is dead or unreadable.
#[test]
fn every_rule_has_a_case_that_breaks_it() {
    fn messages(schema: &Value, found: &mut Vec<String>) {
        let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
        found.extend(rules.map(|rule| rule["message"].as_str().unwrap().to_owned()));
        match schema {
            Value::Object(fields) => fields.values().for_each(|inner| messages(inner, found)),
            Value::Array(items) => items.iter().for_each(|inner| messages(inner, found)),
            _ => {}
        }
    }
    let mut said: Vec<String> =
        cases().iter().filter(|case| case.refused.is_some()).flat_map(Case::refusals).collect();
    // Too long to stand in a file.
    said.extend(refusals("NodeOp", &json!({"command": vec!["x".repeat(1 << 14); 5]}), None));
    for kind in ["NodeOp", "NodeOpUpgrade"] {
        let mut found = Vec::new();
        messages(&schema(kind), &mut found);
        assert!(!found.is_empty());
        for message in found {
            assert!(said.iter().any(|sentence| sentence.contains(&message)), "no case breaks: {message}");
        }
    }
}

/// Of a NodeOp, one immutability rule for each field, and none for the four that may change. A change of a
/// NodeOpUpgrade is another run.
#[test]
fn all_fields_of_a_nodeop_but_four_are_immutable_and_none_of_an_upgrade() {
    for kind in ["NodeOp", "NodeOpUpgrade"] {
        let spec = schema(kind)["properties"]["spec"].clone();
        let rules: Vec<&Value> = spec["x-kubernetes-validations"].as_array().unwrap().iter().collect();
        for name in spec["properties"].as_object().unwrap().keys() {
            let about = |rule: &&&Value| rule["fieldPath"] == format!(".{name}");
            let said: Vec<&str> =
                rules.iter().filter(about).map(|rule| rule["message"].as_str().unwrap()).collect();
            let guarded = said.iter().any(|message| message.contains("cannot be changed once created"));
            let steers = ["concurrency", "paused", "stopOnFailure", "notAfter"].contains(&name.as_str());
            assert_eq!(guarded, kind == "NodeOp" && !steers, "{kind}.spec.{name}");
        }
    }
}

/// A rule inside a list runs once an item: without `maxItems` a server multiplies its cost by the largest
/// list there could be.
#[test]
fn a_list_with_a_rule_in_it_is_bounded() {
    fn has_rule(schema: &Value) -> bool {
        schema["x-kubernetes-validations"].is_array()
            || schema.as_object().is_some_and(|fields| fields.values().any(has_rule))
            || schema.as_array().is_some_and(|items| items.iter().any(has_rule))
    }
    fn check(path: &str, schema: &Value) {
        if schema["items"].is_object() && has_rule(&schema["items"]) {
            assert!(schema["maxItems"].is_number(), "{path}");
        }
        for (name, inner) in schema.as_object().into_iter().flatten().filter(|(_, inner)| inner.is_object()) {
            check(&format!("{path}.{name}"), inner);
        }
    }
    for kind in ["NodeOp", "NodeOpUpgrade"] {
        check(kind, &schema(kind));
    }
}

/// Whatever a user writes is bounded: what is made of it has to be stored, many times, and started.
#[test]
fn everything_that_a_user_writes_is_bounded() {
    fn check(path: &str, schema: &Value, unbounded: &mut Vec<String>) {
        let bound = |key: &str| schema[key].is_number() || schema["enum"].is_array();
        let kept = match schema["type"].as_str() {
            Some("string") => bound("maxLength"),
            Some("array") => bound("maxItems"),
            Some("object") if schema["additionalProperties"].is_object() => bound("maxProperties"),
            Some(_) => true,
            None => panic!("{path} has no type"),
        };
        if !kept {
            unbounded.push(path.to_owned());
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            check(&format!("{path}.{name}"), inner, unbounded);
        }
        for below in ["items", "additionalProperties"].into_iter().filter(|below| schema[*below].is_object())
        {
            check(&format!("{path}[]"), &schema[below], unbounded);
        }
    }
    let mut unbounded = Vec::new();
    for kind in ["NodeOp", "NodeOpUpgrade"] {
        check(kind, &schema(kind)["properties"]["spec"], &mut unbounded);
    }
    assert_eq!(unbounded, [""; 0]);
}

#[test]
fn a_command_of_a_megabyte_is_refused_however_it_is_cut() {
    let refusals = |command: Vec<String>| refusals("NodeOp", &json!({"command": command}), None);
    for command in [vec!["x".repeat(1 << 20)], vec!["x".repeat(1 << 14); 64], vec!["x".repeat(1 << 10); 1024]]
    {
        assert!(!refusals(command).is_empty());
    }
    let told = refusals(vec!["x".repeat(1 << 14); 64]);
    assert!(told.iter().any(|said| said.contains("put the script into the image")), "{told:?}");
    assert_eq!(refusals(vec!["sh".into(), "-c".into(), "x".repeat(60_000)]), [""; 0]);
}
