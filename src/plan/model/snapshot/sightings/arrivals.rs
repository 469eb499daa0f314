//! Which pods came to a node after the first list of its pods.
//!
//! A cordon keeps the scheduler from choosing the node, and not from binding what it had chosen it for: a pod
//! whose volume is provisioned first comes a minute after the cordon. It has to go like those before it. One
//! that comes back each time that it is evicted, since its controller pins it to the node, has not, or the
//! drain would never end. By a clock the two cannot be told apart: ours may be behind the server's, or ahead.
//! So they are counted, as long as the cordon lasts: whoever uncordons the node lets pods in, which come
//! once, and not because anything pins them to it.
//!
//! What is known is kept from the drain's first list until the operation on the node is over, whatever
//! becomes of the watch of its pods meanwhile. Another process knows nothing of it. One that takes over a
//! drain begins with a first list of its own; one that comes when the drain is over knows that it had evicted
//! all that had to go, and takes all that it finds for late.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    api::nodeop::{NodeStatus, Step},
    plan::model::{
        id::OpRef,
        snapshot::{NodePod, Sightings, Snapshot},
    },
};

/// How many pods of one controller may have been evicted, of those that came after the first list, before the
/// next ones are left: they come back for ever.
const OF_ONE: usize = 5;
/// How many pods of all controllers of one namespace may have been evicted so: some make a new one each
/// minute, as a CronJob its Jobs. Whoever may create pods may invent their controllers, and is not to decide
/// about the pods of other namespaces.
const OF_ALL: usize = 50;

/// How a pod came to a node that is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodArrival {
    /// It was on the node when this process first listed its pods for the drain.
    Listed,
    /// It came later.
    Late,
    /// It came later, and would come back if it were evicted: it tolerates the cordon, or is one too many of
    /// its controller.
    Back,
}

/// The pods of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Arrivals {
    /// The UIDs of the first list.
    listed: BTreeSet<String>,
    /// Those that came later and are there, by UID.
    late: BTreeMap<String, Late>,
    /// How many that came later we have evicted in the present cordon, by namespace and by the UID of their
    /// controller.
    went: BTreeMap<String, BTreeMap<String, usize>>,
    /// The pods that were noted last, and whether the node was cordoned then: of the same there is nothing
    /// to be noted a second time.
    noted: Option<(Arc<Vec<Arc<NodePod>>>, bool)>,
}

#[derive(Clone, Debug, PartialEq)]
struct Late {
    namespace: String,
    controller: String,
    /// What the pod says itself makes it come back.
    pinned: bool,
    back: bool,
    /// It went, by an eviction or by itself; nor is one counted that is not evicted, or that came while the
    /// node was not cordoned.
    counted: bool,
}

/// Whether the node is drained, or was and is still worked on: until then pods that come have to go.
fn is_kept_clear(entry: &NodeStatus) -> bool {
    entry.given_up.is_none() && matches!(entry.step, Some(Step::Drain | Step::Job))
}

impl Sightings {
    /// Notes which pods are on the nodes that operations keep clear of them.
    pub(super) fn note_arrivals(&mut self, snapshot: &Snapshot) {
        let mut before = std::mem::take(&mut self.arrivals);
        for (op, node, entry) in snapshot.running().filter(|(_, _, entry)| is_kept_clear(entry)) {
            let uid = OpRef::of(op).uid;
            let cordoned = snapshot.nodes.get(node).is_none_or(|node| node.unschedulable);
            let known = before.get_mut(node).and_then(|of_node| of_node.remove(&uid));
            let tried = snapshot.evictions.get(node);
            let evicted = |pod: &str| tried.is_some_and(|tried| tried.contains_key(pod));
            let arrivals = match (known, snapshot.drained_pods.get(node)) {
                (Some(mut known), Some(pods)) => {
                    known.renew(pods, cordoned, evicted);
                    known
                }
                (None, Some(pods)) if entry.step == Some(Step::Drain) => Arrivals::first(pods),
                (None, Some(pods)) => {
                    let mut all = Arrivals::default();
                    all.renew(pods, cordoned, evicted);
                    all
                }
                (Some(known), None) => known,
                (None, None) => continue,
            };
            self.arrivals.entry(node.clone()).or_default().insert(uid, arrivals);
        }
    }
}

impl Arrivals {
    fn first(pods: &[Arc<NodePod>]) -> Self {
        Self { listed: pods.iter().map(|pod| pod.uid.clone()).collect(), ..Self::default() }
    }

    fn renew(&mut self, pods: &Arc<Vec<Arc<NodePod>>>, cordoned: bool, evicted: impl Fn(&str) -> bool) {
        let noted = self.noted.as_ref();
        if noted.is_none_or(|(noted, was)| !Arc::ptr_eq(noted, pods) || *was != cordoned) {
            self.note(pods, cordoned, evicted);
            self.noted = Some((pods.clone(), cordoned));
        }
    }

    /// `evicted`: whether we have tried to evict the pod of this UID. One that went by itself says nothing of
    /// what would come back after an eviction.
    fn note(&mut self, pods: &[Arc<NodePod>], cordoned: bool, evicted: impl Fn(&str) -> bool) {
        if !cordoned {
            self.went.clear();
            self.late.values_mut().for_each(|late| (late.back, late.counted) = (late.pinned, true));
        }
        let there: BTreeMap<&str, &NodePod> =
            pods.iter().map(|pod| (pod.uid.as_str(), pod.as_ref())).collect();
        for (uid, late) in &mut self.late {
            let goes = there.get(uid.as_str()).is_none_or(|pod| pod.ends_by.is_some());
            if goes && !late.counted {
                late.counted = true;
                if evicted(uid) {
                    let of_namespace = self.went.entry(late.namespace.clone()).or_default();
                    *of_namespace.entry(late.controller.clone()).or_default() += 1;
                }
            }
        }
        self.late.retain(|uid, _| there.contains_key(uid.as_str()));
        for (uid, pod) in there {
            if self.listed.contains(uid) || self.late.contains_key(uid) {
                continue;
            }
            // Those that no controller made are counted together.
            let controller = pod.controller.as_ref().map(|owner| owner.uid.clone()).unwrap_or_default();
            let went = self.went.get(&pod.namespace);
            let of_one = went.and_then(|went| went.get(&controller)).copied().unwrap_or_default();
            let of_all: usize = went.map_or(0, |went| went.values().sum());
            let too_many = of_one >= OF_ONE || of_all >= OF_ALL;
            let pinned = pod.tolerates_cordon || pod.is_of_daemon_set();
            let back = pinned || too_many;
            let counted = back || !cordoned;
            let namespace = pod.namespace.clone();
            self.late.insert(uid.to_owned(), Late { namespace, controller, pinned, back, counted });
        }
    }

    fn of(&self, pod: &NodePod) -> PodArrival {
        match self.late.get(&pod.uid) {
            None => PodArrival::Listed,
            Some(late) if late.back => PodArrival::Back,
            Some(_) => PodArrival::Late,
        }
    }
}

impl Snapshot {
    /// How the pod came to the node, on which the NodeOp works.
    pub fn pod_arrival(&self, op: &OpRef, node: &str, pod: &NodePod) -> PodArrival {
        let known = self.sightings.arrivals.get(node).and_then(|of_node| of_node.get(&op.uid));
        known.map_or(PodArrival::Listed, |arrivals| arrivals.of(pod))
    }

    /// Whether an operation keeps the node clear of pods, as far as its pods have ever been listed for that.
    pub fn is_kept_clear(&self, node: &str) -> bool {
        self.sightings.arrivals.contains_key(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::model::snapshot::Owner;

    fn pod(uid: String, controller: &str, deleting: bool) -> Arc<NodePod> {
        let ends_by = deleting.then_some(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        let controller = Some(Owner { uid: controller.into(), ..Owner::default() });
        Arc::new(NodePod { uid, controller, ends_by, ..NodePod::default() })
    }

    /// How the last of `count` pods came that a controller made one after the other, each as soon as the one
    /// before it had to go.
    fn nth(count: usize, controller: impl Fn(usize) -> String) -> PodArrival {
        let mut arrivals = Arrivals::first(&[pod("first".into(), "db", false)]);
        let mut last = None;
        for number in 1..=count {
            let before = last.map(|pod: Arc<NodePod>| {
                Arc::new(NodePod { ends_by: Some(<_>::default()), ..(*pod).clone() })
            });
            let new = pod(format!("late-{number}"), &controller(number), false);
            arrivals.note(&before.into_iter().chain([new.clone()]).collect::<Vec<_>>(), true, |_| true);
            last = Some(new);
        }
        arrivals.of(&last.unwrap())
    }

    #[test]
    fn what_comes_late_has_to_go_and_what_comes_back_for_ever_does_not() {
        let same = |_: usize| "web".to_owned();
        assert_eq!(
            (nth(1, same), nth(OF_ONE, same), nth(OF_ONE + 1, same)),
            (PodArrival::Late, PodArrival::Late, PodArrival::Back)
        );
        let each = |number: usize| format!("job-{number}");
        assert_eq!(
            (nth(OF_ALL, each), nth(OF_ALL + 1, each)),
            (PodArrival::Late, PodArrival::Back),
            "one Job after the other"
        );
    }

    /// Whoever may create pods in a namespace may invent their controllers. What goes by itself was not
    /// evicted.
    #[test]
    fn the_pods_of_one_namespace_decide_about_no_other() {
        let of = |namespace: &str, number: usize, deleting: bool| {
            let pod = pod(format!("{namespace}-{number}"), &format!("c{}", number % 10), deleting);
            Arc::new(NodePod { namespace: namespace.into(), ..(*pod).clone() })
        };
        let all = |deleting: bool| (0..OF_ALL).map(|number| of("a", number, deleting)).collect::<Vec<_>>();
        for (evicted, expected) in [(true, PodArrival::Back), (false, PodArrival::Late)] {
            let mut arrivals = Arrivals::first(&[]);
            arrivals.note(&all(false), true, |_| evicted);
            arrivals.note(&all(true), true, |_| evicted);
            let (same, other) = (of("a", OF_ALL, false), of("b", OF_ALL, false));
            arrivals.note(&[same.clone(), other.clone()], true, |_| evicted);
            assert_eq!((arrivals.of(&same), arrivals.of(&other)), (expected, PodArrival::Late));
        }
    }

    #[test]
    fn what_tolerates_the_cordon_comes_back_and_is_not_counted() {
        let mut arrivals = Arrivals::first(&[]);
        let tolerates = |number: usize| {
            Arc::new(NodePod { tolerates_cordon: true, ..(*pod(format!("t{number}"), "web", false)).clone() })
        };
        for number in 0..2 * OF_ONE {
            arrivals.note(&[tolerates(number)], true, |_| true);
            assert_eq!(arrivals.of(&tolerates(number)), PodArrival::Back);
        }
        let other = pod("other".into(), "web", false);
        arrivals.note(std::slice::from_ref(&other), true, |_| true);
        assert_eq!(arrivals.of(&other), PodArrival::Late);
    }

    /// A small cluster that is full: what is evicted waits for room, and comes as soon as anybody makes some.
    #[test]
    fn what_comes_whenever_somebody_uncordons_the_node_has_to_go_each_time() {
        let mut arrivals = Arrivals::first(&[]);
        let all = |time: usize, deleting: bool| -> Vec<_> {
            (0..2 * OF_ONE).map(|number| pod(format!("{time}-{number}"), "web", deleting)).collect()
        };
        // Some of those that came in the first cordon are too many, by what is known then.
        for number in 0..2 * OF_ONE {
            arrivals.note(&all(0, true)[..number], true, |_| true);
            arrivals
                .note(&[&all(0, true)[..number], &all(0, false)[number..=number]].concat(), true, |_| true);
        }
        let last = &all(0, false)[2 * OF_ONE - 1..];
        arrivals.note(last, true, |_| true);
        assert_eq!(arrivals.of(&last[0]), PodArrival::Back);
        for time in 1..20 {
            let there = [last, &all(time, false)].concat();
            arrivals.note(&there, false, |_| true);
            arrivals.note(&there, true, |_| true);
            for pod in &there {
                assert_eq!(arrivals.of(pod), PodArrival::Late, "{time}: {}", pod.uid);
            }
            arrivals.note(&all(time, true), true, |_| true);
        }
        let next = pod("next".into(), "web", false);
        arrivals.note(std::slice::from_ref(&next), true, |_| true);
        assert_eq!(arrivals.of(&next), PodArrival::Late, "nothing pins it to the node");
    }

    #[test]
    fn many_that_come_at_once_all_have_to_go() {
        let mut arrivals = Arrivals::first(&[]);
        let all: Vec<_> = (0..4 * OF_ALL).map(|number| pod(format!("p{number}"), "web", false)).collect();
        arrivals.note(&all, true, |_| true);
        assert!(all.iter().all(|pod| arrivals.of(pod) == PodArrival::Late));
        // While they go, each is judged as it was when it came.
        let ending: Vec<_> =
            (0..4 * OF_ALL).map(|number| pod(format!("p{number}"), "web", number > 0)).collect();
        arrivals.note(&ending, true, |_| true);
        assert_eq!(arrivals.of(&ending[0]), PodArrival::Late);
    }
}
