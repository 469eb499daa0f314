//! The admission policies, evaluated without a server: who may change what on waiters' pods and on nodes, who
//! is let alone, and who is warned.
//!
//! kairos-sim stores policies and does not evaluate them. Here kube-cel runs their expressions on the
//! variables that an API server binds; which requests they are about, and what follows from an error, is
//! played below. A real server is right where the two differ.

pub mod bounds;
mod children;
mod nodes;
mod selectors;
pub mod warnings;

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::Path,
    sync::Arc,
};

use kairos_operator::{api::names, contract::reboot_state, manifests::OPERATOR};
use kube_cel::{
    KubeCelExt,
    cel::{Context, ExecutionError, Program, Value as Cel, extractors::This},
};
use serde_json::{Value, json};

/// What a policy makes of a request.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is not about such a request.
    NotConcerned,
    Passes,
    /// Refused, with the message.
    Refused(String),
    /// An expression could not be evaluated; the failurePolicy decides.
    Failed(String),
}

/// Who asks.
#[derive(Clone)]
struct User {
    name: String,
    groups: &'static [&'static str],
    /// The pod that the token is bound to.
    pod_uid: Option<&'static str>,
    /// What he may do in all namespaces, as `group|resource|verb`; `None`: everything.
    rights: Option<BTreeSet<String>>,
}

impl User {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            groups: &["system:authenticated"],
            pod_uid: None,
            rights: Some(BTreeSet::new()),
        }
    }

    /// The operator's account, with the rights of its printed role.
    fn operator() -> Self {
        let resources =
            OPERATOR.iter().flat_map(|grant| grant.resources.iter().map(move |resource| (grant, resource)));
        let rights = resources.flat_map(|(grant, resource)| {
            grant.verbs.iter().map(move |verb| format!("{}|{resource}|{verb}", grant.group))
        });
        Self { rights: Some(rights.collect()), ..Self::new("system:serviceaccount:anywhere:under-any-name") }
    }

    fn admin() -> Self {
        Self { rights: None, ..Self::new("jane") }
    }

    /// A waiter of NodeOp `op`, with the token of a pod.
    fn waiter(pod_uid: &'static str) -> Self {
        Self { pod_uid: Some(pod_uid), ..Self::new("system:serviceaccount:default:op-reboot") }
    }
}

struct Policy(Value);

impl Policy {
    fn read(file: &str) -> Self {
        let mut policies = Self::read_all(file, "Deny");
        assert_eq!(policies.len(), 1, "{file}: a policy and its binding");
        policies.remove(0)
    }

    /// The policies of a file, each followed by its binding with this action.
    fn read_all(file: &str, action: &str) -> Vec<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/rbac").join(file);
        let objects: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(path).unwrap()).unwrap();
        let policies = objects.chunks(2).map(|pair| {
            let [policy, binding] = pair else { panic!("{file}: a policy and its binding") };
            assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
            assert_eq!(binding["spec"]["validationActions"], json!([action]));
            Self(policy["spec"].clone())
        });
        policies.collect()
    }

    /// What becomes of a request. `resource` has the subresource after a slash; no `old` means CREATE, no
    /// `new` DELETE.
    fn judge(&self, user: &User, resource: &str, old: Option<&Value>, new: Option<&Value>) -> Verdict {
        let operation = match (old, new) {
            (None, _) => "CREATE",
            (_, None) => "DELETE",
            _ => "UPDATE",
        };
        if !self.is_about(resource, operation, old, new) {
            return Verdict::NotConcerned;
        }
        let mut context = context(user, resource, operation, old, new);
        for condition in list(&self.0["matchConditions"]) {
            match evaluate(condition, &context) {
                Ok(Cel::Bool(true)) => {}
                Ok(Cel::Bool(false)) => return Verdict::NotConcerned,
                other => return Verdict::Failed(format!("{other:?}")),
            }
        }
        let mut variables: HashMap<String, Cel> = HashMap::new();
        for variable in list(&self.0["variables"]) {
            match evaluate(variable, &context) {
                Ok(value) => drop(variables.insert(variable["name"].as_str().unwrap().into(), value)),
                Err(error) => return Verdict::Failed(error.to_string()),
            }
            context.add_variable_from_value("variables", variables.clone());
        }
        for validation in list(&self.0["validations"]) {
            match evaluate(validation, &context) {
                Ok(Cel::Bool(true)) => {}
                Ok(Cel::Bool(false)) => {
                    let said = json!({"expression": validation["messageExpression"]});
                    if said["expression"].is_null() {
                        return Verdict::Refused(validation["message"].as_str().unwrap().into());
                    }
                    let Ok(Cel::String(said)) = evaluate(&said, &context) else { panic!("{said}") };
                    return Verdict::Refused(said.to_string());
                }
                other => return Verdict::Failed(format!("{other:?}")),
            }
        }
        Verdict::Passes
    }

    fn is_about(&self, resource: &str, operation: &str, old: Option<&Value>, new: Option<&Value>) -> bool {
        let constraints = &self.0["matchConstraints"];
        let has =
            |rule: &Value, field: &str, wanted: &str| list(&rule[field]).iter().any(|value| value == wanted);
        let selected = |object: &Value| {
            let wanted = constraints["objectSelector"]["matchLabels"].as_object();
            wanted.is_none_or(|wanted| {
                wanted.iter().all(|(key, value)| object["metadata"]["labels"].get(key) == Some(value))
            })
        };
        list(&constraints["resourceRules"])
            .iter()
            .any(|rule| has(rule, "resources", resource) && has(rule, "operations", operation))
            && old.into_iter().chain(new).any(selected)
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn evaluate(expression: &Value, context: &Context<'_>) -> Result<Cel, ExecutionError> {
    Program::compile(expression["expression"].as_str().unwrap()).unwrap().execute(context)
}

/// The variables of an API server, and its `authorizer` as a text that grows with each call.
fn context(
    user: &User,
    resource: &str,
    operation: &str,
    old: Option<&Value>,
    new: Option<&Value>,
) -> Context<'static> {
    let mut context = Context::default().with_all();
    let mut info = json!({"username": user.name, "groups": user.groups});
    if let Some(uid) = user.pod_uid {
        info["extra"] = json!({"authentication.kubernetes.io/pod-name": ["some"], "authentication.kubernetes.io/pod-uid": [uid]});
    }
    let namespace = new.or(old).map(|object| object["metadata"]["namespace"].clone());
    let (of, sub) = resource.split_once('/').unwrap_or((resource, ""));
    let request = json!({"operation": operation, "userInfo": info, "namespace": namespace,
        "resource": {"resource": of}, "subResource": sub});
    context.add_variable("request", request).unwrap();
    context.add_variable("object", new.cloned()).unwrap();
    context.add_variable("oldObject", old.cloned()).unwrap();
    context.add_variable("authorizer", "").unwrap();
    context.add_function("group", |This(_): This<Arc<String>>, group: Arc<String>| group.to_string());
    context.add_function("resource", |This(this): This<Arc<String>>, name: Arc<String>| {
        format!("{this}|{name}")
    });
    context.add_function("subresource", |This(this): This<Arc<String>>, name: Arc<String>| {
        format!("{this}/{name}")
    });
    context
        .add_function("check", |This(this): This<Arc<String>>, verb: Arc<String>| format!("{this}|{verb}"));
    let rights = user.rights.clone();
    context.add_function("allowed", move |This(this): This<Arc<String>>| -> bool {
        rights.as_ref().is_none_or(|rights| rights.contains(this.as_str()))
    });
    context
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[key.replace("~1", "/")] = value;
    object
}

fn without(mut object: Value, parent: &str, key: &str) -> Value {
    object.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
    object
}

/// A waiter's pod, with the UID `u1`.
fn waiter() -> Value {
    json!({"metadata": {"name": "op-n1-reboot-1", "namespace": "default", "uid": "u1", "labels": {"kairos.io/reboot": "true"},
            "annotations": {"operator.kairos.io/node-name": "n1"}, "ownerReferences": [{"kind": "NodeOp", "name": "op", "uid": "o"}]},
        "spec": {"serviceAccountName": "op-reboot", "nodeName": "n1", "containers": [{"name": "reboot", "image": "operator:v1"}]}})
}

#[test]
fn a_waiter_announces_on_its_own_pod_and_does_nothing_else() {
    let policy = Policy::read("waiter-policy.yaml");
    let state = "/metadata/annotations/kairos.io~1reboot-state";
    let judge = |new: &Value| policy.judge(&User::waiter("u1"), "pods", Some(&waiter()), Some(new));
    for word in [reboot_state::WAITING, reboot_state::REBOOTING, reboot_state::COMPLETED] {
        assert_eq!(judge(&with(waiter(), state, json!(word))), Verdict::Passes, "{word}");
    }
    let announced = with(waiter(), state, json!("waiting"));
    let boot = "/metadata/annotations/kairos.io~1waits-in";
    let told = with(announced.clone(), boot, json!("6b1f3f36-0a50-4f4e-9f67-2f6ba2a8b6a1"));
    assert_eq!(judge(&told), Verdict::Passes);
    let bare = without(announced.clone(), "/metadata", "annotations");
    for (what, new, why) in [
        ("another word", with(waiter(), state, json!("done")), "is waiting, rebooting or completed"),
        (
            "much of it",
            with(waiter(), state, json!("x".repeat(200_000))),
            "is waiting, rebooting or completed",
        ),
        ("no word", waiter(), "is waiting, rebooting or completed"),
        ("no boot", with(announced.clone(), boot, json!("of mine")), "is a boot id"),
        ("much of it", with(announced.clone(), boot, json!("0".repeat(65))), "is a boot id"),
        (
            "another annotation",
            with(announced.clone(), "/metadata/annotations/more", json!("x")),
            "only its annotations",
        ),
        (
            "its node's name",
            with(announced.clone(), "/metadata/annotations/operator.kairos.io~1node-name", json!("n2")),
            "only its annotations",
        ),
        ("no annotation", bare, "only its annotations"),
        (
            "the image",
            with(announced.clone(), "/spec/containers", json!([{"name": "reboot", "image": "evil"}])),
            "nothing in its pod but",
        ),
        ("its label", with(announced.clone(), "/metadata/labels", json!({})), "nothing in its pod but"),
        ("its labels", without(announced.clone(), "/metadata", "labels"), "nothing in its pod but"),
        ("its owner", without(announced.clone(), "/metadata", "ownerReferences"), "nothing in its pod but"),
        (
            "a finalizer",
            with(announced.clone(), "/metadata/finalizers", json!(["x"])),
            "nothing in its pod but",
        ),
    ] {
        assert!(
            matches!(judge(&new), Verdict::Refused(said) if said.contains(why)),
            "{what}: {:?}",
            judge(&new)
        );
    }
    for user in [User::waiter("u2"), User::new("system:serviceaccount:default:op-reboot")] {
        let verdict = policy.judge(&user, "pods", Some(&waiter()), Some(&announced));
        assert!(
            matches!(&verdict, Verdict::Refused(said) if said.contains("its token was issued for")),
            "{verdict:?}"
        );
    }
}

#[test]
fn nobody_else_is_concerned_by_the_waiters_policy() {
    let policy = Policy::read("waiter-policy.yaml");
    let changed = with(waiter(), "/metadata/annotations/more", json!("x"));
    for user in [
        User::operator(),
        User::admin(),
        User::new("system:node:n1"),
        User::new("system:serviceaccount:other:op-reboot"),
    ] {
        assert_eq!(
            policy.judge(&user, "pods", Some(&waiter()), Some(&changed)),
            Verdict::NotConcerned,
            "{}",
            user.name
        );
    }
    // An application that annotates its own pod.
    let app = with(waiter(), "/metadata/labels", json!({"app": "db"}));
    let changed = with(app.clone(), "/metadata/annotations/leader", json!("me"));
    assert_eq!(policy.judge(&User::waiter("u1"), "pods", Some(&app), Some(&changed)), Verdict::NotConcerned);
    assert_eq!(policy.0["failurePolicy"], "Fail", "said in its header");
}
