//! What must never be, checked on the server's history and on the book of what machines did, in the order in
//! which all of it happened.

mod admission;
mod balancers;
mod drains;
mod end;
mod hints;
mod nodes;
mod odd;
mod operations;
mod pace;
mod runs;
mod truth;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kairos_operator::{
    api::{
        names,
        nodeop::{NodeOp, NodeStatus, Step},
    },
    plan::model::{id::OpRef, intent::Intent, kept_cordon::KeptCordon},
};
use kairos_sim::{Change, ChangeKind, Cluster, Request, install, store::Object};
use serde_json::Value;

pub use self::end::{check_gone, check_rest, digest, is_over, open, told};
pub use self::pace::{check_budget, check_idle, check_pace, check_pace_of_each};
pub use self::runs::check_runs;
use super::{
    scenario::{Mode, Scenario},
    world::{Event, Record, World},
    worlds,
};

pub const OPS: &str = "nodeops.operator.kairos.io";
pub const UPGRADES: &str = "nodeopupgrades.operator.kairos.io";
const CLAIMED_BY: &str = "/metadata/annotations/operator.kairos.io~1claimed-by";
const CORDONED_BY: &str = "/metadata/annotations/operator.kairos.io~1cordoned-by";

pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The user that the operator is.
pub fn operator() -> String {
    format!("system:serviceaccount:{}:{}", install::NAMESPACE, install::ACCOUNT)
}

/// A Job, as far as it matters whose it is.
#[derive(Clone, Debug)]
struct Job {
    op: String,
    node: String,
    complete: bool,
    /// Failed, or told to end: it completes no more.
    over: bool,
}

/// The world at one moment of the past.
struct Past<'a> {
    scenario: &'a Scenario,
    at: Duration,
    nodes: BTreeMap<String, Object>,
    pods: BTreeMap<(String, String), Object>,
    /// When a node joined.
    joined: BTreeMap<String, Duration>,
    /// When a pod was bound to its node, by UID; and when a drain was said to have started, by NodeOp and
    /// node.
    bound: BTreeMap<String, Duration>,
    drains: BTreeMap<(String, String), Duration>,
    /// When a node was last left by a drain.
    drained: BTreeMap<String, Duration>,
    /// NodeOps that are there, by UID, and those that were.
    ops: BTreeMap<String, NodeOp>,
    known: BTreeMap<String, NodeOp>,
    /// Jobs that were ever there, by UID.
    jobs: BTreeMap<String, Job>,
    /// Jobs of each NodeOp and node whose command began.
    runs: BTreeMap<(String, String), BTreeSet<String>>,
    /// Commands that run now: Job, with node.
    running: Vec<(String, String)>,
    /// Successes: Job, node, boot.
    successes: Vec<(String, String, String)>,
    /// Boots in which a reboot was asked, by operation and node.
    asked: BTreeMap<(String, String), BTreeSet<String>>,
    /// The release and the boot state of each node.
    booted: BTreeMap<String, (String, &'static str)>,
    human: BTreeSet<String>,
    /// Since when a member of the control plane has not been Ready.
    members_away: BTreeMap<String, Duration>,
    /// What others than the operator have told autoscalers and load balancers, by node and annotation or
    /// label.
    foreign_hints: BTreeMap<(String, &'static str), Option<String>>,
    /// When an operation took a node out of load balancers; and until when it may not know who else serves.
    off: BTreeMap<String, Duration>,
    unsure_until: Duration,
    /// What the odd worlds are judged by.
    odd: odd::Known,
    /// What is judged of targets, pauses and limits.
    admission: admission::Admission,
    /// What upgrades ask for.
    declared: runs::Declared,
    /// Who holds the Lease.
    leader: String,
    human_versions: BTreeSet<u64>,
    pub broken: Vec<String>,
}

/// Goes through a whole run.
pub fn check(cluster: &Cluster, world: &World, scenario: &Scenario, broken: &mut Vec<String>) {
    let records = world.book();
    let people = |record: &&Record| matches!(record.event, Event::Human { .. } | Event::Told { .. });
    let human = records.iter().filter(people);
    let mut past = Past {
        scenario,
        at: Default::default(),
        nodes: BTreeMap::new(),
        joined: BTreeMap::new(),
        pods: BTreeMap::new(),
        bound: BTreeMap::new(),
        drains: BTreeMap::new(),
        drained: BTreeMap::new(),
        ops: BTreeMap::new(),
        known: BTreeMap::new(),
        jobs: BTreeMap::new(),
        runs: BTreeMap::new(),
        running: Vec::new(),
        successes: Vec::new(),
        asked: BTreeMap::new(),
        booted: BTreeMap::new(),
        human: BTreeSet::new(),
        members_away: BTreeMap::new(),
        foreign_hints: BTreeMap::new(),
        off: BTreeMap::new(),
        unsure_until: Duration::ZERO,
        odd: odd::Known::of(world, &records),
        admission: admission::Admission::default(),
        declared: runs::Declared::default(),
        leader: String::new(),
        human_versions: human.map(|record| record.version).collect(),
        broken: Vec::new(),
    };
    let requests = cluster.requests();
    let (mut requests, mut book) = (requests.iter().peekable(), records.iter().peekable());
    let changes = cluster.history();
    for change in &changes {
        while let Some(record) = book.next_if(|record| record.version < change.version) {
            past.record(record);
        }
        while let Some(request) = requests.next_if(|request| request.version < change.version) {
            past.request(request);
        }
        past.change(change);
    }
    book.for_each(|record| past.record(record));
    requests.for_each(|request| past.request(request));
    past.in_the_end();
    broken.append(&mut past.broken);
}

impl Past<'_> {
    fn broken(&mut self, what: impl Into<String>) {
        // Whatever was said or done may be forgotten when the store goes back, and is done again.
        if self.odd.restored {
            return;
        }
        self.broken.push(format!("{:.3}: {}", self.at.as_secs_f64(), what.into()));
    }

    fn rivals(&self) -> bool {
        self.scenario.mode == Mode::Rivals
    }

    fn change(&mut self, change: &Change) {
        self.at = change.at;
        let gone = change.kind == ChangeKind::Deleted;
        let key = (change.key.namespace.clone(), change.key.name.clone());
        self.odd_change(change);
        match change.key.table.as_ref() {
            "nodes" => self.node(change, gone),
            "pods" => {
                let uid = text(&change.object, "/metadata/uid").to_owned();
                if !text(&change.object, "/spec/nodeName").is_empty() {
                    self.bound.entry(uid).or_insert(change.at);
                }
                if gone {
                    drop(self.pods.remove(&key))
                } else {
                    drop(self.pods.insert(key, change.object.clone()))
                }
                self.pod(change);
                self.failed_beside(&change.object);
            }
            "jobs.batch" => self.job(&change.object, gone),
            OPS => self.operation(change, gone),
            UPGRADES => {
                self.upgrade(change);
                self.runs(change);
            }
            "leases.coordination.k8s.io" => {
                self.leader = text(&change.object, "/spec/holderIdentity").to_owned()
            }
            _ => {}
        }
    }

    fn job(&mut self, job: &Value, gone: bool) {
        let owners = job.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        let Some(owner) = owners.into_iter().flatten().find(|owner| owner["kind"] == "NodeOp") else {
            return;
        };
        let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
        let has =
            |kind: &str| conditions.into_iter().flatten().any(|c| c["type"] == kind && c["status"] == "True");
        let failed = has("Failed") || has("FailureTarget");
        // A container that somebody else added may keep a Job from completing. The operator then writes on it
        // that the operation succeeded, and suspends it in the same patch, so that it can run no more.
        let settled =
            job["spec"]["suspend"] == true && !job["metadata"]["annotations"][names::SETTLED_IN].is_null();
        let complete = has("Complete") || settled;
        let known = Job {
            op: text(owner, "/uid").to_owned(),
            node: text(job, "/metadata/annotations/operator.kairos.io~1node-name").to_owned(),
            complete,
            over: failed || gone || !text(job, "/metadata/deletionTimestamp").is_empty(),
        };
        self.jobs.insert(text(job, "/metadata/uid").to_owned(), known);
    }

    /// What the NodeOp of that UID says of a node now; `None` if it is gone.
    fn entry(&self, op: &str, node: &str) -> Option<NodeStatus> {
        self.ops.get(op)?.status.as_ref()?.node_statuses.get(node).cloned()
    }

    /// The UID of the NodeOp that has claimed a node.
    fn claim(&self, node: &str) -> Option<String> {
        owner(self.nodes.get(node)?, CLAIMED_BY)
    }

    fn record(&mut self, record: &Record) {
        self.at = record.at;
        let node = &record.node;
        match &record.event {
            Event::Began { job } => self.began(job, node),
            Event::Ended { job } => self.running.retain(|(running, on)| running != job || on != node),
            Event::Succeeded { job, reboots } => {
                let left = reboots.then(|| record.boot.clone()).unwrap_or_default();
                self.successes.push((job.clone(), node.clone(), left));
            }
            Event::Asked { job, pod } => {
                self.asked(job, node, &record.boot);
                self.acts(pod, node);
            }
            Event::Leaves { job } => drop(self.odd.left.insert(job.clone())),
            Event::Thin { without } => self.thin(node, without),
            Event::Watches { pod, op } => {
                drop(self.odd.watching.insert(pod.clone(), (op.clone(), node.clone())))
            }
            Event::Rests { pod } => drop(self.odd.watching.remove(pod)),
            Event::Ran { owner, content, preflight } => self.ran(owner, node, content, *preflight),
            Event::Installed { release } => drop(self.odd.installed.insert(node.clone(), release.clone())),
            Event::Overwrote { job } => {
                self.broken(format!("{job} leaves no image on {node} that it has ever booted"))
            }
            Event::Tag { content } => self.odd.tag.push((self.at, content.clone())),
            Event::Restored { .. } => {}
            Event::Wrote { what } => self.wrote(node, what),
            Event::Booted { release, state } => {
                drop(self.booted.insert(node.clone(), (release.clone(), *state)))
            }
            Event::Told { name, value } => self.told(node, name, value),
            Event::Human { cordoned: true } => drop(self.human.insert(node.clone())),
            Event::Human { cordoned: false } => {
                self.human.remove(node);
                self.uncordoned(node);
            }
        }
    }

    /// What has reached the server is its leader's, however late it came.
    fn wrote(&mut self, who: &str, what: &str) {
        if self.scenario.mode == Mode::Elected && self.leader != who {
            self.broken(format!("{who} writes while {:?} leads: {what}", self.leader));
        }
    }

    /// A pod was evicted: its node is being drained, and it is none that a drain leaves.
    fn evicted(&mut self, name: &(String, String)) {
        let Some(pod) = self.pods.get(name).cloned() else { return };
        let node = text(&pod, "/spec/nodeName").to_owned();
        let owner =
            self.claim(&node).and_then(|op| Some((self.known.get(&op)?.clone(), self.entry(&op, &node)?)));
        // What comes to the node after its drain goes while the operation runs.
        let draining = owner.as_ref().is_some_and(|(op, entry)| {
            matches!(entry.step, Some(Step::Drain | Step::Job)) && intent(op).drain.is_some()
        });
        // One that was under way when the drain was cancelled ends later; it has at most this long.
        let under_way =
            self.drained.get(&node).is_some_and(|until| self.at < *until + Duration::from_secs(15));
        if let Some((op, _)) = &owner
            && draining
        {
            self.disturbed(op.metadata.uid.clone().unwrap_or_default().as_str(), &node);
        }
        if !draining && !under_way && !self.rivals() {
            self.broken(format!("{}/{} is evicted from {node}, which nobody drains", name.0, name.1));
        }
        // One of two that both lead may drain a node by an old view, in which the other's Job is not there
        // yet.
        let theirs = !pod["metadata"]["labels"][worlds::STRANGER].is_null();
        if !text(&pod, "/metadata/labels/group").starts_with('g') && !theirs && !self.rivals() {
            self.broken(format!("{}/{} is evicted, which a drain leaves", name.0, name.1));
        }
    }

    fn request(&mut self, request: &Request) {
        self.at = request.at;
        if request.user != operator() || !request.is_write() {
            return;
        }
        if !["leases", "events"].iter().any(|other| request.resource.starts_with(other)) {
            self.odd.wrote = request.at;
        }
        let name = (request.namespace.clone(), request.name.clone());
        let what = || format!("{} {} {}/{}", request.verb, request.resource, name.0, name.1);
        // A pod whose account has just gone is not admitted; that is no lack of rights.
        let admission = request.code == 403 && request.verb == "create" && request.resource == "pods";
        if matches!(request.code, 400 | 403 | 405 | 415 | 422) && !admission {
            self.broken(format!("the operator is refused: {}: {}", what(), request.code));
        }
        if request.namespace == worlds::ELSEWHERE && request.resource != "pods/eviction" {
            self.broken(format!("the operator writes where no operation is: {}", what()));
        }
        if request.resource == "pods/eviction" && request.code == 201 {
            self.evicted(&name);
        }
        if request.verb == "delete" && request.resource == "pods" && request.code == 200 {
            let pod = self.pods.get(&name);
            let forged = |pod: &Value| pod["metadata"]["labels"][worlds::STRANGER] == worlds::FORGED_FACTS;
            if pod.is_some_and(|pod| !worlds::is_ours(pod) && !forged(pod)) {
                self.broken(format!("the operator deletes a pod that is not its own: {}", what()));
            }
        }
    }
}

/// The UID in one of our annotations.
fn owner(node: &Value, annotation: &str) -> Option<String> {
    let value = text(node, annotation);
    let kept = || value.parse::<KeptCordon>().ok().map(|kept| kept.by);
    value.parse::<OpRef>().ok().or_else(kept).map(|of| of.uid)
}

fn intent(op: &NodeOp) -> Intent {
    Intent::of(op)
}
