//! What installs the operator says the same in every form: the binary's own list, kustomize's, and Helm's.
//!
//! kubectl and Helm are looked for where `KAIROS_TOOLS` says, which `scripts/test` sets. Without them these
//! tests pass unseen, and that script tells and counts it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Command,
};

use kairos_operator::{
    cli::{Applet, parse},
    contract,
    manifests::install,
};
use serde_json::{Value, json};

/// Objects by kind and name.
type Objects = BTreeMap<(String, String), Value>;

fn manifests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("manifests")
}

/// A command of one of the tools, if they are here.
fn tool(name: &str) -> Option<Command> {
    let Some(tools) = std::env::var_os("KAIROS_TOOLS") else {
        eprintln!("KAIROS_TOOLS names no directory with {name}: not tested");
        return None;
    };
    Some(Command::new(PathBuf::from(tools).join(name)))
}

fn output(mut command: Command) -> Result<Objects, String> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&String::from_utf8(output.stdout).unwrap()).unwrap();
    Ok(by_name(documents))
}

fn by_name(objects: Vec<Value>) -> Objects {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    objects
        .into_iter()
        .filter(Value::is_object)
        .map(|mut object| {
            // What differs by who applies it: kustomize gives a namespace to kinds that have none.
            if object["kind"].as_str().unwrap().starts_with("ValidatingAdmissionPolicy") {
                object["metadata"].as_object_mut().unwrap().remove("namespace");
            }
            object["metadata"]["labels"]["app.kubernetes.io/managed-by"] = Value::Null;
            ((text(&object["kind"]), text(&object["metadata"]["name"])), object)
        })
        .collect()
}

/// The paths at which two sets of objects differ.
fn differences(one: &Objects, other: &Objects) -> BTreeSet<String> {
    fn walk(path: &str, one: &Value, other: &Value, into: &mut BTreeSet<String>) {
        match (one, other) {
            (Value::Object(a), Value::Object(b)) => {
                for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                    walk(&format!("{path}/{key}"), &one[key], &other[key], into);
                }
            }
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                a.iter().zip(b).for_each(|(a, b)| walk(path, a, b, into));
            }
            _ if one != other => drop(into.insert(path.to_owned())),
            _ => {}
        }
    }
    let mut paths = BTreeSet::new();
    for key @ (kind, name) in one.keys().chain(other.keys()).collect::<BTreeSet<_>>() {
        let of = |objects: &Objects| objects.get(key).cloned().unwrap_or_default();
        walk(&format!("{kind} {name}"), &of(one), &of(other), &mut paths);
    }
    paths
}

#[test]
fn the_binary_installs_what_kustomize_does() {
    let rendered = |path: PathBuf| {
        let mut kubectl = tool("kubectl")?;
        kubectl.arg("kustomize").arg(path);
        Some(output(kubectl).unwrap())
    };
    let Some(theirs) = rendered(manifests().join("default")) else { return };
    let ours = by_name(install::objects(contract::IMAGE).unwrap());
    assert_eq!(differences(&ours, &theirs), BTreeSet::new());
    // At the Go operator's path, too.
    let there = rendered(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/default")).unwrap();
    assert_eq!(differences(&there, &theirs), BTreeSet::new());
    let mut printed = Command::new(env!("CARGO_BIN_EXE_kairos-operator"));
    printed.arg("manifests");
    assert_eq!(differences(&output(printed).unwrap(), &theirs), BTreeSet::new());
}

/// The chart with these values, as `helm template operator --namespace operator-system` prints it.
fn chart(values: &[&str]) -> Option<Result<Objects, String>> {
    let mut helm = tool("helm")?;
    helm.args(["template", "operator"])
        .arg(manifests().join("chart"))
        .args(["--namespace", install::NAMESPACE]);
    for value in values {
        helm.args(["--set-json", value]);
    }
    Some(output(helm))
}

#[test]
fn the_chart_without_values_is_what_kustomize_installs() {
    let Some(chart) = chart(&[]) else { return };
    let mut wanted = by_name(install::objects(contract::IMAGE).unwrap());
    wanted.retain(|(kind, _), _| kind != "Namespace");
    for ((kind, _), object) in &mut wanted {
        if kind == "CustomResourceDefinition" {
            object["metadata"]["annotations"] = json!({"helm.sh/resource-policy": "keep"});
        }
    }
    assert_eq!(differences(&chart.unwrap(), &wanted), BTreeSet::new());
}

const DEPLOYMENT: &str = "Deployment operator-kairos-operator/spec";
const POD: &str = "/template/spec";

#[test]
fn each_value_of_the_chart_changes_one_thing() {
    let Some(plain) = chart(&[]).map(Result::unwrap) else { return };
    let pod = |field: &str| vec![format!("{DEPLOYMENT}{POD}{field}")];
    let container = |field: &str| pod(&format!("/containers/{field}"));
    let image = container("image");
    let digest = format!(r#"image.digest="sha256:{}""#, "0".repeat(64));
    let whole = |kind: &str| {
        plain.keys().filter(|key| key.0 == kind).map(|(kind, name)| format!("{kind} {name}")).collect()
    };
    let cases: Vec<(&str, Vec<String>)> = vec![
        (r#"image.repository="registry.example/op""#, image.clone()),
        (r#"image.tag="v9""#, image.clone()),
        (&digest, image),
        (r#"image.pullPolicy="Always""#, container("imagePullPolicy")),
        (
            r#"imagePullSecrets=[{"name":"s"}]"#,
            [pod("/imagePullSecrets"), container("env"), vec!["ServiceAccount operator-kairos-operator/imagePullSecrets".into()]].concat(),
        ),
        ("replicas=1", vec![format!("{DEPLOYMENT}/replicas")]),
        (r#"resources.limits.memory="1Gi""#, container("resources/limits/memory")),
        (r#"nodeSelector={"a":"b"}"#, pod("/nodeSelector")),
        (r#"extraTolerations=[{"key":"k","operator":"Exists"}]"#, pod("/tolerations")),
        (r#"priorityClassName="system-cluster-critical""#, pod("/priorityClassName")),
        (r#"podAnnotations={"a":"b"}"#, vec![format!("{DEPLOYMENT}/template/metadata/annotations/a")]),
        (r#"podLabels={"a":"b"}"#, vec![format!("{DEPLOYMENT}/template/metadata/labels/a")]),
        (r#"extraArgs=["--metrics-bind-address=:9090","--leader-elect=false"]"#, container("args")),
        (r#"extraEnv=[{"name":"A","value":"b"}]"#, container("env")),
        ("crds.install=false", whole("CustomResourceDefinition")),
        (
            "crds.keep=false",
            ["nodeops", "nodeopupgrades"]
                .map(|plural| {
                    format!("CustomResourceDefinition {plural}.operator.kairos.io/metadata/annotations")
                })
                .to_vec(),
        ),
        ("networkPolicy.enabled=false", whole("NetworkPolicy")),
        (
            "monitoring.podMonitor=true",
            vec!["PodMonitor kairos-operator".into(), "NetworkPolicy operator-allow-prometheus".into()],
        ),
        ("monitoring.prometheusRule=true", vec!["PrometheusRule kairos-operator".into()]),
        ("monitoring.dashboard=true", vec!["ConfigMap kairos-operator-dashboard".into()]),
        (
            "rbac.aggregateEditor=true",
            [("admin", "admin"), ("editor", "edit")]
                .map(|(role, of)| {
                    format!(
                        "ClusterRole operator-nodeop-{role}-role/metadata/labels/rbac.authorization.k8s.io/aggregate-to-{of}"
                    )
                })
                .to_vec(),
        ),
        ("namespace.create=true", vec![format!("Namespace {}", install::NAMESPACE)]),
    ];
    for (value, wanted) in &cases {
        let found =
            differences(&plain, &chart(&[value]).unwrap().unwrap_or_else(|error| panic!("{value}: {error}")));
        assert_eq!(found, wanted.iter().cloned().collect(), "{value}");
    }
    // Flags that are appended hold over those that are there, and the controller starts with them.
    let (flags, _) = cases.iter().find(|(value, _)| value.starts_with("extraArgs")).unwrap();
    let objects = chart(&[flags]).unwrap().unwrap();
    let deployment = &objects[&("Deployment".into(), "operator-kairos-operator".into())];
    let args = deployment.pointer("/spec/template/spec/containers/0/args").and_then(Value::as_array).unwrap();
    let argv = ["kairos-operator", "controller"].into_iter().chain(args.iter().filter_map(Value::as_str));
    let Ok(Applet::Controller(args)) = parse(argv.map(Into::into)) else {
        panic!("{args:?} are not understood")
    };
    assert_eq!((args.metrics_bind_address.as_str(), args.leader_elect), (":9090", false));
    // Each setting is among them.
    let text = std::fs::read_to_string(manifests().join("chart/values.yaml")).unwrap();
    let values: Value = serde_saphyr::from_str(&text).unwrap();
    for (name, value) in values.as_object().unwrap() {
        let group = value.as_object().filter(|_| {
            ["image", "crds", "networkPolicy", "monitoring", "rbac", "namespace"].contains(&name.as_str())
        });
        let paths: Vec<String> = group.map_or_else(
            || vec![name.clone()],
            |group| group.keys().map(|key| format!("{name}.{key}")).collect(),
        );
        for path in paths {
            assert!(cases.iter().any(|(case, _)| case.starts_with(&path)), "no case sets {path}");
        }
    }
}

/// The chart has copies of these files, since Helm reads none outside it.
#[test]
fn the_charts_monitoring_is_that_of_manifests_monitoring() {
    let switches =
        ["podMonitor", "prometheusRule", "dashboard"].map(|name| format!("monitoring.{name}=true"));
    let Some(mut with) = chart(&switches.each_ref().map(String::as_str)).map(Result::unwrap) else { return };
    let without = chart(&[]).unwrap().unwrap();
    with.retain(|key, _| !without.contains_key(key));
    let monitoring = manifests().join("monitoring");
    let text = |file: &str| std::fs::read_to_string(monitoring.join(file)).unwrap();
    let mut wanted = Objects::new();
    for file in ["pod-monitor.yaml", "prometheus-rule.yaml", "network-policy.yaml"] {
        wanted.extend(by_name(serde_saphyr::from_multiple(&text(file)).unwrap()));
    }
    let dashboard = with.remove(&("ConfigMap".into(), "kairos-operator-dashboard".into())).unwrap();
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(
        json(dashboard["data"]["kairos-operator.json"].as_str().unwrap()),
        json(&text("kairos-operator.json"))
    );
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    assert_eq!(differences(&with, &wanted), BTreeSet::new());
    for file in ["pod-monitor.yaml", "prometheus-rule.yaml", "network-policy.yaml", "kairos-operator.json"] {
        let copy = std::fs::read_to_string(manifests().join("chart/files").join(file)).unwrap();
        assert_eq!(copy, text(file), "{file}: run scripts/generate");
    }
}

/// `helm upgrade --reuse-values` keeps the values of the chart before: a tag among them would be the old one.
#[test]
fn a_chart_runs_its_own_version_also_with_the_values_of_another_one() {
    for values in [&[][..], &[r#"image.tag="""#], &["image.tag=null"]] {
        let Some(objects) = chart(values).map(Result::unwrap) else { return };
        let deployment = &objects[&("Deployment".into(), "operator-kairos-operator".into())];
        let image = deployment.pointer("/spec/template/spec/containers/0/image").unwrap();
        assert_eq!(image, contract::IMAGE, "{values:?}");
    }
    let values = std::fs::read_to_string(manifests().join("chart/values.yaml")).unwrap();
    let values: Value = serde_saphyr::from_str(&values).unwrap();
    assert_eq!(values["image"]["tag"], "", "a default would be kept");
    let manual = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    let upgrades: Vec<&str> = manual.lines().filter(|line| line.starts_with("$ helm upgrade")).collect();
    assert!(upgrades.len() == 1 && upgrades[0].ends_with(" --reset-then-reuse-values"), "{upgrades:?}");
}

/// What a site's overlay sets is the image alone; an older one copies it into the variable, too.
#[test]
fn an_overlay_sets_the_image_in_one_place() {
    let images = "images:\n- {name: unpublished.invalid/kairos-node-operator, newName: registry.example.com/op, newTag: v9}\n";
    let replacements = "replacements:\n- source: {kind: Deployment, name: operator-kairos-operator, fieldPath: 'spec.template.spec.containers.[name=manager].image'}\n  \
        targets:\n  - select: {kind: Deployment, name: operator-kairos-operator}\n    \
          fieldPaths: ['spec.template.spec.containers.[name=manager].env.[name=OPERATOR_IMAGE].value']\n";
    for (more, said) in [("", ""), (replacements, "registry.example.com/op:v9")] {
        let Some(mut kubectl) = tool("kubectl") else { return };
        // kustomize takes no absolute path for a base.
        let dir = tempfile::tempdir().unwrap();
        assert!(Command::new("cp").arg("-r").arg(manifests()).arg(dir.path()).status().unwrap().success());
        let site = dir.path().join("site");
        std::fs::create_dir(&site).unwrap();
        let text = ["resources: [../manifests/default]\n", images, more].concat();
        std::fs::write(site.join("kustomization.yaml"), text).unwrap();
        kubectl.arg("kustomize").arg(site);
        let objects = output(kubectl).unwrap();
        let deployment = &objects[&("Deployment".into(), "operator-kairos-operator".into())];
        let container = deployment.pointer("/spec/template/spec/containers/0").unwrap();
        assert_eq!(container["image"], "registry.example.com/op:v9");
        let variable =
            container["env"].as_array().unwrap().iter().find(|env| env["name"] == "OPERATOR_IMAGE");
        assert_eq!(variable.unwrap()["value"], said);
        assert!(!deployment.to_string().contains(contract::IMAGE), "{deployment:#}");
    }
}

#[test]
fn a_misspelt_value_is_refused_by_its_name() {
    for (value, told) in [
        ("replica=3", "replica"),
        ("replicas=0", "replicas"),
        (r#"image.digest="latest""#, "digest"),
        ("imagePullSecrets=[{}]", "name"),
    ] {
        let Some(refused) = chart(&[value]) else { return };
        let error = refused.unwrap_err();
        assert!(error.contains(told), "{value}: {error}");
    }
}

/// YAML takes a bare word of digits for a number, which the API server refuses where a text is wanted.
#[test]
fn names_of_digits_are_texts() {
    let Some(mut helm) = tool("helm") else { return };
    helm.args(["template", "operator"]).arg(manifests().join("chart")).args(["--namespace", "2024"]);
    helm.args(["--set-json", r#"imagePullSecrets=[{"name":"20260101"},{"name":"b"}]"#]);
    helm.args(["--set-json", r#"priorityClassName="7""#]);
    for object in output(helm).unwrap().values() {
        let namespace = &object["metadata"]["namespace"];
        assert!(namespace.is_null() || namespace == "2024", "{object:#}");
    }
    let one = r#"imagePullSecrets=[{"name":"20260101"}]"#;
    let deployment =
        &chart(&[one]).unwrap().unwrap()[&("Deployment".into(), "operator-kairos-operator".into())];
    let variables = deployment.pointer("/spec/template/spec/containers/0/env").unwrap().as_array().unwrap();
    let secrets = variables.iter().find(|found| found["name"] == "OPERATOR_IMAGE_PULL_SECRETS").unwrap();
    assert_eq!(secrets["value"], "20260101");
}

/// An account is named in the policy that bounds the operator: in another namespace it must be that one.
#[test]
fn in_another_namespace_all_that_names_it_names_that_one() {
    let Some(mut helm) = tool("helm") else { return };
    helm.args(["template", "operator"]).arg(manifests().join("chart")).args(["--namespace", "elsewhere"]);
    let printed = String::from_utf8(helm.output().unwrap().stdout).unwrap();
    assert!(!printed.contains(install::NAMESPACE));
    assert!(printed.contains("system:serviceaccount:elsewhere:operator-kairos-operator"));
}
