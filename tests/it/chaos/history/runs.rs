//! The runs of upgrades that people change: one after the other, each for what was asked, and never said to be
//! done for something else.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kairos_operator::api::{
    attempts::{Attempts, End},
    child,
    names::{self, reason},
    nodeop::{NodeOp, NodeStatus, Phase},
    owner,
    run::{self, Run},
    upgrade::{NodeOpUpgrade, NodeOpUpgradeStatus, UpgradePhase},
};
use kairos_sim::{Change, Cluster};
use serde_json::Value;

use super::{OPS, Past, UPGRADES, admission::selects, text};

/// A change has reached who plans within this time, where nothing goes wrong.
const SEEN: Duration = Duration::from_secs(15);

/// What is known of what upgrades ask for.
#[derive(Debug, Default)]
pub(super) struct Declared {
    /// The hash of the run that each generation asks for, by UID.
    asked: BTreeMap<(String, i64), String>,
    /// The one that is asked for now, and since when.
    now: BTreeMap<String, (String, Duration)>,
    /// When each upgrade was created, by the server's clock, and its name.
    born: BTreeMap<String, (Option<Time>, String)>,
    /// Which NodeOps have claimed a node, by the node's UID, the upgrade's, and the generation of the run.
    tried: BTreeMap<(String, String, i64), BTreeSet<String>>,
}

impl Declared {
    /// Whether an upgrade is newer than another one.
    pub(super) fn is_newer(&self, one: &str, other: &str) -> bool {
        let age = |uid: &str| self.born.get(uid).map(|(time, name)| (time.as_ref().map(|time| time.0), name));
        age(one) > age(other)
    }
}

fn read(object: &Value) -> Option<NodeOpUpgrade> {
    serde_json::from_value(object.clone()).ok()
}

fn asked(upgrade: &NodeOpUpgrade) -> String {
    run::hash(&child::spec(&upgrade.spec))
}

fn condition<'a>(status: &'a NodeOpUpgradeStatus, type_: &str) -> Option<(&'a str, &'a str)> {
    let found = status.conditions.iter().find(|one| one.type_ == type_)?;
    Some((&found.status, &found.reason))
}

impl Past<'_> {
    /// An upgrade was written, by people or by an operator.
    pub(super) fn runs(&mut self, change: &Change) {
        let Some(upgrade) = read(&change.object) else { return };
        let uid = upgrade.metadata.uid.clone().unwrap_or_default();
        let (generation, hash) = (upgrade.metadata.generation.unwrap_or_default(), asked(&upgrade));
        self.declared.asked.insert((uid.clone(), generation), hash.clone());
        let created = upgrade.metadata.creation_timestamp.clone();
        self.declared.born.insert(uid.clone(), (created, change.key.name.clone()));
        if self.declared.now.get(&uid).is_none_or(|(now, _)| *now != hash) {
            self.declared.now.insert(uid.clone(), (hash, self.at));
        }
        let before = change.before.as_ref().and_then(|before| read(before)).and_then(|before| before.status);
        let Some(status) = upgrade.status.as_ref().filter(|status| before.as_ref() != Some(*status)) else {
            return;
        };
        let name = &change.key.name;
        let observed = status.observed_generation.unwrap_or_default();
        let Some(asked) = self.declared.asked.get(&(uid.clone(), observed)).cloned() else {
            return self
                .broken(format!("{name} is said to be seen at generation {observed}, which never was"));
        };
        let decided = status.run.as_ref() == Some(&asked);
        let ready = condition(status, "Ready");
        let open = ready.is_some_and(|(status, _)| status == "False")
            && condition(status, "Reconciling").is_some_and(|(status, _)| status == "True");
        let superseded = condition(status, "Reconciling").is_some_and(|(_, why)| why == reason::SUPERSEDED);
        if status.run.is_some() && !decided && !superseded {
            self.broken(format!("{name} shows another run than generation {observed} asks for: {status:?}"));
        }
        let was = before.as_ref().and_then(|before| before.run.as_ref());
        if was.is_some() && was != status.run.as_ref() && !open {
            self.broken(format!("{name} begins another run, and does not say so first: {status:?}"));
        }
        if ready.is_some_and(|(status, _)| status == "True")
            && (!decided || status.phase != Some(UpgradePhase::Completed))
        {
            self.broken(format!("{name} is Ready, and what it asks for is not done: {status:?}"));
        }
    }

    /// A NodeOp has claimed a node: of all rounds of a run one alone does so.
    pub(super) fn tries(&mut self, op: &str, node: &Value) {
        let Some(op) = self.known.get(op).cloned() else { return };
        let (Some(upgrade), Some(run)) = (owner::upgrade_uid(&op.metadata), Run::of(&op.metadata)) else {
            return;
        };
        let (uid, name) = (text(node, "/metadata/uid").to_owned(), text(node, "/metadata/name").to_owned());
        let tried = self.declared.tried.entry((uid, upgrade.to_owned(), run.generation)).or_default();
        tried.insert(op.metadata.uid.clone().unwrap_or_default());
        if tried.len() > 1 {
            let which = op.metadata.name.clone().unwrap_or_default();
            self.broken(format!("{name} is tried again by {which}: this run has had its attempt"));
        }
        let said = node["metadata"]["annotations"][names::ATTEMPTED].as_str().and_then(Attempts::read);
        if said.and_then(|all| all.of(upgrade)) != Some((run.generation, End::Open)) {
            self.broken(format!("{name} is claimed, and does not say by which run it is tried"));
        }
    }

    /// A NodeOp takes a node.
    pub(super) fn takes(&mut self, op: &NodeOp, node: &str) {
        let Some(upgrade) = owner::upgrade_uid(&op.metadata).map(str::to_owned) else { return };
        let name = op.metadata.name.clone().unwrap_or_default();
        let works = |entry: &NodeStatus| entry.phase == Phase::Running || entry.node_uid.is_some();
        let beside = |other: &&NodeOp| {
            other.metadata.uid != op.metadata.uid
                && owner::upgrade_uid(&other.metadata) == Some(&upgrade)
                && other.status.iter().any(|status| status.node_statuses.values().any(works))
        };
        if let Some(other) = self.ops.values().find(beside).and_then(|other| other.metadata.name.clone()) {
            self.broken(format!("{name} takes {node} while {other}, of the same upgrade, is at work"));
        }
        let Some((asked, since)) = self.declared.now.get(&upgrade) else { return };
        // A later round has the image by the digest that its run has run.
        let mut spec = op.spec.clone();
        spec.image = spec.image.map(|image| image.split('@').next().unwrap_or_default().to_owned());
        let late = self.at > *since + SEEN && *asked != run::hash(&spec);
        if late && self.scenario.is_calm() && !self.scenario.is(super::worlds::Kind::Refusals) {
            self.broken(format!("{name} takes {node}, and its upgrade has been asking for another run"));
        }
    }
}

/// Whether each upgrade has come to the run that it asks for.
pub fn are_decided(cluster: &Cluster) -> bool {
    cluster
        .list(UPGRADES)
        .iter()
        .all(|upgrade| upgrade["status"]["observedGeneration"] == upgrade["metadata"]["generation"])
}

/// The nodes of an upgrade that goes on which run another release, and whether its run has tried each.
fn strays(cluster: &Cluster, upgrade: &NodeOpUpgrade) -> Vec<(String, bool)> {
    let status = upgrade.status.clone().unwrap_or_default();
    let (Some(release), Some(round)) = (status.release, status.round) else { return Vec::new() };
    if !upgrade.spec.is_continuous() {
        return Vec::new();
    }
    let selector = serde_json::to_value(&upgrade.spec.node_selector).expect("a selector");
    let mut found = Vec::new();
    for node in cluster.list("nodes") {
        let annotation = |name: &str| node["metadata"]["annotations"][name].as_str();
        let read = annotation(names::FACTS_OF)
            .is_some_and(|of| of.starts_with(text(&node, "/status/nodeInfo/bootID")));
        let runs = annotation(names::RELEASE).filter(|_| read && annotation(names::BOOT_STATE_OF).is_some());
        if selects(&selector, &node["metadata"]["labels"]) && runs.is_some_and(|runs| runs != release) {
            let all = annotation(names::ATTEMPTED).and_then(Attempts::read).unwrap_or_default();
            let tried = all.of(upgrade.metadata.uid.as_deref().unwrap_or_default());
            let tried = tried.is_some_and(|(generation, end)| {
                generation >= round.generation && !matches!(end, End::NotBefore(_))
            });
            found.push((text(&node, "/metadata/name").to_owned(), tried));
        }
    }
    found
}

/// What an upgrade that goes on says besides of its run.
fn says_also(upgrade: &NodeOpUpgrade) -> String {
    let message = upgrade.status.as_ref().and_then(|status| status.message.clone()).unwrap_or_default();
    message.split_once("mode Continuous: ").map(|(_, also)| also.to_owned()).unwrap_or_default()
}

/// Whether no upgrade has nodes to take: each that it does not take it names, with the reason.
pub fn goes_on(cluster: &Cluster) -> bool {
    let upgrades = cluster.list(UPGRADES);
    upgrades.iter().filter_map(|object| read(object)).any(|upgrade| {
        let said = says_also(&upgrade);
        // What newer upgrades have to do with it, and which of many it names, is not looked at here.
        let told = |node: &String| said.contains(node.as_str()) || said.contains(" more ");
        strays(cluster, &upgrade).iter().any(|(node, tried)| !tried && !told(node))
    })
}

/// At rest each upgrade is at the run that it asks for, has no other one open, and keeps no more than it is
/// to.
pub fn check_runs(cluster: &Cluster, broken: &mut Vec<String>) {
    for object in cluster.list(UPGRADES) {
        let Some(upgrade) = read(&object) else { continue };
        let status = upgrade.status.clone().unwrap_or_default();
        let name = upgrade.metadata.name.clone().unwrap_or_default();
        if status.run != Some(asked(&upgrade)) || status.observed_generation != upgrade.metadata.generation {
            broken.push(format!("at rest: {name} is not at the run that it asks for: {status:?}"));
        }
        let ready = condition(&status, "Ready").is_some_and(|(status, _)| status == "True");
        let drifted: Vec<(String, bool)> =
            strays(cluster, &upgrade).into_iter().filter(|(_, tried)| *tried).collect();
        if ready && !drifted.is_empty() {
            broken.push(format!(
                "at rest: {name} is Ready, and has tried what runs something else: {drifted:?}"
            ));
        }
        let uid = upgrade.metadata.uid.as_deref();
        let ops = cluster.list(OPS).into_iter();
        let ops = ops.filter_map(|op| serde_json::from_value::<NodeOp>((*op).clone()).ok());
        let made: Vec<NodeOp> = ops.filter(|op| owner::upgrade_uid(&op.metadata) == uid).collect();
        for op in made.iter().filter(|op| op.metadata.name != status.node_op_name) {
            let phase = op.status.as_ref().and_then(|status| status.phase);
            if !phase.is_some_and(Phase::is_final) {
                broken
                    .push(format!("at rest: {:?}, an earlier run of {name}, is {phase:?}", op.metadata.name));
            }
        }
        // What is older than the present run goes when that has a NodeOp to be older than: where somebody
        // deleted it, with the next run.
        let present = made.iter().any(|op| op.metadata.uid == status.node_op_uid);
        let kept = upgrade.spec.kept_runs();
        if present && made.len() > kept + 1 || status.history.len() > kept {
            broken.push(format!("at rest: {name} keeps {} NodeOps: {:?}", made.len(), status.history));
        }
    }
}
