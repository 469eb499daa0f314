//! Tests of the status of a NodeOp.

use super::*;

#[test]
fn a_stamp_in_the_future_keeps_no_message_from_being_written() {
    let now = Timestamp::constant(1_000, 0);
    let says = |message: &str, at: i64| NodeOpStatus {
        phase: Some(Phase::Running),
        message: Some(message.into()),
        last_updated: Timestamp::from_second(at).ok().map(Time),
        ..NodeOpStatus::default()
    };
    let written = |at: i64| {
        let op = Arc::new(NodeOp { status: Some(says("old", at)), ..NodeOp::new("op", Default::default()) });
        let snapshot = Snapshot { now, ..Snapshot::default() };
        let effects = write(&snapshot, &op, says("new", at), Effects::default());
        (effects.actions.len(), effects.wake_at)
    };
    assert_eq!(written(990), (1, None));
    assert_eq!(
        written(1_000),
        (0, Timestamp::from_second(1_001).ok()),
        "it says something every second at most"
    );
    assert_eq!(written(31_537_000), (1, None), "somebody's clock was a year ahead");
}

#[test]
fn whatever_nodes_say_the_status_fits_into_etcd() {
    let op = NodeOp::default();
    let says = |message: usize| NodeStatus {
        phase: Phase::Failed,
        message: Some("é".repeat(message)),
        ..NodeStatus::default()
    };
    for (count, message) in [(1, 1_000_000), (500, 4096), (5000, 4096)] {
        let nodes = (0..count).map(|n| (format!("node-{n}.example.com"), says(message))).collect();
        let mut status = summarize(&op, nodes, &OpProgress::default(), Timestamp::UNIX_EPOCH);
        shorten(None, &mut status);
        let bytes = serde_json::to_vec(&status).unwrap().len();
        assert!(bytes < 1_200_000, "{count} nodes: {bytes} bytes");
        let mut again = status.clone();
        shorten(Some(&status), &mut again);
        assert_eq!(again, status, "what is cut stays as it is");
    }
}
