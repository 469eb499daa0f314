//! A canary that proves nothing.

use kairos_operator::api::{names, nodeop::Phase};
use serde_json::json;

use super::{condition, slots::one_failed};

/// An upgrade that is not proved stops a canary as a failure does.
#[test]
fn a_canary_that_proves_nothing_has_not_passed() {
    let done = |verified: bool| {
        json!({"phase": "Completed", "rebootStatus": "completed", "verified": verified, "nodeUid": "n1-uid",
            "message": "Job and reboot completed successfully; not verified: what the node runs could not be read in 15 s"})
    };
    // The Go operator's names are random; of many nodes the status leaves out those of our own Jobs.
    const GO: Option<&str> = Some("op-n1-x7k2q");
    const LEFT_OUT: Option<&str> = None;
    const OURS: Option<&str> = Some("");
    for (stop, verified, job, stops) in [
        (true, false, OURS, true),
        (true, false, LEFT_OUT, true),
        (true, true, OURS, false),
        (false, false, OURS, false),
        (true, false, GO, false),
    ] {
        let mut cluster = one_failed(
            json!({"stopOnFailure": stop, "command": null, "image": "kairos:v2",
            "upgrade": {"active": true, "recovery": false, "force": false, "debug": false}, "rebootOnSuccess": true}),
            false,
        );
        cluster.entry("op", "n1", done(verified), job == OURS);
        if job != OURS {
            cluster.edit("op", |op| {
                let nodes = &mut op.status.as_mut().unwrap().node_statuses;
                nodes.update("n1", |entry| entry.job_name = job.map(str::to_owned));
            });
        }
        cluster.until_stable();
        let status = cluster.status("op");
        assert_eq!(status.phase == Some(Phase::Failed), stops, "{stop} {verified} {job:?}: {status:?}");
        if stops {
            assert_eq!(
                cluster.says("op", "n2"),
                "not started: what node n1 runs is not proved (stopOnFailure)"
            );
            assert_eq!(condition(&status.conditions, "Verified"), "Unknown/NotProved");
            let said = "0 of 3 nodes failed, 1 completed, 2 were not started: what node n1 runs is not proved (stopOnFailure)";
            assert_eq!(status.message.unwrap(), said);
        }
    }
    assert!(names::CONTROL_PLANE_LABELS.contains(&names::ETCD_LABEL));
}
