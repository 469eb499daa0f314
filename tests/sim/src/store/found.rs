//! What objects are found by, beside their names.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::Key;
use crate::{
    auth::User,
    json::{list, text},
};

/// Something that an object says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Says {
    /// The UID of an owner.
    Owner(String),
    /// The node that a pod is bound to; empty if it waits for one.
    Node(String),
    /// Whom a binding gives a role, as [`subject`] has it.
    Subject(String),
}

/// Whom a subject of a binding means: a user, or a group.
fn subject(subject: &Value) -> String {
    let name = text(subject, "/name");
    match text(subject, "/kind") {
        "ServiceAccount" => format!("user system:serviceaccount:{}:{name}", text(subject, "/namespace")),
        "Group" => format!("group {name}"),
        _ => format!("user {name}"),
    }
}

fn said(key: &Key, object: &Value) -> BTreeSet<Says> {
    let owners = list(object, "/metadata/ownerReferences").iter();
    let owners = owners.map(|owner| Says::Owner(text(owner, "/uid").to_owned()));
    let node = (key.table.as_ref() == "pods").then(|| Says::Node(text(object, "/spec/nodeName").to_owned()));
    let binds = matches!(
        key.table.as_ref(),
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io"
    );
    let subjects = list(object, "/subjects").iter().filter(|_| binds);
    owners.chain(node).chain(subjects.map(|of| Says::Subject(subject(of)))).collect()
}

/// Objects by what they say.
#[derive(Debug, Default)]
pub struct Found(HashMap<Says, BTreeSet<Key>>);

impl Found {
    /// An object has changed.
    pub fn note(&mut self, key: &Key, before: Option<&Value>, after: Option<&Value>) {
        let [before, after] =
            [before, after].map(|object| object.map(|object| said(key, object)).unwrap_or_default());
        for says in before.difference(&after) {
            if let Some(keys) = self.0.get_mut(says) {
                keys.remove(key);
                if keys.is_empty() {
                    self.0.remove(says);
                }
            }
        }
        for says in after.difference(&before) {
            self.0.entry(says.clone()).or_default().insert(key.clone());
        }
    }

    fn that_say(&self, says: &Says) -> impl Iterator<Item = &Key> + use<'_> {
        self.0.get(says).into_iter().flatten()
    }

    /// The objects that name `uid` as an owner.
    pub fn owned_by(&self, uid: &str) -> impl Iterator<Item = &Key> {
        self.that_say(&Says::Owner(uid.to_owned()))
    }

    /// The pods that are bound to a node.
    pub fn on_node(&self, node: &str) -> impl Iterator<Item = &Key> {
        self.that_say(&Says::Node(node.to_owned()))
    }

    /// The bindings that give a user a role, in all namespaces.
    pub fn bindings_of(&self, user: &User) -> BTreeSet<&Key> {
        let groups = user.groups.iter().map(String::as_str).chain(["system:authenticated"]);
        let names = groups.map(|group| format!("group {group}")).chain([format!("user {}", user.name)]);
        names.flat_map(|name| self.that_say(&Says::Subject(name))).collect()
    }
}
