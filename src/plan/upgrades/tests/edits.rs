//! Tests of what follows when the spec of a NodeOpUpgrade is changed.

use serde_json::json;

use super::{super::*, world::World};
use crate::{
    api::{
        nodeop::Phase,
        upgrade::{RunResult, UpgradePhase},
    },
    plan::model::action::Action,
};

#[test]
fn an_edit_of_one_that_is_over_is_another_run_and_says_so_first() {
    let mut world = World::new();
    assert_eq!(world.names(), ["up"], "the first one has the upgrade's own name");
    world.completes();
    assert_eq!(world.condition("Ready").unwrap().0, "True");

    world.edit(json!({"image": "kairos:v2"}));
    world.step();
    let status = world.status();
    assert_eq!((status.phase, status.observed_generation), (Some(UpgradePhase::Initializing), Some(2)));
    assert_eq!(world.condition("Ready"), Some(("False".into(), "Initializing".into(), Some(2))));
    assert_eq!(world.condition("Reconciling"), Some(("True".into(), "Initializing".into(), Some(2))));
    assert_eq!(world.condition("Verified"), None, "what was proved is to be proved again");
    assert_eq!(world.names(), ["up"], "it is announced before it is made");
    let run = &status.history[0];
    assert_eq!((run.node_op.as_str(), run.result, run.done.as_str()), ("up", RunResult::Completed, "2/2"));
    assert_eq!((run.failed, run.skipped, run.image.as_deref()), (0, 1, Some("kairos:v1")));
    assert!(run.finished_at.is_some());

    world.until_stable();
    let name = world.status().node_op_name.unwrap();
    assert!(name.starts_with("up-") && name.len() == 11, "{name}");
    assert_eq!(world.names(), ["up".to_owned(), name]);
    assert_eq!(world.current().spec.image.as_deref(), Some("kairos:v2"));
    assert!(world.may_start(&world.current()));
    world.completes();
    assert_eq!(world.condition("Ready"), Some(("True".into(), "Completed".into(), Some(2))));
}

/// `kubectl wait --for=condition=Progressing=False`: a condition that is about an earlier spec does not
/// count.
fn is_waited_for(world: &World) -> bool {
    let generation = world.upgrade().metadata.generation;
    let over =
        |(status, _, observed): (String, String, Option<i64>)| status == "False" && observed >= generation;
    !world.condition("Progressing").is_some_and(over)
}

#[test]
fn a_script_that_waits_from_the_change_on_waits_for_the_run_that_it_asked_for() {
    for under_way in [false, true] {
        let mut world = World::new();
        assert!(is_waited_for(&world), "nothing has run");
        if under_way {
            world.works();
        } else {
            world.completes();
            assert!(!is_waited_for(&world));
        }
        world.edit(json!({"image": "kairos:v2"}));
        assert!(is_waited_for(&world), "the operator has not seen the change");
        for step in 0..20 {
            world.step();
            assert!(is_waited_for(&world), "{step}: {:?}", world.status());
            if step == 5 && under_way {
                world.works_no_more();
            }
        }
        assert_eq!(world.current().spec.image.as_deref(), Some("kairos:v2"), "it has begun");
        world.completes();
        assert!(!is_waited_for(&world));
    }
    // Before the operator has seen the upgrade at all.
    let mut world = World::new();
    let mut new = world.upgrade().clone();
    new.status = None;
    world.snapshot.upgrades.insert(world.key.clone(), Arc::new(new));
    assert!(is_waited_for(&world));
}

#[test]
fn what_changes_no_run_is_observed_and_nothing_else() {
    let mut world = World::new();
    world.completes();
    let before = world.status();
    for change in [
        json!({"paused": true}),
        json!({"stopOnFailure": true}),
        json!({"force": false}),
        json!({"historyLimit": 1}),
    ] {
        world.edit(change.clone());
        world.until_stable();
        let now = world.status();
        assert_eq!((now.phase, &now.node_op_uid), (before.phase, &before.node_op_uid), "{change}");
        assert_eq!(now.observed_generation, world.upgrade().metadata.generation);
        assert_eq!(now.last_updated, before.last_updated, "it was over when it was");
        assert_eq!(
            world.condition("Ready").unwrap(),
            ("True".into(), "Completed".into(), now.observed_generation)
        );
        assert_eq!(world.names(), ["up"]);
    }
}

#[test]
fn an_edit_on_the_way_lets_nodes_in_progress_end_and_takes_no_other() {
    let mut world = World::new();
    world.works();
    world.edit(json!({"image": "kairos:v2"}));
    world.step();
    assert_eq!(world.condition("Ready"), Some(("False".into(), "Superseded".into(), Some(2))));
    assert_eq!(world.condition("Reconciling"), Some(("True".into(), "Superseded".into(), Some(2))));
    world.until_stable();
    assert_eq!(world.names(), ["up"], "the next one waits");
    let op = world.current();
    let status = op.status.as_ref().unwrap();
    assert_eq!(status.phase, Some(Phase::Running));
    let why = status.node_statuses["n2"].message.as_deref().unwrap();
    assert_eq!(why, "not started: superseded, NodeOpUpgrade up goes on with another NodeOp");
    assert!(world.status().message.unwrap().contains("the next run starts when NodeOp up has ended"));

    world.works_no_more();
    world.until_stable();
    let old = world.snapshot.ops[&("ns".into(), "up".into())].status.clone().unwrap();
    assert_eq!(old.phase, Some(Phase::Failed));
    assert!(crate::plan::conditions::is_superseded(&old.conditions), "{:?}", old.conditions);
    assert!(old.message.unwrap().contains("1 was not started: superseded"));
    let status = world.status();
    assert_eq!((status.history[0].result, status.history[0].done.as_str()), (RunResult::Superseded, "1/2"));
    assert_eq!(world.current().spec.image.as_deref(), Some("kairos:v2"));
    assert_ne!(status.phase, Some(UpgradePhase::Failed), "the upgrade has not failed");
}

#[test]
fn an_edit_that_is_taken_back_has_done_nothing_and_one_that_is_taken_back_too_late_is_another_run() {
    let mut world = World::new();
    world.works();
    world.edit(json!({"image": "kairos:v2"}));
    world.until_stable();
    world.edit(json!({"image": "kairos:v1"}));
    world.until_stable();
    assert_eq!(world.condition("Progressing").unwrap().1, "RollingOut");
    assert_eq!((world.names(), world.status().history.len()), (vec!["up".to_owned()], 0));

    world.edit(json!({"image": "kairos:v2"}));
    world.until_stable();
    world.works_no_more();
    // It ends for the sake of the next one, which is not asked for any more when that is seen.
    let out = world.planned();
    let writes = out.actions.iter().filter(|action| matches!(action, Action::PatchStatus { .. }));
    let writes: Vec<Action> = writes.cloned().collect();
    writes.iter().for_each(|action| world.carry_out(action));
    world.edit(json!({"image": "kairos:v1"}));
    world.until_stable();
    let status = world.status();
    assert_eq!(status.history.iter().map(|run| run.result).collect::<Vec<_>>(), [RunResult::Superseded]);
    assert_eq!(world.current().spec.image.as_deref(), Some("kairos:v1"));
    assert_ne!(status.node_op_name.as_deref(), Some("up"));
}

/// Back to an image that ran before: another run, whose name is not that of the old one.
#[test]
fn a_revert_is_a_run_of_its_own() {
    let mut world = World::new();
    let mut seen = std::collections::BTreeSet::new();
    for image in ["kairos:v2", "kairos:v1", "kairos:v2", "kairos:v1", "kairos:v2"] {
        world.completes();
        world.edit(json!({"image": image}));
        world.until_stable();
        assert!(seen.insert(world.status().node_op_name.unwrap()), "{image}");
        assert_eq!(world.current().spec.image.as_deref(), Some(image));
    }
    let history = world.status().history;
    assert_eq!(history.len(), 3);
    assert_eq!(world.names().len(), 4, "those of older runs are deleted");
    assert!(history.iter().all(|run| world.names().contains(&run.node_op)), "{history:?}");
}

#[test]
fn of_earlier_runs_the_oldest_goes_and_one_that_failed_goes_last() {
    use RunResult::{Completed, Failed, Superseded};
    let run = |number: usize, result| crate::api::upgrade::EarlierRun {
        node_op: number.to_string(),
        image: None,
        result,
        finished_at: None,
        done: String::new(),
        failed: 0,
        skipped: 0,
    };
    for (results, limit, kept) in [
        (&[Completed, Completed, Completed][..], 3, "012"),
        (&[Completed, Completed, Completed, Completed], 3, "012"),
        (&[Completed, Completed, Superseded, Failed], 3, "013"),
        (&[Completed, Failed, Failed, Failed], 3, "012"),
        (&[Completed, Failed, Completed], 1, "0"),
        (&[Failed, Completed], 0, ""),
    ] {
        let history = results.iter().enumerate().map(|(at, result)| run(at, *result)).collect();
        let names: String = history::trimmed(history, limit).into_iter().map(|run| run.node_op).collect();
        assert_eq!(names, kept, "{results:?} {limit}");
    }
}

/// What was to run until then is given more time: that is another run, once.
#[test]
fn a_run_whose_time_was_over_runs_when_it_is_given_time_again() {
    let mut world = World::new();
    let at = |seconds: i64| {
        let second = world_start() + seconds;
        json!(k8s_openapi::jiff::Timestamp::from_second(second).unwrap().to_string())
    };
    world.works();
    world.edit(json!({"notAfter": at(50)}));
    world.until_stable();
    assert_eq!(world.current().spec.not_after.map(|time| time.0.as_second()), Some(world_start() + 50));
    world.works_no_more();
    world.snapshot.now = k8s_openapi::jiff::Timestamp::from_second(world_start() + 500).unwrap();
    world.until_stable();
    assert_eq!(world.condition("Failed"), Some(("True".into(), "Expired".into(), Some(2))));

    world.edit(json!({"notAfter": at(60)}));
    world.until_stable();
    assert_eq!(world.status().history.len(), 0, "that time is over, too");
    world.edit(json!({"notAfter": at(900_000)}));
    world.until_stable();
    let results: Vec<RunResult> = world.status().history.iter().map(|run| run.result).collect();
    assert_eq!(results, [RunResult::Expired]);
    assert_ne!(world.status().node_op_name.as_deref(), Some("up"));
    assert_eq!(world.condition("Ready").unwrap().0, "False");
}

fn world_start() -> i64 {
    1_000_000
}
