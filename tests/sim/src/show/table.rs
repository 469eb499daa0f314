//! Tables, which `kubectl get` prints.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{metadata, path};
use crate::{
    json::{flag, int, list, map, text},
    kinds::Kind,
    store::Object,
};

/// A table of objects.
pub fn of(kind: &Kind, objects: &[Object], list_metadata: &Value) -> Value {
    let columns = columns(kind);
    let definitions: Vec<Value> = columns
        .iter()
        .map(|c| json!({"name": c.name, "type": c.kind, "format": c.format(), "description": "", "priority": c.priority}))
        .collect();
    let rows: Vec<Value> =
        objects.iter().map(|o| json!({"cells": columns.iter().map(|c| c.cell(o)).collect::<Vec<_>>(), "object": metadata(o)})).collect();
    let mut table_metadata = json!({});
    for field in ["resourceVersion", "continue"] {
        if let Some(value) = list_metadata.get(field) {
            table_metadata[field] = value.clone();
        }
    }
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": table_metadata, "columnDefinitions": definitions, "rows": rows})
}

struct Column {
    name: String,
    kind: String,
    priority: i64,
    value: Source,
}

enum Source {
    Path(String),
    Made(fn(&Value) -> Value),
}

impl Column {
    fn made(name: &str, value: fn(&Value) -> Value) -> Self {
        Self { name: name.into(), kind: "string".into(), priority: 0, value: Source::Made(value) }
    }

    fn path(name: &str, at: &str) -> Self {
        Self { name: name.into(), kind: "string".into(), priority: 0, value: Source::Path(at.into()) }
    }

    fn format(&self) -> &'static str {
        if self.name == "Name" { "name" } else { "" }
    }

    fn cell(&self, object: &Value) -> Value {
        let value = match &self.value {
            Source::Path(at) => path::find(object, at).cloned().unwrap_or_default(),
            Source::Made(make) => make(object),
        };
        match (self.kind.as_str(), value) {
            ("date", Value::String(time)) => age(&time).into(),
            ("integer" | "number" | "boolean", value) => value,
            (_, Value::Null) => Value::Null,
            (_, Value::String(text)) => text.into(),
            (_, other) => other.to_string().into(),
        }
    }
}

fn columns(kind: &Kind) -> Vec<Column> {
    let mut columns = vec![Column::path("Name", ".metadata.name")];
    columns[0].kind = "string".into();
    if !kind.columns.is_empty() {
        let custom = kind.columns.iter();
        columns.extend(custom.map(|c| Column {
            name: c.name.clone(),
            kind: c.kind.clone(),
            priority: c.priority,
            value: Source::Path(c.path.clone()),
        }));
        return columns;
    }
    columns.extend(match kind.table() {
        "pods" => pod_columns(),
        "nodes" => vec![
            Column::made("Status", node_status),
            Column::made("Roles", node_roles),
            Column::path("Version", ".status.nodeInfo.kubeletVersion"),
            Column { priority: 1, ..Column::path("Boot", ".status.nodeInfo.bootID") },
        ],
        "jobs.batch" => {
            vec![Column::made("Status", job_status), Column::made("Completions", job_completions)]
        }
        "namespaces" => vec![Column::path("Status", ".status.phase")],
        "deployments.apps" | "replicasets.apps" | "statefulsets.apps" => {
            vec![Column::made("Ready", ready_replicas)]
        }
        "daemonsets.apps" => vec![
            Column::path("Desired", ".status.desiredNumberScheduled"),
            Column::path("Ready", ".status.numberReady"),
        ],
        "poddisruptionbudgets.policy" => vec![
            Column::path("Min Available", ".spec.minAvailable"),
            Column::path("Max Unavailable", ".spec.maxUnavailable"),
            Column::path("Allowed Disruptions", ".status.disruptionsAllowed"),
        ],
        "leases.coordination.k8s.io" => vec![Column::path("Holder", ".spec.holderIdentity")],
        "events" => return event_columns(),
        _ => Vec::new(),
    });
    columns.push(Column {
        name: "Age".into(),
        kind: "date".into(),
        priority: 0,
        value: Source::Path(".metadata.creationTimestamp".into()),
    });
    columns
}

fn pod_columns() -> Vec<Column> {
    let node = Column { priority: 1, ..Column::path("Node", ".spec.nodeName") };
    vec![
        Column::made("Ready", pod_ready),
        Column::made("Status", pod_status),
        Column::made("Restarts", restarts),
        node,
    ]
}

fn event_columns() -> Vec<Column> {
    vec![
        Column::made("Last Seen", |e| {
            age([text(e, "/lastTimestamp"), text(e, "/eventTime"), text(e, "/metadata/creationTimestamp")]
                .into_iter()
                .find(|t| !t.is_empty())
                .unwrap_or_default())
            .into()
        }),
        Column::path("Type", ".type"),
        Column::path("Reason", ".reason"),
        Column::made("Object", |e| {
            format!("{}/{}", text(e, "/involvedObject/kind").to_lowercase(), text(e, "/involvedObject/name"))
                .into()
        }),
        Column::path("Message", ".message"),
    ]
}

fn pod_ready(pod: &Value) -> Value {
    let ready = list(pod, "/status/containerStatuses").iter().filter(|c| flag(c, "/ready")).count();
    format!("{ready}/{}", list(pod, "/spec/containers").len()).into()
}

fn pod_status(pod: &Value) -> Value {
    if pod.pointer("/metadata/deletionTimestamp").is_some() {
        return "Terminating".into();
    }
    let reason = text(pod, "/status/reason");
    if !reason.is_empty() {
        return reason.into();
    }
    match text(pod, "/status/phase") {
        "Succeeded" => "Completed".into(),
        "Failed" => "Error".into(),
        phase => phase.into(),
    }
}

fn restarts(pod: &Value) -> Value {
    list(pod, "/status/containerStatuses")
        .iter()
        .filter_map(|c| int(c, "/restartCount"))
        .sum::<i64>()
        .to_string()
        .into()
}

fn node_status(node: &Value) -> Value {
    let ready = list(node, "/status/conditions").iter().find(|c| text(c, "/type") == "Ready");
    let ready = if ready.is_some_and(|c| text(c, "/status") == "True") { "Ready" } else { "NotReady" };
    if flag(node, "/spec/unschedulable") {
        format!("{ready},SchedulingDisabled").into()
    } else {
        ready.into()
    }
}

fn node_roles(node: &Value) -> Value {
    let labels = map(node, "/metadata/labels").into_iter().flatten();
    let roles: Vec<&str> =
        labels.filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/")).collect();
    if roles.is_empty() { "<none>".into() } else { roles.join(",").into() }
}

fn job_status(job: &Value) -> Value {
    let mut conditions = list(job, "/status/conditions").iter().filter(|c| text(c, "/status") == "True");
    conditions.next_back().map_or("Running", |c| text(c, "/type")).into()
}

fn job_completions(job: &Value) -> Value {
    format!(
        "{}/{}",
        int(job, "/status/succeeded").unwrap_or_default(),
        int(job, "/spec/completions").unwrap_or(1)
    )
    .into()
}

fn ready_replicas(object: &Value) -> Value {
    format!(
        "{}/{}",
        int(object, "/status/readyReplicas").unwrap_or_default(),
        int(object, "/spec/replicas").unwrap_or_default()
    )
    .into()
}

/// Time since then, as kubectl writes it.
fn age(time: &str) -> String {
    let Ok(then) = time.parse::<Timestamp>() else { return "<unknown>".into() };
    match crate::clock::now().duration_since(then).as_secs().max(0) {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7200 => format!("{}m", s / 60),
        s @ 7200..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}
