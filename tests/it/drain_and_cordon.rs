//! Tables: which pods a drain evicts, waits for, leaves or refuses, against kubectl's documented behaviour;
//! and who owns a cordon.

use std::sync::Arc;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::LabelSelector,
    jiff::{SignedDuration, Timestamp},
};
use kairos_operator::{
    api::{
        names,
        nodeop::{DrainOptions, NodeOp, NodeOpSpec, NodeOpStatus, Phase},
    },
    plan::{
        model::{
            action::NodeChange,
            id::OpRef,
            intent::{DrainIntent, Intent},
            kept_cordon::KeptCordon,
            question::{Answer, Question},
            snapshot::{NodePod, NodeView, Owner, Snapshot},
        },
        node::{
            cordon::{Ending, Take, give_back, is_kept_by, take},
            drain::{EvictionDecision, decide},
        },
    },
};

const STARTED: i64 = 1000;

fn options(change: impl FnOnce(&mut DrainOptions)) -> DrainIntent {
    let mut options = DrainOptions { enabled: Some(true), ..DrainOptions::default() };
    change(&mut options);
    let spec = NodeOpSpec { cordon: Some(true), drain_options: Some(options), ..NodeOpSpec::default() };
    Intent::of(&NodeOp::new("op", spec)).drain.expect("a drain")
}

fn pod(change: impl FnOnce(&mut NodePod)) -> NodePod {
    let mut pod = NodePod {
        namespace: "default".into(),
        name: "pod".into(),
        uid: "uid".into(),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        created: Timestamp::from_second(STARTED - 100).unwrap(),
        controller: Some(owner("ReplicaSet")),
        ..NodePod::default()
    };
    change(&mut pod);
    pod
}

fn owner(kind: &str) -> Owner {
    Owner { kind: kind.into(), name: "o".into(), uid: "o".into(), ..Owner::default() }
}

/// E evict, W wait, L leave, R refuse.
fn letter(pod: &NodePod, drain: &DrainIntent) -> char {
    let ours = pod.controller == Some(Owner::job("ours", "ju"));
    let (started, now) =
        (Timestamp::from_second(STARTED).unwrap(), Timestamp::from_second(STARTED + 50).unwrap());
    match decide((pod, pod.ends_by), drain, ours, pod.created <= started, now) {
        EvictionDecision::Evict => 'E',
        EvictionDecision::AwaitDeletion => 'W',
        EvictionDecision::Skip(_) => 'L',
        EvictionDecision::Refuse(_) => 'R',
    }
}

/// Each kind of pod under: no option, `force`, `deleteEmptyDirData`, both, `ignoreDaemonSets: false`,
/// `strict`, `strict` with all three (kubectl with every flag, but `--ignore-daemonsets=false`).
#[test]
fn fates_are_kubectls() {
    let columns = [
        options(|_| {}),
        options(|o| o.force = Some(true)),
        options(|o| o.delete_empty_dir_data = Some(true)),
        options(|o| (o.force, o.delete_empty_dir_data) = (Some(true), Some(true))),
        options(|o| o.ignore_daemon_sets = Some(false)),
        options(|o| o.strict = Some(true)),
        options(|o| {
            (o.strict, o.force, o.delete_empty_dir_data, o.ignore_daemon_sets) =
                (Some(true), Some(true), Some(true), Some(false));
        }),
    ];
    let daemon = || Some(owner("DaemonSet"));
    let node = || Some(Owner::node("n1", "n"));
    let labelled = |finished| {
        pod(move |p| {
            (p.finished, p.controller) = (finished, Some(owner("Job")));
            p.labels.insert(names::NODEOP.into(), "op".into());
        })
    };
    let rows: [(&str, NodePod, &str); 19] = [
        ("replicated", pod(|_| {}), "EEEEEEE"),
        ("bare", pod(|p| p.controller = None), "LELELRE"),
        ("emptyDir", pod(|p| p.local_storage = true), "LLEELRE"),
        ("bare with emptyDir", pod(|p| (p.controller, p.local_storage) = (None, true)), "LLLELRE"),
        ("DaemonSet", pod(|p| p.controller = daemon()), "LLLLELR"),
        ("DaemonSet with emptyDir", pod(|p| (p.controller, p.local_storage) = (daemon(), true)), "LLLLELR"),
        ("mirror", pod(|p| (p.mirror, p.controller) = (true, node())), "LLLLLLL"),
        ("reading the node's facts for us", pod(|p| p.controller = node()), "LLLLLLL"),
        ("that, being deleted", pod(|p| (p.ends_by, p.controller) = (Some(p.created), node())), "LLLLLLL"),
        (
            "finished, bare, emptyDir",
            pod(|p| (p.finished, p.controller, p.local_storage) = (true, None, true)),
            "EEEEEEE",
        ),
        ("finished of a DaemonSet", pod(|p| (p.finished, p.controller) = (true, daemon())), "EEEEEEE"),
        ("being deleted", pod(|p| p.ends_by = Some(p.created)), "WWWWWWW"),
        ("being deleted, bare", pod(|p| (p.ends_by, p.controller) = (Some(p.created), None)), "WWWWWWW"),
        (
            "mirror, being deleted",
            pod(|p| (p.mirror, p.controller, p.ends_by) = (true, node(), Some(p.created))),
            "LLLLLLL",
        ),
        (
            "DaemonSet, being deleted",
            pod(|p| (p.controller, p.ends_by) = (daemon(), Some(p.created))),
            "LLLLWLW",
        ),
        // The Job of an operation that is over is not shown, so that its pod looks like anybody's.
        ("of a NodeOp by its label alone, finished", labelled(true), "LLLLLLL"),
        ("of a NodeOp by its label alone", labelled(false), "EEEEEEE"),
        ("of our own Job", pod(|p| p.controller = Some(Owner::job("ours", "ju"))), "LLLLLLL"),
        (
            "that comes back when it is evicted",
            pod(|p| p.created = Timestamp::from_second(STARTED + 1).unwrap()),
            "LLLLLLL",
        ),
    ];
    for (kind, pod, wanted) in rows {
        let found: String = columns.iter().map(|drain| letter(&pod, drain)).collect();
        assert_eq!(found, wanted, "{kind}");
    }
}

#[test]
fn selectors_and_patience() {
    let app = |value: &str| LabelSelector {
        match_labels: Some([("app".to_owned(), value.to_owned())].into()),
        ..LabelSelector::default()
    };
    let web = pod(|_| {});
    assert_eq!(letter(&web, &options(|o| o.pod_selector = Some(app("web")))), 'E');
    assert_eq!(letter(&web, &options(|o| o.pod_selector = Some(app("db")))), 'L');
    assert_eq!(letter(&web, &options(|o| o.skip = Some(app("web")))), 'L');
    assert_eq!(letter(&web, &options(|o| o.skip = Some(app("db")))), 'E');
    let ending = pod(|p| p.ends_by = Timestamp::from_second(STARTED).ok());
    assert_eq!(
        letter(&ending, &options(|o| o.pod_selector = Some(app("db")))),
        'L',
        "what is left is not waited for"
    );
    assert_eq!(letter(&ending, &options(|o| o.skip_wait_for_delete_timeout_seconds = Some(50))), 'L');
    assert_eq!(letter(&ending, &options(|o| o.skip_wait_for_delete_timeout_seconds = Some(51))), 'W');
    assert_eq!(letter(&ending, &options(|o| o.skip_wait_for_delete_timeout_seconds = Some(0))), 'W');
}

#[test]
fn what_is_not_set_is_the_go_operators_default() {
    let drain = options(|_| {});
    assert!(drain.ignore_daemon_sets && !drain.force && !drain.delete_empty_dir_data && !drain.strict);
    assert_eq!((drain.timeout, drain.grace_period_seconds), (None, None));
    let drain = options(|o| (o.timeout_seconds, o.grace_period_seconds) = (Some(30), Some(-1)));
    assert_eq!((drain.timeout, drain.grace_period_seconds), (Some(SignedDuration::from_secs(30)), None));
}

fn kept(name: &str, deleted: bool) -> KeptCordon {
    KeptCordon { by: by(name), deleted }
}

fn by(name: &str) -> OpRef {
    OpRef { namespace: "default".into(), name: name.into(), uid: format!("{name}-uid") }
}

/// NodeOps `live` and `over`; `gone` is confirmed to be gone, and of `unknown` nothing is known.
fn snapshot() -> Snapshot {
    let op = |name: &str, phase| {
        let mut op = NodeOp::new(name, NodeOpSpec::default());
        op.metadata.namespace = Some("default".into());
        op.metadata.uid = Some(by(name).uid);
        op.status = Some(NodeOpStatus { phase: Some(phase), ..NodeOpStatus::default() });
        (by(name).key(), Arc::new(op))
    };
    Snapshot {
        now: Timestamp::UNIX_EPOCH,
        leading_since: Timestamp::UNIX_EPOCH,
        ops: [op("live", Phase::Running), op("over", Phase::Failed)].into(),
        answers: [(Question::Op(by("gone")), Answer::NotFound)].into(),
        ..Snapshot::default()
    }
}

fn node(unschedulable: bool, cordoned_by: Option<&str>, claimed_by: Option<&str>) -> NodeView {
    NodeView {
        unschedulable,
        cordoned_by: cordoned_by.map(by),
        claimed_by: claimed_by.map(by),
        ..NodeView::default()
    }
}

#[test]
fn taking_a_node() {
    let s = snapshot();
    let me = by("me");
    let patch = |unschedulable: Option<bool>, cordoned: bool, claimed: bool| {
        Take::Patch(NodeChange {
            unschedulable,
            cordoned_by: cordoned.then(|| Some(by("me"))),
            claimed_by: claimed.then(|| Some(by("me"))),
            ..NodeChange::default()
        })
    };
    let cases = [
        ("free", node(false, None, None), true, patch(Some(true), true, true)),
        ("free, no cordon asked", node(false, None, None), false, patch(None, false, true)),
        ("cordoned by a human", node(true, None, None), true, patch(None, false, true)),
        ("cordoned by a finished NodeOp", node(true, Some("over"), None), true, patch(None, true, true)),
        ("cordoned by one that is gone", node(true, Some("gone"), None), true, patch(None, true, true)),
        ("cordoned by a live one", node(true, Some("live"), None), true, patch(None, false, true)),
        (
            "kept by one that failed",
            NodeView { kept_cordon: Some(kept("over", false)), ..node(true, None, None) },
            true,
            patch(None, false, true),
        ),
        (
            "uncordoned by a human after a failure",
            NodeView { kept_cordon: Some(kept("gone", true)), ..node(false, None, None) },
            true,
            patch(Some(true), true, true),
        ),
        (
            "cordoned by who knows",
            node(true, Some("unknown"), None),
            true,
            Take::Ask(Question::Op(by("unknown"))),
        ),
        (
            "uncordoned under a stale mark",
            node(false, Some("over"), None),
            true,
            patch(Some(true), true, true),
        ),
        ("claimed by a live one", node(true, Some("live"), Some("live")), true, Take::Taken(by("live"))),
        ("claimed by a finished one", node(false, None, Some("over")), true, Take::Taken(by("over"))),
        ("held", node(true, Some("me"), Some("me")), true, Take::InPlace),
        ("held, then uncordoned", node(false, Some("me"), Some("me")), true, patch(Some(true), true, false)),
        ("held, the claim removed", node(true, Some("me"), None), true, patch(None, false, true)),
    ];
    for (case, node, cordon, wanted) in cases {
        assert_eq!(take(&s, &node, &me, cordon), wanted, "{case}");
    }
}

#[test]
fn giving_a_node_back() {
    let me = by("me");
    let change = |unschedulable: Option<bool>, mark: bool, claim: bool| {
        Some(NodeChange {
            unschedulable,
            cordoned_by: mark.then_some(None),
            claimed_by: claim.then_some(None),
            ..NodeChange::default()
        })
    };
    let marked = |claim: bool| {
        Some(NodeChange {
            claimed_by: claim.then_some(None),
            kept_cordon: Some(kept("me", false).into()),
            ..NodeChange::default()
        })
    };
    let failed = |by: &str, unschedulable: bool| NodeView {
        kept_cordon: Some(kept(by, true)),
        ..node(unschedulable, None, Some("me"))
    };
    use Ending::{Keep, Uncordon, Undo};
    let cases = [
        ("all is ours", node(true, Some("me"), Some("me")), Uncordon, change(Some(false), true, true)),
        ("it was cancelled", node(true, Some("me"), Some("me")), Undo, change(Some(false), true, true)),
        ("it failed and stays cordoned", node(true, Some("me"), Some("me")), Keep, marked(true)),
        ("a human's cordon", node(true, None, Some("me")), Uncordon, change(None, false, true)),
        ("a human's cordon, after a failure", node(true, None, Some("me")), Keep, change(None, false, true)),
        (
            "another NodeOp's cordon",
            node(true, Some("over"), Some("me")),
            Uncordon,
            change(None, false, true),
        ),
        ("a human uncordoned it", node(false, Some("me"), Some("me")), Uncordon, change(None, true, true)),
        ("a human uncordoned the failed one", node(false, Some("me"), None), Keep, change(None, true, false)),
        ("it failed, its claim was removed", node(true, Some("me"), None), Keep, marked(false)),
        (
            "it repaired what another one had left",
            failed("over", true),
            Uncordon,
            change(Some(false), true, true),
        ),
        ("it did not come to repair it", failed("over", true), Undo, change(None, false, true)),
        ("it failed again", failed("over", true), Keep, marked(true)),
        ("that it failed is marked already", failed("me", true), Keep, change(None, false, true)),
        (
            "a human uncordoned what another one had left",
            failed("over", false),
            Keep,
            change(None, true, true),
        ),
        ("nothing is ours", node(true, Some("live"), Some("live")), Uncordon, None),
        (
            "what it left is not in its hands",
            NodeView { claimed_by: None, ..failed("me", true) },
            Uncordon,
            None,
        ),
    ];
    for (case, node, ending, wanted) in cases {
        assert_eq!(give_back(&node, &me, ending), wanted, "{case}");
    }
    assert!(
        is_kept_by(&failed("me", true), &me)
            && !is_kept_by(&failed("over", true), &me)
            && !is_kept_by(&failed("me", false), &me)
    );
    // A NodeOp made again under the same name is another one.
    let again = OpRef { uid: "another".into(), ..by("me") };
    assert_eq!(give_back(&node(true, Some("me"), Some("me")), &again, Uncordon), None);
}
