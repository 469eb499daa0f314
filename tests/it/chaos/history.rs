//! What must never be, checked on the server's history and on the book of what machines did.

use std::hash::{DefaultHasher, Hash, Hasher};

use kairos_sim::{Cluster, Request};
use serde_json::Value;

use super::{scenario::Scenario, world::World};

const OPS: &str = "nodeops.operator.kairos.io";
const UPGRADES: &str = "nodeopupgrades.operator.kairos.io";

/// Whether every operation has ended and holds nothing any more.
pub fn is_over(cluster: &Cluster, scenario: &Scenario) -> bool {
    let ended = |object: &Value| {
        let phase = object["status"]["phase"].as_str();
        let held = object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        matches!(phase, Some("Completed" | "Failed")) && !held
    };
    let asked = scenario.wishes.len();
    let (ops, upgrades) = (cluster.list(OPS), cluster.list(UPGRADES));
    ops.len().max(upgrades.len()) > 0 && asked > 0 && ops.iter().chain(&upgrades).all(|object| ended(object))
}

pub fn check_idle(_requests: &[Request], _broken: &mut Vec<String>) {}
pub fn check_rest(_cluster: &Cluster, _world: &World, _broken: &mut Vec<String>) {}
pub fn check_gone(_cluster: &Cluster, _world: &World, _broken: &mut Vec<String>) {}
pub fn check(_cluster: &Cluster, _world: &World, _scenario: &Scenario, _broken: &mut Vec<String>) {}

/// A number for the whole history.
pub fn digest(cluster: &Cluster) -> u64 {
    let mut hasher = DefaultHasher::new();
    for change in cluster.history() {
        if change.key.table.as_ref() != "events" {
            (change.at, change.key.name.as_str(), change.object.to_string()).hash(&mut hasher);
        }
    }
    hasher.finish()
}
