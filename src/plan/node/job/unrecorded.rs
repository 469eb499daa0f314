//! A command that has succeeded, and whose success could not be recorded: the container that records it was
//! not started, or was killed. The command must not run again, and the reboot must not be forgotten. So
//! another Job follows, of the same name, which runs no command and only records the success, in the boot in
//! which it was.
//!
//! An upgrade needs none: a further try finds that its agent is done.

use k8s_openapi::jiff::Timestamp;

use super::{pods::JobPods, remake};
use crate::plan::{
    model::{
        effects::{Effects, Planned},
        question::Question,
        snapshot::JobView,
    },
    node::{
        context::{Decision, NodeContext},
        state::{At, Remade},
        waiting::Waiting,
    },
};

/// The Job has failed; this is what follows if the command has succeeded and that is not recorded.
pub fn recorded_again(ctx: &NodeContext<'_>, job: &JobView, pods: &JobPods<'_>) -> Planned<Option<Decision>> {
    let intent = &ctx.op.intent;
    if !intent.reboot || intent.upgrade || ctx.op.deleting {
        return None.into();
    }
    let Some((boot, since)) = succeeded_in(ctx, job, pods) else { return None.into() };
    // In another boot nobody can tell whether the command ran before or after it began.
    if boot != ctx.node.boot_id || ctx.snapshot.now >= remake::record_until(ctx, since) {
        return None.into();
    }
    let why = pods.last_failure().unwrap_or_else(|| "its pod is gone".to_owned());
    if !ctx.node.ready {
        // It may be on its way down, and its new boot not show yet.
        let why = format!("{why}; the node is not Ready");
        return Waiting::JobUnrecorded { why }
            .with(Effects::wake_at(remake::record_until(ctx, since)))
            .map(Some);
    }
    let question = Question::Node(ctx.node.name.clone());
    if ctx.snapshot.answer(&question).is_none() {
        return Waiting::SameMachine.with(question).map(Some);
    }
    let remade = Remade::ToRecord { boot, since: Some(since.into()) };
    Some(remake::another(ctx, job, remade, &Waiting::JobUnrecorded { why })).into()
}

/// The boot in which the command succeeded, and since when that is to be recorded.
fn succeeded_in(ctx: &NodeContext<'_>, job: &JobView, pods: &JobPods<'_>) -> Option<(String, Timestamp)> {
    let At::Job(step) = &ctx.work.at else { return None };
    if let Some(Remade::ToRecord { boot, since }) = &step.remade {
        let since = ctx.begun_at(*since);
        return (!pods.gave_up_recording()).then(|| (boot.clone(), since));
    }
    let boot = step.let_go_in.clone().filter(|_| pods.succeeded_unrecorded())?;
    Some((boot, ctx.snapshot.failed_since(job)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use crate::{
        api::{
            names::container,
            nodeop::{NodeStatus, Phase, Step},
        },
        contract::{self, EXIT_PERMANENT, Sentinel, reboot_state},
        plan::{
            fixtures,
            model::{
                action::Action,
                effects::Plan,
                snapshot::{
                    ContainerState, ContainerView, JobState, JobView, Owner, PodPhase, PodView, Role,
                },
            },
            node::{failure::UNRECORDED, fixtures::World},
        },
    };

    fn ended(name: &str, code: i32, reason: &str, message: &str) -> ContainerView {
        let state = ContainerState::Ended { code, reason: reason.into(), message: message.into() };
        ContainerView::new(name, state)
    }

    /// The Job's pod, and a Job that has failed because of it, unless its containers ended well.
    fn ends(world: &mut World, job_uid: &str, containers: Vec<ContainerView>) {
        let well = containers.iter().all(|it| it.ended().is_some_and(|ended| ended.code == 0));
        let (phase, state, failed) = if well {
            (PodPhase::Succeeded, JobState::Complete, 0)
        } else {
            (PodPhase::Failed, JobState::Failed("PodFailurePolicy".into()), 1)
        };
        let pod = fixtures::pod(Role::Job, job_uid, Owner::job(&fixtures::job_name(), job_uid), "n1");
        world.put(PodView { phase, containers, ..pod });
        let job = JobView { uid: job_uid.into(), failed, ..fixtures::job(&fixtures::job_name(), state) };
        world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
    }

    /// A Job that was let go in boot b1 and is over: its command succeeded, its sentinel's container ended
    /// so.
    fn unrecorded(code: i32, reason: &str) -> World {
        let entry = json!({"phase": "Running", "step": "Job", "nodeUid": "n1", "jobName": fixtures::job_name(), "jobUid": "ju",
            "boot": "b1", "rebootStatus": "pending", "lastUpdated": "1970-01-12T13:46:40Z"});
        let mut world = World::new(entry);
        world.put(PodView { reboot_state: Some(reboot_state::WAITING.into()), ..world.waiter(0) });
        let containers = vec![
            ended(container::NODEOP, 0, "Completed", "done"),
            ended(container::SENTINEL, code, reason, "no such cgroup"),
        ];
        ends(&mut world, "ju", containers);
        world
    }

    fn is_to_record(entry: &NodeStatus) -> bool {
        let to = (entry.step, entry.job_uid.as_deref(), entry.succeeded_in.as_deref());
        entry.phase == Phase::Running && to == (Some(Step::Job), None, Some("b1"))
    }

    /// The failed Job is deleted; after a pause another one is made.
    fn make_room(world: &mut World, second: i64) -> Plan {
        let deletes = |action: &Action| matches!(action, Action::DeleteJob { .. });
        assert!(world.pass(second).actions.iter().any(deletes));
        world.snapshot.jobs.remove(&("ns".to_owned(), fixtures::job_name()));
        world.snapshot.pods.retain(|_, pod| pod.role != Role::Job);
        world.pass(second + 30)
    }

    #[test]
    fn a_success_that_was_not_recorded_is_recorded_by_a_job_that_runs_no_command() {
        for (code, reason) in [(128, "StartError"), (137, "Error")] {
            let mut world = unrecorded(code, reason);
            world.pass(1);
            let entry = world.entry();
            assert!(is_to_record(&entry), "{entry:?}");
            let told = entry.message.unwrap();
            assert!(
                told.starts_with("the operation has succeeded, and that is still to be recorded"),
                "{told}"
            );
            let out = make_room(&mut world, 2);
            assert!(out.actions.iter().any(|it| matches!(it, Action::CreateJob { .. })), "{out:?}");
            // Its first pod cannot start either, its second one can.
            let job =
                JobView { uid: "again".into(), ..fixtures::job(&fixtures::job_name(), JobState::Active) };
            world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
            world.pass(33);
            assert_eq!(world.entry().job_uid.as_deref(), Some("again"));
            ends(&mut world, "again", vec![ended(container::SENTINEL, 128, "StartError", "no such cgroup")]);
            world.pass(34);
            assert!(is_to_record(&world.entry()), "{:?}", world.entry());
            make_room(&mut world, 35);
            let job =
                JobView { uid: "third".into(), ..fixtures::job(&fixtures::job_name(), JobState::Active) };
            world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
            world.pass(66);
            let record = Sentinel {
                job: fixtures::job_name(),
                job_uid: "third".into(),
                boot: "b1".into(),
                ..Sentinel::default()
            };
            let record = serde_json::to_string(&record).unwrap();
            ends(&mut world, "third", vec![ended(container::SENTINEL, 0, "Completed", &record)]);
            world.pass(67);
            let entry = world.entry();
            let stands = (entry.step, entry.boot.as_deref(), entry.succeeded_in);
            assert_eq!(stands, (Some(Step::Reboot), Some("b1"), None), "{:?}", entry.message);
        }
    }

    #[test]
    fn what_cannot_be_recorded_any_more_fails_the_node_and_says_that_it_succeeded() {
        let says = |world: &World| world.entry().message.unwrap_or_default();
        let told = |world: &World| says(world).contains(UNRECORDED);
        // Its sentinel says itself that nothing helps.
        let mut world = unrecorded(EXIT_PERMANENT.into(), "Error");
        world.pass(1);
        assert_eq!((world.entry().phase, told(&world)), (Phase::Failed, false), "{}", says(&world));
        // The node has booted since, or another boot shows.
        let mut world = unrecorded(128, "StartError").node(|node| node.boot_id = "b2".into());
        world.pass(1);
        assert!(world.entry().phase == Phase::Failed && told(&world), "{}", says(&world));
        // No pod starts for as long as one may take.
        let mut world = unrecorded(128, "StartError");
        world.pass(1);
        make_room(&mut world, 2);
        let job = JobView { uid: "again".into(), ..fixtures::job(&fixtures::job_name(), JobState::Active) };
        world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
        world.pass(33);
        ends(&mut world, "again", vec![ended(container::SENTINEL, 128, "StartError", "no such cgroup")]);
        world.pass(60);
        let entry = world.entry();
        assert!(entry.phase == Phase::Failed && told(&world), "{}", says(&world));
        assert!(entry.job_name.is_some(), "it is not as it was: {entry:?}");
        assert!(says(&world).ends_with("(see docs: success-that-could-not-be-recorded)"), "{}", says(&world));
    }

    /// A further try finds that the agent is done, and where none is left that is said.
    #[test]
    fn an_upgrade_is_not_recorded_by_another_job() {
        let upgrade = json!({"active": true});
        let mut world =
            unrecorded(128, "StartError").op(|op| op.spec.upgrade = serde_json::from_value(upgrade).unwrap());
        world.pass(1);
        assert_eq!(world.entry().phase, Phase::Failed);
        assert!(world.entry().message.unwrap().contains(UNRECORDED));
    }

    #[test]
    fn the_applet_is_told_the_boot() {
        let args = contract::sentinel_args("j", false, Some("b1"));
        assert_eq!(args.last().map(String::as_str), Some("--succeeded-in=b1"));
    }
}
