//! The operator's own definitions, as they are installed.

use std::path::Path;

use serde_json::{Value, json};

use super::{on_both, place::At};

on_both!(each_case_of_the_definitions_is_accepted_or_refused_in_words_that_help);

fn read(path: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap()
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
