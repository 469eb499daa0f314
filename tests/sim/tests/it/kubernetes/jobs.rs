//! Jobs and their pods, as the Job controller treats them.

use serde_json::{Value, json};

use super::{
    on_both,
    place::{At, has},
};

on_both!(
    a_deadline_counts_from_the_start_and_may_be_moved,
    a_failing_job_is_retried_as_often_as_asked,
    a_job_is_made_complete_in_two_steps_and_lets_its_pod_go,
    a_job_takes_its_pods_along_in_the_background_and_orphans_them_by_default,
    a_pod_elsewhere_that_names_a_job_as_its_owner_is_none_of_its_pods,
    a_pod_that_goes_is_replaced_once_it_is_over,
    a_suspended_job_has_no_pod_until_it_is_resumed,
    an_exit_code_of_the_policy_fails_the_job_at_once,
    defaults_and_labels_are_written_and_most_of_the_spec_is_fixed,
    the_pod_of_a_job_that_is_suspended_ends_and_is_no_failure,
    what_a_job_may_not_be,
);

fn job(node: &str, spec: Value) -> Value {
    let pod =
        json!({"nodeName": node, "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
    let mut job = json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": pod}}});
    job["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    job
}

/// The pods of the Job, but for those that are known.
async fn next_pod(at: &At, known: &[&Value]) -> Value {
    let is_known = |pod: &Value| known.iter().any(|old| old["metadata"]["uid"] == pod["metadata"]["uid"]);
    at.until_one("pods?labelSelector=batch.kubernetes.io/job-name%3Dj", |pod| !is_known(pod)).await
}

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap()
}

fn condition<'a>(job: &'a Value, kind: &str) -> [&'a str; 3] {
    let conditions = job["status"]["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|c| c["type"] == kind).unwrap();
    ["status", "reason", "message"].map(|field| found[field].as_str().unwrap_or_default())
}

async fn defaults_and_labels_are_written_and_most_of_the_spec_is_fixed(at: At) {
    let made = at.post("jobs", &job("nowhere", json!({"suspend": true}))).await.ok();
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let mut spec = made["spec"].clone();
    let template = spec.as_object_mut().unwrap().remove("template").unwrap();
    let mut wanted = json!({"parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": true,
        "manualSelector": false, "podReplacementPolicy": "TerminatingOrFailed", "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}});
    if spec.get("manualSelector").is_none() {
        wanted.as_object_mut().unwrap().remove("manualSelector");
    }
    assert_eq!(spec, wanted);
    let labels = json!({"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": "j", "controller-uid": uid, "job-name": "j"});
    assert_eq!(template["metadata"]["labels"], labels);
    let pod = json!({"containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always", "resources": {}, "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
        "dnsPolicy": "ClusterFirst", "nodeName": "nowhere", "restartPolicy": "Never", "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30});
    assert_eq!(template["spec"], pod);
    assert_eq!(
        made["metadata"]["labels"],
        labels_of_job(&made),
        "a Job itself gets no labels of its controller"
    );
    for (patch, field) in [
        (json!({"template": {"spec": {"restartPolicy": "OnFailure"}}}), "spec.template.spec"),
        (json!({"selector": {"matchLabels": {"a": "b"}}}), "spec.selector"),
        (json!({"completionMode": "Indexed"}), "spec.completionMode"),
        (json!({"podFailurePolicy": {"rules": []}}), "spec.podFailurePolicy"),
        (json!({"completions": 2}), "spec.completions"),
    ] {
        let refused = at.merge("jobs/j", &json!({"spec": patch})).await;
        let message = refused.refused(422, "Invalid");
        assert!(
            message.starts_with("Job.batch \"j\" is invalid: ") && message.contains("field is immutable"),
            "{message}"
        );
        let causes = refused.body["details"]["causes"].as_array().unwrap();
        assert!(causes.iter().any(|cause| cause["field"] == field), "{field}: {causes:?}");
    }
    let generation =
        at.merge("jobs/j", &json!({"spec": {"backoffLimit": 3}})).await.ok()["metadata"]["generation"].take();
    assert_eq!(generation, 2);
}

fn labels_of_job(job: &Value) -> Value {
    // 1.36 writes none; older ones copy the template's.
    job["metadata"]["labels"].clone()
}

async fn what_a_job_may_not_be(at: At) {
    let at = &at;
    let refused = |spec: Value| async move { at.post("jobs", &job("n", spec)).await };
    let negative = refused(json!({"backoffLimit": -1})).await;
    negative.refused(422, "Invalid");
    assert_eq!(
        negative.cause(),
        ["FieldValueInvalid", "Invalid value: -1: must be greater than or equal to 0", "spec.backoffLimit"]
    );
    let zero = refused(json!({"activeDeadlineSeconds": -1})).await;
    assert_eq!(zero.cause()[2], "spec.activeDeadlineSeconds");
    let pod = json!({"restartPolicy": "Always", "containers": [{"name": "c", "image": "i"}]});
    let always = refused(json!({"template": {"spec": pod}})).await;
    always.refused(422, "Invalid");
    assert_eq!(
        always.cause(),
        [
            "FieldValueRequired",
            "Required value: valid values: \"OnFailure\", \"Never\"",
            "spec.template.spec.restartPolicy"
        ]
    );
    let rule = json!({"action": "FailJob", "onExitCodes": {"containerName": "none", "operator": "In", "values": [1]}});
    let unknown = refused(json!({"podFailurePolicy": {"rules": [rule]}})).await;
    unknown.refused(422, "Invalid");
    assert_eq!(
        unknown.cause(),
        [
            "FieldValueInvalid",
            "Invalid value: \"none\": must be one of the container or initContainer names in the pod template",
            "spec.podFailurePolicy.rules[0].onExitCodes.containerName"
        ]
    );
    let rule = json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [0]}});
    let success = refused(json!({"podFailurePolicy": {"rules": [rule]}})).await;
    assert_eq!(success.cause()[2], "spec.podFailurePolicy.rules[0].onExitCodes.values[0]");
    let rule = json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}});
    let pod = json!({"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "i"}]});
    let restarts = refused(json!({"podFailurePolicy": {"rules": [rule]}, "template": {"spec": pod}})).await;
    assert_eq!(
        restarts.cause(),
        [
            "FieldValueInvalid",
            "Invalid value: \"OnFailure\": only \"Never\" is supported when podFailurePolicy is specified",
            "spec.template.spec.restartPolicy"
        ]
    );
    let mut long = job("n", json!({}));
    long["metadata"]["name"] = json!("x".repeat(64));
    let long = at.post("jobs", &long).await;
    long.refused(422, "Invalid");
    let causes = long.body["details"]["causes"].as_array().unwrap();
    assert!(causes.iter().any(|cause| cause["field"] == "spec.template.labels"), "{causes:?}");
    let unnamed = refused(json!({"template": {"spec": {"restartPolicy": "Never", "containers": []}}})).await;
    assert_eq!(unnamed.cause(), ["FieldValueRequired", "Required value", "spec.template.spec.containers"]);
}

async fn a_suspended_job_has_no_pod_until_it_is_resumed(at: At) {
    let node = at.node().await;
    at.post("jobs", &job(&node, json!({"suspend": true}))).await.ok();
    let suspended = at.until("jobs/j", |job| has(job, "Suspended")).await;
    assert_eq!(condition(&suspended, "Suspended"), ["True", "JobSuspended", "Job suspended"]);
    assert_eq!(suspended["status"].get("startTime"), None);
    assert!(at.get("pods").await.ok()["items"].as_array().unwrap().is_empty());
    at.merge("jobs/j", &json!({"spec": {"suspend": false}})).await.ok();
    let pod = next_pod(&at, &[]).await;
    let resumed = at.until("jobs/j", |job| job["status"]["active"] == 1).await;
    assert_eq!(condition(&resumed, "Suspended"), ["False", "JobResumed", "Job resumed"]);
    assert!(resumed["status"]["startTime"].is_string());
    let meta = &pod["metadata"];
    assert_eq!(meta["finalizers"], json!(["batch.kubernetes.io/job-tracking"]));
    let owner = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": resumed["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true}]);
    assert_eq!(meta["ownerReferences"], owner);
    assert_eq!(
        (&meta["generateName"], meta["labels"]["batch.kubernetes.io/controller-uid"].as_str()),
        (&json!("j-"), resumed["metadata"]["uid"].as_str())
    );
}

async fn a_job_is_made_complete_in_two_steps_and_lets_its_pod_go(at: At) {
    let node = at.node().await;
    at.post("jobs", &job(&node, json!({}))).await.ok();
    let pod = next_pod(&at, &[]).await;
    at.starts(name(&pod)).await;
    at.until("jobs/j", |job| job["status"]["ready"] == 1).await;
    at.ends(name(&pod), 0).await;
    let done = at.until("jobs/j", |job| has(job, "Complete")).await;
    let reached = "Reached expected number of succeeded pods";
    assert_eq!(condition(&done, "Complete"), ["True", "CompletionsReached", reached]);
    assert_eq!(condition(&done, "SuccessCriteriaMet"), ["True", "CompletionsReached", reached]);
    let status = &done["status"];
    assert_eq!((&status["succeeded"], status.get("active"), status.get("failed")), (&json!(1), None, None));
    assert_eq!(
        (&status["ready"], &status["terminating"], &status["uncountedTerminatedPods"]),
        (&json!(0), &json!(0), &json!({}))
    );
    assert!(status["completionTime"].is_string() && status["startTime"].is_string());
    let counted =
        at.until(&format!("pods/{}", name(&pod)), |pod| pod["metadata"].get("finalizers").is_none()).await;
    assert_eq!(counted["status"]["phase"], "Succeeded");
    // Nothing more is made of it.
    at.delete(&format!("pods/{}", name(&pod)), &json!({})).await.ok();
    let late = at.merge("jobs/j", &json!({"spec": {"suspend": true}})).await.ok();
    assert!(has(&late, "Complete"));
}

async fn the_pod_of_a_job_that_is_suspended_ends_and_is_no_failure(at: At) {
    let node = at.node().await;
    at.post("jobs", &job(&node, json!({"backoffLimit": 0, "podReplacementPolicy": "Failed"}))).await.ok();
    let pod = next_pod(&at, &[]).await;
    at.starts(name(&pod)).await;
    at.merge("jobs/j", &json!({"spec": {"suspend": true}})).await.ok();
    let going = at
        .until(&format!("pods/{}", name(&pod)), |pod| pod["metadata"]["deletionTimestamp"].is_string())
        .await;
    at.until("jobs/j", |job| has(job, "Suspended")).await;
    at.ends(name(&going), 143).await;
    at.is_gone(&going).await;
    at.until(&format!("pods/{}", name(&pod)), Value::is_null).await;
    let left = at.until("jobs/j", |job| has(job, "Suspended") && job["status"]["terminating"] == 0).await;
    assert!(!has(&left, "Failed") && !has(&left, "FailureTarget"), "{}", left["status"]);
    assert!(
        left["status"].get("failed").is_none() && left["status"].get("startTime").is_none(),
        "{}",
        left["status"]
    );
}

async fn a_failing_job_is_retried_as_often_as_asked(at: At) {
    let node = at.node().await;
    at.post("jobs", &job(&node, json!({"backoffLimit": 1}))).await.ok();
    let first = next_pod(&at, &[]).await;
    at.ends(name(&first), 1).await;
    let second = next_pod(&at, &[&first]).await;
    at.ends(name(&second), 1).await;
    let failed = at.until("jobs/j", |job| has(job, "Failed")).await;
    let why = ["True", "BackoffLimitExceeded", "Job has reached the specified backoff limit"];
    assert_eq!((condition(&failed, "Failed"), condition(&failed, "FailureTarget")), (why, why));
    assert_eq!((&failed["status"]["failed"], failed["status"].get("completionTime")), (&json!(2), None));
}

async fn an_exit_code_of_the_policy_fails_the_job_at_once(at: At) {
    let node = at.node().await;
    let rules = json!([
        {"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "In", "values": [7]}},
        {"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "NotIn", "values": [0, 1]}},
    ]);
    let made = at
        .post("jobs", &job(&node, json!({"backoffLimit": 5, "podFailurePolicy": {"rules": rules}})))
        .await
        .ok();
    assert_eq!(made["spec"]["podReplacementPolicy"], "Failed");
    let first = next_pod(&at, &[]).await;
    at.ends(name(&first), 1).await;
    let second = next_pod(&at, &[&first]).await;
    at.ends(name(&second), 42).await;
    let failed = at.until("jobs/j", |job| has(job, "Failed")).await;
    let message = format!(
        "Container c for pod {}/{} failed with exit code 42 matching FailJob rule at index 1",
        at.namespace,
        name(&second)
    );
    let why = ["True", "PodFailurePolicy", message.as_str()];
    assert_eq!((condition(&failed, "Failed"), condition(&failed, "FailureTarget")), (why, why));
    assert_eq!(failed["status"]["failed"], 2);
}

async fn a_pod_that_goes_is_replaced_once_it_is_over(at: At) {
    let node = at.node().await;
    at.post("jobs", &job(&node, json!({"podReplacementPolicy": "Failed"}))).await.ok();
    let first = next_pod(&at, &[]).await;
    at.starts(name(&first)).await;
    at.delete(&format!("pods/{}", name(&first)), &json!({})).await.ok();
    let waits = at.until("jobs/j", |job| job["status"]["terminating"] == 1).await;
    assert_eq!((waits["status"].get("active"), waits["status"].get("failed")), (None, None));
    // Its kubelet may delete it, and it stays until it is counted.
    at.ends(name(&first), 143).await;
    at.is_gone(&first).await;
    let second = next_pod(&at, &[&first]).await;
    at.until(&format!("pods/{}", name(&first)), Value::is_null).await;
    let again = at.until("jobs/j", |job| job["status"]["active"] == 1 && job["status"]["failed"] == 1).await;
    assert_eq!(again["status"]["terminating"], 0);
    assert_ne!(name(&second), name(&first));
}

async fn a_deadline_counts_from_the_start_and_may_be_moved(at: At) {
    let node = at.node().await;
    at.post("jobs", &job(&node, json!({"activeDeadlineSeconds": 600}))).await.ok();
    let pod = next_pod(&at, &[]).await;
    at.starts(name(&pod)).await;
    let moved = at.merge("jobs/j", &json!({"spec": {"activeDeadlineSeconds": 700}})).await.ok();
    assert_eq!(moved["spec"]["activeDeadlineSeconds"], 700);
    at.merge("jobs/j", &json!({"spec": {"activeDeadlineSeconds": 1}})).await.ok();
    let target = at.until("jobs/j", |job| has(job, "FailureTarget")).await;
    let why = ["True", "DeadlineExceeded", "Job was active longer than specified deadline"];
    assert_eq!(condition(&target, "FailureTarget"), why);
    // First its pod ends, then the Job is Failed.
    let going = at
        .until(&format!("pods/{}", name(&pod)), |pod| pod["metadata"]["deletionTimestamp"].is_string())
        .await;
    assert!(!has(&at.get("jobs/j").await.ok(), "Failed"));
    at.ends(name(&going), 143).await;
    let failed = at.until("jobs/j", |job| has(job, "Failed")).await;
    assert_eq!((condition(&failed, "Failed"), &failed["status"]["failed"]), (why, &json!(1)));
}

async fn a_job_takes_its_pods_along_in_the_background_and_orphans_them_by_default(at: At) {
    let node = at.node().await;
    at.post("jobs", &job(&node, json!({}))).await.ok();
    let first = next_pod(&at, &[]).await;
    at.starts(name(&first)).await;
    let gone = at.delete("jobs/j", &json!({"propagationPolicy": "Background"})).await.ok();
    assert_eq!((&gone["status"], &gone["details"]["kind"]), (&json!("Success"), &json!("jobs")));
    at.get("jobs/j").await.refused(404, "NotFound");
    // The finalizer of a Job's pod goes with the Job.
    let path = format!("pods/{}", name(&first));
    let free = |pod: &Value| {
        pod["metadata"]["deletionTimestamp"].is_string() && pod["metadata"].get("finalizers").is_none()
    };
    at.until(&path, free).await;
    at.is_gone(&first).await;

    at.post("jobs", &job(&node, json!({}))).await.ok();
    let second = next_pod(&at, &[&first]).await;
    at.starts(name(&second)).await;
    let going = at.delete("jobs/j", &json!({"propagationPolicy": "Foreground"})).await.ok();
    assert_eq!(going["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let path = format!("pods/{}", name(&second));
    at.until(&path, free).await;
    at.get("jobs/j").await.ok();
    at.is_gone(&second).await;
    at.until("jobs/j", Value::is_null).await;

    at.post("jobs", &job(&node, json!({}))).await.ok();
    let third = next_pod(&at, &[&first, &second]).await;
    at.starts(name(&third)).await;
    at.delete("jobs/j", &json!({})).await.ok();
    at.until("jobs/j", Value::is_null).await;
    let left =
        at.until(&format!("pods/{}", name(&third)), |pod| pod["metadata"].get("finalizers").is_none()).await;
    assert_eq!(left["metadata"].get("deletionTimestamp"), None);
    assert!(left["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty));
}

async fn a_pod_elsewhere_that_names_a_job_as_its_owner_is_none_of_its_pods(at: At) {
    let node = at.node().await;
    let made = at.post("jobs", &job(&node, json!({"suspend": true}))).await.ok();
    let owner = json!({"apiVersion": "no.such.group/v1", "kind": "Job", "name": "j", "uid": made["metadata"]["uid"], "controller": true});
    let mut forged = super::place::pod("forged", &node, json!({}));
    forged["metadata"]["ownerReferences"] = json!([owner]);
    let path = "/api/v1/namespaces/default/pods";
    forged["metadata"]["name"] = json!(at.namespace);
    let own = format!("{path}/{}", at.namespace);
    at.post(path, &forged).await.ok();
    at.clean(&format!("{own}?gracePeriodSeconds=0"));
    at.merge("jobs/j", &json!({"spec": {"suspend": false}})).await.ok();
    let pod = next_pod(&at, &[]).await;
    at.ends(name(&pod), 0).await;
    at.until("jobs/j", |job| has(job, "Complete")).await;
    assert_eq!(at.get(&own).await.ok()["metadata"].get("deletionTimestamp"), None);
}
