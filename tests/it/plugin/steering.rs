//! `upgrade`, `run`, `pause`, `resume` and `cancel`: what they create, change and delete, and what they say.

use std::time::Duration;

use serde_json::{Value, json};

use super::stage::{Stage, command, entry};

const OPS: &str = "nodeops.operator.kairos.io";
const UPGRADES: &str = "nodeopupgrades.operator.kairos.io";
const LONG: Duration = Duration::from_secs(600);

fn under_way() -> Value {
    json!({"phase": "Running", "message": "m", "nodeStatuses": {
        "n1": entry("Completed", None, "done", 60),
        "n2": entry("Running", Some("Drain"), "draining", 60),
        "n3": entry("Pending", None, "waiting for its turn", 60)}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_goes_node_by_node_unless_more_is_asked_for() {
    let stage = Stage::new().await;
    let words =
        ["upgrade", "kairos:v3.5.0", "-l", "kairos.io/managed=true", "--name", "up1", "--stop-on-failure"];
    let shown = stage.run(&[&words[..], &["--dry-run=client", "-o", "yaml"]].concat()).await;
    let yaml = "apiVersion: operator.kairos.io/v1alpha1\nkind: NodeOpUpgrade\nmetadata:\n  name: up1\n  namespace: default\nspec:\n  concurrency: 1\n  image: kairos:v3.5.0\n  nodeSelector:\n    matchLabels:\n      kairos.io/managed: \"true\"\n  stopOnFailure: true\n";
    assert_eq!((shown.code, shown.out.as_str()), (0, yaml));
    assert_eq!(stage.writes(), 0, "a dry run of the client asks nobody");
    let tried = stage.run(&[&words[..], &["--dry-run=server"]].concat()).await;
    assert_eq!(tried.out, "nodeopupgrade.operator.kairos.io/up1 created (server dry run)\n");
    assert_eq!(stage.cluster.list(UPGRADES).len(), 0);

    let made = stage.run(&words).await;
    assert_eq!(
        (made.code, made.out.as_str()),
        (0, "nodeopupgrade.operator.kairos.io/up1 created\n"),
        "{made:?}"
    );
    assert_eq!(made.err, "Follow it: kubectl kairos status nou/up1 -n default -w\n");
    let spec = stage.cluster.get(UPGRADES, "default", "up1").unwrap()["spec"].clone();
    assert_eq!((&spec["concurrency"], &spec["stopOnFailure"]), (&json!(1), &json!(true)));
    assert_eq!(spec["force"], Value::Null);
    let forced = stage.run(&[&words[..], &["--force", "--dry-run=client", "-o", "yaml"]].concat()).await;
    assert!(forced.out.contains("\n  force: true\n"), "{forced:?}");
    let again = stage.run(&words).await;
    assert!(
        again.code == 2
            && again.err.contains("already exists\nAn operation runs once: give this one another --name"),
        "{again:?}"
    );
    let named = stage.run(&["upgrade", "kairos:v3.6.0", "-o", "name"]).await;
    assert!(named.out.starts_with("nodeopupgrade.operator.kairos.io/upgrade-"), "{named:?}");
    let refused = stage.run(&["upgrade", "i", "--name", "Bad_Name"]).await;
    assert!(
        refused.code == 2 && refused.err.starts_with("error: creating NodeOpUpgrade default/Bad_Name: "),
        "{refused:?}"
    );
    // A variable that a script has not set: nothing may be made of that.
    for words in [&["upgrade", ""][..], &["run", "--image", "", "--", "x"], &["upgrade", "i", "--name", ""]] {
        let empty = stage.run(&[words, &["--dry-run=client"]].concat()).await;
        assert!(empty.code == 1 && empty.err.contains("a value is required"), "{words:?}: {empty:?}");
    }
    let nowhere = stage.run(&["status", "-n", ""]).await;
    assert!(nowhere.code == 1 && nowhere.err.contains("a value is required"), "{nowhere:?}");
    let wrong = stage.run(&["upgrade", "i", "-l", "a near b"]).await;
    assert!(wrong.code == 1 && wrong.err.contains("is no part of a selector"), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_runs_node_by_node_and_is_followed_to_its_end() {
    let stage = Stage::new().await;
    let words =
        ["run", "--name", "fw", "--image", "fw:1", "--drain", "--reboot", "--", "sh", "-c", "fw --all"];
    let made = stage.run(&words).await;
    assert_eq!((made.code, made.out.as_str()), (0, "nodeop.operator.kairos.io/fw created\n"), "{made:?}");
    let spec = stage.cluster.get(OPS, "default", "fw").unwrap()["spec"].clone();
    let wanted = json!({"command": ["sh", "-c", "fw --all"], "image": "fw:1", "concurrency": 1, "cordon": true,
        "drainOptions": {"enabled": true}, "rebootOnSuccess": true});
    for (field, value) in wanted.as_object().unwrap() {
        if field == "drainOptions" {
            assert_eq!(spec[field]["enabled"], true, "{spec:#}");
        } else {
            assert_eq!(&spec[field], value, "{spec:#}");
        }
    }
    assert_eq!(stage.run(&["run", "--name", "x"]).await.code, 1, "a command is needed");

    let mut waits =
        command(&stage.cluster.kubeconfig(), None, &["run", "--name", "w", "--wait", "--", "false"]);
    let waits = waits.stdout(std::process::Stdio::piped()).spawn().unwrap();
    stage.cluster.until(OPS, LONG, |op| op["metadata"]["name"] == "w").await.unwrap();
    let status = json!({"phase": "Failed", "message": "1 of 1 nodes failed", "nodeStatuses": {"n1": entry("Failed", None, "exit code 1", 1)}});
    stage.op("w", json!({"command": ["false"]}), status).await;
    let ended = waits.wait_with_output().await.unwrap();
    let out = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(out.ends_with("nop/w  n1  Failed  exit code 1\nnop/w  Failed  1 of 1 nodes failed\n"), "{out}");
    let late = stage.run(&["run", "--name", "late", "--wait", "--timeout", "1s", "--", "true"]).await;
    assert_eq!(late.code, 124, "{late:?}");
    assert!(late.err.contains("nop/late is not over after 1s:"), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_is_held_and_goes_on() {
    let stage = Stage::new().await;
    stage.upgrade("up1", json!({"image": "i", "concurrency": 1}), under_way()).await;
    let paused = stage.run(&["pause", "up1"]).await;
    assert_eq!(
        (paused.code, paused.out.as_str()),
        (0, "nou/up1 paused: n2 is under way and goes on to its end, 1 node not started\n")
    );
    let spec = |name: &str| stage.cluster.get(UPGRADES, "default", name).unwrap()["spec"].clone();
    assert_eq!(spec("up1")["paused"], true);
    assert_eq!(stage.run(&["pause", "nou/up1"]).await.out, "nou/up1 is paused already\n");
    assert!(stage.run(&["status"]).await.out.starts_with("● nou/up1  Running (paused)  "));
    let resumed = stage.run(&["resume", "up1"]).await;
    assert_eq!((resumed.code, resumed.out.as_str()), (0, "nou/up1 resumed: 1 node to go\n"));
    assert_eq!(spec("up1")["paused"], false);
    stage.upgrade("new", json!({"image": "i"}), json!({"phase": "Pending", "message": "m"})).await;
    let paused = stage.run(&["pause", "new"]).await;
    assert_eq!(paused.out, "nou/new paused: its nodes are chosen when it is resumed\n");
    assert_eq!(stage.run(&["resume", "new"]).await.out, "nou/new resumed: its nodes are chosen now\n");

    stage.upgrade_says("up1", json!({"phase": "Completed"})).await;
    for verb in ["pause", "resume", "cancel"] {
        let over = stage.run(&[verb, "up1"]).await;
        assert!(
            over.code == 2 && over.err.starts_with("error: NodeOpUpgrade default/up1 is over: Completed\n"),
            "{over:?}"
        );
    }
    // The NodeOp of an upgrade does as the upgrade says.
    let uid = stage.cluster.get(UPGRADES, "default", "new").unwrap()["metadata"]["uid"].clone();
    let child = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "spec": {"command": ["x"]},
        "metadata": {"name": "up2", "namespace": "default", "labels": {"app.kubernetes.io/managed-by": "nodeopupgrade-controller"},
            "ownerReferences": [{"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade", "name": "new", "uid": uid, "controller": true}]}});
    stage.cluster.apply(&child.to_string()).await.unwrap();
    let paused = stage.run(&["pause", "nop/up2"]).await;
    assert!(paused.code == 2 && paused.err.ends_with("Name that one: nou/new\n"), "{paused:?}");
    // One that outlived it, or was restored without it, does as its own spec says.
    let mut orphan = child;
    orphan["metadata"] =
        json!({"name": "up3", "namespace": "default", "labels": orphan["metadata"]["labels"]});
    stage.cluster.apply(&orphan.to_string()).await.unwrap();
    let paused = stage.run(&["pause", "nop/up3"]).await;
    assert_eq!(paused.code, 0, "{paused:?}");
}

/// What joins or drifts is taken in further rounds, and those can be held and ended, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_continuous_upgrade_is_held_and_ended_between_its_rounds() {
    let stage = Stage::new().await;
    let done = || json!({"phase": "Completed", "message": "m", "nodeStatuses": {"n1": entry("Completed", None, "done", 60)}});
    stage.upgrade("up1", json!({"image": "i", "concurrency": 1, "mode": "Continuous"}), done()).await;
    let planned = stage.run(&["plan", "nou/up1"]).await;
    let rounds = planned.err.starts_with(
        "error: NodeOpUpgrade default/up1 is between its rounds: Completed\nmode is Continuous: ",
    );
    assert!(planned.code == 2 && rounds, "{planned:?}");
    let paused = stage.run(&["pause", "up1"]).await;
    assert_eq!((paused.code, paused.out.as_str()), (0, "nou/up1 paused: no further round begins\n"));
    let spec = |name: &str| stage.cluster.get(UPGRADES, "default", name).unwrap()["spec"].clone();
    assert_eq!(spec("up1")["paused"], true);
    let shown = stage.run(&["status", "up1"]).await;
    assert!(shown.out.starts_with("✓ nou/up1  Completed (paused)  "), "{shown:?}");
    let resumed = stage.run(&["resume", "up1"]).await;
    assert_eq!(
        (resumed.code, resumed.out.as_str()),
        (0, "nou/up1 resumed: a further round takes nodes that need it\n")
    );
    assert_eq!(spec("up1")["paused"], false);
    let ended = stage.run(&["cancel", "up1", "-y"]).await;
    let says = "What that ends:\n  nothing is under way\n  no further round begins\nnodeopupgrade.operator.kairos.io/up1 deleted\n";
    assert!(ended.code == 0 && ended.out.ends_with(says), "{ended:?}");

    stage.upgrade("up2", json!({"image": "i", "concurrency": 1, "mode": "Once"}), done()).await;
    for words in [["pause", "up2"], ["plan", "nou/up2"]] {
        let over = stage.run(&words).await;
        assert!(over.code == 2 && over.err.contains("default/up2 is over: Completed\n"), "{over:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_is_ended_after_it_was_said_what_that_ends() {
    let stage = Stage::new().await;
    stage.upgrade("up1", json!({"image": "i", "concurrency": 1}), under_way()).await;
    let asked = stage.run(&["cancel", "up1"]).await;
    assert_eq!(asked.code, 1);
    assert_eq!(
        asked.err,
        "error: NodeOpUpgrade default/up1 was not cancelled: there is no terminal to ask on\nSay that it is meant: -y\n"
    );
    assert!(stage.cluster.get(UPGRADES, "default", "up1").is_some());
    let said = "Cancelling NodeOpUpgrade default/up1 deletes it, with its Jobs and their logs. What that ends:\n  n2: its drain stops, and its own cordon is taken off; the node is untouched\n  1 node not started\n";
    assert_eq!(asked.out, said);
    let ended = stage.run(&["cancel", "up1", "-y"]).await;
    assert_eq!((ended.code, ended.out), (0, format!("{said}nodeopupgrade.operator.kairos.io/up1 deleted\n")));
    stage.cluster.until_none(UPGRADES, LONG, |_| true).await.unwrap();
}

/// Of very many nodes an upgrade's own status leaves out those that wait or are done; its counts do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_the_status_leaves_out_are_counted_all_the_same() {
    let stage = Stage::new().await;
    let counts = |pending: i32| json!({"total": 1500, "pending": pending, "running": 0, "completed": 0, "failed": 0, "done": "0/1500"});
    let spec = json!({"image": "i", "concurrency": 1});
    stage.upgrade("up1", spec, json!({"phase": "Running", "message": "m", "counts": counts(1500)})).await;
    assert_eq!(stage.run(&["pause", "up1"]).await.out, "nou/up1 paused: 1500 nodes not started\n");
    assert_eq!(stage.run(&["resume", "up1"]).await.out, "nou/up1 resumed: 1500 nodes to go\n");
    let looking = json!({"n2": entry("Preflight", None, "looking", 60)});
    stage.upgrade_says("up1", json!({"counts": counts(1499), "nodeStatuses": looking})).await;
    let asked = stage.run(&["cancel", "up1"]).await;
    assert!(asked.out.ends_with("untouched\n  1498 nodes not started\n"), "{asked:?}");
}

/// A paused operation lets a preflight speak, and does not take its node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_in_preflight_counts_among_those_that_a_pause_does_not_start() {
    let stage = Stage::new().await;
    let status = json!({"phase": "Running", "message": "m", "nodeStatuses": {
        "n1": entry("Running", Some("Job"), "upgrading", 60),
        "n2": entry("Preflight", None, "looking", 60),
        "n3": entry("Pending", None, "waiting for its turn", 60)}});
    stage.upgrade("up1", json!({"image": "i", "concurrency": 1}), status).await;
    let paused = stage.run(&["pause", "up1"]).await;
    assert_eq!(
        (paused.code, paused.out.as_str()),
        (0, "nou/up1 paused: n1 is under way and goes on to its end, 2 nodes not started\n")
    );
    let resumed = stage.run(&["resume", "up1"]).await;
    assert_eq!(resumed.out, "nou/up1 resumed: 2 nodes to go\n");
}

/// Only a cordon that the operation set is promised to be taken off, and what an upgrade wrote is not undone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_end_does_to_a_node_is_what_the_operation_had_begun_there() {
    let stage = Stage::new().await;
    let at = |step: &str| json!({"phase": "Running", "message": "m", "nodeStatuses": {"n1": entry("Running", Some(step), "m", 60)}});
    let drain = json!({"enabled": true});
    let upgrade = json!({"active": true});
    for (name, spec, step, says) in [
        ("plain", json!({"command": ["x"]}), "Claim", "nothing is started; the node is untouched"),
        (
            "cordons",
            json!({"command": ["x"], "cordon": true}),
            "Claim",
            "nothing is started, and its own cordon is taken off; the node is untouched",
        ),
        (
            "drains",
            json!({"command": ["x"], "cordon": true, "drainOptions": drain}),
            "Drain",
            "its drain stops, and its own cordon is taken off; the node is untouched",
        ),
        (
            "reboots",
            json!({"command": ["x"], "rebootOnSuccess": true}),
            "Reboot",
            "a reboot that has not been asked for is cancelled",
        ),
        (
            "upgrades",
            json!({"image": "i", "upgrade": upgrade, "rebootOnSuccess": true}),
            "Reboot",
            "a reboot that has not been asked for is cancelled; the node boots the image that its upgrade wrote next",
        ),
    ] {
        stage.op(name, spec, at(step)).await;
        let asked = stage.run(&["cancel", &format!("nop/{name}")]).await;
        assert!(asked.out.contains(&format!("\n  n1: {says}\n")), "{name}: {asked:?}");
    }
    stage.upgrade("up1", json!({"image": "i", "concurrency": 1}), at("Reboot")).await;
    let asked = stage.run(&["cancel", "nou/up1"]).await;
    assert!(asked.out.contains("; the node boots the image that its upgrade wrote next\n"), "{asked:?}");
}
