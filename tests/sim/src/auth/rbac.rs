//! Role-based access control, with the check that nobody grants what he does not hold.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{MASTERS, User};
use crate::{
    audit::Right,
    json::{flag, list, text, texts},
    kinds::{Kind, table_name},
    server::{
        State,
        error::{ApiError, ApiResult},
        handle::Call,
        request::Resource,
    },
    store::{Key, Object},
};

const RBAC: &str = "rbac.authorization.k8s.io";

/// One thing that somebody wants to do.
#[derive(Clone, Copy, Debug)]
struct Deed<'a> {
    verb: &'a str,
    group: &'a str,
    /// Plural name, with the subresource after a slash.
    resource: &'a str,
    /// Empty: any object.
    name: &'a str,
}

impl Deed<'_> {
    fn allowed_by(&self, rule: &Value) -> bool {
        let holds = |field: &str, wanted: &str| texts(rule, field).any(|v| v == "*" || v == wanted);
        let any_sub = self
            .resource
            .split_once('/')
            .is_some_and(|(_, sub)| texts(rule, "/resources").any(|r| r == format!("*/{sub}")));
        holds("/verbs", self.verb)
            && holds("/apiGroups", self.group)
            && (holds("/resources", self.resource) || any_sub)
            && (list(rule, "/resourceNames").is_empty()
                || texts(rule, "/resourceNames").any(|n| n == self.name))
    }
}

/// The roles that a cluster has from its birth.
pub fn seed(state: &mut State) {
    let all = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, {"verbs": ["*"], "nonResourceURLs": ["*"]}]);
    let view = json!([{"verbs": ["get", "list", "watch"], "apiGroups": ["", "apps", "batch", "policy"], "resources": ["*"]}]);
    for (name, rules) in [("cluster-admin", all), ("view", view)] {
        state.seed(RBAC, "v1", "clusterroles", json!({"metadata": {"name": name}, "rules": rules}));
    }
    let binding = json!({
        "metadata": {"name": "cluster-admin"},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "Group", "apiGroup": RBAC, "name": MASTERS}],
    });
    state.seed(RBAC, "v1", "clusterrolebindings", binding);
}

impl State {
    /// Refuses what the user may not do, and notes what he may and does.
    pub fn demand(&mut self, user: &User, verb: &str, resource: &Resource, name: &str) -> ApiResult<()> {
        self.authorize(user, verb, resource, name)?;
        self.rights.insert(Right {
            user: user.name.clone(),
            verb: verb.into(),
            group: resource.group.clone(),
            resource: resource.rule(),
            namespace: resource.namespace.clone(),
            name: name.into(),
        });
        Ok(())
    }

    /// Admission plugin `OwnerReferencesPermissionEnforcement` (on in OpenShift, off elsewhere): who says
    /// that an object holds up the deletion of its owner must be allowed to set the owner's finalizers.
    pub fn check_owners(
        &mut self,
        object: &Value,
        old: Option<&Value>,
        user: Option<&User>,
    ) -> ApiResult<()> {
        let Some(user) = user else { return Ok(()) };
        let known = old.map(|old| list(old, "/metadata/ownerReferences")).unwrap_or_default();
        let blocks = |owner: &&Value| flag(owner, "/blockOwnerDeletion") && !known.contains(owner);
        for owner in list(object, "/metadata/ownerReferences").iter().filter(blocks) {
            let Some(kind) = self.registry.of_object(text(owner, "/apiVersion"), text(owner, "/kind")) else {
                continue;
            };
            let resource = Resource {
                group: kind.group.clone(),
                version: kind.version.clone(),
                plural: kind.plural.clone(),
                namespace: if kind.namespaced {
                    text(object, "/metadata/namespace").into()
                } else {
                    String::new()
                },
                name: text(owner, "/name").into(),
                sub: "finalizers".into(),
            };
            self.demand(user, "update", &resource, &resource.name).map_err(|refused| {
                let why = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on";
                ApiError::forbidden(format!("{why}: {}", refused.message))
            })?;
        }
        Ok(())
    }

    /// Refuses what the user may not do.
    pub fn authorize(&self, user: &User, verb: &str, resource: &Resource, name: &str) -> ApiResult<()> {
        if !self.rbac || self.is_free(user) || self.is_self_review(resource) {
            return Ok(());
        }
        let full = resource.rule();
        let deed = Deed { verb, group: &resource.group, resource: &full, name };
        // A namespace is in itself, for those who have rights there.
        let namespace = match resource.rule().split('/').next() {
            Some("namespaces") if resource.group.is_empty() => &resource.name,
            _ => &resource.namespace,
        };
        if self.rules(user, namespace).iter().any(|rule| deed.allowed_by(rule)) {
            return Ok(());
        }
        let table = table_name(&resource.group, &resource.plural);
        let what = if name.is_empty() { table.clone() } else { format!("{table} \"{name}\"") };
        let place = if namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace \"{namespace}\"")
        };
        let message = format!(
            "{what} is forbidden: User \"{}\" cannot {verb} resource \"{full}\" in API group \"{}\" {place}",
            user.name, resource.group
        );
        Err(ApiError::forbidden(message).about(&table, name))
    }

    /// Masters, and the hollow nodes: the node authorizer is not imitated.
    fn is_free(&self, user: &User) -> bool {
        user.is_master() || user.groups.iter().any(|g| g == "system:nodes")
    }

    fn is_self_review(&self, resource: &Resource) -> bool {
        resource.group == "authorization.k8s.io" && resource.plural.starts_with("selfsubject")
    }

    /// All rules that hold for a user in a namespace; of the whole cluster if it is empty.
    fn rules(&self, user: &User, namespace: &str) -> Vec<Value> {
        let holds = |binding: &Key| binding.namespace.is_empty() || binding.namespace == namespace;
        let bindings = self.store.bindings_of(user).into_iter().filter(holds);
        bindings
            .filter_map(|binding| self.store.get(&binding))
            .flat_map(|binding| self.rules_of(&binding))
            .collect()
    }

    /// The role that a binding names.
    fn role_of(&self, binding: &Value) -> Option<Object> {
        let name = text(binding, "/roleRef/name");
        self.store.get(&match text(binding, "/roleRef/kind") {
            "Role" => Key::new("roles.rbac.authorization.k8s.io", text(binding, "/metadata/namespace"), name),
            _ => Key::new("clusterroles.rbac.authorization.k8s.io", "", name),
        })
    }

    /// The rules of the role that a binding names.
    fn rules_of(&self, binding: &Value) -> Vec<Value> {
        let Some(role) = self.role_of(binding) else { return Vec::new() };
        let mut rules = list(&role, "/rules").to_vec();
        for selector in list(&role, "/aggregationRule/clusterRoleSelectors") {
            let Some(selector) = crate::store::selector::Selector::of_object(Some(selector)) else {
                continue;
            };
            let roles = self.store.list("clusterroles.rbac.authorization.k8s.io", None);
            rules.extend(roles.filter(|r| selector.matches(r)).flat_map(|r| list(r, "/rules").to_vec()));
        }
        rules
    }

    /// Refuses a role, or a binding to one, that grants more than its author holds.
    pub fn check_grants(&self, kind: &Arc<Kind>, object: &Value, user: Option<&User>) -> ApiResult<()> {
        let Some(user) = user.filter(|user| self.rbac && kind.group == RBAC && !self.is_free(user)) else {
            return Ok(());
        };
        let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
        let held = self.rules(user, namespace);
        let (granted, way_around, on) = match kind.plural.as_str() {
            "roles" | "clusterroles" => {
                (list(object, "/rules").to_vec(), "escalate", (kind.plural.clone(), name))
            }
            _ => (
                self.rules_of(object),
                "bind",
                (format!("{}s", text(object, "/roleRef/kind").to_lowercase()), text(object, "/roleRef/name")),
            ),
        };
        let excuse = Deed { verb: way_around, group: RBAC, resource: &on.0, name: on.1 };
        if held.iter().any(|rule| excuse.allowed_by(rule)) {
            return Ok(());
        }
        // Whoever may not bind just any role is refused one that is not there: what it grants cannot be
        // compared.
        if object.get("roleRef").is_some() && self.role_of(object).is_none() {
            return Err(ApiError::not_found(kind.table(), text(object, "/roleRef/name")));
        }
        let missing: Vec<String> = granted.iter().flat_map(|rule| not_held(rule, &held)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let table = kind.table();
        let message = format!(
            "{table} \"{name}\" is forbidden: user \"{}\" (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            quoted(user.groups.iter().map(String::as_str).chain(["system:authenticated"])),
            missing.join("\n")
        );
        Err(ApiError::forbidden(message).about(table, name))
    }

    /// Answers questions about access.
    pub fn review(&self, call: &Call<'_>) -> Option<Value> {
        if call.resource.group != "authorization.k8s.io" || call.verb != "create" {
            return None;
        }
        let mut answer = call.body.clone();
        if call.resource.plural == "selfsubjectrulesreviews" {
            let rules = match self.is_free(call.user) {
                true => vec![json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})],
                false => self.rules(call.user, text(&answer, "/spec/namespace")),
            };
            let (paths, resources): (Vec<Value>, Vec<Value>) =
                rules.into_iter().partition(|rule| rule.get("nonResourceURLs").is_some());
            let status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false});
            crate::json::set(&mut answer, "/status", status);
            return Some(answer);
        }
        let user = match call.resource.plural.as_str() {
            "selfsubjectaccessreviews" => call.user.clone(),
            "subjectaccessreviews" => User {
                name: text(&answer, "/spec/user").into(),
                groups: texts(&answer, "/spec/groups").map(str::to_owned).collect(),
            },
            _ => return None,
        };
        let at = |field: &str| text(&answer, &format!("/spec/resourceAttributes/{field}")).to_owned();
        let resource = Resource {
            group: at("group"),
            version: at("version"),
            plural: at("resource"),
            namespace: at("namespace"),
            name: at("name"),
            sub: at("subresource"),
        };
        let allowed = self.authorize(&user, &at("verb"), &resource, &resource.name).is_ok();
        crate::json::set(&mut answer, "/status", json!({"allowed": allowed}));
        Some(answer)
    }
}

/// A list as Go prints it.
fn quoted<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: Vec<String> = texts.into_iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", texts.join(" "))
}

/// What of a rule is in none of the rules that are held.
fn not_held(rule: &Value, held: &[Value]) -> Vec<String> {
    let mut missing = Vec::new();
    let names: Vec<&str> = match list(rule, "/resourceNames") {
        [] => vec![""],
        _ => texts(rule, "/resourceNames").collect(),
    };
    for group in texts(rule, "/apiGroups") {
        for resource in texts(rule, "/resources") {
            for name in &names {
                let lacks =
                    |verb: &&str| !held.iter().any(|h| Deed { verb, group, resource, name }.allowed_by(h));
                let verbs: Vec<&str> = texts(rule, "/verbs").filter(lacks).collect();
                if !verbs.is_empty() {
                    let names =
                        if name.is_empty() { String::new() } else { format!(", ResourceNames:[\"{name}\"]") };
                    missing.push(format!(
                        "{{APIGroups:[\"{group}\"], Resources:[\"{resource}\"]{names}, Verbs:{}}}",
                        quoted(verbs)
                    ));
                }
            }
        }
    }
    missing
}
