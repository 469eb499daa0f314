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
            let mut beside = go;
            beside["status"]["observedGeneration"] = (-1).into();
            assert_eq!(health(&beside)["status"], wanted, "{beside}");
        }
        let mut unseen = new.clone();
        unseen["status"] = json!({"observedGeneration": -1});
        for object in [edited, deleted, new, unseen] {
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
        for unseen in [json!({}), json!({"status": {"observedGeneration": -1}})] {
            assert!(!holds("failed", &unseen) && !holds("current", &unseen), "before the first status");
        }
        // Of a NodeOp that the Go operator has finished no more than its phase is known. An upgrade gets its
        // conditions.
        for (phase, failed, current) in
            [("Completed", false, true), ("Failed", true, false), ("Running", false, false)]
        {
            let go = json!({"status": {"phase": phase, "nodeStatuses": {"n1": {"phase": phase}}}});
            let is_known = check["kind"] == "NodeOp";
            let found = (holds("failed", &go), holds("current", &go));
            assert_eq!(found, (failed && is_known, current && is_known), "{phase}");
        }
    }
}

/// Whoever applies the directory, or gives it to Flux, has nothing else.
#[test]
fn each_namespace_that_an_object_names_is_made_with_it_and_admits_privileged_pods() {
    let mut objects: Vec<Value> = Vec::new();
    for file_name in ["upgrade.yaml", "flux.yaml"] {
        let text = file(&format!("manifests/gitops/{file_name}"));
        objects.extend(serde_saphyr::from_multiple::<Value>(&text).unwrap());
    }
    let made: Vec<&Value> = objects.iter().filter(|object| object["kind"] == "Namespace").collect();
    for object in objects.iter().filter(|object| object["kind"] != "Namespace") {
        let named = &object["metadata"]["namespace"];
        if named == "flux-system" {
            continue;
        }
        let namespace = made.iter().find(|namespace| namespace["metadata"]["name"] == *named);
        let metadata = &namespace.unwrap_or_else(|| panic!("nothing makes {named}"))["metadata"];
        assert_eq!(metadata["labels"]["pod-security.kubernetes.io/enforce"], "privileged");
        // An upgrade that is pruned is ended with care, and one whose namespace is, after minutes in any case.
        assert_eq!(metadata["annotations"]["argocd.argoproj.io/sync-options"], "Prune=false,Delete=false");
        assert_eq!(metadata["annotations"]["kustomize.toolkit.fluxcd.io/prune"], "disabled");
    }
}

#[test]
fn renovate_finds_the_image_with_and_without_its_digest() {
    let config: Value = serde_json::from_str(&file("manifests/gitops/renovate.json")).unwrap();
    let manager = &config["customManagers"][0];
    let pattern = regex::Regex::new(manager["matchStrings"][0].as_str().unwrap()).unwrap();
    let sample = file("manifests/gitops/upgrade.yaml");
    let tag = SAMPLE;
    let pinned = sample.replace(tag, &format!("{tag}@sha256:{}", "a".repeat(64)));
    // As formatters write it, and from a mirror, whose port is no tag.
    let sha = || Some(format!("sha256:{}", "a".repeat(64)));
    let bare = format!("quay.io/kairos/opensuse:{tag}");
    let quoted = |text: &str, quote: &str| text.replace(&bare, &format!("{quote}{bare}{quote}"));
    let quoted_and_pinned =
        pinned.replace("image: ", "image: \"").replace(&"a".repeat(64), &format!("{}\"", "a".repeat(64)));
    let mirrored = sample.replace(&bare, &format!("registry.site:5000/kairos/opensuse:{tag}"));
    let short = sample.replace(&bare, &format!("opensuse:{tag}"));
    for (text, digest) in [
        (&sample, None),
        (&pinned, sha()),
        (&quoted(&sample, "\""), None),
        (&quoted(&sample, "'"), None),
        (&quoted_and_pinned, sha()),
        (&mirrored, None),
        (&short, None),
    ] {
        let found = pattern.captures(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!((&found["datasource"], &found["depName"]), ("docker", "quay.io/kairos/opensuse"));
        assert_eq!(&found["currentValue"], tag);
        assert_eq!(found.name("currentDigest").map(|digest| digest.as_str().to_owned()), digest);
    }
}

/// A tag as Renovate's versioning `regex` reads it: what must stay the same, and numbers, each of what
/// JavaScript's `parseInt` makes an integer of, which ends at the first character that is no digit.
fn version(versioning: &str, tag: &str) -> Option<(String, Vec<u32>)> {
    let pattern = versioning.strip_prefix("regex:").unwrap();
    let found = regex::Regex::new(pattern).unwrap().captures(tag)?;
    let number = |name: &str| {
        let digits: String = found.name(name)?.as_str().chars().take_while(char::is_ascii_digit).collect();
        Some(digits.parse().unwrap())
    };
    let mut numbers: Vec<u32> =
        ["major", "minor", "patch"].into_iter().map(|name| number(name).unwrap_or(0)).collect();
    numbers.extend(number("build"));
    numbers.extend(number("revision").filter(|_| numbers.len() == 4));
    Some((found["compatibility"].to_owned(), numbers))
}

/// The tag that Renovate would propose for the sample: the greatest of those that are compatible and allowed.
fn proposed<'a>(config: &Value, tags: &[&'a str]) -> Option<&'a str> {
    let versioning = config["customManagers"][0]["versioningTemplate"].as_str().unwrap();
    let allowed = config["packageRules"][0]["allowedVersions"].as_str();
    let allowed = allowed.map(|rule| regex::Regex::new(rule.trim_matches('/')).unwrap());
    let current = version(versioning, SAMPLE).unwrap();
    let offered = tags.iter().filter(|tag| allowed.as_ref().is_none_or(|rule| rule.is_match(tag)));
    let newer = offered.filter_map(|tag| Some((version(versioning, tag)?, *tag)));
    let newer = newer.filter(|((flavor, numbers), _)| flavor == &current.0 && numbers > &current.1);
    newer.max_by(|one, other| one.0.1.cmp(&other.0.1)).map(|(_, tag)| tag)
}

/// The tag of the sample.
const SAMPLE: &str = "leap-15.6-standard-amd64-generic-v3.4.2-k3sv1.30.11-k3s1";

#[test]
fn renovate_tells_versions_of_kubernetes_apart_and_skips_none() {
    let config: Value = serde_json::from_str(&file("manifests/gitops/renovate.json")).unwrap();
    let versioning = config["customManagers"][0]["versioningTemplate"].as_str().unwrap();
    let read = |tag: &str| version(versioning, tag).unwrap();
    assert_eq!(read(SAMPLE), ("leap-15.6-standard-amd64-generic".to_owned(), vec![3, 4, 2, 30, 11]));
    let of = |release: &str| format!("leap-15.6-standard-amd64-generic-{release}-k3s1");
    // Each is greater than the one before it.
    let ascending = [
        "v3.4.2-k3sv1.30.9",
        "v3.4.2-k3sv1.30.11",
        "v3.4.2-k3sv1.31.7",
        "v3.5.0-k3sv1.30.12",
        "v3.5.0-k3sv1.33.1",
    ];
    for pair in ascending.windows(2) {
        assert!(read(&of(pair[0])).1 < read(&of(pair[1])).1, "{pair:?}");
    }
    let newer =
        ["v3.5.0-k3sv1.33.1", "v3.5.0-k3sv1.30.12", "v3.5.0-k3sv1.31.8", "v3.4.3-k3sv1.30.12"].map(of);
    let other = SAMPLE.replace("standard", "core").replace("v3.4.2", "v3.9.0");
    let offered: Vec<&str> = newer.iter().chain([&other]).map(String::as_str).collect();
    assert_eq!(proposed(&config, &offered), Some(newer[1].as_str()), "the minor version of Kubernetes stays");
    let mut unbounded = config;
    unbounded["packageRules"] = json!([]);
    assert_eq!(proposed(&unbounded, &offered), Some(newer[0].as_str()), "and would not without the rule");
}

/// The page shows the rule as it is.
#[test]
fn the_rule_for_renovate_is_explained() {
    let config: Value = serde_json::from_str(&file("manifests/gitops/renovate.json")).unwrap();
    let rule = &config["packageRules"][0];
    assert_eq!(
        (&rule["matchManagers"], &rule["matchPackageNames"]),
        (&json!(["custom.regex"]), &json!(["quay.io/kairos/**"]))
    );
    let shown = format!("\"allowedVersions\": {}", rule["allowedVersions"]);
    assert!(file("docs/gitops.md").contains(&shown), "{shown}");
}
