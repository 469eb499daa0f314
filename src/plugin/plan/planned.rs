//! The operation that is planned, as it is in the cluster, or would be: the NodeOp, and the upgrade that
//! makes it. The planner asks that one whom the NodeOp has to wait for.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::api::ObjectMeta;

use super::{PlanArgs, Subject};
use crate::{
    api::{
        child,
        nodeop::NodeOp,
        owner,
        run::{self, Run},
        text::one_line,
        upgrade::{NodeOpUpgrade, NodeOpUpgradeSpec, NodeOpUpgradeStatus, Round, UpgradePhase},
    },
    plan::model::snapshot::Snapshot,
    plugin::{
        connection::Connection,
        failure::{Code, Failure, Result},
        make::{Admission, New, named},
        operation::Operation,
        target::{Kind, Target},
    },
};

/// The UID of what is not created.
const UID: &str = "planned";

/// The operation that is planned.
pub struct Planned {
    pub op: NodeOp,
    /// The upgrade that makes the NodeOp, with a status that says so.
    pub upgrade: Option<NodeOpUpgrade>,
    pub name: String,
    pub what: String,
    pub kind: Kind,
    pub admission: Option<Admission>,
}

/// What is planned, as far as the arguments and a file tell.
pub enum Asked {
    There(Target),
    New(Box<New>),
}

/// What the arguments mean. Nothing is asked of the cluster: who has misspelt a file's name is told at once.
pub fn asked(args: &PlanArgs, connection: &Connection) -> Result<Asked> {
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
        (Some(Subject::There(target)), _) => return Ok(Asked::There(target.clone())),
        (Some(Subject::Image(image)), _) => {
            let force = args.force.then_some(true);
            let spec = NodeOpUpgradeSpec { image: image.clone(), force, ..NodeOpUpgradeSpec::default() };
            New::upgrade(spec, &args.rollout, &connection.namespace)
        }
        (None, Some(file)) => New::read(file, &connection.namespace)?,
        (None, None) => return Err(Failure::new("name an operation, an image, or a file with -f")),
    };
    Ok(Asked::New(Box::new(new)))
}

/// The operation that is planned.
pub async fn subject(asked: Asked, connection: &Connection, snapshot: &Snapshot) -> Result<Planned> {
    let new = match asked {
        Asked::There(target) => return there(&target, connection, snapshot).await,
        Asked::New(new) => *new,
    };
    let admission = new.admission(connection).await?;
    Ok(Planned { admission: Some(admission), ..not_created(new, snapshot.now) })
}

/// One that is created this moment.
fn not_created(new: New, now: Timestamp) -> Planned {
    let kind = new.kind();
    let create = |meta: &mut ObjectMeta| {
        meta.name = Some(named(meta));
        // What the API server sets, and who controls it, an exported file may have from another object.
        (meta.uid, meta.generation, meta.creation_timestamp, meta.owner_references) =
            (None, None, None, None);
        complete(meta, now);
    };
    let (op, upgrade) = match new {
        New::Op(mut op) => {
            create(&mut op.metadata);
            (*op, None)
        }
        New::Upgrade(mut upgrade) => {
            create(&mut upgrade.metadata);
            (upgrade.status, upgrade.metadata.deletion_timestamp) = (None, None);
            let mut op = child::first(&upgrade);
            complete(&mut op.metadata, now);
            let upgrade = recording(*upgrade, &op);
            (op, Some(upgrade))
        }
    };
    let what = one_line(&op.spec.image.clone().unwrap_or_default());
    let name = format!("{}/{} (not created)", kind.short(), named(&op.metadata));
    Planned { op, upgrade, name, what, kind, admission: None }
}

/// What the API server says of an object that it stores.
fn complete(meta: &mut ObjectMeta, now: Timestamp) {
    meta.uid.get_or_insert_with(|| UID.into());
    // A status without a generation is the Go operator's.
    meta.generation.get_or_insert(1);
    meta.creation_timestamp.get_or_insert(Time(now));
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
    let upgrade = match found.kind {
        Kind::NodeOp => None,
        Kind::Upgrade => Some(typed(&found)?),
    };
    let op = match &upgrade {
        Some(upgrade) => of_present_run(upgrade, snapshot),
        None => made(&found.namespace, &found.name, snapshot).cloned(),
    };
    let mut op = op.ok_or_else(|| {
        Failure::new(format!("the NodeOp of {} is not there", found.full())).hint("Try again in a moment.")
    })?;
    complete(&mut op.metadata, snapshot.now);
    let upgrade = upgrade.or_else(|| maker(&op, snapshot)).map(|upgrade| recording(upgrade, &op));
    if upgrade.is_none() {
        // Of one that may not be read, or is gone, nothing is known that it would wait for.
        op.metadata.owner_references = None;
    }
    Ok(Planned { op, upgrade, name: found.short(), what: found.what, kind: found.kind, admission: None })
}

fn typed(found: &Operation) -> Result<NodeOpUpgrade> {
    serde_json::from_value(found.object.clone())
        .map_err(|error| Failure::new(format!("reading {}: {error}", found.full())))
}

fn made<'a>(namespace: &str, name: &str, snapshot: &'a Snapshot) -> Option<&'a NodeOp> {
    snapshot.ops.get(&(namespace.to_owned(), name.to_owned())).map(AsRef::as_ref)
}

/// The upgrade that made a NodeOp, if it is known.
fn maker(op: &NodeOp, snapshot: &Snapshot) -> Option<NodeOpUpgrade> {
    let owner = owner::upgrade(&op.metadata)?;
    let key = (op.metadata.namespace.clone().unwrap_or_default(), owner.name.clone());
    let upgrade = snapshot.upgrades.get(&key)?;
    (upgrade.metadata.uid.as_ref() == Some(&owner.uid)).then(|| NodeOpUpgrade::clone(upgrade))
}

/// The NodeOp of an upgrade's present run, or round: the one that is there, or the one that is made next.
/// `None`: it was recorded, and is not there.
fn of_present_run(upgrade: &NodeOpUpgrade, snapshot: &Snapshot) -> Option<NodeOp> {
    let (meta, status) = (&upgrade.metadata, upgrade.status.clone().unwrap_or_default());
    let (namespace, uid) = (meta.namespace.as_deref()?, meta.uid.as_deref()?);
    let name = status.node_op_name.as_deref().or(meta.name.as_deref())?;
    let made = made(namespace, name, snapshot).filter(|op| owner::upgrade_uid(&op.metadata) == Some(uid));
    let asked = run::hash(&child::spec(&upgrade.spec));
    let is_changed = status.run.as_ref().is_some_and(|run| *run != asked);
    let was_over = || status.phase.is_some_and(UpgradePhase::is_final);
    let is_over = made.map_or_else(was_over, NodeOp::is_over);
    if is_changed && (is_over || status.node_op_uid.is_none()) {
        let run = Run { generation: meta.generation.unwrap_or_default(), hash: asked, round: 0 };
        return Some(child::node_op(upgrade, &run.name((meta.name.as_deref()?, uid))));
    }
    let to_be_made = || status.node_op_uid.is_none().then(|| child::node_op(upgrade, name));
    made.cloned().or_else(to_be_made)
}

/// The upgrade as it is once it has recorded the NodeOp. Before that its NodeOp may not begin, and whether it
/// may is no question of which nodes it takes.
fn recording(mut upgrade: NodeOpUpgrade, op: &NodeOp) -> NodeOpUpgrade {
    let meta = &op.metadata;
    let said = upgrade.status.take().filter(|status| status.node_op_name == meta.name).unwrap_or_default();
    let run = Run::of(meta);
    let round = run.as_ref().map(|run| Round {
        generation: run.generation,
        number: run.round,
        since: meta.creation_timestamp.clone(),
        ..Round::default()
    });
    upgrade.status = Some(NodeOpUpgradeStatus {
        node_op_name: meta.name.clone(),
        node_op_uid: meta.uid.clone(),
        run: said.run.clone().or_else(|| run.map(|run| run.hash)),
        round: said.round.clone().or(round),
        ..said
    });
    upgrade
}
