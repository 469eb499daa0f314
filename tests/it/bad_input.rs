//! Every field of both kinds with every kind of bad value, all the way: refused by the API server (its schema
//! and rules, as kairos-sim checks them), or read, rendered into objects that an API server takes, and run to
//! an end or to a reason to wait, without a write that repeats.
//!
//! The fields are read off the CRDs, so that none is forgotten.

use std::collections::BTreeSet;

use kairos_operator::{
    api::{
        child,
        nodeop::{NodeOp, NodeOpSpec, Phase},
        upgrade::NodeOpUpgrade,
    },
    cli,
    plan::model::object_name,
    render::job,
};
use kairos_sim::kinds::{Kind, custom};
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{golden::stage::Stage, rendered, simulation::world::Script};

fn kind(name: &str) -> Kind {
    let definition = match name {
        "NodeOp" => serde_json::to_value(NodeOp::crd()),
        _ => serde_json::to_value(NodeOpUpgrade::crd()),
    };
    custom::kinds_of(&definition.unwrap()).unwrap().remove(0)
}

fn schema(name: &str) -> Value {
    let crd =
        serde_json::to_value(if name == "NodeOp" { NodeOp::crd() } else { NodeOpUpgrade::crd() }).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

/// The JSON pointers of all fields below a schema; an item of a list is its first one, a key of a map is `k`.
fn fields(schema: &Value, at: &str, found: &mut Vec<String>) {
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        found.push(format!("{at}/{name}"));
        fields(inner, &format!("{at}/{name}"), found);
    }
    for (part, name) in [("items", "0"), ("additionalProperties", "k")] {
        if schema[part].is_object() {
            found.push(format!("{at}/{name}"));
            fields(&schema[part], &format!("{at}/{name}"), found);
        }
    }
}

/// `spec` with `value` at a pointer; what is missing on the way is made.
fn with(mut spec: Value, pointer: &str, value: &Value) -> Value {
    let mut at = &mut spec;
    for part in pointer.split('/').skip(1) {
        at = match part {
            "0" => {
                if !at.is_array() {
                    *at = json!([]);
                }
                let list = at.as_array_mut().unwrap();
                if list.is_empty() {
                    list.push(Value::Null);
                }
                &mut list[0]
            }
            name => {
                if !at.is_object() {
                    *at = json!({});
                }
                at.as_object_mut().unwrap().entry(name).or_insert(Value::Null)
            }
        };
    }
    *at = value.clone();
    spec
}

/// Wrong, extreme, empty, huge and non-ASCII.
fn values() -> Vec<Value> {
    let mut values = vec![
        Value::Null,
        json!(true),
        json!(false),
        json!({}),
        json!({"a": "b"}),
        json!({"ключ": "значение"}),
    ];
    values.extend([
        json!([]),
        json!([null]),
        json!([""]),
        json!(["a", "a"]),
        json!(["日本\u{202e}語", "\u{0}\n", "-"]),
        json!([{}]),
    ]);
    for number in [i64::MIN, -1, 0, 1, i64::from(i32::MAX), i64::from(i32::MAX) + 1, i64::MAX] {
        values.push(json!(number));
    }
    values.extend([json!(1.5), json!(1e300), json!(u64::MAX)]);
    for text in [
        "",
        " ",
        "x",
        "In",
        "Exists",
        "/",
        "/a",
        "..",
        "\u{0}",
        "a\nb",
        "'; rm -rf / #",
        "日本語",
        "%s%n",
        "--force",
        "true",
        "300s",
    ] {
        values.push(json!(text));
    }
    values.extend([json!("y".repeat(70_000)), json!(vec!["z".repeat(70); 2000])]);
    values
}

const BASES: [(&str, &str); 3] = [
    (
        "NodeOp",
        r#"{"command": ["true"], "cordon": true, "rebootOnSuccess": true, "concurrency": 1, "drainOptions": {"enabled": true},
        "preflight": {"command": ["check"]}}"#,
    ),
    (
        "NodeOp",
        r#"{"image": "kairos:v2", "upgrade": {"active": true}, "cordon": true, "rebootOnSuccess": true}"#,
    ),
    ("NodeOpUpgrade", r#"{"image": "kairos:v2"}"#),
];

/// The object as the API server would store it, or its refusal.
fn admitted(kind: &Kind, spec: &Value) -> Result<Value, String> {
    let meta = json!({"name": "op", "namespace": "default", "uid": "u"});
    let object = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": kind.kind, "metadata": meta, "spec": spec});
    kind.admit(&object, None, false).map_err(|error| error.message)
}

/// What is wrong with what a NodeOp makes.
fn unfit(op: &NodeOp) -> Vec<String> {
    let job = job::job(op, rendered::ON, "job", &rendered::render_config());
    let mut wrong = Vec::new();
    // Go multiplies it to nanoseconds: above that, a Job fails of a deadline that lies in the past.
    let deadline = job.spec.as_ref().and_then(|spec| spec.active_deadline_seconds).unwrap_or(0);
    if !(1..=i64::MAX / 1_000_000_000).contains(&deadline) {
        wrong.push(format!("the Job's activeDeadlineSeconds: {deadline}"));
    }
    for (main, pod) in rendered::pods(op) {
        wrong.extend(rendered::wrong_with(main, &pod));
        let pod = pod.spec.unwrap_or_default();
        if pod.active_deadline_seconds.is_some_and(|seconds| !(1..=i64::from(i32::MAX)).contains(&seconds)) {
            wrong.push(format!("a pod's activeDeadlineSeconds: {:?}", pod.active_deadline_seconds));
        }
        for container in pod.init_containers.into_iter().flatten().chain(pod.containers) {
            let mut argv = container.command.unwrap_or_default();
            argv.extend(container.args.unwrap_or_default());
            if argv.first().is_some_and(|program| program.ends_with("kairos-operator"))
                && let Err(error) = cli::parse(argv.iter().map(std::ffi::OsString::from))
            {
                wrong.push(format!("{argv:?}: {error:?}"));
            }
        }
    }
    let named =
        (op.metadata.name.as_deref().unwrap_or_default(), op.metadata.uid.as_deref().unwrap_or_default());
    wrong.extend(object_name::accounts(named, "n1").into_iter().filter(|name| name.len() > 63));
    wrong
}

/// Runs it in a calm world of two nodes; what goes wrong with that. That world has no upgrades: a command
/// stands in for one.
fn played(spec: &NodeOpSpec) -> Vec<String> {
    let mut stage = Stage::new(2);
    let command = spec.command.clone().or_else(|| Some(vec!["upgrade".into()]));
    stage.world.add_op("op", NodeOpSpec { upgrade: None, command, ..spec.clone() }, Script::default());
    let over = |world: &crate::simulation::world::World| {
        let op = world.ops.live().values().next().cloned();
        op.and_then(|op| op.status.as_ref()?.phase).is_some_and(Phase::is_final)
    };
    stage.play_until(120, over);
    let mut wrong = stage.world.history.broken.clone();
    let lines = stage.world.log.len();
    if lines > 250 {
        wrong.push(format!(
            "{lines} things happened: {:?}",
            stage.world.log.iter().rev().take(6).collect::<Vec<_>>()
        ));
    }
    let status = stage.world.ops.live().values().next().and_then(|op| op.status.clone()).unwrap_or_default();
    let silent = |phase: Phase, message: &Option<String>| {
        phase != Phase::Completed && message.as_deref().unwrap_or_default().is_empty()
    };
    if silent(status.phase.unwrap_or_default(), &status.message) {
        wrong.push("the NodeOp says nothing".into());
    }
    wrong.extend(
        status
            .node_statuses
            .iter()
            .filter(|(_, node)| silent(node.phase, &node.message))
            .map(|(name, _)| format!("{name} says nothing")),
    );
    wrong
}

#[test]
fn every_field_with_every_value_is_refused_or_runs_to_an_end_or_a_reason() {
    let nodeop = kind("NodeOp");
    let (mut seen, mut refused, mut wrong) = (BTreeSet::new(), 0, Vec::new());
    let mut ran = 0;
    for (name, base) in BASES {
        let (kind, base): (Kind, Value) = (kind(name), serde_json::from_str(base).unwrap());
        let mut pointers = Vec::new();
        fields(&schema(name), "", &mut pointers);
        assert!(pointers.len() > 20, "{pointers:?}");
        for (pointer, value) in
            pointers.iter().flat_map(|pointer| values().into_iter().map(move |value| (pointer, value)))
        {
            let case =
                || format!("{name}{pointer} = {}", value.to_string().chars().take(60).collect::<String>());
            let spec = with(base.clone(), pointer, &value);
            let object = match admitted(&kind, &spec) {
                Ok(object) => object,
                Err(why) => {
                    refused += 1;
                    if why.is_empty() {
                        wrong.push(format!("{}: refused without a word", case()));
                    }
                    continue;
                }
            };
            // What was pruned or defaulted to the same has been tried.
            if !seen.insert(object.to_string()) {
                continue;
            }
            let op: NodeOp = if name == "NodeOp" {
                serde_json::from_value(object)
                    .unwrap_or_else(|error| panic!("{}: {error}, and no NodeOp is seen any more", case()))
            } else {
                let upgrade: NodeOpUpgrade =
                    serde_json::from_value(object).unwrap_or_else(|error| panic!("{}: {error}", case()));
                let made = child::first(&upgrade);
                if let Err(why) = admitted(&nodeop, &serde_json::to_value(&made.spec).unwrap()) {
                    wrong.push(format!("{}: its NodeOp is refused: {why}", case()));
                    continue;
                }
                made
            };
            ran += 1;
            wrong.extend(
                unfit(&op).into_iter().chain(played(&op.spec)).map(|what| format!("{}: {what}", case())),
            );
        }
    }
    println!("{refused} refused, {ran} run");
    assert!(wrong.is_empty(), "{} of {ran}:\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
    assert!(refused > 500 && ran > 200, "{refused} refused, {ran} run");
}
