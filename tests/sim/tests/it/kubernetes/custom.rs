//! Custom resources: served as soon as they are defined, checked, pruned, defaulted.

use serde_json::{Value, json};

use super::{
    on_both,
    place::At,
    session::{MERGE, METADATA, STRATEGIC},
};

on_both!(
    a_patch_of_the_status_is_all_or_nothing_if_it_is_strict,
    an_object_that_was_wrong_before_a_stricter_rule_still_takes_other_changes,
    defaults_are_written_unknown_fields_dropped_and_status_kept_apart,
    objects_are_checked_by_the_schema_and_its_rules,
);

/// A definition whose group is this test's own, and the path of its objects.
pub struct Kind {
    definition: Value,
    group: String,
    pub path: String,
}

pub async fn kind(at: &At) -> Kind {
    let group = format!("{}.example.io", at.namespace);
    let spec = json!({"type": "object", "required": ["command"],
    "properties": {
        "command": {"type": "array", "minItems": 1, "maxItems": 9, "items": {"type": "string", "maxLength": 99}},
        "mode": {"type": "string", "enum": ["Fast", "Slow"], "default": "Fast"},
        "count": {"type": "integer", "format": "int32", "minimum": 0, "maximum": 99, "default": 1},
        "path": {"type": "string", "pattern": "^/", "maxLength": 9},
        "at": {"type": "string", "format": "date-time"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["key"],
            "items": {"type": "object", "required": ["key"], "properties": {"key": {"type": "string"}}}},
    },
    "x-kubernetes-validations": [
        {"rule": "self.command == oldSelf.command", "message": "command is immutable"},
        {"rule": "self.mode != 'Slow' || self.count > 0", "message": "Slow needs a count", "fieldPath": ".count"},
    ]});
    let status = json!({"type": "object", "properties": {"phase": {"type": "string"}, "conditions": {"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
        "nodes": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "object", "properties": {"message": {"type": "string"}}}}}});
    let schema =
        json!({"type": "object", "required": ["spec"], "properties": {"spec": spec, "status": status}});
    let version = json!({"name": "v1", "served": true, "storage": true, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": schema}});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("ops.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": "ops", "singular": "op", "kind": "Op", "listKind": "OpList"}, "versions": [version]}});
    let path = format!("/apis/{group}/v1/namespaces/{{namespace}}/ops");
    let kind = Kind { definition, group, path };
    kind.define(at).await;
    kind
}

impl Kind {
    async fn define(&self, at: &At) {
        let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        at.apply(definitions, &self.definition).await;
        // It is served some time after it is defined.
        while at.get(&self.path).await.code != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    fn op(&self, spec: Value) -> Value {
        json!({"apiVersion": format!("{}/v1", self.group), "kind": "Op", "metadata": {"name": "a"}, "spec": spec})
    }

    fn a(&self) -> String {
        format!("{}/a", self.path)
    }
}

async fn objects_are_checked_by_the_schema_and_its_rules(at: At) {
    let kind = kind(&at).await;
    for (spec, reason, message, field) in [
        (json!({}), "FieldValueRequired", "Required value", "spec.command"),
        (
            json!({"command": []}),
            "FieldValueInvalid",
            "Invalid value: 0: spec.command in body should have at least 1 items",
            "spec.command",
        ),
        (
            json!({"command": ["a"], "mode": "Other"}),
            "FieldValueNotSupported",
            "Unsupported value: \"Other\": supported values: \"Fast\", \"Slow\"",
            "spec.mode",
        ),
        (
            json!({"command": ["a"], "count": -1}),
            "FieldValueInvalid",
            "Invalid value: -1: spec.count in body should be greater than or equal to 0",
            "spec.count",
        ),
        (
            json!({"command": ["a"], "count": 100}),
            "FieldValueInvalid",
            "Invalid value: 100: spec.count in body should be less than or equal to 99",
            "spec.count",
        ),
        (
            json!({"command": ["a"], "count": "1"}),
            "FieldValueTypeInvalid",
            "Invalid value: \"string\": spec.count in body must be of type integer: \"string\"",
            "spec.count",
        ),
        (
            json!({"command": ["a"], "path": "x"}),
            "FieldValueInvalid",
            "Invalid value: \"x\": spec.path in body should match '^/'",
            "spec.path",
        ),
        (
            json!({"command": ["a"], "path": "/234567890"}),
            "FieldValueTooLong",
            "Too long: may not be more than 9 bytes",
            "spec.path",
        ),
        (
            json!({"command": ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]}),
            "FieldValueTooMany",
            "Too many: 10: must have at most 9 items",
            "spec.command",
        ),
        (
            json!({"command": ["a"], "at": "yesterday"}),
            "FieldValueTypeInvalid",
            "Invalid value: \"yesterday\": spec.at in body must be of type date-time: \"yesterday\"",
            "spec.at",
        ),
        (
            json!({"command": ["a"], "labels": {"a": 1}}),
            "FieldValueTypeInvalid",
            "Invalid value: \"integer\": spec.labels.a in body must be of type string: \"integer\"",
            "spec.labels.a",
        ),
        (
            json!({"command": ["a"], "keyed": [{"key": "x"}, {"key": "x"}]}),
            "FieldValueDuplicate",
            "Duplicate value: {\"key\":\"x\"}",
            "spec.keyed[1]",
        ),
        (
            json!({"command": ["a"], "mode": "Slow", "count": 0}),
            "FieldValueInvalid",
            "Invalid value: Slow needs a count",
            "spec.count",
        ),
    ] {
        let refused = at.post(&kind.path, &kind.op(spec.clone())).await;
        let whole = refused.refused(422, "Invalid");
        assert_eq!(refused.cause(), [reason, message, field], "{spec}");
        assert!(whole.starts_with(&format!("Op.{} \"a\" is invalid: ", kind.group)), "{whole}");
        let details = &refused.body["details"];
        assert_eq!(
            (&details["name"], &details["group"], &details["kind"]),
            (&json!("a"), &json!(kind.group), &json!("Op"))
        );
    }
    let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    at.post(&kind.path, &other).await.refused(400, "BadRequest");
    let blind = at.post(&kind.path, &kind.op(json!({"command": ["x"]}))).await.ok();
    let mut again = blind.clone();
    again["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let refused = at.put(&kind.a(), &again).await;
    refused.refused(422, "Invalid");
    assert_eq!(
        refused.cause()[1..],
        ["Invalid value: 0: must be specified for an update", "metadata.resourceVersion"]
    );
}

async fn defaults_are_written_unknown_fields_dropped_and_status_kept_apart(at: At) {
    let kind = kind(&at).await;
    let mut new = kind.op(json!({"command": ["x"], "unknown": 1, "path": null, "mode": null}));
    new["status"] = json!({"phase": "Cheated"});
    let made = at.post(&kind.path, &new).await.ok();
    assert_eq!(made["spec"], json!({"command": ["x"], "mode": "Fast", "count": 1}));
    assert_eq!((made.get("status"), &made["metadata"]["generation"]), (None, &json!(1)));

    let both = json!({"status": {"phase": "Up", "conditions": [{"type": "X", "more": 1}]}, "spec": {"count": 5}, "metadata": {"labels": {"a": "b"}, "finalizers": ["example.io/x"]}});
    let stated = at.merge(&format!("{}/status", kind.a()), &both).await.ok();
    assert_eq!((&stated["status"]["phase"], &stated["spec"]["count"]), (&json!("Up"), &json!(1)));
    assert_eq!(stated["status"]["conditions"], json!([{"type": "X", "more": 1}]));
    assert_eq!(
        (
            &stated["metadata"]["generation"],
            stated["metadata"].get("labels"),
            stated["metadata"].get("finalizers")
        ),
        (&json!(1), None, None)
    );

    let specified = at.merge(&kind.a(), &json!({"status": {"phase": "No"}, "spec": {"count": 5}})).await.ok();
    assert_eq!(
        (&specified["status"]["phase"], &specified["metadata"]["generation"]),
        (&json!("Up"), &json!(2))
    );
    let labelled = at.merge(&kind.a(), &json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    assert_eq!(labelled["metadata"]["generation"], 2, "labels are not part of what is specified");
    let again = at.merge(&kind.a(), &json!({"spec": {"count": 5}})).await.ok();
    assert_eq!(again["metadata"]["resourceVersion"], labelled["metadata"]["resourceVersion"]);

    let fixed = at.merge(&kind.a(), &json!({"spec": {"command": ["y"]}})).await;
    fixed.refused(422, "Invalid");
    assert_eq!(fixed.cause(), ["FieldValueInvalid", "Invalid value: command is immutable", "spec"]);
    let late = json!({"metadata": {"resourceVersion": "1"}, "status": {"phase": "Late"}});
    let late = at.merge(&format!("{}/status", kind.a()), &late).await;
    let why = "the object has been modified; please apply your changes to the latest version and try again";
    assert_eq!(
        late.refused(409, "Conflict"),
        format!("Operation cannot be fulfilled on ops.{} \"a\": {why}", kind.group)
    );
    let styled = at.patch(&kind.a(), STRATEGIC, &json!({"spec": {}})).await;
    styled.refused(415, "UnsupportedMediaType");
    let removed = at.merge(&format!("{}/status", kind.a()), &json!({"status": null})).await.ok();
    assert_eq!(removed.get("status"), None);
}

async fn a_patch_of_the_status_is_all_or_nothing_if_it_is_strict(at: At) {
    let kind = kind(&at).await;
    at.post(&kind.path, &kind.op(json!({"command": ["x"]}))).await.ok();
    let status = format!("{}/status?fieldValidation=Strict", kind.a());
    let headers = [("accept", METADATA), ("content-type", MERGE)];
    let refused = at.send("PATCH", &status, &headers, Some(&json!({"status": {"phase": "Up", "newer": 1, "nodes": {"n1": {"message": "m", "later": 2}}}}))).await;
    assert_eq!((refused.code, refused.body["kind"].as_str()), (422, Some("Status")));
    let message = refused.refused(422, "Invalid");
    assert!(
        message.contains(
            "strict decoding error: unknown field \"status.newer\", unknown field \"status.nodes.n1.later\""
        ),
        "{message}"
    );
    let kept = at
        .send(
            "PATCH",
            &status,
            &headers,
            Some(&json!({"status": {"phase": "Up", "nodes": {"n1": {"message": "m"}}}})),
        )
        .await
        .ok();
    assert_eq!((&kept["kind"], kept.get("status")), (&json!("PartialObjectMetadata"), None));
    let one = at
        .send(
            "PATCH",
            &status,
            &headers,
            Some(&json!({"status": {"nodes": {"n1": null, "n2": {"message": "o"}}}})),
        )
        .await
        .ok();
    let now = at.get(&kind.a()).await.ok();
    assert_eq!(now["status"], json!({"phase": "Up", "nodes": {"n2": {"message": "o"}}}));
    assert_eq!(now["metadata"]["resourceVersion"], one["metadata"]["resourceVersion"]);
    let strict = at
        .post(
            &format!("{}?fieldValidation=Strict", kind.path),
            &kind.op(json!({"command": ["x"], "unknown": 1})),
        )
        .await;
    assert_eq!(
        strict.refused(400, "BadRequest"),
        format!(
            "Op in version \"v1\" cannot be handled as a Op: strict decoding error: unknown field \"spec.unknown\""
        )
    );
}

async fn an_object_that_was_wrong_before_a_stricter_rule_still_takes_other_changes(at: At) {
    let mut kind = kind(&at).await;
    at.post(&kind.path, &kind.op(json!({"command": ["x"], "count": 3}))).await.ok();
    let count = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/count";
    let count = kind.definition.pointer_mut(count).unwrap();
    (count["minimum"], count["default"]) = (json!(10), json!(10));
    kind.define(&at).await;
    // The new schema is in force some time after it is written.
    let mut low = kind.op(json!({"command": ["x"], "count": 3}));
    low["metadata"]["name"] = json!("low");
    while at.post(&format!("{}?dryRun=All", kind.path), &low).await.code != 422 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    at.merge(&format!("{}/status", kind.a()), &json!({"status": {"phase": "Up"}})).await.ok();
    at.merge(&kind.a(), &json!({"spec": {"mode": "Slow"}})).await.ok();
    at.merge(&kind.a(), &json!({"spec": {"count": 4}})).await.refused(422, "Invalid");
}
