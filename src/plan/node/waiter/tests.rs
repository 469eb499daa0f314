use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::*;
use crate::{
    api::nodeop::Phase,
    plan::{
        model::action::Plan,
        node::fixtures::{World, at},
    },
};

/// The drain began at second 0 and takes hours. A waiter has 40 s to get ready.
fn draining() -> World {
    let entry = json!({"phase": "Running", "step": "Drain", "nodeUid": "n1", "drainStartedAt": Time(at(0))});
    let drain = serde_json::from_value(json!({"enabled": true})).unwrap();
    World::new(entry).op(|op| op.spec.drain_options = Some(drain))
}

fn standing(world: &World) -> PodView {
    PodView { reboot_state: Some(reboot_state::WAITING.into()), ..world.waiter(attempt(world)) }
}

fn attempt(world: &World) -> i32 {
    world.entry().attempt.unwrap_or(0)
}

fn makes_waiter(out: &Plan) -> bool {
    out.actions.iter().any(|action| matches!(action, Action::CreateWaiter { .. }))
}

/// Plans each second, without any pod, until the next waiter is made.
fn until_made(world: &mut World, from: i64) -> Option<i64> {
    (from..from + 150)
        .find(|second| world.entry().phase == Phase::Running && makes_waiter(&world.pass(*second)))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    /// Deleted by force, or so that no pass saw it end.
    Vanished,
    Deleted,
    /// It was deleted while nobody led who had seen it stand.
    Unseen,
}

/// Stands, and is lost.
fn lose(world: &mut World, loss: Loss, second: i64) {
    let pod = standing(world);
    world.put(pod.clone());
    if loss != Loss::Unseen {
        world.pass(second);
    }
    if loss == Loss::Deleted {
        world.put(PodView { deleting: true, ..pod });
        world.pass(second + 1);
    }
    if loss == Loss::Unseen {
        world.snapshot.leading_since = at(second + 1);
    }
    world.snapshot.pods = <_>::default();
}

#[test]
fn whoever_follows_a_waiter_that_stood_has_the_whole_time_each_time() {
    for loss in [Loss::Vanished, Loss::Deleted, Loss::Unseen] {
        let mut world = draining();
        for round in 1..4 {
            let second = 10_000 * round;
            lose(&mut world, loss, second);
            let made =
                until_made(&mut world, second + 2).unwrap_or_else(|| panic!("{loss:?}: {:?}", world.entry()));
            assert!(made <= second + 20, "{loss:?}: {made}");
            world.pass(second + 40);
            assert_eq!(world.entry().phase, Phase::Running, "{loss:?}, round {round}: {:?}", world.entry());
        }
        let counted = if loss == Loss::Unseen { 0 } else { 3 };
        assert_eq!(attempt(&world), counted, "{loss:?}");
        // The last one never stands: it has the time once.
        world.pass(30_000 + 43);
        let said = world.entry().message.unwrap();
        assert!(said.contains("did not get ready in 40 s"), "{loss:?}: {said}");
    }
}

#[test]
fn a_waiter_that_is_killed_again_and_again_ends_with_a_reason() {
    let mut world = draining().op(|op| op.spec.pull_timeout_seconds = Some(600));
    let mut second = 0;
    for _ in 0..=MAX_ATTEMPTS {
        lose(&mut world, Loss::Vanished, second);
        second = until_made(&mut world, second + 1).unwrap_or(second) + 1;
    }
    let entry = world.entry();
    let said = entry.message.unwrap();
    assert_eq!(entry.phase, Phase::Failed, "{said}");
    assert!(
        said.contains("the reboot waiter was lost 50 times") && said.contains("somebody deleted it"),
        "{said}"
    );
}

/// A cache that goes on from elsewhere may miss a pod for a moment.
#[test]
fn a_waiter_that_is_not_shown_is_no_loss_before_it_is_read() {
    let mut world = draining();
    let pod = standing(&world);
    world.put(pod);
    world.pass(1);
    world.snapshot.pods = <_>::default();
    world.snapshot.answers.clear();
    world.snapshot.now = at(2);
    let out = crate::plan::plan(&world.snapshot);
    let asks = out.questions.iter().any(|question| matches!(question, Question::Pod(_)));
    assert!(asks && !makes_waiter(&out), "{out:?}");
}
