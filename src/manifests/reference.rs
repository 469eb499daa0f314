//! The page of docs/ on every field of both kinds: their schemas, as tables.
//!
//! What a field means stands in one place, the comment on it in `src/api`, from which the schema's
//! description comes.

use anyhow::Context;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use super::markdown::{code, table};

const INTRODUCTION: &str = "# Fields

Every field of both kinds: what `kubectl explain nodeop.spec` and `kubectl explain nodeopupgrade.spec` show, on one page. A
field of an object within an object is written with a dot, one in the items of a list with `[]`, and `NODE` stands for a
node's name. Examples by use are in [manifests/samples](../manifests/samples); what happens to an operation on its way is
told in [Operations](operations.md).

A value of another type (`concurrency: \"25%\"`, `rebootTimeoutSeconds: 30m`, a label's `true` without quotes) the API server refuses
before any rule is asked, in its own words: `spec.concurrency in body must be of type integer`. Numbers stand without quotes and
units, labels' values in quotes.
";

/// The page.
pub(super) fn page(crds: &[CustomResourceDefinition]) -> anyhow::Result<String> {
    let mut text = INTRODUCTION.to_owned();
    let mut told = Vec::new();
    for crd in crds {
        let kind = crd.spec.names.kind.as_str();
        let crd = serde_json::to_value(crd).context("serializing a CustomResourceDefinition")?;
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let (spec, status) = (&schema["properties"]["spec"], &schema["properties"]["status"]);
        text.push_str(&format!("\n## {kind}\n\n{}\n", description(schema)));
        text.push_str(&format!("\n### {kind}.spec\n\n{}\n\n{}", description(spec), spec_fields(spec)));
        text.push_str("\nThe API server refuses what breaks a rule, with these messages:\n\n");
        text.push_str(&rules(spec).iter().map(|rule| format!("- {rule}\n")).collect::<String>());
        text.push_str(&format!(
            "\n### {kind}.status\n\n{}\n\n{}",
            description(status),
            status_fields(status, &told)
        ));
        told.push((kind.to_owned(), status.clone()));
    }
    Ok(text)
}

/// The kinds whose status stands above on the page.
type Told = [(String, Value)];

fn spec_fields(schema: &Value) -> String {
    let mut rows = Vec::new();
    add_fields(schema, "", &[], &mut rows);
    table(&["field", "type", "default", "meaning"], &rows)
}

/// What the operator writes has no defaults.
fn status_fields(schema: &Value, told: &Told) -> String {
    let mut rows = Vec::new();
    add_fields(schema, "", told, &mut rows);
    for row in &mut rows {
        row.remove(2);
    }
    table(&["field", "type", "meaning"], &rows)
}

fn add_fields(schema: &Value, prefix: &str, told: &Told, rows: &mut Vec<Vec<String>>) {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{prefix}{name}");
        let same = told.iter().find(|(_, status)| {
            !inner(field).1.is_null() && inner(&status["properties"][name]) == inner(field)
        });
        let (mut meaning, mut default) = default_of(field);
        if let Some((kind, _)) = same {
            meaning.push_str(&format!(
                " Its fields are those of [{kind}.status](#{}status).",
                kind.to_lowercase()
            ));
        }
        if default.is_empty() && required.contains(&name.as_str()) {
            "required".clone_into(&mut default);
        }
        rows.push(vec![code(&path), kind_of(field), default, meaning]);
        if same.is_none() {
            let (step, inner) = inner(field);
            add_fields(inner, &format!("{path}{step}."), told, rows);
        }
    }
}

/// How a path goes on below a field, and the object that is there; null for one that has no fields of its
/// own, and for Kubernetes' own types, which are explained elsewhere.
fn inner(field: &Value) -> (&'static str, &Value) {
    const NOTHING: &Value = &Value::Null;
    if is_selector(field) || is_conditions(field) {
        return ("", NOTHING);
    }
    let places = [("[]", &field["items"]), (".NODE", &field["additionalProperties"]), ("", field)];
    places.into_iter().find(|(_, schema)| schema["properties"].is_object()).unwrap_or(("", NOTHING))
}

fn is_selector(field: &Value) -> bool {
    field["properties"]["matchExpressions"].is_object()
}

fn is_conditions(field: &Value) -> bool {
    field["items"]["properties"]["lastTransitionTime"].is_object()
}

/// A field's type as a reader writes it, with the values that it may have.
fn kind_of(field: &Value) -> String {
    if is_selector(field) {
        return "label selector".to_owned();
    }
    if is_conditions(field) {
        return "list of conditions".to_owned();
    }
    if let Some(values) = field["enum"].as_array() {
        return values.iter().filter_map(Value::as_str).map(code).collect::<Vec<_>>().join(", ");
    }
    let says = |key: &str, before: &str, after: &str| {
        field[key].as_f64().map(|bound| format!(", {before} {bound}{after}")).unwrap_or_default()
    };
    let (least, most) = (says("minimum", "at least", ""), says("maximum", "at most", ""));
    match field["type"].as_str().unwrap_or_default() {
        "array" => {
            let kind = field["items"]["type"].as_str().unwrap_or_default();
            format!("list of {kind}s{}", says("maxItems", "at most", ""))
        }
        "object" if field["additionalProperties"].is_object() => "map".to_owned(),
        "string" if field["format"] == "date-time" => "time".to_owned(),
        "string" => format!("string{}", says("maxLength", "at most", " characters")),
        kind => format!("{kind}{least}{most}"),
    }
}

/// What a field means, and its default. A default that the server does not fill in stands in the description:
/// in brackets, or at its end.
fn default_of(field: &Value) -> (String, String) {
    let text = description(field);
    if !field["default"].is_null() {
        return (text, code(&field["default"].to_string().replace('"', "")));
    }
    for (start, end) in [(" (default ", ")"), (" Default for an upgrade: ", ".")] {
        if let Some((before, rest)) = text.split_once(start)
            && let Some((default, after)) = rest.split_once(end)
        {
            return (format!("{before}{after}"), default.to_owned());
        }
    }
    (text, String::new())
}

fn description(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().replace('\n', " ")
}

/// The sentences with which the server refuses an object, each once.
fn rules(schema: &Value) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let own = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    let messages = own.filter_map(|rule| rule["message"].as_str()).map(str::to_owned);
    let below = schema["properties"].as_object().into_iter().flatten().map(|(_, field)| field);
    let items = Some(&schema["items"]).filter(|items| items.is_object());
    for message in messages.chain(below.chain(items).flat_map(rules)) {
        if !found.contains(&message) {
            found.push(message);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_default_is_found_wherever_it_stands() {
        for (field, meaning, default) in [
            (json!({ "description": "Cordon.", "default": false }), "Cordon.", "`false`"),
            (json!({ "description": "Seconds (default 1800)." }), "Seconds.", "1800"),
            (json!({ "description": "Drain. Default for an upgrade: 300." }), "Drain.", "300"),
            (json!({ "description": "Which nodes." }), "Which nodes.", ""),
        ] {
            assert_eq!(default_of(&field), (meaning.to_owned(), default.to_owned()));
        }
    }

    #[test]
    fn a_type_says_its_bounds() {
        for (field, kind) in [
            (json!({"type": "integer", "minimum": 0, "maximum": 3600}), "integer, at least 0, at most 3600"),
            (json!({"type": "integer", "minimum": 1}), "integer, at least 1"),
            (
                json!({"type": "array", "items": {"type": "string"}, "maxItems": 100}),
                "list of strings, at most 100",
            ),
            (json!({"type": "string", "maxLength": 63}), "string, at most 63 characters"),
            (json!({"type": "boolean"}), "boolean"),
        ] {
            assert_eq!(kind_of(&field), kind);
        }
    }

    #[test]
    fn a_path_names_lists_and_nodes() {
        let leaf = json!({ "properties": { "name": { "type": "string", "description": "A name." } } });
        let schema = json!({ "properties": {
            "list": { "type": "array", "items": leaf }, "map": { "type": "object", "additionalProperties": leaf }, "object": leaf,
            "selector": { "properties": { "matchExpressions": {} } },
        } });
        let mut rows = Vec::new();
        add_fields(&schema, "", &[], &mut rows);
        let paths: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(
            paths,
            [
                "`list`",
                "`list[].name`",
                "`map`",
                "`map.NODE.name`",
                "`object`",
                "`object.name`",
                "`selector`"
            ]
        );
    }
}
