//! `plan`: what an operation would do, before it does it. The operator's planner decides, on objects that are
//! read with the user's own rights; nothing is written.

mod evictions;
mod preview;
mod report;

use std::{collections::BTreeMap, path::PathBuf, str::FromStr, sync::Arc};

use clap::Args;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{Api, ResourceExt, api::ListParams};

use self::{
    evictions::{DrainPreview, Rehearsal},
    preview::Preview,
};
use super::{
    connection::Connection,
    failure::{self, Code, Doing, Failure, Result},
    make::{Admission, New, RolloutArgs},
    nodes_seen,
    output::{Output, OutputArgs},
    screen::Screen,
    target::{Kind, Target},
};
use crate::{
    api::{
        names,
        nodeop::NodeOp,
        pod::Pod,
        text::one_line,
        upgrade::{NodeOpUpgrade, NodeOpUpgradeSpec},
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
    let mut notes = Vec::new();
    let mut snapshot = read(connection, &mut notes).await?;
    let subject = subject(args, connection, &snapshot).await?;
    let mut op = subject.op;
    let key: Key = (op.metadata.namespace.clone().unwrap_or_default(), op.name_any());
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
        Some(Output::Json | Output::Yaml) => args.output.value(&report::value(&plan), screen)?,
        Some(Output::Name) => {
            let names = preview::taken(&plan.preview).into_iter().map(|name| format!("node/{name}\n"));
            screen.raw(&names.collect::<String>())?;
        }
        None | Some(Output::Table | Output::Wide) => report::print(&plan, &args.output, screen)?,
    }
    Ok(if plan.is_blocked() { Code::Refused } else { Code::Done })
}

/// The operation that is planned.
struct Planned {
    op: NodeOp,
    name: String,
    what: String,
    kind: Kind,
    admission: Option<Admission>,
}

async fn subject(args: &PlanArgs, connection: &Connection, snapshot: &Snapshot) -> Result<Planned> {
    let given = args.force.then_some("--force").or_else(|| args.rollout.given());
    if let Some(flag) = given.filter(|_| !matches!(args.subject, Some(Subject::Image(_)))) {
        return Err(Failure::new(format!(
            "{flag} says what a new operation would do, and this one says so itself"
        ))
        .hint(
            "Plan it without that flag; or plan a changed one, with the image to upgrade to or with -f FILE.",
        ));
    }
    let new = match (&args.subject, &args.file) {
        (Some(Subject::There(target)), _) => return there(target, connection, snapshot).await,
        (Some(Subject::Image(image)), _) => {
            let force = args.force.then_some(true);
            let spec = NodeOpUpgradeSpec { image: image.clone(), force, ..NodeOpUpgradeSpec::default() };
            New::upgrade(spec, &args.rollout, &connection.namespace)
        }
        (None, Some(file)) => New::read(file, &connection.namespace)?,
        (None, None) => return Err(Failure::new("name an operation, an image, or a file with -f")),
    };
    let admission = new.admission(connection).await?;
    let mut op = new.node_op();
    let what = one_line(&op.spec.image.clone().unwrap_or_default());
    let named = new.meta().name.clone();
    let name = named.unwrap_or_else(|| format!("{}…", new.meta().generate_name.clone().unwrap_or_default()));
    let meta = &mut op.metadata;
    meta.name = Some(name.clone());
    meta.uid = Some("planned".into());
    // A status without one is the Go operator's.
    meta.generation = Some(1);
    meta.creation_timestamp = Some(Time(snapshot.now));
    meta.owner_references = None;
    let name = format!("{}/{name} (not created)", new.kind().short());
    Ok(Planned { op, name, what, kind: new.kind(), admission: Some(admission) })
}

/// One that is there. An upgrade whose NodeOp is not made yet is planned as the NodeOp that it will be.
async fn there(target: &Target, connection: &Connection, snapshot: &Snapshot) -> Result<Planned> {
    let found = target.find(connection).await?;
    if found.is_over() && !found.is_over_for_good() {
        return Err(Failure::new(format!("{} is between its rounds: {}", found.full(), found.phase_word()))
            .ending(Code::Refused)
            .hint(format!(
                "mode is Continuous: a further round takes nodes that join, and nodes that run another release. Which nodes \
                 wait for what, its message says: kubectl kairos status {} -n {}",
                found.short(),
                found.namespace
            )));
    }
    if found.is_over() {
        return Err(Failure::new(format!("{} is over: {}", found.full(), found.phase_word()))
            .ending(Code::Refused)
            .hint(
                "An operation runs once. Plan another one with -f FILE, or with the image to upgrade to.",
            ));
    }
    let key = (found.namespace.clone(), found.name.clone());
    let made = snapshot.ops.get(&key).map(|op| NodeOp::clone(op));
    let upgrade = snapshot.upgrades.get(&key);
    let mut op = made
        .or_else(|| upgrade.map(|upgrade| New::Upgrade(Box::new(NodeOpUpgrade::clone(upgrade))).node_op()))
        .ok_or_else(|| {
            Failure::new(format!("the NodeOp of {} is not there yet", found.full()))
                .hint("Try again in a moment.")
        })?;
    // Whether an upgrade's NodeOp may begin is no question of which nodes it takes.
    op.metadata.owner_references = None;
    op.metadata.uid.get_or_insert_with(|| "planned".into());
    op.metadata.generation.get_or_insert(1);
    op.metadata.creation_timestamp.get_or_insert(Time(snapshot.now));
    Ok(Planned { op, name: found.short(), what: found.what, kind: found.kind, admission: None })
}

/// The cluster, as far as the user may read it.
async fn read(connection: &Connection, notes: &mut Vec<String>) -> Result<Snapshot> {
    let (client, now) = (&connection.client, Timestamp::now());
    let all = ListParams::default();
    let nodes = nodes_seen::readable(connection).await?.ok_or_else(|| {
        Failure::new("you may not list nodes, and without them there is nothing to plan")
            .hint("The right that is needed: list nodes. kubectl auth can-i list nodes")
    })?;
    let ops = match Api::<NodeOp>::all(client.clone()).list(&all).await {
        Err(error) if failure::is_forbidden(&error) => {
            notes.push(format!(
                "NodeOps of other namespaces than {} are not known: you may not list them",
                connection.namespace
            ));
            let own = Api::<NodeOp>::namespaced(client.clone(), &connection.namespace);
            own.list(&all).await.doing(|| format!("listing NodeOps in namespace {}", connection.namespace))?
        }
        ops => ops.doing(|| "listing NodeOps in all namespaces".into())?,
    };
    let upgrades = Api::<NodeOpUpgrade>::namespaced(client.clone(), &connection.namespace);
    let upgrades = upgrades.list(&all).await.map(|list| list.items).unwrap_or_default();
    let key = |meta: &kube::api::ObjectMeta| {
        (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    };
    Ok(Snapshot {
        now,
        nodes: nodes.into_iter().map(|node| (node.name.clone(), Arc::new(node))).collect(),
        ops: ops.items.into_iter().map(|op| (key(&op.metadata), Arc::new(op))).collect(),
        upgrades: upgrades.into_iter().map(|upgrade| (key(&upgrade.metadata), Arc::new(upgrade))).collect(),
        ..Snapshot::default()
    })
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
    let control_planes = snapshot.nodes.values().filter(|node| node.control_plane());
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
