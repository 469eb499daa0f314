//! Where a test runs: a namespace of its own, on the embedded API or on the cluster in `KUBECONFIG`.

use std::{
    ops::Deref,
    sync::{Arc, Mutex},
};

use kairos_sim::Cluster;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use super::session::{APPLY, Session};
use crate::small;

/// A namespace, the administrator's session in it, and what is to be deleted after the test.
pub struct Place {
    admin: Session,
    config: Config,
    embedded: Option<Cluster>,
    made: Mutex<Vec<String>>,
}

/// What a test gets.
pub type At = Arc<Place>;

impl Deref for Place {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.admin
    }
}

/// Runs a test on an embedded API of its own.
pub async fn embedded<F: Future<Output = ()>>(test: impl FnOnce(At) -> F) {
    let cluster = small().nodes(0).start().await.unwrap();
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    test(Place::begin(config, Some(cluster)).await).await;
}

/// Runs a test on the cluster in `KUBECONFIG`, and deletes what it made, whatever comes of it.
pub async fn cluster<F>(test: impl FnOnce(At) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let config = Config::infer().await.unwrap();
    let place = Place::begin(config, None).await;
    let ended = tokio::spawn(test(place.clone())).await;
    place.clean_up().await;
    if let Err(panicked) = ended {
        std::panic::resume_unwind(panicked.into_panic());
    }
}

impl Place {
    async fn begin(mut config: Config, embedded: Option<Cluster>) -> At {
        // By default the client itself tries a 429 again for minutes.
        config.default_retry = false;
        let client = Client::try_from(config.clone()).unwrap();
        let mut admin = Session { client, namespace: String::new() };
        let labels = json!({"pod-security.kubernetes.io/enforce": "privileged"});
        let namespace = json!({"metadata": {"generateName": "kairos-sim-", "labels": labels}});
        let namespace = admin.post("namespaces", &namespace).await.ok();
        admin.namespace = namespace["metadata"]["name"].as_str().unwrap().into();
        // Until a namespace has its account, pods in it are refused.
        admin.until("serviceaccounts/default", |account| !account.is_null()).await;
        Arc::new(Self { admin, config, embedded, made: Mutex::default() })
    }

    /// Forgets versions of the past, where that can be asked for. A real server forgets them in time.
    pub fn compact(&self) {
        if let Some(cluster) = &self.embedded {
            cluster.compact();
        }
    }

    /// This path of something outside the namespace is deleted after the test.
    pub fn clean(&self, path: &str) {
        self.made.lock().unwrap().push(path.to_owned());
    }

    async fn clean_up(&self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap());
        for path in made {
            self.delete(&path, &json!({})).await;
        }
        // Nobody else takes off what a test that failed has left, and no kubelet ends its pods.
        for plural in ["configmaps", "jobs", "pods"] {
            let items = self.get(plural).await.body["items"].take();
            for item in items.as_array().into_iter().flatten() {
                let path = format!("{plural}/{}", item["metadata"]["name"].as_str().unwrap());
                if item["metadata"].get("finalizers").is_some() {
                    self.merge(&path, &json!({"metadata": {"finalizers": null}})).await;
                }
                if plural == "pods" {
                    self.delete(&path, &json!({"gracePeriodSeconds": 0})).await;
                }
            }
        }
        self.delete(&format!("namespaces/{}", self.namespace), &json!({})).await;
    }

    /// Creates an object outside the namespace, which is deleted after the test. One that is there stays as
    /// it is: somebody else needs it. `path` is that of its kind.
    pub async fn install(&self, path: &str, object: &Value) {
        let answer = self.post(path, object).await;
        if answer.code != 409 {
            answer.ok();
            self.clean(&format!("{path}/{}", object["metadata"]["name"].as_str().unwrap()));
        }
    }

    /// Creates or changes an object outside the namespace, which is deleted after the test. `path` is that
    /// of its kind.
    pub async fn apply(&self, path: &str, object: &Value) -> Value {
        let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
        self.clean(&path);
        self.patch(&format!("{path}?fieldManager=kairos-sim&force=true"), APPLY, object).await.ok()
    }

    /// A node without a kubelet, whose name is the namespace's.
    pub async fn node(&self) -> String {
        let node = json!({"metadata": {"name": self.namespace}});
        self.post("nodes", &node).await.ok();
        self.clean(&format!("nodes/{}", self.namespace));
        self.namespace.clone()
    }

    /// The session of a service account, which is made if it is not there.
    pub async fn account(&self, name: &str) -> Session {
        self.post("serviceaccounts", &json!({"metadata": {"name": name}})).await;
        self.account_with(name, json!({})).await
    }

    /// The session of a service account whose `TokenRequest` has this spec.
    pub async fn account_with(&self, name: &str, spec: Value) -> Session {
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let answer = self.post(&format!("serviceaccounts/{name}/token"), &request).await.ok();
        let user = json!({"token": answer["status"]["token"]});
        let mut config = self.config.clone();
        config.auth_info = serde_json::from_value(user).unwrap();
        Session { client: Client::try_from(config).unwrap(), namespace: self.namespace.clone() }
    }

    /// Binds rules to an account by a Role of its name.
    pub async fn allow(&self, account: &str, rules: Value) {
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": account}, "rules": rules});
        self.patch(&format!("roles/{account}?fieldManager=t&force=true"), APPLY, &role).await.ok();
        let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": account},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": self.namespace}]});
        self.patch(&format!("rolebindings/{account}?fieldManager=t&force=true"), APPLY, &binding).await.ok();
    }

    /// A pod of one container that is bound to the node.
    pub async fn pod(&self, name: &str, node: &str, labels: Value) -> Value {
        self.post("pods", &pod(name, node, labels)).await.ok()
    }

    /// Says as a kubelet would that the pod runs.
    pub async fn starts(&self, pod: &str) -> Value {
        let since = "2026-01-01T00:00:00Z";
        let running = json!({"name": "c", "image": "i", "imageID": "i", "ready": true, "started": true, "restartCount": 0,
            "containerID": "c://1", "state": {"running": {"startedAt": since}}});
        let ready = ["Initialized", "Ready", "ContainersReady", "PodScheduled"]
            .map(|kind| json!({"type": kind, "status": "True", "lastTransitionTime": since}));
        let status = json!({"phase": "Running", "startTime": since, "conditions": ready, "containerStatuses": [running]});
        self.merge(&format!("pods/{pod}/status"), &json!({"status": status})).await.ok()
    }

    /// Says that the pod's container has ended with this code.
    pub async fn ends(&self, pod: &str, code: i32) -> Value {
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let at = json!("2026-01-01T00:00:01Z");
        let ended = json!({"exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" }, "startedAt": at, "finishedAt": at,
            "containerID": "c://1"});
        let over = json!({"name": "c", "image": "i", "imageID": "i", "ready": false, "started": false, "restartCount": 0,
            "containerID": "c://1", "state": {"terminated": ended}});
        let ready =
            json!([{"type": "Ready", "status": "False", "reason": "PodCompleted", "lastTransitionTime": at}]);
        let status = json!({"phase": phase, "conditions": ready, "containerStatuses": [over]});
        self.merge(&format!("pods/{pod}/status"), &json!({"status": status})).await.ok()
    }

    /// Deletes a pod whose containers have ended, as its kubelet would.
    pub async fn is_gone(&self, pod: &Value) {
        let (name, uid) = (pod["metadata"]["name"].as_str().unwrap(), &pod["metadata"]["uid"]);
        let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
        self.delete(&format!("pods/{name}"), &options).await.ok();
    }
}

/// A pod of one container.
pub fn pod(name: &str, node: &str, labels: Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 30, "containers": [{"name": "c", "image": "i"}]}})
}

/// The condition of this type that an object has.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == kind).unwrap()
}

/// Whether an object has a condition that is true.
pub fn has(object: &Value, kind: &str) -> bool {
    crate::has(object, kind)
}
