//! What operators may ask of the API server: at rest, in trouble, and for one operation.

use std::{collections::BTreeMap, time::Duration};

use kairos_sim::{Cluster, Request};

use super::{OPS, operator};
use crate::chaos::{
    scenario::{Mode, Scenario},
    world::World,
    worlds::Kind,
};

/// What one operator may ask in twenty minutes at rest, its watches and the Lease aside.
const IDLE: usize = 20;
/// And for each node on which no pod can be started, or for which it has no room: its facts pods come further
/// and further apart.
const PER_UNREADABLE: usize = 30;
/// What operators may ask within ten seconds: a rollout's beginning on all nodes, and each answer lost.
const BURST: usize = 500;
/// And for one object, or of one sort of object that is made: a question is asked twenty times at once, and once a
/// second after that, by each of two processes that follow one another.
const BURST_OF_EACH: usize = 60;
/// Writes for one node of an upgrade that takes its time (each step and word is written twice), and for an
/// operation as a whole.
const PER_NODE: usize = 30;
const PER_OPERATION: usize = 20;
/// And for each node that boots meanwhile, whose facts are read.
const PER_BOOT: usize = 6;

/// At rest, nothing is asked but the Lease and watches; and the facts of nodes that cannot be read are tried
/// now and then.
pub fn check_idle(
    requests: &[Request],
    boots: usize,
    (scenario, world): (&Scenario, &World),
    broken: &mut Vec<String>,
) {
    let mut asked: BTreeMap<String, usize> = BTreeMap::new();
    let counts = |request: &&Request| {
        request.user == operator() && request.verb != "watch" && !request.resource.starts_with("leases")
    };
    for request in requests.iter().filter(counts) {
        *asked.entry(format!("{} {}", request.verb, request.resource)).or_default() += 1;
    }
    let unreadable = |(name, node): &(&String, &kairos_sim::Node)| {
        world.machine(name, |it| it.no_sandbox || it.bad) || node.room().is_some()
    };
    let unreadable = world.nodes.iter().filter(unreadable).count();
    let each = IDLE + boots * PER_BOOT + unreadable * PER_UNREADABLE;
    // And for what somebody took our label off, once a minute: of a node that is away, a waiter is there
    // still.
    let unlabelled = if world.worlds.contains(&Kind::Strangers) { PER_UNREADABLE } else { 0 };
    let each = each + unlabelled;
    // Two that both lead each ask for all of it.
    let leaders = if scenario.mode == Mode::Rivals { 2 } else { 1 };
    if asked.values().sum::<usize>() > leaders * each {
        broken.push(format!("at rest: {asked:?}"));
    }
}

/// However bad it is, no operator asks without end.
pub fn check_pace(requests: &[Request], scenario: &Scenario, broken: &mut Vec<String>) {
    let counts = |request: &&Request| request.user == operator() && request.verb != "watch";
    let times: Vec<Duration> = requests.iter().filter(counts).map(|request| request.at).collect();
    let most = times.windows(BURST).any(|window| window[BURST - 1] - window[0] < Duration::from_secs(10));
    // Two that both lead undo what the other says, as fast as they are answered.
    if most && scenario.mode != Mode::Rivals {
        broken.push(format!("more than {BURST} requests within ten seconds"));
    }
}

/// However bad it is, no operator asks for one thing without end.
pub fn check_pace_of_each(requests: &[Request], scenario: &Scenario, broken: &mut Vec<String>) {
    let mut times: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    let counts = |request: &&Request| {
        request.user == operator() && request.verb != "watch" && !request.resource.starts_with("leases")
    };
    for request in requests.iter().filter(counts) {
        // Events have a name each, and so has what is made; an eviction names the pod that is there.
        let made = request.verb == "create" && request.resource != "pods/eviction";
        let listed = request.verb == "list";
        let name = if listed { &request.query } else { &request.name };
        let name = if request.resource.starts_with("events") || made { "" } else { name };
        let what = format!("{} {} {}/{name}", request.verb, request.resource, request.namespace);
        times.entry(what).or_default().push(request.at);
    }
    let fast = |(what, times): (String, Vec<Duration>)| {
        let mut windows = times.windows(BURST_OF_EACH);
        let from = windows.find(|window| window[BURST_OF_EACH - 1] - window[0] < Duration::from_secs(10))?[0];
        Some(format!("more than {BURST_OF_EACH} times within ten seconds, from {from:?} on: {what}"))
    };
    if scenario.mode != Mode::Rivals {
        broken.extend(times.into_iter().filter_map(fast));
    }
}

/// Where nothing goes wrong, an operation costs no more writes than it needs: dry runs, Events, evictions and
/// the Lease aside.
pub fn check_budget(cluster: &Cluster, boots: usize, scenario: &Scenario, broken: &mut Vec<String>) {
    if !scenario.is_calm() || !scenario.worlds.is_empty() {
        return;
    }
    let counts = |request: &&Request| {
        let courtesy =
            ["leases", "events", "pods/eviction"].iter().any(|other| request.resource.starts_with(other));
        request.user == operator() && request.is_write() && !courtesy && !request.query.contains("dryRun")
    };
    let mut writes: BTreeMap<String, usize> = BTreeMap::new();
    for request in cluster.requests().iter().filter(counts) {
        *writes.entry(format!("{} {}", request.verb, request.resource)).or_default() += 1;
    }
    let ops = cluster.list(OPS);
    let entries: usize =
        ops.iter().map(|op| op["status"]["nodeStatuses"].as_object().map_or(0, serde_json::Map::len)).sum();
    let budget = PER_NODE * entries + PER_OPERATION * ops.len() + PER_BOOT * boots;
    let total = writes.values().sum::<usize>();
    if total > budget {
        broken.push(format!(
            "{total} writes for {entries} nodes of {} operations, {budget} would do: {writes:?}",
            ops.len()
        ));
    }
}
