//! Why a node's facts are not known yet, for the message of whoever waits for them.

use super::{
    next::{self, FactsStep},
    pod::make,
    slots::Reading,
};
use crate::plan::{
    model::{
        effects::{Effects, Planned},
        snapshot::{NodeView, Snapshot},
    },
    pod_news::{self, PodNews},
};

/// How a selector is evaluated without a node of which nothing can be read.
const LET_BE: &str = "the label kairos.io/managed=false on the node leaves it out";

/// What holds up the reading of a node's facts. What is told in Events alone is asked for.
pub fn obstacle(snapshot: &Snapshot, node: &NodeView) -> Planned<Option<String>> {
    let reading = Reading::of(snapshot);
    let Planned { value: next, mut effects } = next::of_node(&reading, node);
    let (mut asked, mut stuck) = (Effects::default(), false);
    let why = match next {
        FactsStep::Nothing if !node.is_linux() => Some("the node does not run Linux".to_owned()),
        FactsStep::Nothing => None,
        FactsStep::NoBoot => Some("its kubelet reports no boot id".to_owned()),
        FactsStep::Away => Some("the node is not Ready".to_owned()),
        FactsStep::Reads(pod) if pod.deleting => {
            Some("the pod that reads it was lost, and has not ended yet".to_owned())
        }
        FactsStep::Reads(pod) => {
            let told = pod
                .obstacle()
                .map(|obstacle| PodNews::Obstacle(obstacle.text))
                .or_else(|| asked.absorb(pod_news::event_message(snapshot, pod)));
            told.map(|told| match told {
                PodNews::Obstacle(why) => {
                    stuck = true;
                    format!("the pod that reads it cannot start: {why}")
                }
                PodNews::Pulling { .. } => format!("the pod that reads it has not started yet: {told}"),
            })
        }
        // Not until when, which another planner, that saw it fail a second later, would say otherwise.
        FactsStep::Pause { pause, why } => {
            stuck = true;
            Some(format!("the pod that read it failed, pausing for {} s: {why}", pause.as_secs()))
        }
        FactsStep::Make { attempt, last_error, waited_for } => {
            let full = (!waited_for && reading.free() == 0)
                .then(|| format!("waiting for a free slot: {} pods are reading other nodes", reading.busy()));
            effects.add(make(snapshot, node, attempt, last_error, waited_for));
            full
        }
    };
    let failing: Vec<String> = effects.persistent_failure(&snapshot.failures).into_iter().collect();
    // Whose upgrade waits for them is not helped so.
    let way_out = (stuck || !failing.is_empty()) && !reading.is_waited_for(node);
    let said: Vec<String> =
        why.into_iter().chain(failing).chain(way_out.then(|| LET_BE.to_owned())).collect();
    Planned { value: (!said.is_empty()).then(|| said.join("; ")), effects: asked }
}
