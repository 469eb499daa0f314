//! `report`: what somebody who is asked for help wants to see, as YAML. No Secret is read, and no
//! environment, no argument and no log is in it.

use std::{fs, path::PathBuf};

use clap::Args;
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{Event, Pod},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, ObjectMeta},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    adopted,
    connection::Connection,
    failure::{Code, Failure, Result},
    installed::{self, Leader, Operator, PlaceArgs},
    nodes, nodes_seen,
    operation::{self, Operation},
    output::yaml_text,
    screen::Screen,
};
use crate::api::{names, nodeop::Phase};

/// Collects what helps to find a fault: operations, nodes, pods and Events, without Secrets and environments.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Where to write it; unset, standard output
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Runs the verb.
pub async fn run(args: &ReportArgs, connection: &Connection, screen: &Screen) -> Result<Code> {
    let text = yaml_text(&collect(args, connection).await?)?;
    let Some(path) = &args.file else {
        screen.raw(&text)?;
        return Ok(Code::Done);
    };
    fs::write(path, text).map_err(|error| Failure::new(format!("writing {}: {error}", path.display())))?;
    screen.line(&format!("{} written; read it before you pass it on", path.display()))?;
    Ok(Code::Done)
}

/// What cannot be read is told in its place: a report with a gap is better than none.
async fn collect(args: &ReportArgs, connection: &Connection) -> Result<Value> {
    let namespace = (!args.all_namespaces).then_some(connection.namespace.as_str());
    let server = connection.client.apiserver_version().await;
    let operations = operation::list(connection, namespace, None).await?;
    let pods = pods(connection, namespace, &operations).await;
    let operations: Vec<Value> = operations.into_iter().map(|operation| bare(operation.object)).collect();
    let nodes = match nodes_seen::readable(connection).await? {
        Some(nodes) => nodes.iter().map(nodes::value).collect(),
        None => json!("not readable: you may not list nodes"),
    };
    let labelled = ListParams::default().labels(names::NODEOP);
    let about = ListParams::default().fields(&format!("reportingComponent={}", names::MANAGER));
    Ok(json!({
        "kind": "KairosReport",
        "time": Timestamp::now().to_string(),
        "plugin": env!("CARGO_PKG_VERSION"),
        "kubernetes": server.map(|server| server.git_version).unwrap_or_default(),
        "operator": operator(connection, &args.place).await,
        "operations": operations,
        "nodes": nodes,
        "jobs": objects::<Job>(connection, namespace, &labelled, job).await,
        "pods": pods,
        "events": objects::<Event>(connection, namespace, &about, event).await,
    }))
}

/// The pods of operations, and those of Jobs that were adopted, on nodes that are worked on or have failed.
async fn pods(connection: &Connection, namespace: Option<&str>, operations: &[Operation]) -> Value {
    let labelled = ListParams::default().labels(names::NODEOP);
    let mut found = objects::<Pod>(connection, namespace, &labelled, pod).await;
    let Some(all) = found.as_array_mut() else { return found };
    let job = |pod: &Value| Some(pod["metadata"]["labels"][names::JOB_NAME_LABEL].as_str()?.to_owned());
    let known = all.iter().filter_map(job).collect();
    for operation in operations {
        let entries = operation.nodes.values();
        let entries = entries.filter(|entry| !matches!(entry.phase, Phase::Pending | Phase::Completed));
        let jobs = entries.filter_map(|entry| entry.job_name.as_ref());
        for labels in adopted::selectors(jobs, &known) {
            let params = ListParams::default().labels(&labels);
            let more = objects::<Pod>(connection, Some(&operation.namespace), &params, pod).await;
            all.extend(more.as_array().cloned().unwrap_or_default());
        }
    }
    found
}

async fn operator(connection: &Connection, place: &PlaceArgs) -> Value {
    let deployment = match installed::operator(connection, place).await {
        Ok(Operator::There { name, image, ready, wanted, rolled_out }) => {
            json!({"deployment": name, "image": image, "ready": ready, "replicas": wanted, "rolledOut": rolled_out})
        }
        Ok(Operator::Missing) => json!("there is none"),
        Ok(Operator::Several(names)) => json!(names),
        Ok(Operator::Unknown(why)) => json!(format!("not readable: {why}")),
        Err(failure) => json!(format!("not readable: {}", failure.what)),
    };
    let leader = match installed::leader(connection, place, Timestamp::now()).await {
        Ok(Leader::Of { holder, expired }) => json!({"holder": holder, "expired": expired}),
        Ok(Leader::None) => json!("nobody leads"),
        Ok(Leader::Unknown(why)) => json!(format!("not readable: {why}")),
        Err(failure) => json!(format!("not readable: {}", failure.what)),
    };
    json!({"deployment": deployment, "leader": leader})
}

async fn objects<K>(
    connection: &Connection,
    namespace: Option<&str>,
    params: &ListParams,
    show: fn(&K) -> Value,
) -> Value
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let client = connection.client.clone();
    let api =
        namespace.map_or_else(|| Api::all(client.clone()), |name| Api::<K>::namespaced(client.clone(), name));
    match api.list(params).await {
        Ok(list) => list.items.iter().map(show).collect(),
        Err(error) => json!(format!("not readable: {}", crate::api::error_text::error_message(&error))),
    }
}

/// An operation without its command, which may hold a password, and so without all annotations but ours:
/// kubectl, k3s, kapp and others each keep a copy of the whole object in one of theirs.
fn bare(mut object: Value) -> Value {
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        let all = annotations.len();
        annotations.retain(|name, _| is_ours(name));
        let left_out = all - annotations.len();
        if left_out > 0 {
            object["metadata"]["annotationsLeftOut"] = left_out.into();
        }
    }
    let commands = ["/spec/command", "/spec/preflight/command"];
    for path in commands {
        if let Some(command) = object.pointer_mut(path) {
            let words = command.as_array().map_or(0, Vec::len);
            *command = json!(format!("left out: {words} words"));
        }
    }
    object
}

/// Whether an annotation is the operator's: its prefix is a name of Kairos' domain.
fn is_ours(annotation: &str) -> bool {
    let prefix = annotation.split_once('/').map_or("", |(prefix, _)| prefix);
    prefix == "kairos.io" || prefix.ends_with(".kairos.io")
}

fn named(meta: &ObjectMeta) -> Value {
    json!({"name": meta.name, "namespace": meta.namespace, "created": meta.creation_timestamp, "deleted": meta.deletion_timestamp, "labels": meta.labels})
}

fn job(job: &Job) -> Value {
    json!({"metadata": named(job.meta()), "suspend": job.spec.as_ref().and_then(|spec| spec.suspend), "status": job.status})
}

fn pod(pod: &Pod) -> Value {
    let status = pod.status.clone().unwrap_or_default();
    json!({
        "metadata": named(pod.meta()),
        "node": pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        "phase": status.phase,
        "reason": status.reason,
        "message": status.message,
        "conditions": status.conditions,
        "initContainers": status.init_container_statuses,
        "containers": status.container_statuses,
    })
}

fn event(event: &Event) -> Value {
    json!({
        "about": format!("{}/{}", event.involved_object.kind.clone().unwrap_or_default(), event.involved_object.name.clone().unwrap_or_default()),
        "namespace": event.namespace(),
        "type": event.type_,
        "reason": event.reason,
        "message": event.message,
        "count": event.count,
        "last": event.last_timestamp.clone().map(|time| time.0.to_string()).or_else(|| event.event_time.clone().map(|time| time.0.to_string())),
    })
}
