//! Custom resources: served as soon as they are defined, checked, pruned, defaulted, printed.

use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

use crate::small;

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ops.example.io}
spec:
  group: example.io
  scope: Namespaced
  names: {plural: ops, singular: op, kind: Op, shortNames: [o]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns: [{name: Phase, type: string, jsonPath: .status.phase}]
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [command]
            properties:
              command: {type: array, minItems: 1, items: {type: string}}
              mode: {type: string, enum: [Fast, Slow], default: Fast}
              count: {type: integer, minimum: 0, default: 1}
              path: {type: string, pattern: "^/"}
            x-kubernetes-validations:
            - {rule: "self.command == oldSelf.command", message: "command is immutable"}
            - {rule: "self.mode != 'Slow' || self.count > 0", message: "Slow needs a count"}
          status:
            type: object
            properties:
              phase: {type: string}
"#;

fn op(name: &str, spec: Value) -> DynamicObject {
    serde_json::from_value(
        json!({"apiVersion": "example.io/v1", "kind": "Op", "metadata": {"name": name}, "spec": spec}),
    )
    .unwrap()
}

async fn ops() -> (kairos_sim::Cluster, Api<DynamicObject>) {
    let cluster = small().nodes(0).start().await.unwrap();
    cluster.apply(DEFINITION).await.unwrap();
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("example.io", "v1", "Op"), "ops");
    let api = Api::default_namespaced_with(cluster.client(), &resource);
    (cluster, api)
}

fn refusal(result: Result<DynamicObject, kube::Error>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.message),
        other => panic!("expected a refusal, not {other:?}"),
    }
}

#[tokio::test]
async fn objects_are_checked_by_the_schema_and_its_rules() {
    let (_cluster, ops) = ops().await;
    for (spec, words) in [
        (json!({}), "spec.command: Required value"),
        (json!({"command": []}), "should have at least 1 items"),
        (json!({"command": ["a"], "mode": "Other"}), "Unsupported value"),
        (json!({"command": ["a"], "count": -1}), "greater than or equal to 0"),
        (json!({"command": ["a"], "count": "1"}), "must be of type integer"),
        (json!({"command": ["a"], "path": "x"}), "should match"),
        (json!({"command": ["a"], "mode": "Slow", "count": 0}), "Slow needs a count"),
    ] {
        let (code, message) = refusal(ops.create(&PostParams::default(), &op("a", spec)).await);
        assert_eq!(code, 422, "{message}");
        assert!(message.contains(words), "{message}");
    }
}

#[tokio::test]
async fn defaults_are_written_unknown_fields_dropped_and_status_kept_apart() {
    let (cluster, ops) = ops().await;
    let mut new = op("a", json!({"command": ["x"], "unknown": 1}));
    new.data["status"] = json!({"phase": "Cheated"});
    let made = ops.create(&PostParams::default(), &new).await.unwrap();
    assert_eq!(made.data["spec"], json!({"command": ["x"], "mode": "Fast", "count": 1}));
    assert_eq!((made.data.get("status"), made.metadata.generation), (None, Some(1)));

    let patch = |value: Value| Patch::Merge(value);
    let both = json!({"status": {"phase": "Up"}, "spec": {"count": 5}, "metadata": {"labels": {"a": "b"}}});
    let stated = ops.patch_status("a", &PatchParams::default(), &patch(both.clone())).await.unwrap();
    assert_eq!(
        (
            stated.data["status"]["phase"].as_str(),
            stated.data["spec"]["count"].as_i64(),
            stated.metadata.generation
        ),
        (Some("Up"), Some(1), Some(1))
    );
    let specified = ops
        .patch("a", &PatchParams::default(), &patch(json!({"status": {"phase": "No"}, "spec": {"count": 5}})))
        .await
        .unwrap();
    assert_eq!(
        (specified.data["status"]["phase"].as_str(), specified.metadata.generation),
        (Some("Up"), Some(2))
    );

    let version = specified.metadata.resource_version.clone();
    let again = ops.patch("a", &PatchParams::default(), &patch(json!({"spec": {"count": 5}}))).await.unwrap();
    assert_eq!(again.metadata.resource_version, version, "a patch that changes nothing makes no version");
    let (_, message) =
        refusal(ops.patch("a", &PatchParams::default(), &patch(json!({"spec": {"command": ["y"]}}))).await);
    assert!(message.contains("command is immutable"), "{message}");
    let (code, _) = refusal(
        ops.patch_status(
            "a",
            &PatchParams::default(),
            &patch(json!({"metadata": {"resourceVersion": "1"}, "status": {"phase": "Late"}})),
        )
        .await,
    );
    assert_eq!(code, 409);
    assert_eq!(cluster.list("ops.example.io").len(), 1);
}

#[tokio::test]
async fn what_was_wrong_before_a_stricter_rule_still_takes_status_and_other_changes() {
    let (cluster, ops) = ops().await;
    ops.create(&PostParams::default(), &op("a", json!({"command": ["x"], "count": 3}))).await.unwrap();
    let stricter = DEFINITION.replace("minimum: 0", "minimum: 10").replace("default: 1", "default: 10");
    cluster.apply(&stricter).await.unwrap();
    let status = Patch::Merge(json!({"status": {"phase": "Up"}, "metadata": {}}));
    ops.patch_status("a", &PatchParams::default(), &status).await.unwrap();
    ops.patch("a", &PatchParams::default(), &Patch::Merge(json!({"spec": {"mode": "Slow"}}))).await.unwrap();
    let (code, _) =
        refusal(ops.patch("a", &PatchParams::default(), &Patch::Merge(json!({"spec": {"count": 4}}))).await);
    assert_eq!(code, 422);
}
