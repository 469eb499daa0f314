//! All nodes that wait, of which most wait for the same thing.
//!
//! They are looked at in order, one by one, until nothing is left to give. From there on it is the same for
//! all of which nothing is known but that they wait. They are not looked at: thousands would be, at each
//! plan. Looked at are only those that something is recorded about, and those whose node is remarkable.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use super::{Admitter, PendingPlan, admission::Admission};
use crate::{
    api::{
        node_statuses::{Mark, NodeStatuses},
        nodeop::NodeStatus,
    },
    plan::{
        model::{
            effects::{Effects, Planned},
            snapshot::{NodeClass, Snapshot},
            why::Why,
        },
        node::state::{Entry, Over, State},
        rollout::{
            context::Rollout, not_taken::NotTaken, others::works_by, preflight::Asking, status::FirstWaiting,
            targets,
        },
    },
};

impl Admitter<'_, '_> {
    /// Gives what there is to give, and says of all others why they wait. `of_others`: why none of those that
    /// follow is started, once it is the same for all.
    pub(super) fn all(mut self, of_others: impl Fn(&Self) -> Option<NotTaken>) -> Planned<Rollout> {
        let (mut effects, before) = (Effects::default(), self.rollout.nodes.clone());
        let mut looked_at = BTreeSet::new();
        let down = self.rollout.progress.slots.to_be_taken.clone();
        for (name, entry) in targets::order(self.snapshot, &before, [Mark::Pending, Mark::Preflight], &down) {
            looked_at.insert(name.as_str());
            effects.add(self.look(name, entry));
            if of_others(&self).is_some() {
                break;
            }
        }
        let Some(why) = of_others(&self) else {
            return Planned { value: self.come_to(), effects };
        };
        let elsewhere = self.concern_others();
        for (name, entry) in remarkable(self.snapshot, &before, &down, &elsewhere) {
            if looked_at.insert(name) {
                effects.add(self.look(name, entry));
            }
        }
        let is_plain = |name: &&&str| before.get(name).is_some_and(|entry| Mark::Plain.is_on(entry));
        let others = before.count(Mark::Plain) - looked_at.iter().filter(is_plain).count();
        let why = Why::from(why);
        self.rollout.nodes.say_of_plain(&why.message, |name| looked_at.contains(name));
        self.rollout.waiting.others = (others > 0).then_some((why, others));
        Planned { value: self.come_to(), effects }
    }

    /// What the pass comes to.
    fn come_to(self) -> Rollout {
        let mut rollout = self.rollout;
        if let Admission::Refused(why) = self.admission {
            rollout.progress.refused = Some(why);
        }
        rollout
    }

    /// Why none of the nodes that follow is started, if it is the same for all of which nothing is known but
    /// that they wait. Once there is a reason, it stays the same.
    pub(super) fn of_others(&self) -> Option<NotTaken> {
        if let Some(why) = &self.closed {
            return Some(NotTaken::Closed(why.clone()));
        }
        if !self.asks {
            return self.queue.clone();
        }
        let none_newer = self.others.is_none_or(|others| !others.any_newer());
        let none_asked = self.preflights_left == 0 || self.scouts.keep_all(self.snapshot);
        (none_asked && none_newer && self.disputes.are_asked()).then_some(NotTaken::Turn)
    }

    /// The nodes that another NodeOp has to do with: one that a preflight gives way to, that took the node in
    /// this plan, or whose Job is there.
    fn concern_others(&self) -> BTreeSet<String> {
        let Some(others) = self.others else { return BTreeSet::new() };
        let jobs = self.snapshot.jobs.open().filter(|job| works_by(self.snapshot, self.op, job));
        let names = others.concerned().chain(self.shared.nodes.keys()).chain(jobs.map(|job| &job.node));
        names.filter(|name| self.rollout.nodes.contains_key(name)).cloned().collect()
    }

    fn look(&mut self, name: &String, status: &NodeStatus) -> Effects {
        let entry = Entry::read(status);
        let pending = match &entry.state {
            State::Pending(pending) => pending,
            State::Preflight(record) => return self.is_under_way(name, &entry, record),
            State::Working(_) | State::Over(_) => return Effects::default(),
        };
        let next = self.pending(name, &entry, pending);
        let wanted = mem::take(&mut self.effects);
        let now = self.snapshot.now;
        let next = match next {
            PendingPlan::Waits(why, pending) => {
                // Nobody waits for a node that is gone.
                let is_gone = why == NotTaken::NodeGone;
                let error = wanted.persistent_failure(&self.snapshot.failures);
                let why = self.rollout.progress.failures.complete(why.into(), error);
                if !is_gone {
                    self.is_awaited(name, Some(&why.message));
                }
                let (message, state) = (Some(why.message.clone()), State::Pending(pending));
                self.rollout.waiting.insert(name.clone(), why);
                Entry { message, state, ..entry }
            }
            PendingPlan::Asks(record) => {
                let next = entry.moved(now, State::Preflight(record), Asking::Runs);
                self.is_awaited(name, next.message.as_deref());
                next
            }
            PendingPlan::Taken { node_uid, work } => {
                let node_uid = Some(node_uid);
                Entry { node_uid, ..entry.moved(now, State::Working(work), "being claimed") }
            }
            PendingPlan::Ends(why) => entry.moved(now, State::Over(Over::untouched(why.reason(), None)), why),
            PendingPlan::Fails(why) => {
                let over = Over::untouched(why.reason(), pending.found.target.clone());
                entry.moved(now, State::Over(over), why)
            }
        };
        self.rollout.nodes.insert(name, next.record());
        wanted
    }

    /// The node is not started yet, for what it says itself.
    pub(super) fn is_awaited(&mut self, name: &str, message: Option<&str>) {
        let why = || message.unwrap_or_default().to_owned();
        self.rollout.progress.first.get_or_insert_with(|| FirstWaiting { node: name.to_owned(), why: why() });
    }
}

/// The pending nodes, and those with a preflight, that do not wait just like others, in order: something is
/// recorded about them, or they are away, taken, on hold, or gone; or somebody else is concerned with them.
fn remarkable<'a>(
    snapshot: &'a Snapshot,
    nodes: &'a NodeStatuses,
    down: &BTreeSet<String>,
    elsewhere: &BTreeSet<String>,
) -> impl Iterator<Item = (&'a String, &'a NodeStatus)> {
    let recorded = nodes.marked([Mark::Remarkable, Mark::Preflight]);
    let taken =
        snapshot.nodes.by_name(NodeClass::Unavailable).keys().filter_map(|name| nodes.get_key_value(name));
    let others = elsewhere.iter().filter_map(|name| nodes.get_key_value(name));
    let taken = taken.chain(others).filter(|(_, entry)| Mark::Pending.is_on(entry));
    let gone = nodes.marked_without(Mark::Pending, &snapshot.nodes);
    let labelled = snapshot.nodes.by_name(NodeClass::ControlPlane);
    let place = |name: &'a String| (!labelled.contains_key(name), !down.contains(name), name);
    let in_order = recorded.chain(taken).chain(gone).map(|(name, entry)| (place(name), entry));
    let in_order: BTreeMap<_, _> = in_order.collect();
    in_order.into_iter().map(|((.., name), entry)| (name, entry))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

    use super::*;
    use crate::{
        api::nodeop::{NodeOp, NodeOpStatus, Phase},
        plan::{
            fixtures::{self, at},
            model::{
                id::{Key, OpRef},
                question::{Answer, Question},
                snapshot::{JobState, JobView, NodeView, Owner},
            },
            node::context::Op,
            release::Releases,
            rollout::{
                admit::{self, Shared},
                context::RolloutContext,
            },
        },
    };

    /// What may stand about a node that waits, is done, or is worked on.
    fn entry(rng: &mut fastrand::Rng, node: &str) -> NodeStatus {
        let rare = |rng: &mut fastrand::Rng| rng.u8(..12) == 0;
        let phases = [Phase::Pending, Phase::Pending, Phase::Pending, Phase::Preflight, Phase::Running];
        let phase = rng.choice(phases).unwrap();
        let message = rng.choice([None, Some("waiting for its turn"), Some("m")]).unwrap();
        NodeStatus {
            phase,
            message: message.map(Into::into),
            boot: rare(rng).then(|| rng.choice(["b", "older"]).unwrap().into()),
            attempt: rare(rng).then_some(1),
            node_uid: (phase == Phase::Running || rare(rng)).then(|| node.into()),
            since: rare(rng).then(|| Time(at(1))),
            target: rare(rng).then(|| "v2".into()),
            ..NodeStatus::default()
        }
    }

    fn op(rng: &mut fastrand::Rng, name: &str, nodes: &[String]) -> NodeOp {
        let mut op = NodeOp::new(name, Default::default());
        op.metadata.namespace = Some("ns".into());
        op.metadata.uid = Some(name.into());
        op.metadata.creation_timestamp = Some(Time(at(rng.i64(0..9))));
        op.metadata.finalizers = rng.bool().then(|| vec![crate::api::names::FINALIZER.into()]);
        op.metadata.deletion_timestamp = (rng.u8(..10) == 0).then(|| Time(at(5)));
        op.spec.cordon = Some(true);
        op.spec.command = Some(vec!["true".into()]);
        op.spec.concurrency = rng.i32(0..4);
        op.spec.paused = Some(rng.u8(..8) == 0);
        op.spec.not_ready_timeout_seconds = rng.bool().then_some(5);
        op.spec.preflight_concurrency = Some(rng.i32(1..4));
        op.spec.preflight = rng.bool().then(|| serde_json::from_str("{\"command\": [\"true\"]}").unwrap());
        let phase = Some(if rng.u8(..4) == 0 { Phase::Completed } else { Phase::Running });
        let mut status = NodeOpStatus { phase, ..NodeOpStatus::default() };
        for node in nodes {
            if rng.u8(..5) > 0 {
                status.node_statuses.insert(node, entry(rng, node));
            }
        }
        op.status = Some(status);
        op
    }

    fn world(rng: &mut fastrand::Rng) -> (Snapshot, NodeOp) {
        let names: Vec<String> = (0..rng.usize(1..90)).map(|n| format!("n{n:02}")).collect();
        let mut snapshot = Snapshot { now: at(10), ..Snapshot::default() };
        snapshot.config.control_plane_concurrency = 1;
        let rival = op(rng, "rival", &names);
        let me = op(rng, "op", &names);
        for name in &names {
            let rare = |rng: &mut fastrand::Rng| rng.u8(..15) == 0;
            let holder = if rng.bool() { &rival } else { &me };
            let mut node = NodeView { name: name.clone(), uid: name.clone(), ..NodeView::default() };
            if rare(rng) {
                node.labels.insert("node-role.kubernetes.io/control-plane".into(), String::new());
            }
            if rare(rng) {
                node.labels.insert(crate::api::names::HOLD.into(), "true".into());
            }
            node.boot_id = "b".into();
            (node.ready, node.deleting) = (!rare(rng), rare(rng));
            node.claimed_by = rare(rng).then(|| OpRef::of(holder));
            node.etcd_votes = Some(!rare(rng));
            if !rare(rng) {
                snapshot.answers.insert(Question::ControlPlanePods(name.clone()), Answer::NotFound);
            }
            if rare(rng) {
                snapshot.answers.insert(Question::Node(name.clone()), Answer::NotFound);
            } else {
                snapshot.nodes.insert(name.clone(), Arc::new(node));
            }
            let admission =
                rng.choice([Answer::Found, Answer::NotYet("m".into()), Answer::Refused("m".into())]);
            if let Some(answer) = admission.filter(|_| rng.u8(..4) > 0) {
                snapshot.answers.insert(Question::Admission(OpRef::of(&me), name.clone()), answer);
            }
        }
        for name in names.iter().filter(|_| rng.u8(..30) == 0) {
            let job = fixtures::job(&format!("job-{name}"), JobState::Active);
            let job = JobView { owner: Owner::nodeop("rival", "rival"), node: name.clone(), ..job };
            snapshot.jobs.insert((job.namespace.clone(), job.name.clone()), Arc::new(job));
        }
        snapshot.ops.insert(OpRef::of(&me).key(), Arc::new(me.clone()));
        if rng.u8(..3) == 0 {
            snapshot.ops.insert(OpRef::of(&rival).key(), Arc::new(rival));
        }
        (snapshot, me)
    }

    #[test]
    fn what_is_not_looked_at_would_have_come_to_the_same() {
        let mut alike = 0;
        for seed in 0..1000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (snapshot, object) = world(&mut rng);
            let op = Op::of(&Arc::new(object));
            let all = op.object.status.clone().unwrap().node_statuses;
            let rival = ("ns".to_owned(), "rival".to_owned());
            let taken: BTreeMap<String, Key> =
                all.keys().filter(|_| rng.u8(..30) == 0).map(|name| (name.clone(), rival.clone())).collect();
            let releases = Releases::default();
            let ctx = RolloutContext::new(&snapshot, &op, &releases);
            let planned = |of_others: &dyn Fn(&Admitter<'_, '_>) -> Option<NotTaken>| {
                let rollout = Rollout { nodes: all.clone(), ..Rollout::default() };
                let mut shared = Shared { nodes: taken.clone(), ..Shared::default() };
                let Planned { value, effects } = admit::admitter(&ctx, rollout, &mut shared).all(of_others);
                (value.nodes, value.waiting, effects, value.progress)
            };
            let (nodes, waiting, effects, progress) = planned(&|admitter| admitter.of_others());
            let (each, reasons, wanted, of_all) = planned(&|_| None);
            assert_eq!(nodes, each, "seed {seed}");
            assert_eq!((effects, progress), (wanted, of_all), "seed {seed}");
            for (node, why) in &reasons.nodes {
                assert_eq!(waiting.of(node), Some(why), "seed {seed}: {node}");
            }
            let others = waiting.others.map_or(0, |(_, nodes)| nodes);
            assert_eq!(waiting.nodes.len() + others, reasons.nodes.len(), "seed {seed}");
            alike += others;
        }
        assert!(alike > 3_000, "{alike}");
    }

    /// Two upgrades of a pool each, or one that is paused before it has nodes.
    #[test]
    fn another_operation_on_other_nodes_makes_nobody_look_at_each_that_waits() {
        let nodes =
            |prefix: &str| (0..200).map(|n| (format!("{prefix}{n:03}"), NodeStatus::default())).collect();
        let make = |name: &str, created: i64, nodes: NodeStatuses| {
            let mut op = NodeOp::new(name, Default::default());
            op.metadata = ObjectMeta { namespace: Some("ns".into()), uid: Some(name.into()), ..op.metadata };
            op.metadata.creation_timestamp = Some(Time(at(created)));
            op.metadata.finalizers = Some(vec![crate::api::names::FINALIZER.into()]);
            (op.spec.command, op.spec.concurrency) = (Some(vec!["true".into()]), 1);
            op.spec.preflight = serde_json::from_str("{\"command\": [\"true\"]}").unwrap();
            op.status = Some(NodeOpStatus {
                phase: Some(Phase::Running),
                node_statuses: nodes,
                ..NodeOpStatus::default()
            });
            Arc::new(op)
        };
        let me = make("op", 5, nodes("a"));
        for (other, created) in
            [(nodes("b"), 1), (NodeStatuses::default(), 1), (nodes("a"), 9), (nodes("a"), 1)]
        {
            let is_older_on_ours = created == 1 && other.contains_key("a000");
            let mut snapshot = Snapshot { now: at(10), ..Snapshot::default() };
            for op in [me.clone(), make("other", created, other)] {
                snapshot.ops.insert(OpRef::of(&op).key(), op);
            }
            for (name, _) in &me.status.as_ref().unwrap().node_statuses {
                let node = NodeView {
                    name: name.clone(),
                    uid: name.clone(),
                    ready: true,
                    boot_id: "b".into(),
                    ..NodeView::default()
                };
                snapshot.nodes.insert(name.clone(), Arc::new(node));
                snapshot.answers.insert(Question::Admission(OpRef::of(&me), name.clone()), Answer::Found);
            }
            let (op, releases, mut shared) = (Op::of(&me), Releases::default(), Shared::default());
            let ctx = RolloutContext::new(&snapshot, &op, &releases);
            let all = me.status.clone().unwrap().node_statuses;
            let rollout = Rollout { nodes: all, ..Rollout::default() };
            let waiting = admit::fill(&ctx, rollout, &mut shared).value.waiting;
            let alike = waiting.others.map_or(0, |(_, nodes)| nodes);
            if is_older_on_ours {
                assert_eq!(waiting.nodes.len(), 200, "each waits for the other operation");
            } else {
                assert!(alike >= 150, "{alike} {}", waiting.nodes.len());
            }
        }
    }
}
