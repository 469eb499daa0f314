//! Which report binds when several come at once, or little is left of who said it.

use super::*;

/// The operation on which this node's report stands.
fn told(node: &str, digest: &str) -> NodeOp {
    let mut op = (*op(json!({"image": "os:v1", "upgrade": {"active": true}}))).clone();
    let report = ImageContent {
        architecture: "amd64".into(),
        image: "os:v1".into(),
        digest: digest.to_owned(),
        told_by: Some(node.to_owned()),
    };
    op.status = Some(NodeOpStatus { images: vec![report], ..NodeOpStatus::default() });
    op
}

fn binding(op: &NodeOp) -> Vec<String> {
    let images = op.status.iter().flat_map(|status| &status.images);
    images.filter(|content| binds(content)).map(|content| content.digest.clone()).collect()
}

/// Of one of thousands that failed untouched no more is left than its message.
#[test]
fn a_node_that_failed_untouched_binds_nobody_also_when_little_is_left_of_its_entry() {
    let failed = ("n1", json!({"phase": "Failed", "message": "Preflight failed: exit code 1"}));
    let (_, op) = recorded(&told("n1", &digest("os@", 'a')), &[failed, asked("n2")], vec![]);
    assert!(op.status.unwrap().images.is_empty());
}

#[test]
fn what_a_node_has_that_is_taken_binds_before_what_two_others_are_seen_to_have_in_the_same_pass() {
    let running = ("n1", json!({"phase": "Running", "step": "Claim", "nodeUid": "n1"}));
    let pods = ["n2", "n3"].map(|node| ran(Role::Preflight, node, &digest("os@", 'b')));
    let op = told("n1", &digest("os@", 'a'));
    let (_, op) = recorded(&op, &[running, asked("n2"), asked("n3")], pods.into());
    assert_eq!(binding(&op), [digest("os@", 'a')]);
}

/// The tag has moved between two tries; [`recorded`] sees that nothing is written a second time.
#[test]
fn a_preflight_that_is_on_its_way_out_says_nothing_any_more() {
    let pod = |name: &str, digit: char, deleting: bool| {
        let pod = ran(Role::Preflight, "n1", &digest("os@", digit));
        PodView { name: name.into(), uid: name.into(), deleting, ..pod }
    };
    let pods = vec![pod("p0", 'a', true), pod("p1", 'b', false)];
    let object = op(json!({"image": "os:v1", "upgrade": {"active": true}}));
    let (_, op) = recorded(&object, &[asked("n1")], pods);
    let images = op.status.unwrap().images;
    assert_eq!(images.iter().map(|report| &report.digest).collect::<Vec<_>>(), [&digest("os@", 'b')]);
}
