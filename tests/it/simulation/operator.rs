//! An operator: caches that lag, each on its own, questions answered live, a plan, and its actions one by
//! one. It may crash between any two of them, and then knows nothing but what the API server knows.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use kairos_operator::{
    api::nodeop::NodeOp,
    plan::{
        check,
        model::{
            action::Action,
            effects::Plan,
            id::Key,
            question::{Answer, Question},
            snapshot::{Evictions, PlannerConfig, Role, Shows, Sightings, Snapshot},
        },
        plan,
    },
};

use super::{
    store::Store,
    world::{World, node_key, time},
};

/// Ticks by which a cache may lag: usually, and while its watch hangs.
const LAG: (usize, usize) = (8, 40);

/// How far each cache has got.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    nodes: usize,
    ops: usize,
    jobs: usize,
    pods: usize,
    homes: usize,
}

impl Seen {
    /// Every cache shows what is.
    fn all(world: &World) -> Self {
        Self {
            nodes: world.nodes.newest(),
            ops: world.ops.newest(),
            jobs: world.jobs.newest(),
            pods: world.pods.newest(),
            homes: world.homes.newest(),
        }
    }
}

#[derive(Debug)]
pub struct Operator {
    pub name: usize,
    seen: Seen,
    /// Our own last write of each NodeOp: an older cached version is not planned.
    pub written: BTreeMap<Key, Arc<NodeOp>>,
    pub evictions: Evictions,
    /// Since when it has seen things; a crash forgets it.
    sightings: Sightings,
    /// Since which version the pods of a node are listed.
    listed: BTreeMap<String, usize>,
    questions: BTreeSet<Question>,
    pub queue: VecDeque<Action>,
    leading_since: i64,
    pub wake: Option<i64>,
    /// The cache whose watch hangs, and until when.
    hang: (usize, i64),
    /// Caches do not lag.
    pub calm: bool,
    /// But for one, which shows this version.
    still: Vec<(Cache, usize)>,
}

/// One of the caches that a watch feeds.
#[derive(Clone, Copy, Debug)]
pub enum Cache {
    Nodes,
    Ops,
    Jobs,
    Pods,
    /// Those of Jobs and of pods.
    Work,
}

impl Operator {
    pub fn new(name: usize, world: &World) -> Self {
        Self {
            name,
            seen: Seen::all(world),
            written: BTreeMap::new(),
            evictions: Evictions::default(),
            sightings: Sightings::default(),
            listed: BTreeMap::new(),
            questions: BTreeSet::new(),
            queue: VecDeque::new(),
            leading_since: world.now,
            wake: None,
            hang: (0, 0),
            calm: false,
            still: Vec::new(),
        }
    }

    /// From now on one cache shows what was there `ticks` ago.
    pub fn stand_still(&mut self, world: &World, cache: Cache, ticks: usize) {
        let (jobs, pods) = ((Cache::Jobs, world.jobs.oldest(ticks)), (Cache::Pods, world.pods.oldest(ticks)));
        self.still = match cache {
            Cache::Nodes => vec![(cache, world.nodes.oldest(ticks))],
            Cache::Ops => vec![(cache, world.ops.oldest(ticks))],
            Cache::Jobs => vec![jobs],
            Cache::Pods => vec![pods],
            Cache::Work => vec![jobs, pods],
        };
    }

    /// It goes on.
    pub fn go_on(&mut self) {
        self.still.clear();
    }

    /// Each cache goes on by itself: not at all, some way, or to the end. None goes back, none lags for ever.
    fn watch(&mut self, world: &mut World) {
        if self.calm {
            self.seen = Seen::all(world);
            for (cache, version) in self.still.clone() {
                match cache {
                    Cache::Nodes => self.seen.nodes = version,
                    Cache::Ops => self.seen.ops = version,
                    Cache::Jobs => self.seen.jobs = version,
                    Cache::Pods | Cache::Work => self.seen.pods = version,
                }
            }
            return;
        }
        fn go<T: Clone>(at: usize, store: &Store<T>, rng: &mut super::rng::Rng, hangs: bool) -> usize {
            let low = at.max(store.oldest(if hangs { LAG.1 } else { LAG.0 }));
            match rng.below(10) {
                _ if hangs => low,
                0..=3 => low,
                4..=6 => low + rng.below(store.newest() - low + 1),
                _ => store.newest(),
            }
        }
        if world.faults && world.tick >= self.hang.1 && world.rng.chance(2) {
            self.hang = (world.rng.below(5), world.tick + world.rng.span(5, 40));
        }
        let hang = self.hang;
        let hangs = |kind| world.faults && hang.0 == kind && world.tick < hang.1;
        self.seen = Seen {
            nodes: go(self.seen.nodes, &world.nodes, &mut world.rng, hangs(0)),
            ops: go(self.seen.ops, &world.ops, &mut world.rng, hangs(1)),
            jobs: go(self.seen.jobs, &world.jobs, &mut world.rng, hangs(2)),
            pods: go(self.seen.pods, &world.pods, &mut world.rng, hangs(3)),
            homes: go(self.seen.homes, &world.homes, &mut world.rng, hangs(4)),
        };
    }

    /// One round: the next action of the last plan, or a new plan.
    pub fn round(&mut self, world: &mut World) -> Option<Plan> {
        if let Some(action) = self.queue.pop_front() {
            self.perform(world, action);
            world.check_moment();
            return None;
        }
        self.watch(world);
        let snapshot = self.snapshot(world);
        let plan = plan(&snapshot);
        for what in check::broken(&snapshot, &plan) {
            world.broken(what);
        }
        self.wake = plan.wake_at.map(|at| at.as_second() + 1);
        self.questions = plan.questions.clone();
        self.queue = plan.actions.iter().cloned().collect();
        let newest = world.homes.newest();
        self.listed.retain(|node, _| plan.watched_nodes.contains(node));
        for node in &plan.watched_nodes {
            self.listed.entry(node.clone()).or_insert(newest);
        }
        Some(plan)
    }

    /// One plan, all of it done. `false`: it wanted nothing.
    pub fn plan_and_act(&mut self, world: &mut World) -> bool {
        let Some(plan) = self.round(world) else { return true };
        let wanted = !plan.actions.is_empty() || !plan.questions.is_empty();
        while !self.queue.is_empty() {
            self.round(world);
        }
        wanted
    }

    fn snapshot(&mut self, world: &World) -> Snapshot {
        let ops = self.overlay(world);
        let nodes = world.nodes.at(self.seen.nodes);
        let homes = &world.homes;
        let drained_pods = self.listed.iter().map(|(node, since)| {
            let shown = homes.at((*since).max(self.seen.homes)).values();
            let pods = shown.filter(|home| home.node == *node).map(|home| Arc::new(home.pod.clone()));
            (node.clone(), Arc::new(pods.collect()))
        });
        let mut snapshot = Snapshot {
            now: time(world.now),
            leading_since: time(self.leading_since),
            config: PlannerConfig::default(),
            nodes: nodes.iter().map(|(key, node)| (key.1.clone(), node.clone())).collect(),
            ops: ops.into(),
            jobs: world.jobs.at(self.seen.jobs).clone().into(),
            pods: world.pods.at(self.seen.pods).clone().into(),
            drained_pods: drained_pods.collect(),
            evictions: self.evictions.clone(),
            ..Snapshot::default()
        };
        for question in std::mem::take(&mut self.questions) {
            let answer = answer(world, &question, &mut snapshot);
            snapshot.answers.insert(question, answer);
        }
        self.sightings.note(&snapshot);
        snapshot.sightings = Arc::new(self.sightings.clone());
        snapshot
    }

    /// The cache, with our own writes where they are newer.
    fn overlay(&mut self, world: &World) -> BTreeMap<Key, Arc<NodeOp>> {
        let mut ops = world.ops.at(self.seen.ops).clone();
        let horizon = world.ops.since(self.seen.ops);
        self.written.retain(|_, op| rv(op) > horizon);
        for (key, op) in &self.written {
            ops.insert(key.clone(), op.clone());
        }
        ops
    }
}

pub fn rv(op: &NodeOp) -> u64 {
    op.metadata.resource_version.as_ref().unwrap().parse().unwrap()
}

/// Puts what is there now into the snapshot, or takes it out.
fn refresh<K: Clone, T>(table: &mut impl Shows<K, T>, key: &K, live: Option<Arc<T>>) -> Answer {
    let answer = if live.is_some() { Answer::Found } else { Answer::NotFound };
    table.show(key.clone(), live);
    answer
}

fn answer(world: &World, question: &Question, snapshot: &mut Snapshot) -> Answer {
    match question {
        Question::Node(name) => refresh(&mut snapshot.nodes, name, world.nodes.get(&node_key(name))),
        Question::Job(key) => {
            let of_job = |name: &str| name.strip_prefix(&key.1).is_some_and(|rest| rest.starts_with('-'));
            snapshot.pods.retain(|key, pod| pod.role != Role::Job || !of_job(&key.1));
            let live = world.pods.live().iter().filter(|(key, pod)| pod.role == Role::Job && of_job(&key.1));
            snapshot.pods.extend(live.map(|(key, pod)| (key.clone(), pod.clone())));
            refresh(&mut snapshot.jobs, key, world.jobs.get(key))
        }
        Question::Pod(key) => refresh(&mut snapshot.pods, key, world.pods.get(key)),
        Question::Op(of) => {
            let live = world.ops.get(&of.key());
            let found = live.as_ref().is_some_and(|op| op.metadata.uid.as_ref() == Some(&of.uid));
            let shown = refresh(&mut snapshot.ops, &of.key(), live);
            if found { shown } else { Answer::NotFound }
        }
        Question::OtherReplica(_) | Question::Volumes(_) | Question::ControlPlanePods(_) => Answer::NotFound,
        Question::Events { .. } => Answer::Found,
        // Nothing in this world was begun by the Go operator.
        Question::OwnedWorkload(_) => Answer::Found,
        Question::AllNodeOps => {
            snapshot.ops = world.ops.live().clone().into();
            Answer::Found
        }
        Question::Admission(of, _) => match world.scripts.get(&of.uid) {
            Some(script) if script.inadmissible => {
                Answer::Refused("pods are forbidden: violates PodSecurity".into())
            }
            _ => Answer::Found,
        },
    }
}
