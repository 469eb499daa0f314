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
    connection::Connection,
    failure::{Code, Failure, Result},
    installed::{self, Leader, Operator, PlaceArgs},
    nodes, nodes_seen, operation,
    output::yaml_text,
    screen::Screen,
};
use crate::api::names;

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
        "pods": objects::<Pod>(connection, namespace, &labelled, pod).await,
        "events": objects::<Event>(connection, namespace, &about, event).await,
    }))
}

async fn operator(connection: &Connection, place: &PlaceArgs) -> Value {
    let deployment = match installed::operator(connection, place).await {
        Ok(Operator::There { name, image, ready, wanted, rolled_out }) => {
            json!({"deployment": name, "image": image, "ready": ready, "replicas": wanted, "rolledOut": rolled_out})
        }
        Ok(Operator::Missing) => json!("there is none"),
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

/// An operation without what kubectl has noted of it, and without its command, which may hold a password.
fn bare(mut object: Value) -> Value {
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.remove(names::LAST_APPLIED);
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
