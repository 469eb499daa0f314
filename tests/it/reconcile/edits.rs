//! A NodeOpUpgrade that stays, and whose spec is changed: each change is a run, one after the other.

use std::time::Duration;

use kairos_operator::api::{nodeop::NodeOp, upgrade::NodeOpUpgrade};
use kairos_sim::kairos;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::rig::{LONG, OPS, Rig, UPGRADES};

const NODES: [&str; 3] = ["n1", "n2", "n3"];

async fn edit(rig: &Rig, spec: Value) {
    let upgrades: Api<NodeOpUpgrade> = Api::default_namespaced(rig.cluster.client());
    upgrades.patch("up", &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await.unwrap();
}

fn condition<'a>(object: &'a Value, type_: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|one| one["type"] == type_).unwrap_or(&Value::Null)
}

fn upgrade(rig: &Rig) -> Value {
    (*rig.cluster.get(UPGRADES, "default", "up").unwrap()).clone()
}

/// As `kubectl wait --for=condition=Ready` waits, or for the failure of this generation.
async fn over(rig: &Rig) -> Value {
    let over = |object: &Value| {
        let seen = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        seen && ["Ready", "Stalled"].iter().any(|type_| condition(object, type_)["status"] == "True")
    };
    match rig.cluster.until(UPGRADES, LONG, over).await {
        Ok(object) => (*object).clone(),
        Err(error) => panic!("{error:#}: {:#}", upgrade(rig)),
    }
}

fn runs(rig: &Rig, node: &str) -> (usize, usize) {
    (kairos::agent_calls(&rig.cluster.node(node).disk()).len(), rig.reboots(node))
}

fn release(rig: &Rig, node: &str) -> String {
    std::fs::read_to_string(rig.cluster.node(node).disk().join("etc/kairos-release")).unwrap()
}

/// `Ready` is never said of a spec other than the one that was done, and the first write after an edit that
/// asks for another run says that there is something to do.
fn is_ready_only_when_it_is(rig: &Rig) {
    let mut seen = 0;
    for change in rig.cluster.history().iter().filter(|change| change.key.table.as_ref() == UPGRADES) {
        let (object, status) = (&change.object, &change.object["status"]);
        let ready = condition(object, "Ready");
        let generation = object["metadata"]["generation"].as_i64().unwrap();
        let observed = status["observedGeneration"].as_i64().unwrap_or(0);
        assert!(observed <= generation, "{object:#}");
        if ready["status"] == "True" {
            assert_eq!(
                (&status["phase"], ready["observedGeneration"].as_i64()),
                (&json!("Completed"), Some(observed))
            );
            assert!(condition(object, "Reconciling").is_null(), "{object:#}");
        }
        let before = change.before.as_ref().map(|before| before["status"]["run"].clone()).unwrap_or_default();
        if observed > seen && status["run"] != before && !before.is_null() {
            let says = |type_| condition(object, type_)["status"].clone();
            assert_eq!((says("Ready"), says("Reconciling")), (json!("False"), json!("True")), "{object:#}");
        }
        seen = seen.max(observed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_while_a_node_reboots_lets_it_end_and_then_runs_on_all() {
    let rig = Rig::new(3).await;
    rig.labelled().await;
    rig.hold_reboots();
    rig.upgrade("up", "v3.5.0").await;
    rig.in_step("up", "n1", "Reboot").await;
    edit(&rig, json!({"image": "kairos:v3.6.0"})).await;
    let superseded = |object: &Value| condition(object, "Reconciling")["reason"] == "Superseded";
    let says = rig.cluster.until(UPGRADES, LONG, superseded).await.unwrap();
    assert_eq!(condition(&says, "Ready")["status"], "False");
    rig.says("up", "n2", "not started: superseded").await;
    assert_eq!(rig.cluster.list(OPS).len(), 1, "the next run waits for the node in progress");
    rig.cluster.faults().clear();

    let done = over(&rig).await;
    assert_eq!(
        (&done["status"]["phase"], &done["status"]["counts"]["done"]),
        (&json!("Completed"), &json!("3/3"))
    );
    let name = done["status"]["nodeOpName"].as_str().unwrap();
    assert!(name.starts_with("up-") && name.len() == 11, "{name}");
    let history = &done["status"]["history"];
    assert_eq!(history.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&history[0]["nodeOp"], &history[0]["result"], &history[0]["done"], &history[0]["failed"]),
        (&json!("up"), &json!("Superseded"), &json!("1/3"), &json!(0))
    );
    assert!(
        history[0]["image"].as_str().unwrap().starts_with("kairos:v3.5.0")
            && history[0]["finishedAt"].is_string()
    );
    let old = rig.over("up").await;
    assert_eq!(old["nodeStatuses"]["n2"]["phase"], "Pending");
    rig.over(name).await;
    assert_eq!(NODES.map(|node| runs(&rig, node)), [(2, 2), (1, 1), (1, 1)]);
    assert!(NODES.iter().all(|node| release(&rig, node).contains("v3.6.0")));
    assert_eq!(rig.left(), [""; 0]);
    is_ready_only_when_it_is(&rig);

    // What only steers, and what is taken back at once, runs nothing.
    let before = rig.cluster.list(OPS).len();
    edit(&rig, json!({"paused": true, "historyLimit": 5})).await;
    over(&rig).await;
    edit(&rig, json!({"paused": null, "historyLimit": null, "force": false})).await;
    let same = over(&rig).await;
    assert_eq!((&same["status"]["nodeOpName"], rig.cluster.list(OPS).len()), (&json!(name), before));
    is_ready_only_when_it_is(&rig);
}

/// A revert is a run like any other, and going back asks for `force`: the upgrade itself says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revert_is_refused_with_the_words_that_allow_it() {
    let rig = Rig::new(1).await;
    rig.labelled().await;
    rig.upgrade("up", "v3.6.0").await;
    assert_eq!(over(&rig).await["status"]["phase"], "Completed");
    edit(&rig, json!({"image": "kairos:v3.5.0"})).await;
    let refused = over(&rig).await;
    let message = refused["status"]["message"].as_str().unwrap();
    assert!(
        message.contains("older than what the node runs") && message.contains("set force: true to go back"),
        "{message}"
    );
    edit(&rig, json!({"force": true})).await;
    let back = over(&rig).await;
    assert_eq!(back["status"]["phase"], "Completed", "{back:#}");
    let results: Vec<&Value> =
        back["status"]["history"].as_array().unwrap().iter().map(|run| &run["result"]).collect();
    assert_eq!(results, ["Failed", "Completed"]);
    assert!(release(&rig, "n1").contains("v3.5.0"));
    assert_eq!(runs(&rig, "n1"), (2, 2));
    is_ready_only_when_it_is(&rig);
}

/// Up, up on the way, back, the same again, paused and resumed, while the operator is killed all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_edits_under_kill_9_end_on_the_last_image() {
    let mut rig = Rig::new(3).await;
    rig.labelled().await;
    rig.upgrade("up", "v3.5.0").await;
    let edits = [
        json!({"image": "kairos:v3.6.0"}),
        json!({"image": "kairos:v3.5.0", "force": true}),
        json!({"image": "kairos:v3.5.0", "debug": false}),
        json!({"paused": true}),
        json!({"paused": false}),
    ];
    for change in edits {
        for _ in 0..3 {
            asks(&rig, 25).await;
            rig.operators.iter_mut().for_each(|operator| operator.kill());
            rig.start(&[]);
        }
        edit(&rig, change).await;
    }
    let done = over(&rig).await;
    assert_eq!(done["status"]["phase"], "Completed", "{done:#}");
    rig.over(done["status"]["nodeOpName"].as_str().unwrap()).await;
    assert!(NODES.iter().all(|node| release(&rig, node).contains("v3.5.0")));
    // Three generations asked for another run each: one boot a node and run at most.
    for node in NODES {
        let (calls, boots) = runs(&rig, node);
        assert!((1..=3).contains(&boots) && calls == boots, "{node}: {calls} upgrades, {boots} boots");
    }
    let unfinished = rig
        .cluster
        .list(OPS)
        .into_iter()
        .filter(|op| !matches!(op["status"]["phase"].as_str(), Some("Completed" | "Failed")));
    assert_eq!(unfinished.count(), 0);
    assert_eq!(rig.left(), [""; 0]);
    is_ready_only_when_it_is(&rig);
}

/// Waits until the operator has asked for so much more; one that is paused, or done, asks for nothing.
async fn asks(rig: &Rig, more: usize) {
    let before = rig.requests().len();
    let is_still = || {
        let object = upgrade(rig);
        condition(&object, "Ready")["status"] == "True" || object["spec"]["paused"] == true
    };
    let asked = async {
        while !is_still() && rig.requests().len() < before + more {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, asked)
        .await
        .unwrap_or_else(|_| panic!("nothing is asked: {:#}", upgrade(rig)));
}

/// Some fields of a NodeOp may be edited at any time. Flux, Argo CD and `kubectl wait` wait until its status
/// is about the spec as it is, also if it was over before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_nodeop_that_is_edited_is_not_in_progress_for_ever() {
    let rig = Rig::new(2).await;
    rig.op("fw", json!({"command": ["true"], "concurrency": 1})).await;
    rig.over("fw").await;
    let settled = |generation: i64| {
        move |op: &Value| {
            let is = |of: &Value| *of == json!(generation);
            let conditions = op["status"]["conditions"].as_array();
            is(&op["metadata"]["generation"])
                && is(&op["status"]["observedGeneration"])
                && conditions.into_iter().flatten().all(|one| is(&one["observedGeneration"]))
                && op["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)
        }
    };
    let before = rig.cluster.until(OPS, LONG, settled(1)).await.unwrap();
    let ops: Api<NodeOp> = Api::default_namespaced(rig.cluster.client());
    for (generation, spec) in
        [(2, json!({"notAfter": "2020-01-01T00:00:00Z"})), (3, json!({"concurrency": 2, "paused": true}))]
    {
        ops.patch("fw", &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await.unwrap();
        let after = rig.cluster.until(OPS, LONG, settled(generation)).await.unwrap();
        let bare = |op: &Value| {
            let mut status = op["status"].clone();
            status["observedGeneration"] = Value::Null;
            let conditions = status["conditions"].as_array_mut().unwrap();
            conditions.iter_mut().for_each(|one| one["observedGeneration"] = Value::Null);
            status
        };
        assert_eq!(bare(&after), bare(&before), "nothing else changes");
    }
    assert_eq!(["n1", "n2"].map(|node| rig.commands(node)), [1, 1]);
    let writes = rig.cluster.history().into_iter().filter(|change| {
        change.key.table.as_ref() == OPS && change.object["metadata"]["generation"].as_i64() > Some(1)
    });
    assert_eq!(writes.count(), 4, "each edit is answered by one write");
}
