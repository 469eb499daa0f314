//! Claiming a node: the intent stands in status, and now the claim on the node itself keeps other
//! NodeOps away.

use crate::plan::{
    attempts, image,
    model::{
        effects::{Effects, Planned},
        question::Question,
        time::later,
    },
    node::{
        context::{Decision, NodeContext},
        cordon::{self, Take},
        enforce,
        failure::Failure,
        job::{record_of, start_job},
        state::{At, DrainRecord, ImageRecord, Pending, State, Working},
        traffic,
        waiter::{self, Room, Waiter},
        waiting::{Draining, NotClaimed, Precedes, Starting, Waiting},
    },
    quorum,
};

/// Takes the node. Until this is done nothing of the node has changed, so every obstacle gives the slot back.
pub fn advance(ctx: &NodeContext<'_>, passed_in: Option<&str>) -> Planned<Decision> {
    if ctx.op.deleting {
        return Failure::DeletedBeforeStart.into();
    }
    let mut effects = Effects::default();
    if let Some(next) = effects.absorb(yield_to_rival(ctx, passed_in)) {
        return next.with(effects);
    }
    // This very version of the Node is claimed, so what it says of earlier attempts is what is so.
    if !ctx.is_claimed() && attempts::is_spent(&ctx.op.object, ctx.node) {
        return back_to_pending(ctx, passed_in, &NotClaimed::Attempted).with(effects);
    }
    let next = match cordon::take(ctx.snapshot, ctx.node, &ctx.op.id, ctx.op.intent.cordon) {
        Take::InPlace => after_claim(ctx),
        Take::Patch(change) => {
            let claims = change.claimed_by.is_some();
            match effects.absorb(if claims { traffic::decide(ctx) } else { Some(false).into() }) {
                Some(leaves) => {
                    enforce::patch(ctx, change, leaves, Waiting::Claim { cordon: ctx.op.intent.cordon })
                }
                None => Waiting::OthersServe.into(),
            }
        }
        Take::Ask(question) => Waiting::CordonOwner.with(question),
        Take::Taken(other) => {
            let why = NotClaimed::Other { op: other.key(), why: Precedes::HasClaimed };
            back_to_pending(ctx, passed_in, &why).into()
        }
    };
    next.with(effects)
}

/// Before a control-plane node is claimed, every NodeOp and every control-plane node is read live: of two
/// planners that both wrote an intent, at least one sees the other's, and whoever sees one yields. The nodes
/// themselves tell of claims whose NodeOp is finished or gone, and which of them are away.
fn yield_to_rival(ctx: &NodeContext<'_>, passed_in: Option<&str>) -> Planned<Option<Decision>> {
    if ctx.is_claimed() || !ctx.snapshot.is_control_plane(ctx.node) || !ctx.op.intent.disturbs() {
        return None.into();
    }
    let own = [Question::Node(ctx.node.name.clone()), Question::AllNodeOps];
    let mut effects = quorum::ask_live(ctx.snapshot, &ctx.node.name);
    effects.add(ctx.snapshot.unanswered(own));
    if effects.is_asking() {
        return Waiting::Rivals.with(effects).map(Some);
    }
    if let Some(why) = effects.absorb(quorum::others_not_ready(ctx.snapshot, &ctx.node.name)) {
        return back_to_pending(ctx, passed_in, &NotClaimed::Quorum(why)).with(effects).map(Some);
    }
    let mine = (ctx.op.id.key(), ctx.node.name.clone());
    let rivals: Vec<_> =
        quorum::control_planes_under_way(ctx.snapshot).into_iter().filter(|held| *held != mine).collect();
    if rivals.len() < ctx.snapshot.config.control_plane_concurrency {
        return Planned::from(None).with(effects);
    }
    let (op, node) = rivals[0].clone();
    let why = NotClaimed::Other { op, why: Precedes::HasControlPlane(node) };
    back_to_pending(ctx, passed_in, &why).with(effects).map(Some)
}

/// The node is as it was. What the preflight found out is kept, and asked again only in another boot.
fn back_to_pending(ctx: &NodeContext<'_>, passed_in: Option<&str>, why: &NotClaimed) -> Decision {
    let passed_in = passed_in.map(str::to_owned);
    let state = State::Pending(Pending { passed_in, found: ctx.work.found.clone(), ..Pending::default() });
    ctx.moves(state, why)
}

/// Once load balancers have left the node, if they are to, and its waiter stands, if it is drained for a
/// reboot, it is disturbed. What keeps a waiter from a node keeps it from others as well, and else each of
/// them would be emptied for nothing, one after the other. One that the node has no room for waits for the
/// drain.
fn after_claim(ctx: &NodeContext<'_>) -> Planned<Decision> {
    let mut effects = Effects::default();
    let starting = match effects.absorb(waiter_of_drained(ctx)) {
        Waiter::Decided(next) => return next.with(effects),
        Waiter::Starting(Starting::NoRoomYet { .. }) | Waiter::Ready | Waiter::NotAsked => None,
        Waiter::Starting(why) => Some(Waiting::Waiter(why)),
    };
    if let Some(until) = traffic::awaited_until(ctx) {
        effects.add(Effects::wake_at(until));
        return Waiting::LoadBalancers { until }.with(effects);
    }
    if let Some(why) = starting {
        return why.with(effects);
    }
    let said = traffic::say_stays(ctx).map(Effects::from).unwrap_or_default();
    next_step(ctx).with(effects).with(said)
}

/// Nothing of a node that is not drained is disturbed before its Job.
fn waiter_of_drained(ctx: &NodeContext<'_>) -> Planned<Waiter> {
    if ctx.op.intent.drain.is_none() {
        return Waiter::NotAsked.into();
    }
    waiter::ensure(ctx, &record_of(ctx).name, Room::Awaited)
}

fn next_step(ctx: &NodeContext<'_>) -> Decision {
    let intent = &ctx.op.intent;
    let found = found(ctx);
    if intent.drain.is_none() && !intent.reboot {
        return start_job(ctx, found);
    }
    let (started, timeout) = (ctx.snapshot.now, intent.drain.as_ref().and_then(|drain| drain.timeout));
    let drain = DrainRecord {
        started: started.into(),
        deadline: timeout.map(|timeout| later(started, timeout).into()),
        blocked_since: None,
        detaching_since: None,
    };
    // What is about to be so is said with the step, and needs no write of its own a second later.
    let message = match intent.drain {
        None => Waiting::Waiter(Starting::Starts),
        Some(_) => Waiting::Drain { drain: Draining::Listing(None), waiter: None },
    };
    // The Job's name stands in status from here on, so that the Job can be made as soon as the node is ready
    // for it.
    let work = Working { at: At::Drain(drain), job: Some(record_of(ctx)), found, ..ctx.work.clone() };
    ctx.move_to(work, message)
}

/// What is known of the image: of a node that was not asked, what the nodes before have run.
fn found(ctx: &NodeContext<'_>) -> ImageRecord {
    let found = ctx.work.found.clone();
    let was_asked = matches!(&ctx.work.at, At::Claim { passed_in: Some(_) });
    let bound = || image::bound(ctx.snapshot, &ctx.op.object, &ctx.node.arch).filter(|_| !was_asked);
    ImageRecord { image: found.image.or_else(bound), ..found }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use crate::{
        api::{
            names,
            nodeop::{Phase, Step},
        },
        plan::{
            fixtures,
            model::{
                action::Action,
                effects::Plan,
                id::OpRef,
                identity::Identified,
                question::{Answer, Question},
                snapshot::{NodeView, Snapshot},
            },
            node::fixtures::{World, at},
            plan,
        },
    };

    /// An operation that has recorded that it takes a control-plane node, and has not claimed it.
    fn takes(snapshot: &mut Snapshot, op: &str, node: &str) {
        let claims = json!({node: {"phase": "Running", "step": "Claim", "nodeUid": node}});
        let op = fixtures::nodeop(op, &json!({}), &claims);
        snapshot.ops.insert(OpRef::of(&op).key(), Arc::new(op));
    }

    fn world() -> Snapshot {
        let mut snapshot = Snapshot::default();
        for name in ["c1", "c2"] {
            let labels = [("node-role.kubernetes.io/control-plane".to_owned(), String::new())].into();
            let node = NodeView { labels, ..fixtures::node(name) };
            snapshot.nodes.insert(name.into(), Arc::new(node));
        }
        takes(&mut snapshot, "a", "c1");
        snapshot
    }

    fn claims(out: &Plan) -> bool {
        out.actions
            .iter()
            .any(|action| matches!(action, Action::PatchNode { change, .. } if change.claimed_by.is_some()))
    }

    /// All is there, and well.
    fn is_well(question: &Question) -> Answer {
        match question {
            Question::ControlPlanePods(_) => Answer::Components(vec!["etcd".into()]),
            _ => Answer::Found,
        }
    }

    /// Of two planners that each know of their own intent alone, whoever reads after the other has written
    /// sees it.
    #[test]
    fn a_control_plane_node_is_claimed_only_after_all_that_may_have_another_was_read_live() {
        let mut snapshot = world();
        let asked = plan(&snapshot).questions;
        for question in [Question::AllNodeOps, Question::Node("c1".into()), Question::Node("c2".into())] {
            let mut but_one = snapshot.clone();
            but_one.answers = asked
                .iter()
                .filter(|other| **other != question)
                .map(|other| (other.clone(), is_well(other)))
                .collect();
            let out = plan(&but_one);
            assert!(
                out.questions.contains(&question) && !claims(&out),
                "{question} is not asked: {:?}",
                out.actions
            );
        }
        snapshot.answers = asked.into_iter().map(|question| (question.clone(), is_well(&question))).collect();
        assert!(claims(&plan(&snapshot)), "nobody else has one");
        takes(&mut snapshot, "b", "c2");
        let out = plan(&snapshot);
        let yields = |action: &Action| matches!(action, Action::PatchStatus { op, status, .. } if op.metadata.name.as_deref() == Some("a") && status.node_statuses["c1"].phase == Phase::Pending);
        assert!(out.actions.iter().any(yields) && !claims(&out), "{:?}", out.actions);
    }

    /// n1 is to be taken out of load balancers when it is claimed; there are others.
    fn balanced(others: &[NodeView]) -> World {
        let claim =
            json!({"phase": "Running", "step": "Claim", "nodeUid": "n1", "lastUpdated": at(0).to_string()});
        let mut world = World::new(claim)
            .node(|node| (node.claimed_by, node.cordoned_by, node.unschedulable) = (None, None, false));
        world = world.op(|op| {
            op.spec.load_balancer =
                serde_json::from_value(json!({"exclude": true, "waitSeconds": 20})).unwrap();
        });
        for other in others {
            world.snapshot.nodes.insert(other.name.clone(), Arc::new(other.clone()));
        }
        world
    }

    fn other(name: &str, change: impl FnOnce(&mut NodeView)) -> NodeView {
        let mut node = NodeView { name: name.into(), uid: name.into(), ready: true, ..NodeView::default() };
        change(&mut node);
        node
    }

    /// Claims the node as the plan wants it; whether it is labelled.
    fn claimed(world: &mut World, second: i64) -> bool {
        let out = world.pass(second);
        let change = out.actions.into_iter().find_map(|action| match action {
            Action::PatchNode { name, change, .. } if name == "n1" => Some(change),
            _ => None,
        });
        let change = change.expect("a claim");
        let labelled = change.labels.contains_key(names::NOT_BALANCED);
        assert!(change.claimed_by.is_some() && change.unschedulable == Some(true));
        let node = Arc::make_mut(world.snapshot.nodes.get_mut("n1").unwrap());
        (node.claimed_by, node.cordoned_by, node.unschedulable) =
            (Some(world.me.clone()), Some(world.me.clone()), true);
        node.hints = change.annotations[names::AUTOSCALER_HINTS].as_ref().map(|text| text.parse().unwrap());
        change.labels.into_iter().for_each(|(name, value)| drop(node.labels.insert(name, value.unwrap())));
        labelled
    }

    #[test]
    fn load_balancers_get_their_time_before_anything_is_done_to_the_node_and_again_under_another_leader() {
        let mut world = balanced(&[other("n2", |_| {})]);
        assert!(claimed(&mut world, 0));
        let waits = |world: &mut World, second| {
            let out = world.pass(second);
            let said = out.why(&world.me.key(), "n1").map(ToString::to_string);
            (world.entry().step, out.wake_at, said.unwrap_or_default())
        };
        let (step, wake_at, said) = waits(&mut world, 3);
        assert_eq!((step, wake_at), (Some(Step::Claim), Some(at(23))));
        assert!(said.starts_with("claimed; load balancers get until 1970-01-12T13:47:03Z"), "{said}");
        let (step, wake_at, _) = waits(&mut world, 22);
        assert_eq!((step, wake_at), (Some(Step::Claim), Some(at(23))));
        // Another leader has seen nothing yet.
        let mut next = balanced(&[]);
        next.snapshot =
            Snapshot { sightings: <_>::default(), leading_since: at(22), ..world.snapshot.clone() };
        assert_eq!(waits(&mut next, 22).1, Some(at(42)));
        assert_eq!(waits(&mut world, 23).0, Some(Step::Drain));
    }

    #[test]
    fn a_node_is_left_in_load_balancers_if_no_other_one_serves_and_that_is_said() {
        let label = |node: &mut NodeView| drop(node.labels.insert(names::NOT_BALANCED.into(), String::new()));
        let another = || Some(OpRef { namespace: "ns".into(), name: "a".into(), uid: "a".into() });
        for (others, labelled) in [
            (vec![], false),
            (vec![other("n2", label)], false),
            (vec![other("n2", |node| node.ready = false)], false),
            (vec![other("n2", |node| node.unschedulable = true)], false),
            (vec![other("n2", |node| node.deleting = true)], false),
            (vec![other("n2", |node| node.bootless = true)], false),
            (vec![other("n2", |node| node.claimed_by = another())], false),
            (vec![other("n2", label), other("n3", |_| {})], true),
        ] {
            let mut world = balanced(&others);
            assert_eq!(claimed(&mut world, 0), labelled, "{others:?}");
            let out = world.pass(1);
            let said = out.actions.iter().any(|action| {
                let Action::PatchStatus { notices, .. } = action else { return false };
                notices.iter().any(|notice| notice.reason == "StaysInLoadBalancers")
            });
            assert_eq!((world.entry().step == Some(Step::Drain), said), (!labelled, !labelled), "{others:?}");
        }
    }

    /// A remediator would power-cycle a machine whose firmware takes minutes, in the first boot of its image.
    #[test]
    fn a_node_that_is_to_reboot_asks_remediators_to_leave_it_and_another_does_not() {
        const REMEDIATION: &str = "remediation.medik8s.io/exclude-from-remediation";
        let label = |node: &mut NodeView| drop(node.labels.insert(REMEDIATION.into(), "false".into()));
        let as_it_is = |_: &mut NodeView| {};
        for (reboots, node, asked) in
            [(true, as_it_is as fn(&mut NodeView), true), (false, as_it_is, false), (true, label, false)]
        {
            let mut world = balanced(&[]).node(node);
            world = world.op(|op| op.spec.reboot_on_success = Some(reboots));
            let out = world.pass(0);
            let claims = |action: &Action| match action {
                Action::PatchNode { change, .. } => change.labels.get(REMEDIATION).cloned(),
                _ => None,
            };
            let said: Vec<_> = out.actions.iter().filter_map(claims).collect();
            assert_eq!(said, vec![Some("true".to_owned()); usize::from(asked)], "{reboots}");
        }
    }

    /// Both have recorded their intent by then, so whoever reads after the other sees it.
    #[test]
    fn of_two_nodes_that_are_taken_at_once_not_both_leave_load_balancers() {
        let mut world = balanced(&[other("n2", |_| {})]);
        let asked = plan(&world.snapshot).questions;
        for question in [Question::AllNodeOps, Question::Node("n2".into())] {
            assert!(asked.contains(&question), "{asked:?}");
            let mut but_one = world.snapshot.clone();
            but_one.answers = asked
                .iter()
                .filter(|other| **other != question)
                .map(|other| (other.clone(), Answer::Found))
                .collect();
            assert!(!claims(&plan(&but_one)), "without {question}");
        }
        takes(&mut world.snapshot, "b", "n2");
        assert!(!claimed(&mut world, 0));
    }

    /// The change is not made in this pass, so nobody has to know whether it still may be. Plans are made at
    /// each event, and each would ask.
    #[test]
    fn nothing_is_asked_for_a_claim_that_failed_a_moment_ago() {
        let mut snapshot = Snapshot::default();
        let node = NodeView { name: "n1".into(), uid: "n1".into(), ready: true, ..NodeView::default() };
        snapshot.nodes.insert("n1".into(), Arc::new(node));
        takes(&mut snapshot, "a", "n1");
        let asks = Question::Op(OpRef { namespace: "ns".into(), name: "a".into(), uid: "a".into() });
        assert!(plan(&snapshot).questions.contains(&asks), "it may have been deleted since");
        let claims = |plan: &Plan| {
            plan.actions.iter().find(|action| matches!(action, Action::PatchNode { .. })).map(Identified::id)
        };
        snapshot.answers = [(asks.clone(), Answer::Found)].into();
        let claim = claims(&plan(&snapshot)).unwrap();
        snapshot.answers.clear();
        snapshot.paused = [claim.clone()].into();
        let plan = plan(&snapshot);
        assert!(!plan.questions.contains(&asks), "{:?}", plan.questions);
        assert_eq!(claims(&plan), Some(claim), "what keeps failing is told where it is wanted");
    }
}
