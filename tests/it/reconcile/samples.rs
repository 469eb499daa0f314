//! Every file of `manifests/samples`, applied as it is to a cluster with all manifests installed, and run to
//! its end.
//!
//! The admission policies, which kairos-sim stores and does not evaluate, are asked beside it what they say
//! of a sample.

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use kairos_operator::api::{nodeop::NodeOp, upgrade::NodeOpUpgrade};
use kairos_sim::{Cluster, Outcome, kairos};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::rig::{LONG, Rig, UPGRADES};
use crate::{policies, tidy::scan::files};

/// The samples that are run below, so that none is forgotten.
const NODEOPS: [&str; 3] = ["nodeop.yaml", "nodeop-generatename.yaml", "nodeop-preflight.yaml"];
const UPGRADED: [&str; 4] = [
    "nodeopupgrade.yaml",
    "upgrade-canary-then-fleet.yaml",
    "upgrade-recovery-only.yaml",
    "upgrade-single-node.yaml",
];

const NODES: [&str; 3] = ["n1", "n2", "n3"];

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("manifests/samples")
}

fn sample(file: &str) -> String {
    fs::read_to_string(directory().join(file)).unwrap()
}

fn documents(file: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&sample(file)).unwrap()
}

#[test]
fn every_sample_is_run_here_and_none_is_warned_of() {
    let run: BTreeSet<String> = NODEOPS.iter().chain(&UPGRADED).map(|file| (*file).to_owned()).collect();
    let there: BTreeSet<String> = files(&directory(), "")
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(run, there);
    for (file, object) in
        run.iter().flat_map(|file| documents(file).into_iter().map(move |object| (file, object)))
    {
        let kind = if object["kind"] == "NodeOp" { "nodeops" } else { "nodeopupgrades" };
        assert!(
            !policies::warnings::warned(kind, None, object["spec"].clone()),
            "{file} takes all nodes at once"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands() {
    let rig = Rig::new(3).await;
    rig.cluster.script(|run| {
        let told = if run.node == "n2" { "the limit is set already" } else { "" };
        (run.container.name == "preflight").then(|| Outcome::Exit(Duration::ZERO, 0, told.into()))
    });
    rig.labelled().await;

    rig.cluster.apply(&sample("nodeop.yaml")).await.unwrap();
    let status = rig.over("example-nodeop").await;
    let counts = &status["counts"];
    assert_eq!(
        (&status["phase"], &counts["completed"], &counts["total"]),
        (&json!("Completed"), &json!(1), &json!(1)),
        "{status:#}"
    );
    assert_eq!(
        NODES.map(|node| (rig.commands(node), rig.reboots(node))),
        [(1, 1), (0, 0), (0, 0)],
        "the control-plane node alone"
    );

    rig.cluster.apply(&sample("nodeop-preflight.yaml")).await.unwrap();
    let status = rig.over("inotify-limit").await;
    assert_eq!(
        (&status["phase"], &status["counts"]["completed"]),
        (&json!("Completed"), &json!(3)),
        "{status:#}"
    );
    assert_eq!(status["nodeStatuses"]["n2"]["message"], "Skipped by preflight: the limit is set already");
    assert_eq!(NODES.map(|node| (rig.commands(node), rig.reboots(node))), [(2, 2), (0, 0), (1, 1)]);

    // `kubectl create`: the server gives the name.
    let ops: Api<NodeOp> = Api::default_namespaced(rig.cluster.client());
    let mut names = BTreeSet::new();
    for _ in 0..2 {
        let op: NodeOp = serde_saphyr::from_str(&sample("nodeop-generatename.yaml")).unwrap();
        let made = ops.create(&PostParams::default(), &op).await.unwrap();
        let name = made.metadata.name.unwrap();
        let status = rig.over(&name).await;
        assert_eq!(
            (&status["phase"], &status["counts"]["completed"]),
            (&json!("Completed"), &json!(3)),
            "{status:#}"
        );
        names.insert(name);
    }
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(rig.left(), [""; 0]);
}

async fn upgraded(rig: &Rig, name: &str) -> Value {
    let over = |up: &Value| {
        up["metadata"]["name"] == name
            && matches!(up["status"]["phase"].as_str(), Some("Completed" | "Failed"))
    };
    if let Err(error) = rig.cluster.until(UPGRADES, LONG, over).await {
        panic!("{error:#}: {:#}", rig.status(name));
    }
    rig.over(name).await;
    let status = rig.cluster.get(UPGRADES, "default", name).unwrap()["status"].clone();
    assert_eq!(status["phase"], "Completed", "{status:#}");
    status
}

/// Whether it is that upgrade, and stands for that reason where it is.
fn stands(name: &str, reason: &str) -> impl Fn(&Value) -> bool {
    move |up| {
        let mut conditions = up["status"]["conditions"].as_array().into_iter().flatten();
        up["metadata"]["name"] == name && conditions.any(|condition| condition["reason"] == reason)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_upgrades() {
    // What the samples' image brings here is newer than what the nodes run.
    let image = documents("nodeopupgrade.yaml")[0]["spec"]["image"].as_str().unwrap().to_owned();
    let content = tempfile::tempdir().unwrap();
    kairos::make_image(content.path(), "v3.5.0").unwrap();
    let rig = Rig::with(Cluster::builder().nodes(3).control_planes(1).image(&image, content.path())).await;
    rig.labelled().await;
    let reboots = || NODES.map(|node| rig.reboots(node));

    rig.cluster.apply(&sample("upgrade-recovery-only.yaml")).await.unwrap();
    let status = upgraded(&rig, "upgrade-recovery").await;
    let message = status["nodeStatuses"]["n1"]["message"].as_str().unwrap_or_default();
    let upgraded_to = "Job completed successfully: recovery upgraded to v3.5.0-k3sv1.30.11+k3s1";
    assert!(message.starts_with(&format!("{upgraded_to}, as the node's own record says (20")), "{message}");
    assert_eq!(status["nodeStatuses"]["n1"]["verified"], true);
    assert_eq!(reboots(), [0, 0, 0]);
    let cordoned = |change: &kairos_sim::Change| {
        change.key.table.as_ref() == "nodes" && change.object["spec"]["unschedulable"] == true
    };
    assert!(
        !rig.cluster.history().iter().any(|change| cordoned(change)),
        "the recovery image is written under a node at work"
    );

    rig.patch_node("n3", json!({"metadata": {"labels": {"kubernetes.io/hostname": "worker-1"}}})).await;
    rig.cluster.apply(&sample("upgrade-single-node.yaml")).await.unwrap();
    let status = upgraded(&rig, "upgrade-worker-1").await;
    assert_eq!((&status["counts"]["total"], reboots()), (&json!(1), [0, 0, 1]), "{status:#}");

    // The canary is named after both upgrades are there, and have been looked at.
    rig.cluster.apply(&sample("upgrade-canary-then-fleet.yaml")).await.unwrap();
    for (name, waits) in [("upgrade-canary", "NoNodes"), ("upgrade-fleet", "Paused")] {
        rig.cluster.until(UPGRADES, LONG, stands(name, waits)).await.unwrap();
    }
    rig.patch_node("n2", json!({"metadata": {"labels": {"example.com/canary": "true"}}})).await;
    let status = upgraded(&rig, "upgrade-canary").await;
    assert_eq!((&status["counts"]["total"], reboots()), (&json!(1), [0, 1, 1]), "{status:#}");
    rig.cluster.until(UPGRADES, LONG, stands("upgrade-fleet", "Paused")).await.unwrap();
    let upgrades: Api<NodeOpUpgrade> = Api::default_namespaced(rig.cluster.client());
    let go_on = Patch::Merge(json!({"spec": {"paused": false}}));
    upgrades.patch("upgrade-fleet", &PatchParams::default(), &go_on).await.unwrap();
    // n1 is upgraded; n3, which is up to date, is skipped.
    let status = upgraded(&rig, "upgrade-fleet").await;
    assert_eq!((&status["counts"]["completed"], reboots()), (&json!(2), [1, 1, 1]), "{status:#}");

    rig.cluster.apply(&sample("nodeopupgrade.yaml")).await.unwrap();
    let status = upgraded(&rig, "kairos-upgrade").await;
    assert_eq!(
        (&status["counts"]["completed"], reboots()),
        (&json!(3), [1, 1, 1]),
        "all are up to date: {status:#}"
    );
    assert_eq!(rig.left(), [""; 0]);
}
