//! The first nodes that get an operation's image, one of each architecture. An image that is misspelt, or does
//! not fit beside what nodes run, shows on one of them then, and not on fifty in the same minute: where a disk
//! runs short of room for an image a kubelet evicts pods, and asks no disruption budget.
//!
//! The others are asked as soon as one of its architecture has begun its check; and another one is sent when
//! something keeps the first, or it takes long. So an image costs a rollout one pull more than before.

use std::collections::BTreeSet;

use k8s_openapi::jiff::SignedDuration;

use crate::{
    api::{
        node_statuses::{Mark, NodeStatuses},
        nodeop::{NodeStatus, Phase},
    },
    plan::{
        model::{
            snapshot::{NodeView, Snapshot},
            time::later,
        },
        node::{
            context::Op,
            state::{Entry, Preflight, State},
        },
        rollout::preflight,
    },
};

/// How long the others wait for one of which nothing is heard.
pub(super) const WAITED_FOR: SignedDuration = SignedDuration::from_mins(5);

/// Where the image was had, and where a node is to find out.
#[derive(Debug, Default)]
pub(super) struct Scouts {
    /// Whether one goes first.
    wanted: bool,
    /// The architectures of which a node has the image.
    had: BTreeSet<String>,
    /// Those of which one is out.
    out: BTreeSet<String>,
}

impl Scouts {
    /// Those that are under way. An operation that takes one node at a time asks few others meanwhile; and
    /// one that disturbs nobody brings the image to all nodes at once by itself.
    pub fn of(snapshot: &Snapshot, op: &Op, nodes: &NodeStatuses) -> Self {
        let intent = &op.intent;
        if !intent.asks_each_node() || intent.concurrency == Some(1) {
            return Self::default();
        }
        let (mut had, mut out) = (had(snapshot, op, nodes), BTreeSet::new());
        for (name, status) in nodes.marked([Mark::Preflight]) {
            let (Some(node), entry) = (snapshot.nodes.get(name), Entry::read(status)) else { continue };
            let State::Preflight(record) = &entry.state else { continue };
            if preflight::has_begun(snapshot, op, name, record) {
                had.insert(node.arch.clone());
            } else if is_waited_for(snapshot, op, node, &entry, record) {
                out.insert(node.arch.clone());
            }
        }
        Self { wanted: true, had, out }
    }

    /// Whether nodes of this architecture wait for one that is out.
    pub fn keep(&self, arch: &String) -> bool {
        self.wanted && self.out.contains(arch) && !self.had.contains(arch)
    }

    /// Whether all nodes do.
    pub fn keep_all(&self, snapshot: &Snapshot) -> bool {
        self.wanted && snapshot.nodes.archs().all(|arch| self.keep(arch))
    }

    /// A node is asked.
    pub fn send(&mut self, node: &NodeView) {
        self.out.insert(node.arch.clone());
    }
}

/// Whether nothing keeps the node from its check, as far as is known. One that ran short of disk is waited
/// for: the next one would, too.
fn is_waited_for(snapshot: &Snapshot, op: &Op, node: &NodeView, entry: &Entry, record: &Preflight) -> bool {
    let since = snapshot.begun_at_or_now(entry.since);
    let pod = preflight::pod(snapshot, op, &node.name, record);
    let is_kept = record.lost_at.is_some() || pod.is_some_and(|pod| pod.obstacle().is_some());
    snapshot.now < later(since, WAITED_FOR) && (node.disk_pressure || !is_kept)
}

/// The architectures of which a node has the image: what it stands for there is recorded, or its check has
/// come to an end. Where kubelets name no digests the entries alone tell.
fn had(snapshot: &Snapshot, op: &Op, nodes: &NodeStatuses) -> BTreeSet<String> {
    let images = op.object.status.iter().flat_map(|status| &status.images);
    let mut had: BTreeSet<String> = images.map(|content| content.architecture.clone()).collect();
    let passed = |entry: &NodeStatus| entry.phase != Phase::Pending || entry.boot.is_some();
    let marks = [Mark::Remarkable, Mark::Running, Mark::HasJob, Mark::HasRelease, Mark::Skipped];
    for (name, _) in nodes.marked(marks).filter(|(_, entry)| passed(entry)) {
        // Thousands follow.
        if snapshot.nodes.archs().all(|arch| had.contains(arch)) {
            break;
        }
        had.extend(snapshot.nodes.get(name).map(|node| node.arch.clone()));
    }
    had
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api::names::container,
        plan::{
            fixtures::{self, at},
            model::{
                action::Action,
                id::OpRef,
                question::{Answer, Question},
                snapshot::{ContainerState, ContainerView, Owner, PodView, Role},
            },
            plan,
        },
    };

    /// Sixty nodes, of which the last two are of another architecture; one operation whose entries are these,
    /// and what the pods of the preflights that are under way since second 0 show.
    fn world(spec: &Value, entries: &Value, state: Option<&ContainerState>) -> Snapshot {
        let mut snapshot = Snapshot { now: at(0), ..Snapshot::default() };
        let mut all = serde_json::Map::new();
        for number in 0..60 {
            let name = format!("n{number:02}");
            let mut node = fixtures::node(&name);
            node.boot_id = "b".into();
            node.arch = if number < 58 { "amd64" } else { "arm64" }.into();
            snapshot.nodes.insert(name.clone(), Arc::new(node));
            all.insert(name, json!({"phase": "Pending"}));
        }
        all.extend(entries.as_object().unwrap().clone());
        let op = Arc::new(fixtures::nodeop("op", spec, &Value::Object(all)));
        let of = Op::of(&op);
        for (name, _) in entries.as_object().unwrap() {
            let Some(state) = state else { continue };
            let pod = PodView {
                name: of.object_name(name, "preflight", 0),
                containers: vec![ContainerView::new(container::PREFLIGHT, state.clone())],
                ..fixtures::pod(Role::Preflight, name, Owner::nodeop("op", "op"), name)
            };
            snapshot.pods.insert(("ns".into(), pod.name.clone()), Arc::new(pod));
        }
        for name in snapshot.nodes.keys().cloned().collect::<Vec<_>>() {
            snapshot.answers.insert(Question::Admission(OpRef::of(&op), name), Answer::Found);
        }
        snapshot.ops.insert(OpRef::of(&op).key(), op);
        snapshot
    }

    /// Which nodes are asked after a plan.
    fn asked(snapshot: &Snapshot) -> Vec<String> {
        let out = plan(snapshot);
        let written = out.actions.iter().find_map(|action| match action {
            Action::PatchStatus { status, .. } => Some(status.node_statuses.clone()),
            _ => None,
        });
        let before = || snapshot.ops.values().next().unwrap().status.clone().unwrap().node_statuses;
        let nodes = written.unwrap_or_else(before);
        nodes.marked([Mark::Preflight]).map(|(name, _)| name.clone()).collect()
    }

    #[test]
    fn one_node_of_each_architecture_goes_first_for_the_image() {
        let asking =
            json!({"phase": "Preflight", "step": "Preflight", "newBoot": "b", "lastUpdated": Time(at(0))});
        let under_way = json!({"n00": asking, "n58": asking});
        let waits = |reason: &str| ContainerState::Waiting { reason: reason.into(), message: String::new() };
        let (pulls, fails) = (waits("ContainerCreating"), waits("ErrImagePull"));
        let runs = ContainerState::Running { since: at(0) };
        let disturbs = json!({"concurrency": 0, "drainOptions": {"enabled": true}});
        assert_eq!(asked(&world(&disturbs, &json!({}), None)), ["n00", "n58"]);
        for (state, second, number) in [
            (&pulls, 0, 2),
            (&pulls, 299, 2),
            // Nothing is heard of it, or something keeps it: another one of each.
            (&pulls, 300, 4),
            (&fails, 1, 4),
            // The image is there. Those that are asked are counted from the front, and n58 comes after them.
            (&runs, 1, 51),
        ] {
            let mut snapshot = world(&disturbs, &under_way, Some(state));
            snapshot.now = at(second);
            let asked = asked(&snapshot);
            assert_eq!(asked.len(), number, "{state:?} after {second} s: {asked:?}");
        }
        // One that ran short of disk is waited for as if nothing were heard of it.
        for (second, number) in [(299, 3), (300, 4)] {
            let mut snapshot = world(&disturbs, &under_way, Some(&fails));
            Arc::make_mut(snapshot.nodes.get_mut("n00").unwrap()).disk_pressure = true;
            snapshot.now = at(second);
            assert_eq!(asked(&snapshot).len(), number, "{second}");
        }
        // One has passed, of one architecture.
        let passed = json!({"n00": {"phase": "Completed", "reason": "Skipped"}});
        assert_eq!(asked(&world(&disturbs, &passed, None)).len(), 50);
        let one_at_a_time = json!({"concurrency": 1});
        assert_eq!(asked(&world(&one_at_a_time, &json!({}), None)), ["n00", "n01", "n02"], "as it was");
        let plain = json!({"concurrency": 0, "cordon": false});
        assert_eq!(asked(&world(&plain, &json!({}), None)).len(), 50, "it disturbs nobody");
    }

    /// What is pulled has a kubelet evict pods, whatever their budgets say.
    #[test]
    fn a_preflight_ends_on_a_node_that_runs_short_of_disk() {
        let asking =
            json!({"phase": "Preflight", "step": "Preflight", "newBoot": "b", "lastUpdated": Time(at(0))});
        let pulls = ContainerState::Waiting { reason: "ContainerCreating".into(), message: String::new() };
        let runs = ContainerState::Running { since: at(0) };
        for (state, pressure, attempt) in
            [(&pulls, false, None), (&pulls, true, Some(1)), (&runs, true, None)]
        {
            let mut snapshot = world(&json!({"concurrency": 1}), &json!({"n00": asking}), Some(state));
            Arc::make_mut(snapshot.nodes.get_mut("n00").unwrap()).disk_pressure = pressure;
            let out = plan(&snapshot);
            let status = out.actions.iter().find_map(|action| match action {
                Action::PatchStatus { status, .. } => Some(status.node_statuses["n00"].clone()),
                _ => None,
            });
            let entry = status.unwrap();
            assert_eq!(entry.attempt, attempt, "{state:?} {pressure}");
            let said = entry.message.unwrap_or_default();
            assert_eq!(said.contains("ran short of disk"), attempt.is_some(), "{said}");
        }
    }
}
