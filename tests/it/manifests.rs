//! `manifests/` is what the binary prints and what Cargo.toml says: nobody installs another release than they
//! checked out, or reads of fields and rights that it does not have.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use k8s_openapi::api::rbac::v1::PolicyRule;
use kairos_operator::{
    api::names,
    contract,
    manifests::{Part, generate, operator_holds},
    render::access,
};
use serde_json::Value;

fn manifests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("manifests")
}

fn text(path: &str) -> String {
    fs::read_to_string(manifests().join(path)).unwrap_or_else(|error| panic!("manifests/{path}: {error}"))
}

fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}

fn yaml_files(directory: &Path) -> Vec<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.into_iter().flat_map(|path| if path.is_dir() { yaml_files(&path) } else { vec![path] }).collect()
}

#[test]
fn generated_files_are_up_to_date() {
    let docs = manifests().with_file_name("docs");
    let mut stale = Vec::new();
    for (part, directory) in [(Part::Crd, manifests()), (Part::Rbac, manifests()), (Part::Docs, docs)] {
        let paths = generate(part).unwrap().into_iter().map(|file| (directory.join(file.path), file.text));
        stale.extend(
            paths
                .filter(|(path, text)| fs::read_to_string(path).unwrap_or_default() != *text)
                .map(|(path, _)| path),
        );
    }
    assert!(stale.is_empty(), "run scripts/generate: {stale:?} are not what the code says");
}

/// `kairos-operator manifests | kubectl apply -f -` installs what is printed, so no page for people may be
/// among it.
#[test]
fn pages_are_printed_when_they_are_asked_for() {
    let printed = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_kairos-operator")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(printed(&["manifests", "docs"]).contains("# Fields"));
    assert!(!printed(&["manifests"]).contains("# Fields"));
}

/// What scripts/generate runs is what the tests here call.
#[test]
fn the_binary_prints_the_same() {
    for (part, name) in [(Part::Crd, "crd"), (Part::Rbac, "rbac")] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_kairos-operator")).args(["manifests", name]).output().unwrap();
        let texts: Vec<String> = generate(part).unwrap().into_iter().map(|file| file.text).collect();
        assert!(output.status.success());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), texts.join("---\n"));
    }
    let directory = tempfile::tempdir().unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_kairos-operator"))
        .args(["manifests", "--write-to"])
        .arg(directory.path())
        .status()
        .unwrap();
    assert!(status.success());
    for file in [Part::Crd, Part::Rbac].into_iter().flat_map(|part| generate(part).unwrap()) {
        assert_eq!(
            fs::read_to_string(directory.path().join(&file.path)).unwrap(),
            file.text,
            "{}",
            file.path
        );
    }
}

/// Reading back what was written, and applying it: `kubectl apply` keeps the whole object in an annotation,
/// which may hold 256 KiB.
#[test]
fn generated_files_can_be_read_and_applied() {
    for file in [Part::Crd, Part::Rbac].into_iter().flat_map(|part| generate(part).unwrap()) {
        for document in documents(&file.text) {
            assert!(
                document["kind"].is_string() && document["metadata"]["name"].is_string(),
                "{}",
                file.path
            );
            assert!(document.to_string().len() < 256 * 1024, "{}", file.path);
        }
    }
}

#[test]
fn the_image_is_the_one_in_cargo_toml_and_stands_nowhere_else() {
    let image = &documents(&text("operator/kustomization.yaml"))[0]["images"][0];
    let named = format!("{}:{}", image["newName"].as_str().unwrap(), image["newTag"].as_str().unwrap());
    assert_eq!(named, contract::IMAGE, "run scripts/generate");
    for path in yaml_files(&manifests()) {
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(contract::IMAGE), "{}: a second place for the image", path.display());
    }
}

/// The operator's own pod goes first and takes nobody's room: not in the scheduler, and not on a node, where
/// a kubelet kills for pods of the system's priorities. Those are also what some clusters admit in
/// kube-system alone.
#[test]
fn the_operator_preempts_nobody() {
    const SYSTEM: u64 = 2_000_000_000;
    let class = &documents(&text("operator/priority-class.yaml"))[0];
    let deployment = &documents(&text("operator/deployment.yaml"))[0];
    assert_eq!(deployment["spec"]["template"]["spec"]["priorityClassName"], class["metadata"]["name"]);
    assert_eq!(class["preemptionPolicy"], "Never");
    assert!(class["value"].as_u64().unwrap() < SYSTEM && class["globalDefault"].is_null());
    for path in yaml_files(&manifests()) {
        assert!(
            !fs::read_to_string(&path).unwrap().contains("priorityClassName: system-"),
            "{}",
            path.display()
        );
    }
}

/// `busybox:latest` is the contract's default for a NodeOp without an image, and nothing to recommend.
#[test]
fn samples_name_an_image_that_stays_what_it_is() {
    for path in yaml_files(&manifests().join("samples")) {
        for object in documents(&fs::read_to_string(&path).unwrap()) {
            let image =
                object["spec"]["image"].as_str().unwrap_or_else(|| panic!("{}: no image", path.display()));
            assert!(image.contains(':') && !image.ends_with(":latest"), "{}: {image}", path.display());
        }
    }
}

/// `kubectl apply -k` replaces the Go operator in place only under its names, and a Deployment's selector
/// never changes.
#[test]
fn names_and_selector_are_those_of_the_go_operator() {
    let default = &documents(&text("default/kustomization.yaml"))[0];
    assert_eq!(
        (&default["namespace"], &default["namePrefix"]),
        (&"operator-system".into(), &"operator-".into())
    );
    let deployment = &documents(&text("operator/deployment.yaml"))[0];
    let labels = serde_json::json!({ "app.kubernetes.io/name": "kairos-operator", "app.kubernetes.io/component": "operator" });
    assert_eq!(deployment["metadata"]["name"], "kairos-operator");
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(deployment["spec"]["template"]["metadata"]["labels"], labels);
    assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["name"], "manager");
    let names: Vec<String> = documents(&text("rbac/operator.yaml"))
        .iter()
        .chain(&documents(&text("rbac/users.yaml")))
        .map(|object| {
            format!("{} {}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        names,
        [
            "ServiceAccount kairos-operator",
            "ClusterRole manager-role",
            "ClusterRoleBinding kairos-operator-rolebinding",
            "Role leader-election-role",
            "RoleBinding leader-election-rolebinding",
            "ClusterRole nodeop-admin-role",
            "ClusterRole nodeop-editor-role",
            "ClusterRole nodeop-viewer-role",
        ]
    );
}

#[test]
fn samples_are_accepted() {
    for path in yaml_files(&manifests().join("samples")) {
        for object in documents(&fs::read_to_string(&path).unwrap()) {
            let refused =
                super::validation::refusals(object["kind"].as_str().unwrap(), &object["spec"], None);
            assert!(refused.is_empty(), "{}: {refused:?}", path.display());
        }
    }
}

/// Otherwise the first NodeOp with a reboot would fail with "attempting to grant RBAC permissions not
/// currently held".
#[test]
fn the_operator_holds_what_it_grants_to_waiters() {
    let grant = access::Grant { node: "n1", waiter: "waiter", job: "job" };
    let rules = access::role(&Default::default(), "account", grant).rules.unwrap();
    assert!(rules.len() > 1 && operator_holds(&rules));
    let more = PolicyRule { verbs: vec!["escalate".into()], ..rules[0].clone() };
    assert!(!operator_holds(&[more]));
}

/// A policy that selects nothing, or names a port that is not there, protects nothing and says nothing.
#[test]
fn network_policies_are_about_our_pods_and_their_ports() {
    let deployment = &documents(&text("operator/deployment.yaml"))[0];
    let template = &deployment["spec"]["template"];
    let policies = documents(&text("network-policy/operator.yaml"));
    let [operator, labeler] = policies.as_slice() else { panic!("two policies") };
    assert_eq!(operator["spec"]["podSelector"]["matchLabels"], template["metadata"]["labels"]);
    let ports = template["spec"]["containers"][0]["ports"].as_array().unwrap();
    let port = |name: &str| ports.iter().find(|port| port["name"] == name).unwrap()["containerPort"].clone();
    let [metrics, probes] = operator["spec"]["ingress"].as_array().unwrap().as_slice() else {
        panic!("two rules")
    };
    assert_eq!(
        (&metrics["ports"][0]["port"], &probes["ports"][0]["port"]),
        (&port("metrics"), &port("probes"))
    );
    assert!(metrics["from"][0]["namespaceSelector"].is_object() && probes["from"].is_null());
    let labels = serde_json::json!({ names::APP: names::LABELER });
    assert_eq!(
        (&labeler["spec"]["podSelector"]["matchLabels"], &labeler["spec"]["egress"]),
        (&labels, &Value::Null)
    );
    assert_eq!(labeler["spec"]["policyTypes"], serde_json::json!(["Ingress", "Egress"]));
}

/// Editors are made by whoever asks for the component, and by nobody else.
#[test]
fn only_the_component_aggregates_who_may_create() {
    let component = &documents(&text("aggregated-roles/kustomization.yaml"))[0];
    assert_eq!(component["kind"], "Component");
    let names: Vec<&str> = component["patches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|patch| patch["target"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["(.*-)?nodeop-admin-role", "(.*-)?nodeop-editor-role"]);
    for path in yaml_files(&manifests())
        .into_iter()
        .filter(|path| !path.starts_with(manifests().join("aggregated-roles")))
    {
        // The chart has a value for it, which is false; `install` compares what comes of it.
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace(
            "    {{- if .Values.rbac.aggregateEditor }}\n    rbac.authorization.k8s.io/aggregate-to-",
            "",
        );
        assert!(
            !text.contains("aggregate-to-edit") && !text.contains("aggregate-to-admin"),
            "{}",
            path.display()
        );
    }
}
