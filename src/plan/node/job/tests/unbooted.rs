//! Upgrades after which no boot is due, or whose record is late or lost.

use super::*;

/// A recovery image's Job is complete, and its pod shows a moment later, with what its wrapper said.
#[test]
fn an_upgrade_of_the_recovery_image_is_proved_by_what_its_pod_says_however_late_that_shows() {
    let proof = r#"{"recoveryAt":"2026-11-28T02:00:07Z","target":"v2"}"#;
    let done = |upgrade: bool, said: &str| {
        let mut world = suspended().op(|op| {
            op.spec.reboot_on_success = Some(false);
            if upgrade {
                op.spec.upgrade = Some(serde_json::from_value(json!({"recovery": true})).unwrap());
            }
        });
        let job = JobView { suspended: false, ..fixtures::job(&fixtures::job_name(), JobState::Complete) };
        world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
        let pod = fixtures::pod(Role::Job, "p", Owner::job(&fixtures::job_name(), "ju"), "n1");
        world.put(PodView { phase: PodPhase::Running, ..pod.clone() });
        world.pass(1);
        let early = world.entry().phase;
        let ended = ContainerState::Ended { code: 0, reason: "Completed".into(), message: said.into() };
        let containers = vec![ContainerView::new(container::NODEOP, ended)];
        world.put(PodView { phase: PodPhase::Succeeded, containers, ..pod });
        world.pass(2);
        let NodeStatus { phase, verified, message, .. } = world.entry();
        (early, phase, verified, message.unwrap_or_default())
    };
    let (early, phase, verified, message) = done(true, proof);
    assert_eq!((early, phase, verified), (Phase::Running, Phase::Completed, Some(true)), "{message}");
    assert!(
        message.contains("recovery upgraded to v2, as the node's own record says (2026-11-28"),
        "{message}"
    );
    let (early, phase, verified, message) = done(true, "recovery upgraded to v2");
    assert_eq!((early, phase, verified), (Phase::Running, Phase::Completed, None));
    assert_eq!(message, "Job completed successfully: recovery upgraded to v2");
    // A command may say what it likes.
    let (early, _, verified, message) = done(false, proof);
    assert_eq!((early, verified), (Phase::Completed, None), "{message}");
}

/// An upgrade of both images has found the active one at the release. Rows: what its wrapper said, in a Job
/// that is complete, beside a container of somebody else that still runs, and after the reboot was thought to
/// be due; and whether anything is proved by it.
#[test]
fn an_upgrade_that_asks_for_a_reboot_and_needed_none_is_proved_by_what_was_done() {
    let proof = r#"{"recoveryAt":"2026-11-28T02:00:07Z","target":"v2"}"#;
    for (said, verified, told) in [
        (proof, Some(true), "recovery upgraded to v2, as the node's own record says"),
        ("recovery upgraded to v2", None, "recovery upgraded to v2"),
        (r#"{"upToDateAt":"v2"}"#, Some(true), "node is already at v2"),
        // What a version before 1.0 says.
        ("node is already at v2", Some(true), "node is already at v2"),
    ] {
        for way in ["complete", "beside", "late"] {
            let upgrade = json!({"active": true, "recovery": true});
            let mut world =
                suspended().op(|op| op.spec.upgrade = Some(serde_json::from_value(upgrade).unwrap()));
            let state = if way == "beside" { JobState::Active } else { JobState::Complete };
            let job = JobView { suspended: false, ..fixtures::job(&fixtures::job_name(), state) };
            world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
            if way == "late" {
                // Its pods show no more, and then one of them does.
                world.pass(1);
                assert_eq!(world.entry().step, Some(Step::Reboot), "{said}");
            }
            let sentinel =
                Sentinel { job: fixtures::job_name(), job_uid: "ju".into(), ..Sentinel::default() };
            let ended = |message: &str| ContainerState::Ended {
                code: 0,
                reason: "Completed".into(),
                message: message.into(),
            };
            let mut containers = vec![
                ContainerView::new(container::NODEOP, ended(said)),
                ContainerView::new(container::SENTINEL, ended(&serde_json::to_string(&sentinel).unwrap())),
            ];
            let mut phase = PodPhase::Succeeded;
            if way == "beside" {
                phase = PodPhase::Running;
                containers.push(ContainerView::new("proxy", ContainerState::Running { since: at(0) }));
            }
            let pod = fixtures::pod(Role::Job, "p", Owner::job(&fixtures::job_name(), "ju"), "n1");
            world.put(PodView { phase, containers, ..pod });
            world.pass(2);
            let entry = world.entry();
            let message = entry.message.unwrap_or_default();
            assert_eq!(
                (entry.phase, entry.verified),
                (Phase::Completed, verified),
                "{way} {said}: {message}"
            );
            assert!(message.contains(told), "{way} {said}: {message}");
        }
    }
}

/// Somebody deletes Jobs once they are complete: the waiter goes on, and what the Job said is lost, or shows
/// late. What the preflight has found of the image is kept, and a record that says otherwise is not believed.
#[test]
fn what_the_preflight_found_is_kept_where_the_record_of_the_success_is_lost() {
    for (target, kept) in [(None, Some("v2")), (Some("v2"), Some("v2")), (Some("v3"), None)] {
        let upgrade = json!({"active": true});
        let mut world = suspended().op(|op| {
            op.spec.upgrade = Some(serde_json::from_value(upgrade).unwrap());
            let entry = op.status.as_mut().unwrap();
            entry.node_statuses.update("n1", |entry| {
                (entry.target, entry.before) = (Some("v2".into()), Some("v1".into()));
            });
        });
        let job = JobView { suspended: false, ..fixtures::job(&fixtures::job_name(), JobState::Complete) };
        world.snapshot.jobs.insert(("ns".into(), fixtures::job_name()), Arc::new(job));
        world.pass(1);
        let NodeStatus { step, target: lost, before, boot, .. } = world.entry();
        assert_eq!((step, lost.as_deref(), before.as_deref()), (Some(Step::Reboot), Some("v2"), Some("v1")));
        assert_eq!(boot, None);
        let sentinel = Sentinel {
            job: fixtures::job_name(),
            job_uid: "ju".into(),
            boot: "b1".into(),
            target: target.map(Into::into),
            not_tried: Some("why".into()),
            ..Sentinel::default()
        };
        let ended = ContainerState::Ended {
            code: 0,
            reason: "Completed".into(),
            message: serde_json::to_string(&sentinel).unwrap(),
        };
        let containers = vec![ContainerView::new(container::SENTINEL, ended)];
        let pod = fixtures::pod(Role::Job, "p", Owner::job(&fixtures::job_name(), "ju"), "n1");
        world.put(PodView { phase: PodPhase::Succeeded, containers, ..pod });
        world.pass(2);
        let entry = world.entry();
        match kept {
            Some(kept) => assert_eq!(
                (
                    entry.boot.as_deref(),
                    entry.target.as_deref(),
                    entry.before.as_deref(),
                    entry.not_tried.as_deref()
                ),
                (Some("b1"), Some(kept), Some("v1"), Some("why"))
            ),
            None => assert!(entry.given_up.unwrap().contains("installed v3, and the image brings v2")),
        }
    }
}
