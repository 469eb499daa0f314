//! `plan`: what an operation would do, before it does it. The operator's planner decides, on objects that are
//! read with the user's own rights; nothing is written.

mod evictions;
mod planned;
mod preview;
mod report;

use std::{collections::BTreeMap, fmt::Debug, path::PathBuf, str::FromStr, sync::Arc};

use clap::Args;
use k8s_openapi::{NamespaceResourceScope, jiff::Timestamp};
use kube::{
    Api, Resource,
    api::{ListParams, ObjectMeta},
};
use serde::de::DeserializeOwned;

use self::{
    evictions::{DrainPreview, Rehearsal},
    preview::Preview,
};
use super::{
    connection::Connection,
    failure::{self, Code, Doing, Failure, Result},
    make::{Admission, RolloutArgs},
    nodes_seen,
    output::{Output, OutputArgs},
    screen::Screen,
    target::{Kind, Target},
};
use crate::{
    api::{
        names,
        nodeop::{DrainOptions, NodeOp},
        pod::Pod,
        upgrade::NodeOpUpgrade,
    },
    observe::static_pods,
    plan::{
        image::split_tag,
        model::{
            id::Key,
            intent::Intent,
            question::{Answer, Question},
            snapshot::{NodeView, Snapshot},
        },
    },
};

/// Shows what an operation would do: which nodes in which order, which wait and why, what a drain would
/// evict.
///
/// Writes nothing. Exit code 2: something would be blocked, or is refused.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// An operation that is there (NAME, nou/NAME, nop/NAME), or an image to upgrade to
    #[arg(value_name = "OPERATION|IMAGE", required_unless_present = "file", conflicts_with = "file")]
    pub subject: Option<Subject>,
    /// A file with one NodeOp or NodeOpUpgrade that is not created yet; - is standard input
    #[arg(short = 'f', long = "filename", id = "file", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// For how many of the first nodes a drain is tried: a number, or all
    #[arg(long, default_value = "3", value_name = "NODES", value_parser = drain_nodes)]
    pub drain_nodes: usize,
    /// With an image: nodes that run its release, or a newer one, are upgraded as well
    #[arg(long, conflicts_with = "file")]
    pub force: bool,
    #[command(flatten)]
    pub rollout: RolloutArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What is planned, if no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    There(Target),
    Image(String),
}

impl FromStr for Subject {
    type Err = String;

    /// A name has no colon and no at sign, and before its slash stands a kind.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.parse::<Target>() {
            Ok(target) if !text.contains([':', '@']) => Ok(Self::There(target)),
            Err(why) if !text.contains([':', '@', '.']) => Err(why),
            _ => Ok(Self::Image(text.into())),
        }
    }
}

fn drain_nodes(text: &str) -> std::result::Result<usize, String> {
    if text == "all" {
        return Ok(usize::MAX);
    }
    text.parse().map_err(|_| format!("{text} is neither a number nor all"))
}

/// All that there is to say.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: String,
    pub what: String,
    pub kind: Kind,
    pub preview: Preview,
    pub drains: BTreeMap<String, DrainPreview>,
    /// What the API server said of its creation.
    pub admission: Option<Admission>,
    /// What a reader should know beside.
    pub notes: Vec<String>,
    pub nodes: BTreeMap<String, NodeView>,
}

impl Plan {
    /// Whether it would not come to its end by itself.
    pub fn is_blocked(&self) -> bool {
        let refused = matches!(self.admission, Some(Admission::Refused(_)));
        let Preview { waits, none, .. } = &self.preview;
        refused || none.is_some() || !waits.is_empty() || self.drains.values().any(DrainPreview::is_blocked)
    }
}

/// Runs the verb.
pub async fn run(args: &PlanArgs, connection: &Connection, screen: &Screen) -> Result<Code> {
    let asked = planned::asked(args, connection)?;
    let mut notes = Vec::new();
    let mut snapshot = read(connection, &mut notes).await?;
    let subject = planned::subject(asked, connection, &snapshot).await?;
    let mut op = subject.op;
    if let Some(upgrade) = subject.upgrade {
        snapshot.upgrades.insert(key_of(&upgrade.metadata), Arc::new(upgrade));
    }
    let key = key_of(&op.metadata);
    if op.spec.paused == Some(true) {
        notes.push("it is paused: nothing starts before kubectl kairos resume".into());
        op.spec.paused = None;
    }
    let intent = Intent::of(&op);
    let skips = skips(&op, &intent, &snapshot);
    snapshot.ops.insert(key.clone(), Arc::new(op.clone()));
    let answers = control_plane_pods(connection, &snapshot, &mut notes).await;
    let preview = preview::preview(snapshot.clone(), &key, &skips, &answers);
    if intent.concurrency.is_none() && preview::total(&preview) > 1 && intent.disturbs() {
        notes.push("concurrency is 0: all nodes go at once, those of the control plane excepted".into());
    }
    if op.spec.drain_options.as_ref().is_some_and(are_idle) {
        notes.push("drainOptions say how, and enabled is not true: no pod is evicted".into());
    }
    let mut drains = BTreeMap::new();
    if let Some(drain) = &intent.drain {
        let mut rehearsal = Rehearsal::new(connection, snapshot.now);
        for name in preview::taken(&preview).into_iter().take(args.drain_nodes) {
            drains.insert(name.clone(), rehearsal.node(name, drain).await?);
        }
    }
    if let Some(Admission::NotTried(why)) = &subject.admission {
        notes.push(format!("whether the API server takes it was not tried: {why}"));
    }
    if let Some(why) = drains.values().find_map(|drain| drain.not_tried.as_ref()) {
        notes.push(format!("what budgets say was not tried: {why}"));
    }
    let nodes = snapshot.nodes.iter().map(|(name, node)| (name.clone(), NodeView::clone(node))).collect();
    let plan = Plan {
        name: subject.name,
        what: subject.what,
        kind: subject.kind,
        preview,
        drains,
        admission: subject.admission,
        notes,
        nodes,
    };
    match args.output.kind {
        Some(Output::Json | Output::Yaml | Output::Kyaml) => {
            args.output.value(&report::value(&plan), screen)?
        }
        Some(Output::Name) => {
            let names = preview::taken(&plan.preview).into_iter().map(|name| format!("node/{name}\n"));
            screen.raw(&names.collect::<String>())?;
        }
        None | Some(Output::Table | Output::Wide) => report::print(&plan, &args.output, screen)?,
    }
    Ok(if plan.is_blocked() { Code::Refused } else { Code::Done })
}

/// The cluster, as far as the user may read it.
async fn read(connection: &Connection, notes: &mut Vec<String>) -> Result<Snapshot> {
    let now = Timestamp::now();
    let nodes = nodes_seen::readable(connection).await?.ok_or_else(|| {
        Failure::new("you may not list nodes, and without them there is nothing to plan")
            .hint("The right that is needed: list nodes. kubectl auth can-i list nodes")
    })?;
    let ops = list::<NodeOp>(connection, Kind::NodeOp, notes).await;
    let ops = ops.doing(|| format!("listing NodeOps in namespace {}", connection.namespace))?;
    let upgrades = match list::<NodeOpUpgrade>(connection, Kind::Upgrade, notes).await {
        Err(error) if failure::is_forbidden(&error) => {
            notes.push("a newer NodeOpUpgrade would come first, and none is known".into());
            Vec::new()
        }
        upgrades => {
            upgrades.doing(|| format!("listing NodeOpUpgrades in namespace {}", connection.namespace))?
        }
    };
    Ok(Snapshot {
        now,
        nodes: nodes.into_iter().map(|node| (node.name.clone(), Arc::new(node))).collect(),
        ops: ops.into_iter().map(|op| (key_of(&op.metadata), Arc::new(op))).collect(),
        upgrades: upgrades
            .into_iter()
            .map(|upgrade| (key_of(&upgrade.metadata), Arc::new(upgrade)))
            .collect(),
        ..Snapshot::default()
    })
}

fn key_of(meta: &ObjectMeta) -> Key {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// All objects of a kind; only those of the user's namespace, with a note, where no others may be listed.
async fn list<K>(
    connection: &Connection,
    kind: Kind,
    notes: &mut Vec<String>,
) -> std::result::Result<Vec<K>, kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let (client, all) = (&connection.client, ListParams::default());
    let listed = match Api::<K>::all(client.clone()).list(&all).await {
        Err(error) if failure::is_forbidden(&error) => {
            notes.push(format!(
                "{kind}s of other namespaces than {} are not known: you may not list them",
                connection.namespace
            ));
            Api::namespaced(client.clone(), &connection.namespace).list(&all).await
        }
        listed => listed,
    };
    Ok(listed?.items)
}

/// Whether options say how to drain, and not that anything is drained. manifests/rbac/drain-warning.yaml asks
/// the same when a NodeOp is created.
fn are_idle(options: &DrainOptions) -> bool {
    let DrainOptions {
        enabled,
        force,
        grace_period_seconds,
        ignore_daemon_sets,
        delete_empty_dir_data,
        timeout_seconds,
        strict,
        pod_selector,
        skip,
        skip_wait_for_delete_timeout_seconds,
    } = options;
    // The API server fills in defaults, which say nothing.
    let more = [force, delete_empty_dir_data, strict].into_iter().any(|set| *set == Some(true));
    let less = *ignore_daemon_sets == Some(false) || pod_selector.is_some() || skip.is_some();
    let seconds = [grace_period_seconds, timeout_seconds, skip_wait_for_delete_timeout_seconds];
    *enabled != Some(true) && (more || less || seconds.into_iter().any(Option::is_some))
}

/// The nodes that the preflight of an upgrade will find to need nothing, as far as labels and the image's tag
/// tell.
fn skips(op: &NodeOp, intent: &Intent, snapshot: &Snapshot) -> BTreeMap<String, String> {
    let Some(upgrade) = op.spec.upgrade.as_ref().filter(|_| intent.upgrade) else { return BTreeMap::new() };
    let image = op.spec.image.clone().unwrap_or_default();
    let tag = split_tag(image.split('@').next().unwrap_or_default()).1.unwrap_or_default();
    let why = |node: &NodeView| {
        if !node.labels.contains_key(names::MANAGED) && op.spec.node_selector.is_none() {
            return Some("it says nowhere that it runs Kairos".to_owned());
        }
        let release = node.annotations.get(names::RELEASE).filter(|_| !upgrade.force)?;
        // A tag cannot have the plus sign of a release.
        let same = !release.is_empty() && tag.ends_with(&release.replace('+', "-"));
        same.then(|| format!("it runs {release} already, which the image's tag names"))
    };
    snapshot.nodes.values().filter_map(|node| Some((node.name.clone(), why(node)?))).collect()
}

/// Whether the control plane's static pods are Ready, where they can be read.
async fn control_plane_pods(
    connection: &Connection,
    snapshot: &Snapshot,
    notes: &mut Vec<String>,
) -> BTreeMap<Question, Answer> {
    let control_planes = snapshot.nodes.values().filter(|node| node.has_control_plane_label());
    let names: Vec<String> = control_planes.map(|node| node.name.clone()).collect();
    if names.len() < 2 {
        return BTreeMap::new();
    }
    let params = ListParams::default().labels(static_pods::LABELS);
    let pods = Api::<Pod>::namespaced(connection.client.clone(), static_pods::NAMESPACE).list(&params).await;
    let Ok(pods) = pods else {
        notes.push(
            "whether the control plane's pods are Ready is not known: you may not list pods in kube-system"
                .into(),
        );
        return BTreeMap::new();
    };
    let answer = |node: &String| {
        let on_node = |pod: &&Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(node);
        static_pods::answer(pods.items.iter().filter(on_node))
    };
    names.iter().map(|name| (Question::ControlPlanePods(name.clone()), answer(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_and_a_name_are_told_apart() {
        let image = |text: &str| Ok(Subject::Image(text.into()));
        for (text, meant) in [
            ("quay.io/kairos/opensuse:v3.5.0", image("quay.io/kairos/opensuse:v3.5.0")),
            ("kairos:v3.5.0", image("kairos:v3.5.0")),
            ("quay.io/kairos/opensuse", image("quay.io/kairos/opensuse")),
            ("up1", Ok(Subject::There(Target { kind: None, name: "up1".into() }))),
            ("up.1", Ok(Subject::There(Target { kind: None, name: "up.1".into() }))),
            ("nou/up1", Ok(Subject::There(Target { kind: Some(Kind::Upgrade), name: "up1".into() }))),
        ] {
            assert_eq!(text.parse(), meant, "{text}");
        }
        assert!("pod/x".parse::<Subject>().is_err());
    }
}
