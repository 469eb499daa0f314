//! What GitOps tools are told of operations: Argo CD's Lua, run by a real Lua on what the operator writes;
//! Flux's expressions, by a real CEL; Renovate's pattern, on the sample that it is for.

use std::fs;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kairos_operator::{
    api::names::reason,
    plan::conditions::{self, Moment, Standing},
};
use mlua::{Lua, LuaSerdeExt, Table};
use serde_json::{Value, json};

use crate::tidy::scan::root;

fn file(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every way in which an operation stands, and what Argo CD calls that.
const STANDINGS: [(Standing, &str); 8] = [
    (Standing::Open { reason: reason::ROLLING_OUT, stalled: false }, "Progressing"),
    (Standing::Open { reason: reason::WAITING, stalled: false }, "Progressing"),
    (Standing::Open { reason: reason::NO_NODES, stalled: false }, "Progressing"),
    (Standing::Open { reason: reason::PAUSED, stalled: false }, "Suspended"),
    (Standing::Open { reason: reason::BLOCKED, stalled: false }, "Progressing"),
    (Standing::Open { reason: reason::BLOCKED, stalled: true }, "Degraded"),
    (Standing::Failed, "Degraded"),
    (Standing::Completed, "Healthy"),
];

fn conditions(standing: Standing) -> Vec<Condition> {
    let mut conditions = Vec::new();
    let at = Moment { generation: Some(2), now: Timestamp::UNIX_EPOCH };
    conditions::set(&mut conditions, standing, "what it says", at);
    conditions
}

fn object(standing: Standing) -> Value {
    json!({"metadata": {"generation": 2}, "spec": {"paused": false},
        "status": {"observedGeneration": 2, "conditions": conditions(standing)}})
}

/// Runs a script of the ConfigMap as Argo CD does: with the object as `obj`, and what it returns read back.
fn lua(script: &str, object: &Value) -> Value {
    let lua = Lua::new();
    // As from Argo CD, what is null is not there.
    let options =
        mlua::serde::SerializeOptions::new().serialize_none_to_null(false).serialize_unit_to_null(false);
    let object = lua.to_value_with(object, options).unwrap();
    lua.globals().set("obj", object).unwrap();
    let returned: Table = lua.load(script).eval().unwrap_or_else(|error| panic!("{error}\n{script}"));
    lua.from_value(mlua::Value::Table(returned)).unwrap()
}

const KINDS: [&str; 2] = ["NodeOp", "NodeOpUpgrade"];

fn argocd(what: &str, kind: &str) -> String {
    let map = yaml("manifests/argocd/argocd-cm.yaml");
    let key = format!("resource.customizations.{what}.operator.kairos.io_{kind}");
    map["data"][&key].as_str().unwrap_or_else(|| panic!("no {key}")).to_owned()
}

#[test]
fn argo_cd_sees_an_operation_as_it_stands() {
    for kind in KINDS {
        let health = |object: &Value| lua(&argocd("health", kind), object);
        for (standing, wanted) in STANDINGS {
            let health = health(&object(standing));
            assert_eq!(health, json!({"status": wanted, "message": "what it says"}), "{standing:?}");
        }
        // What stands there is about the spec before, nothing stands there yet, or it is on its way out.
        let mut edited = object(Standing::Completed);
        edited["metadata"]["generation"] = 3.into();
        let mut deleted = object(Standing::Completed);
        deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let new = json!({"metadata": {"generation": 1}, "spec": {}});
        // Of what the Go operator has finished no more than its phase is known.
        for (phase, wanted) in [("Completed", "Healthy"), ("Failed", "Degraded"), ("Running", "Progressing")]
        {
            let go = json!({"metadata": {"generation": 1}, "spec": {}, "status": {"phase": phase}});
            assert_eq!(health(&go)["status"], wanted, "{go}");
        }
        for object in [edited, deleted, new] {
            assert_eq!(health(&object)["status"], "Progressing", "{object}");
        }
    }
}

#[test]
fn argo_cd_pauses_and_resumes() {
    for kind in KINDS {
        let actions: Value = serde_saphyr::from_str(&argocd("actions", kind)).unwrap();
        let discovery = actions["discovery.lua"].as_str().unwrap();
        let script = |name: &str| {
            let of = actions["definitions"].as_array().unwrap().iter().find(|action| action["name"] == name);
            of.unwrap()["action.lua"].as_str().unwrap().to_owned()
        };
        let offers = |object: &Value| {
            let found = lua(discovery, object);
            [&found["pause"]["disabled"], &found["resume"]["disabled"]].map(|off| off == false)
        };
        let running = json!({"spec": {"concurrency": 1}, "status": {"phase": "Running"}});
        assert_eq!(offers(&running), [true, false]);
        let paused = lua(&script("pause"), &running);
        assert_eq!(paused["spec"], json!({"concurrency": 1, "paused": true}));
        assert_eq!(offers(&paused), [false, true]);
        assert_eq!(lua(&script("resume"), &paused)["spec"]["paused"], false);
        let over = json!({"spec": {}, "status": {"phase": "Failed"}});
        assert_eq!(offers(&over), [false, false]);
    }
}

/// Between its rounds it waits for nodes, and may be held.
#[test]
fn argo_cd_holds_a_continuous_upgrade_between_its_rounds() {
    let mut upgrade = object(Standing::Completed);
    upgrade["spec"] = json!({"mode": "Continuous", "paused": false});
    upgrade["status"]["phase"] = "Completed".into();
    let health = |object: &Value| lua(&argocd("health", "NodeOpUpgrade"), object)["status"].clone();
    let actions: Value = serde_saphyr::from_str(&argocd("actions", "NodeOpUpgrade")).unwrap();
    let offers = |object: &Value| {
        let found = lua(actions["discovery.lua"].as_str().unwrap(), object);
        [&found["pause"]["disabled"], &found["resume"]["disabled"]].map(|off| off == false)
    };
    assert_eq!((health(&upgrade), offers(&upgrade)), (json!("Healthy"), [true, false]));
    upgrade["spec"]["paused"] = true.into();
    assert_eq!((health(&upgrade), offers(&upgrade)), (json!("Suspended"), [false, true]));
    upgrade["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    assert_eq!(offers(&upgrade), [false, false]);
}

#[test]
fn flux_sees_an_operation_as_it_stands() {
    let kustomization = yaml("manifests/gitops/flux.yaml");
    let checks = kustomization["spec"]["healthCheckExprs"].as_array().unwrap();
    let kinds: Vec<&str> = checks.iter().map(|check| check["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["NodeOpUpgrade", "NodeOp"]);
    for check in checks {
        let holds = |name: &str, object: &Value| {
            let program = cel::Program::compile(check[name].as_str().unwrap()).unwrap();
            let mut context = cel::Context::default();
            context
                .add_variable("status", object.get("status").cloned().unwrap_or_else(|| json!({})))
                .unwrap();
            program.execute(&context).unwrap() == cel::Value::Bool(true)
        };
        for (standing, argo) in STANDINGS {
            let object = object(standing);
            let found = (holds("failed", &object), holds("current", &object));
            assert_eq!(found, (argo == "Degraded", argo == "Healthy"), "{standing:?}");
        }
        assert!(!holds("failed", &json!({})) && !holds("current", &json!({})), "before the first status");
    }
}

#[test]
fn renovate_finds_the_image_with_and_without_its_digest() {
    let config: Value = serde_json::from_str(&file("manifests/gitops/renovate.json")).unwrap();
    let manager = &config["customManagers"][0];
    let pattern = regex::Regex::new(manager["matchStrings"][0].as_str().unwrap()).unwrap();
    let sample = file("manifests/gitops/upgrade.yaml");
    let tag = "leap-15.6-standard-amd64-generic-v3.4.2-k3sv1.30.11-k3s1";
    let pinned = sample.replace(tag, &format!("{tag}@sha256:{}", "a".repeat(64)));
    for (text, digest) in [(&sample, None), (&pinned, Some(format!("sha256:{}", "a".repeat(64))))] {
        let found = pattern.captures(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!((&found["datasource"], &found["depName"]), ("docker", "quay.io/kairos/opensuse"));
        assert_eq!(&found["currentValue"], tag);
        assert_eq!(found.name("currentDigest").map(|digest| digest.as_str().to_owned()), digest);
    }
    let versioning = manager["versioningTemplate"].as_str().unwrap().strip_prefix("regex:").unwrap();
    let version = regex::Regex::new(versioning).unwrap().captures(tag).unwrap();
    assert_eq!((&version["compatibility"], &version["major"]), ("leap-15.6-standard-amd64-generic", "3"));
}
