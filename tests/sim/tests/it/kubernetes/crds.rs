//! The operator's own definitions and policies, as they are installed.

use std::path::Path;

use serde_json::{Value, json};

use super::{on_both, place::At, session::APPLY};

on_both!(
    each_case_of_the_definitions_is_accepted_or_refused_in_words_that_help,
    what_is_installed_is_accepted_as_it_is,
);

fn read(path: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Definitions, policies and roles, each in a dry run: a server compiles what they say, and counts its cost.
async fn what_is_installed_is_accepted_as_it_is(at: At) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests");
    let mut tried = 0;
    for folder in ["crd", "rbac"] {
        for file in std::fs::read_dir(root.join(folder)).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            let objects = read(&format!("manifests/{folder}/{name}"));
            for mut object in objects.into_iter().filter(|object| object["kind"] != "Kustomization") {
                let (version, kind) =
                    (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
                let plural = format!("{}s", kind.to_lowercase()).replace("ys", "ies");
                let prefix = if version.contains('/') {
                    format!("/apis/{version}")
                } else {
                    format!("/api/{version}")
                };
                let place = match object["metadata"].get("namespace") {
                    Some(_) => "/namespaces/{namespace}",
                    None => "",
                };
                let path =
                    format!("{prefix}{place}/{plural}/{}", object["metadata"]["name"].as_str().unwrap());
                if !place.is_empty() {
                    object["metadata"]["namespace"] = json!(at.namespace);
                }
                let answer =
                    at.patch(&format!("{path}?dryRun=All&fieldManager=t&force=true"), APPLY, &object).await;
                assert!(answer.warnings.is_empty(), "{path}: {:?}", answer.warnings);
                answer.ok();
                tried += 1;
            }
        }
    }
    assert!(tried > 10, "{tried}");
}

/// The cases of `tests/fixtures/validation.yaml`.
async fn each_case_of_the_definitions_is_accepted_or_refused_in_words_that_help(at: At) {
    for plural in ["nodeops", "nodeopupgrades"] {
        for definition in read(&format!("manifests/crd/operator.kairos.io_{plural}.yaml")) {
            at.install("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await;
        }
        while at.get(plural).await.code != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    let cases = read("tests/fixtures/validation.yaml").remove(0);
    let mut wrong = Vec::new();
    for (number, case) in cases.as_array().unwrap().iter().enumerate() {
        let kind = case["kind"].as_str().unwrap();
        let plural = format!("{}s", kind.to_lowercase());
        let object = |spec: &Value| json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": kind, "metadata": {"name": format!("case-{number}")}, "spec": spec});
        let answer = match case.get("was") {
            None => at.post(&format!("{plural}?dryRun=All"), &object(&case["spec"])).await,
            Some(was) => {
                let mut old = at.post(&plural, &object(was)).await.ok();
                old["spec"] = case["spec"].clone();
                let answer = at.put(&format!("{plural}/case-{number}?dryRun=All"), &old).await;
                at.delete(&format!("{plural}/case-{number}"), &json!({})).await.ok();
                answer
            }
        };
        let right = match case["refused"].as_str() {
            None => answer.code < 300,
            Some(words) => {
                answer.code == 422 && answer.body["message"].as_str().unwrap().contains(words)
                    || words.starts_with("unknown field")
                        && answer.warnings.iter().any(|w| w.contains("unknown field"))
            }
        };
        if !right {
            wrong.push(format!(
                "{}: expected {}, got {} {}",
                case["name"], case["refused"], answer.code, answer.body["message"]
            ));
        }
    }
    assert!(wrong.is_empty(), "{} cases: {wrong:#?}", wrong.len());
}
