//! Its Jobs and its reboot pods, of which there may be more than one, and which may never end by themselves.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kairos_operator::plan::model::{
    action::Action,
    snapshot::{JobState, JobView, Snapshot},
};
use serde_json::json;

use super::{at, in_hand, job, planned, settled};

fn running(reboot: bool) -> serde_json::Value {
    let reboot = if reboot { "pending" } else { "not-requested" };
    json!({"phase": "Running", "jobName": "op-n1-x7k2q", "rebootStatus": reboot})
}

/// It sets no deadline: a Job whose image cannot be pulled would hold its node for ever, also when its NodeOp
/// is deleted.
#[test]
fn a_job_of_its_gets_a_deadline() {
    let owner = json!([{"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade", "name": "op", "uid": "uu", "controller": true}]);
    for (owners, spec, seconds) in [
        (json!([]), json!({}), 86_400),
        (owner.clone(), json!({}), 3600),
        (owner, json!({"activeDeadlineSeconds": 600}), 600),
    ] {
        let mut s = in_hand(spec, running(false));
        let key = ("ns".to_owned(), "op".to_owned());
        let mut op = (*s.ops[&key]).clone();
        op.metadata.owner_references = serde_json::from_value(owners).unwrap();
        s.ops.insert(key.clone(), Arc::new(op));
        job(&mut s, "n1", JobState::Active);
        settled(&mut s);
        let extends = |s: &mut Snapshot| {
            let wanted = planned(s).actions;
            wanted.into_iter().find_map(|action| match action {
                Action::ExtendJob { job, deadline_seconds } if job.name == "op-n1-x7k2q" => {
                    Some(deadline_seconds)
                }
                _ => None,
            })
        };
        // It counts from the Job's start, and what it had is not known: it has that time from now on.
        let had = s.now.as_second() - at(10).as_second();
        assert_eq!(extends(&mut s), Some(had + seconds));
        let mut deleted = s.clone();
        let mut op = (*s.ops[&key]).clone();
        op.metadata.deletion_timestamp = Some(Time(s.now));
        deleted.ops.insert(key.clone(), Arc::new(op));
        if seconds != 86_400 {
            assert_eq!(extends(&mut deleted), Some(had + seconds), "an upgrade is left to end");
        }
        let key = ("ns".to_owned(), "op-n1-x7k2q".to_owned());
        let bounded = JobView { deadline_seconds: Some(had + seconds), ..(*s.jobs[&key]).clone() };
        s.jobs.insert(key, Arc::new(bounded));
        assert_eq!(extends(&mut s), None, "once");
    }
}
