//! The Helm chart: the objects of an [`install`]ation with holes, which values fill.
//!
//! Without values `helm template` prints what `kubectl kustomize manifests/default` does, but for what is
//! Helm's own (the namespace is the release's, who manages an object); each value changes one thing. Both are
//! tested with Helm itself (`tests/it/install.rs`).

use std::fmt::Write as _;

use anyhow::Context;
use serde_json::{Value, json};

use super::{File, install, yaml};
use crate::contract;

/// What can be set.
struct Setting {
    /// Its path in `values.yaml`.
    path: &'static str,
    about: &'static str,
    default: Value,
    schema: Value,
}

fn setting(path: &'static str, about: &'static str, default: Value, schema: Value) -> Setting {
    Setting { path, about, default, schema }
}

fn settings() -> Vec<Setting> {
    let text = || json!({"type": "string"});
    let switch = || json!({"type": "boolean"});
    let map = || json!({"type": "object"});
    let list = || json!({"type": "array", "items": {"type": "object"}});
    let repository = contract::IMAGE.rsplit_once(':').map_or(contract::IMAGE, |(repository, _)| repository);
    vec![
        setting("image.repository", "Where you pushed the image to, without tag.", json!(repository), text()),
        // A version here would stay with `helm upgrade --reuse-values`, under the policies of the new one.
        setting("image.tag", "Its tag; empty is the chart's version.", json!(""), text()),
        setting(
            "image.digest",
            "Its digest (sha256:…), which wins over the tag: all pods of the operator then run this very image.",
            json!(""),
            json!({"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}),
        ),
        setting(
            "image.pullPolicy",
            "When a node pulls the operator's own image again, also for the pods that the operator makes on nodes.",
            json!("IfNotPresent"),
            json!({"enum": ["Always", "IfNotPresent", "Never"]}),
        ),
        setting(
            "imagePullSecrets",
            "Secrets that the pods with the operator's image pull with: [{name: …}]. Each is looked for in the pod's own namespace: the \
             release's, and those of the operations.",
            json!([]),
            json!({"type": "array", "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "minLength": 1}}}}),
        ),
        setting(
            "replicas",
            "One of them leads; the others go on within seconds when its node is drained or lost.",
            json!(2),
            json!({"type": "integer", "minimum": 1}),
        ),
        setting(
            "resources",
            "The operator's requests and limits.",
            json!({"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}}),
            map(),
        ),
        setting("nodeSelector", "Labels of the nodes that the operator may run on.", json!({}), map()),
        setting(
            "extraTolerations",
            "Taints that it tolerates besides those of control planes.",
            json!([]),
            list(),
        ),
        setting(
            "priorityClassName",
            "The class of its pods; empty is the chart's own, which is scheduled first and preempts nothing.",
            json!(""),
            text(),
        ),
        setting("podAnnotations", "Annotations of its pods besides the chart's own.", json!({}), map()),
        setting("podLabels", "Labels of its pods besides the chart's own.", json!({}), map()),
        setting(
            "extraArgs",
            "Flags of the controller besides the chart's own; see docs/operations.md.",
            json!([]),
            json!({"type": "array", "items": {"type": "string"}}),
        ),
        setting("extraEnv", "Variables of its container: [{name: …, value: …}].", json!([]), list()),
        setting(
            "crds.install",
            "Whether the two CustomResourceDefinitions are part of the release.",
            json!(true),
            switch(),
        ),
        setting(
            "crds.keep",
            "Whether they stay when the release is uninstalled. Without them all operations are deleted.",
            json!(true),
            switch(),
        ),
        setting(
            "networkPolicy.enabled",
            "Who may reach the operator's pods, as NetworkPolicies.",
            json!(true),
            switch(),
        ),
        setting(
            "monitoring.podMonitor",
            "A PodMonitor for the Prometheus Operator, and a NetworkPolicy that lets Prometheus in.",
            json!(false),
            switch(),
        ),
        setting("monitoring.prometheusRule", "The alerts, as a PrometheusRule.", json!(false), switch()),
        setting(
            "monitoring.dashboard",
            "The dashboard, as a ConfigMap that Grafana's sidecar loads.",
            json!(false),
            switch(),
        ),
        setting(
            "rbac.aggregateEditor",
            "Whether everybody with the cluster's own role `edit` or `admin` may run operations: ROOT ON THE NODES.",
            json!(false),
            switch(),
        ),
        setting(
            "namespace.create",
            "Whether the chart makes the release's namespace; for `helm template`, since Helm itself wants it to be there.",
            json!(false),
            switch(),
        ),
    ]
}

/// What stands in place of something that a value decides, until the YAML is written. Each is a plain scalar.
mod hole {
    pub const IMAGE: &str = "HOLE-image";
    pub const PULL_POLICY: &str = "HOLE-pull-policy";
    pub const REPLICAS: &str = "HOLE-replicas";
    pub const PRIORITY_CLASS: &str = "HOLE-priority-class";
    /// A whole value, always there; followed by the setting's path.
    pub const VALUE: &str = "HOLE-value-";
    /// A field that is left out if the setting is empty.
    pub const OPTIONAL: &str = "HOLE-optional-";
    /// Further items of a list, or entries of a map.
    pub const MORE: &str = "HOLE-more-";
    /// What all begin with.
    pub const START: &str = "HOLE-";
}

/// The files of the chart, below `manifests/`.
pub(super) fn files() -> anyhow::Result<Vec<File>> {
    let version = env!("CARGO_PKG_VERSION");
    let about = json!({
        "apiVersion": "v2",
        "name": "kairos-operator",
        "description": env!("CARGO_PKG_DESCRIPTION"),
        "type": "application",
        "version": version,
        "appVersion": version,
        "kubeVersion": ">=1.30.0-0",
    });
    let settings = settings();
    let mut schema = serde_json::to_string_pretty(&schema(&settings)).context("writing the schema")?;
    schema.push('\n');
    let mut files = vec![
        super::yaml_file("chart/Chart.yaml", &yaml::document(&about)?),
        super::yaml_file("chart/values.yaml", &values(&settings)?),
        File { path: "chart/values.schema.json".into(), text: schema },
    ];
    for (path, condition, of) in TEMPLATES {
        let mut documents = Vec::new();
        for object in install::objects(hole::IMAGE)?.into_iter().filter(|object| of(&kind(object))) {
            documents.push(template(object)?);
        }
        let text = documents.join("---\n");
        let text = condition
            .map_or_else(|| text.clone(), |when| format!("{{{{- if {when} }}}}\n{text}{{{{- end }}}}\n"));
        files.push(super::yaml_file(&format!("chart/templates/{path}"), &text));
    }
    files.push(super::yaml_file("chart/templates/monitoring.yaml", &monitoring()));
    Ok(files)
}

/// The objects of `manifests/monitoring`, whose files scripts/generate puts below `files` of the chart:
/// alerts have braces of their own, which Helm must not read.
fn monitoring() -> String {
    let object = |switch: &str, file: &str| {
        format!(
            "{{{{- if .Values.monitoring.{switch} }}}}\n---\n{{{{ .Files.Get \"files/{file}.yaml\" | \
             replace \"{}\" .Release.Namespace | replace \"{MANAGED}\" (print \"{}\" .Release.Service) }}}}\n{{{{- end }}}}\n",
            install::NAMESPACE,
            MANAGED.trim_end_matches("kustomize"),
        )
    };
    let dashboard = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": "kairos-operator-dashboard", "namespace": "{{ .Release.Namespace }}",
            "labels": {
                "app.kubernetes.io/name": "kairos-operator", "app.kubernetes.io/managed-by": "{{ .Release.Service }}",
                "grafana_dashboard": "1",
            },
        },
    });
    let dashboard = yaml::document(&dashboard).unwrap_or_default();
    [
        object("podMonitor", "pod-monitor"),
        object("podMonitor", "network-policy"),
        object("prometheusRule", "prometheus-rule"),
        format!(
            "{{{{- if .Values.monitoring.dashboard }}}}\n---\n{dashboard}data:\n  kairos-operator.json: |-\n\
             {{{{ .Files.Get \"files/kairos-operator.json\" | indent 4 }}}}\n{{{{- end }}}}\n"
        ),
    ]
    .concat()
}

type OfKind = fn(&str) -> bool;

/// The files of templates: name, when its objects are there at all, and which kinds.
const TEMPLATES: [(&str, Option<&str>, OfKind); 6] = [
    ("namespace.yaml", Some(".Values.namespace.create"), |kind| kind == "Namespace"),
    ("crds.yaml", Some(".Values.crds.install"), |kind| kind == "CustomResourceDefinition"),
    ("rbac.yaml", None, |kind| kind == "ServiceAccount" || kind.contains("Role")),
    ("policies.yaml", None, |kind| kind.starts_with("ValidatingAdmissionPolicy")),
    ("network-policies.yaml", Some(".Values.networkPolicy.enabled"), |kind| kind == "NetworkPolicy"),
    ("operator.yaml", None, |kind| ["Deployment", "Service", "PriorityClass"].contains(&kind)),
];

fn kind(object: &Value) -> String {
    object["kind"].as_str().unwrap_or_default().to_owned()
}

/// An object with its holes filled by Helm's expressions.
fn template(mut object: Value) -> anyhow::Result<String> {
    match kind(&object).as_str() {
        "Deployment" => open_deployment(&mut object),
        "ServiceAccount" => object["imagePullSecrets"] = optional("imagePullSecrets"),
        "CustomResourceDefinition" => {
            let annotations = &mut object["metadata"]["annotations"];
            annotations["helm.sh/resource-policy"] = format!("{}keep", hole::OPTIONAL).into();
        }
        "ClusterRole" => aggregate(&mut object),
        _ => {}
    }
    let text = yaml::document(&object)?.replace(MANAGED, MANAGED_BY_HELM);
    // A name of digits is no number.
    let own = format!("namespace: {}\n", install::NAMESPACE);
    let text = text.replace(&own, "namespace: {{ .Release.Namespace | quote }}\n");
    Ok(filled(&text.replace(install::NAMESPACE, "{{ .Release.Namespace }}")))
}

const MANAGED: &str = "app.kubernetes.io/managed-by: kustomize";
const MANAGED_BY_HELM: &str = "app.kubernetes.io/managed-by: {{ .Release.Service }}";

fn optional(path: &str) -> Value {
    format!("{}{path}", hole::OPTIONAL).into()
}

fn more(path: &str) -> Value {
    format!("{}{path}", hole::MORE).into()
}

fn open_deployment(deployment: &mut Value) {
    deployment["spec"]["replicas"] = hole::REPLICAS.into();
    let template = &mut deployment["spec"]["template"];
    template["metadata"]["annotations"]["zz-more"] = more("podAnnotations");
    template["metadata"]["labels"]["zz-more"] = more("podLabels");
    let pod = &mut template["spec"];
    pod["nodeSelector"] = optional("nodeSelector");
    pod["imagePullSecrets"] = optional("imagePullSecrets");
    pod["priorityClassName"] = hole::PRIORITY_CLASS.into();
    let container = &mut pod["containers"][0];
    container["imagePullPolicy"] = hole::PULL_POLICY.into();
    container["resources"] = format!("{}resources", hole::VALUE).into();
    if let Some(variables) = container["env"].as_array_mut() {
        variables.push(more("imagePullSecrets"));
    }
    for (list, setting) in [("args", "extraArgs"), ("env", "extraEnv")] {
        if let Some(items) = container[list].as_array_mut() {
            items.push(more(setting));
        }
    }
    if let Some(tolerations) = pod["tolerations"].as_array_mut() {
        tolerations.push(more("extraTolerations"));
    }
}

/// The roles of users, for whoever wants them to be parts of `edit` and `admin`.
fn aggregate(role: &mut Value) {
    let name = role["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    for of in ["admin", "editor"] {
        if name.ends_with(&format!("nodeop-{of}-role")) {
            let label = format!("rbac.authorization.k8s.io/aggregate-to-{}", of.trim_end_matches("or"));
            role["metadata"]["labels"][label] = format!("{}aggregate", hole::OPTIONAL).into();
        }
    }
}

/// The YAML with Helm's expressions instead of the holes, line by line.
fn filled(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let depth = line.len() - line.trim_start().len();
        let (indent, rest) = line.split_at(depth);
        let field = rest.split(": ").next().unwrap_or_default();
        let _ = match line.split_once(hole::START) {
            None => writeln!(out, "{line}"),
            Some((_, "optional-keep")) => {
                writeln!(
                    out,
                    "{indent}{{{{- if .Values.crds.keep }}}}\n{indent}{field}: keep\n{indent}{{{{- end }}}}"
                )
            }
            Some((_, "optional-aggregate")) => writeln!(
                out,
                "{indent}{{{{- if .Values.rbac.aggregateEditor }}}}\n{indent}{field}: \"true\"\n{indent}{{{{- end }}}}"
            ),
            Some((before, which)) => match which.split_once('-') {
                Some(("optional", path)) => writeln!(
                    out,
                    "{indent}{{{{- with .Values.{path} }}}}\n{indent}{field}: {{{{- toYaml . | nindent {} }}}}\n{indent}{{{{- end }}}}",
                    depth + 2
                ),
                Some(("more", "imagePullSecrets")) => writeln!(
                    out,
                    "{indent}{{{{- with .Values.imagePullSecrets }}}}\n{indent}- name: OPERATOR_IMAGE_PULL_SECRETS\n\
                     {indent}  value: \"{{{{ range $i, $secret := . }}}}{{{{ if $i }}}},{{{{ end }}}}{{{{ $secret.name }}}}{{{{ end }}}}\"\n\
                     {indent}{{{{- end }}}}"
                ),
                Some(("more", path)) => writeln!(
                    out,
                    "{indent}{{{{- with .Values.{path} }}}}{{{{- toYaml . | nindent {depth} }}}}{{{{- end }}}}"
                ),
                Some(("value", path)) => {
                    writeln!(out, "{before}{{{{- toYaml .Values.{path} | nindent {} }}}}", depth + 2)
                }
                _ => writeln!(out, "{before}{}", scalar(which)),
            },
        };
    }
    out
}

fn scalar(which: &str) -> String {
    match which {
        "image" => "{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}\
                    {{ else }}:{{ .Values.image.tag | default (print \"v\" .Chart.AppVersion) }}{{ end }}"
            .to_owned(),
        "pull-policy" => "{{ .Values.image.pullPolicy }}".to_owned(),
        "replicas" => "{{ .Values.replicas }}".to_owned(),
        _ => format!("{{{{ .Values.priorityClassName | default \"{}\" | quote }}}}", install::ACCOUNT),
    }
}

/// `values.yaml`: every setting with its default and what it is.
fn values(settings: &[Setting]) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut group = "";
    for Setting { path, about, default, .. } in settings {
        let (of, name) = path.split_once('.').map_or(("", *path), |(of, name)| (of, name));
        if of != group && !of.is_empty() {
            let _ = writeln!(text, "{of}:");
        }
        group = of;
        let indent = if of.is_empty() { "" } else { "  " };
        let _ = writeln!(text, "{indent}# {about}");
        for line in yaml::document(&json!({name: default}))?.lines() {
            let _ = writeln!(text, "{indent}{line}");
        }
    }
    Ok(text)
}

/// `values.schema.json`: a misspelt value is an error, and no default.
fn schema(settings: &[Setting]) -> Value {
    let mut root = json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
        "additionalProperties": false, "properties": {"global": {"type": "object"}}});
    for Setting { path, about, schema, .. } in settings {
        let mut schema = schema.clone();
        schema["description"] = (*about).into();
        match path.split_once('.') {
            None => root["properties"][path] = schema,
            Some((of, name)) => {
                let group = &mut root["properties"][of];
                group["type"] = "object".into();
                group["additionalProperties"] = false.into();
                group["properties"][name] = schema;
            }
        }
    }
    root
}
