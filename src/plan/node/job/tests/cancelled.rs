//! A NodeOp that is deleted while its Job runs.

use super::*;

/// An upgrade whose agent runs is left to end; its waiter would reboot the node as soon as it has.
#[test]
fn an_upgrade_that_is_cancelled_while_its_agent_runs_has_no_waiter_any_more() {
    for (upgrade, deleted) in [(true, true), (true, false), (false, true)] {
        let mut world = suspended().op(|op| {
            op.metadata.deletion_timestamp = deleted.then(|| Time(at(0)));
            op.spec.upgrade =
                upgrade.then(|| serde_json::from_value(json!({"upgradeActive": true})).unwrap());
        });
        let job = JobView { suspended: false, ..fixtures::job(&fixtures::job_name(), JobState::Active) };
        world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
        let pod = fixtures::pod(Role::Job, "p", Owner::job(&fixtures::job_name(), "ju"), "n1");
        let containers =
            vec![ContainerView::new(container::NODEOP, ContainerState::Running { since: at(0) })];
        world.put(PodView { phase: PodPhase::Running, containers, ..pod });
        let out = world.pass(1);
        let ends = |wanted: &str| {
            out.actions
                .iter()
                .any(|action| matches!(action, Action::DeletePod { pod, .. } if pod.name.contains(wanted)))
        };
        assert_eq!(ends("reboot"), upgrade && deleted, "{upgrade} {deleted}: {:?}", out.actions);
    }
}
