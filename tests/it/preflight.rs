//! The pod of a user's preflight is what the Go operator's users wrote their scripts for. One that quietly
//! finds nothing, for want of a right that it had there, says that each node is to be drained and rebooted.

use kairos_operator::{api::nodeop::NodeOp, render::preflight};
use serde_json::{Value, json};

use crate::rendered::render_config;

fn pod(op: NodeOp) -> Value {
    json!(preflight::pod(&op, "n1", "name", &render_config()))
}

#[test]
fn a_preflight_of_the_go_operator_may_do_here_what_it_may_do_there() {
    let op: NodeOp = serde_saphyr::from_str(include_str!("../fixtures/go-operator-preflight.yaml")).unwrap();
    let command = op.spec.preflight.as_ref().unwrap().command.clone();
    assert!(command[2].contains("chroot /host"), "which takes CAP_SYS_CHROOT");
    let pod = pod(op);
    let spec = &pod["spec"];
    assert_eq!(spec["restartPolicy"], "OnFailure", "what fails is tried again");
    let containers = spec["containers"].as_array().unwrap();
    let [check] = containers.as_slice() else { panic!("{containers:#?}") };
    // The runtime's capabilities, and root if the image is root's.
    assert_eq!((&spec["securityContext"], &check["securityContext"]), (&Value::Null, &Value::Null));
    assert_eq!((&check["command"], &check["args"]), (&json!(command), &Value::Null));
    assert_eq!(check["image"], "registry.example.com/tools:1");
    assert_eq!(check["env"], json!([{"name": "HOST_DIR", "value": "/host"}]));
    // What is mounted below the host's root, as `/run` and `/var` on Kairos, is as writable as there.
    assert_eq!(check["volumeMounts"], json!([{"name": "host-root", "mountPath": "/host", "readOnly": true}]));
    let host = json!({"name": "host-root", "hostPath": {"path": "/", "type": "Directory"}});
    assert!(spec["volumes"].as_array().unwrap().contains(&host));
    // Ahead of it the operation's own image is looked at, which none of these rights is for.
    let before: Vec<_> = spec["initContainers"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(before, ["install", "image-check"]);
    assert_eq!((&spec["hostPID"], &spec["hostNetwork"]), (&Value::Null, &Value::Null));
    assert_eq!(spec["automountServiceAccountToken"], false);
}

#[test]
fn our_own_check_needs_no_right_and_has_none() {
    let upgrade = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp", "metadata": {"name": "op", "namespace": "default", "uid": "u"},
        "spec": {"image": "os:1", "upgrade": {"active": true}}});
    let pod = pod(serde_json::from_value(upgrade).unwrap());
    assert_eq!(pod["spec"]["restartPolicy"], "Never", "it refuses each time what it refuses once");
    let context = &pod["spec"]["containers"][0]["securityContext"];
    assert_eq!(
        (&context["capabilities"], &context["allowPrivilegeEscalation"]),
        (&json!({"drop": ["ALL"]}), &json!(false))
    );
    let mount = &pod["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!((&mount["readOnly"], &mount["recursiveReadOnly"]), (&json!(true), &json!("IfPossible")));
}
