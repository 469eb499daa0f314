//! Nodes: the patches that an operator makes, and what stays untouched by them.

use serde_json::{Value, json};

use super::{on_both, place::At, session::STRATEGIC};

on_both!(
    a_cordon_is_set_and_taken_off_at_a_version,
    conditions_are_set_and_removed_by_their_type,
    the_status_and_the_rest_are_written_apart,
);

async fn a_cordon_is_set_and_taken_off_at_a_version(at: At) {
    let path = format!("nodes/{}", at.node().await);
    let at = &at;
    let change = |change: Value| {
        let path = &path;
        async move {
            // Others write to a node, too.
            loop {
                let node = at.get(path).await.ok();
                let mut patch = change.clone();
                patch["metadata"]["resourceVersion"] = node["metadata"]["resourceVersion"].clone();
                let answer = at.merge(path, &patch).await;
                if answer.code != 409 {
                    return answer.ok();
                }
            }
        }
    };
    let on = change(
        json!({"metadata": {"annotations": {"example.io/by": "me"}}, "spec": {"unschedulable": true}}),
    )
    .await;
    assert_eq!(
        (&on["spec"]["unschedulable"], &on["metadata"]["annotations"]["example.io/by"]),
        (&json!(true), &json!("me"))
    );
    let stale = json!({"metadata": {"resourceVersion": "1"}, "spec": {"unschedulable": null}});
    let name = path.trim_start_matches("nodes/");
    let why = format!(
        "Operation cannot be fulfilled on nodes \"{name}\": the object has been modified; please apply your changes to the latest version and try again"
    );
    assert_eq!(at.merge(&path, &stale).await.refused(409, "Conflict"), why);
    let mine = format!("fieldSelector=metadata.name%3D{name}");
    let cordoned = at.get(&format!("nodes?{mine},spec.unschedulable%3Dtrue")).await.ok();
    assert_eq!(cordoned["items"].as_array().map(Vec::len), Some(1));
    let off = change(
        json!({"metadata": {"annotations": {"example.io/by": null}}, "spec": {"unschedulable": null}}),
    )
    .await;
    assert_eq!(
        (off["spec"].get("unschedulable"), off["metadata"]["annotations"].get("example.io/by")),
        (None, None)
    );
    let cordoned = at.get(&format!("nodes?{mine},spec.unschedulable%3Dfalse")).await.ok();
    assert_eq!(cordoned["items"].as_array().map(Vec::len), Some(1));
}

async fn conditions_are_set_and_removed_by_their_type(at: At) {
    let name = at.node().await;
    let (path, at) = (format!("nodes/{name}/status"), &at);
    let patch = |conditions: Value| {
        let path = &path;
        async move { at.patch(path, STRATEGIC, &json!({"status": {"conditions": conditions}})).await.ok() }
    };
    let condition = |kind: &str, reason: &str| {
        json!({"type": kind, "status": "True", "reason": reason, "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "lastHeartbeatTime": "2026-01-01T00:00:00Z"})
    };
    let ours = |node: &Value| -> Vec<String> {
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ours = conditions.iter().filter(|c| c["type"].as_str().unwrap().starts_with("Drain"));
        ours.map(|c| format!("{} {}", c["type"].as_str().unwrap(), c["reason"].as_str().unwrap())).collect()
    };
    let set = patch(json!([condition("DrainInProgress", "Began")])).await;
    assert_eq!(ours(&set), ["DrainInProgress Began"]);
    // The condition of another type comes first or last, by the server's choice; neither touches the other.
    let more = patch(json!([condition("Drained", "Done"), {"$patch": "delete", "type": "NoneSuch"}])).await;
    let mut both = ours(&more);
    both.sort();
    assert_eq!(both, ["DrainInProgress Began", "Drained Done"]);
    let one =
        patch(json!([condition("Drained", "Again"), {"$patch": "delete", "type": "DrainInProgress"}])).await;
    assert_eq!(ours(&one), ["Drained Again"]);
    let none = patch(json!([{"$patch": "delete", "type": "Drained"}])).await;
    assert_eq!(ours(&none), [""; 0]);
}

async fn the_status_and_the_rest_are_written_apart(at: At) {
    let name = at.node().await;
    let both = json!({"metadata": {"labels": {"example.io/a": "b"}}, "spec": {"unschedulable": true}, "status": {"nodeInfo": {"bootID": "b1"}}});
    let specified = at.merge(&format!("nodes/{name}"), &both).await.ok();
    assert_eq!(
        (&specified["spec"]["unschedulable"], &specified["status"]["nodeInfo"]["bootID"]),
        (&json!(true), &json!(""))
    );
    let other = json!({"metadata": {"labels": {"example.io/a": "c"}}, "spec": {"unschedulable": null}, "status": {"nodeInfo": {"bootID": "b2"}}});
    let stated = at.merge(&format!("nodes/{name}/status"), &other).await.ok();
    assert_eq!(
        (&stated["spec"]["unschedulable"], &stated["status"]["nodeInfo"]["bootID"]),
        (&json!(true), &json!("b2"))
    );
    // A built-in kind's labels may be written with its status, a custom kind's not.
    assert_eq!(stated["metadata"]["labels"]["example.io/a"], "c");
    let gone = at.get("nodes/none-such").await;
    assert_eq!(gone.refused(404, "NotFound"), "nodes \"none-such\" not found");
}
