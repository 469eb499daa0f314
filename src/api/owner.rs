//! Who owns an object, by its owner references.
//!
//! The answer to "is this ours?" comes from these and never from a label, which anybody may set. Nor is a UID
//! enough: whoever may create pods in a namespace of their own can write any UID into a reference, and the
//! garbage collector, which takes away what names an owner that is not there, leaves alone what names a kind
//! that it cannot look up. So group, kind, name, UID and the namespace, which is always the object's own, are
//! compared together.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::names;

const BATCH: &str = "batch";
const CORE: &str = "";
/// Bytes of each that are kept. Nothing that is there has a longer one, and an API server takes any.
const MAX: usize = 253;

/// The owner that controls an object. One that nobody controls has an empty one, which is of no kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The API group; the version says nothing about whose object it is.
    pub group: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
}

impl Owner {
    /// The controlling owner of an object, if it has one.
    pub fn of(meta: &ObjectMeta) -> Option<Self> {
        let owner = controller(meta)?;
        let group = owner.api_version.rsplit_once('/').map_or(CORE, |(group, _)| group);
        Some(Self::new(group, &owner.kind, &owner.name, &owner.uid))
    }

    fn new(group: &str, kind: &str, name: &str, uid: &str) -> Self {
        let [group, kind, name, uid] = [group, kind, name, uid].map(|text| names::cut(text, MAX).to_owned());
        Self { group, kind, name, uid }
    }

    /// A NodeOp.
    pub fn nodeop(name: &str, uid: &str) -> Self {
        Self::new(names::GROUP, "NodeOp", name, uid)
    }

    /// A Job.
    pub fn job(name: &str, uid: &str) -> Self {
        Self::new(BATCH, "Job", name, uid)
    }

    /// A Node.
    pub fn node(name: &str, uid: &str) -> Self {
        Self::new(CORE, "Node", name, uid)
    }

    fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }

    /// Whether it is a NodeOp, of any version of our group. Whether that NodeOp is there is not looked at.
    pub fn is_nodeop(&self) -> bool {
        self.is(names::GROUP, "NodeOp")
    }

    /// Whether it is a Job, ours or not.
    pub fn is_job(&self) -> bool {
        self.is(BATCH, "Job")
    }

    /// Whether it is a Node.
    pub fn is_node(&self) -> bool {
        self.is(CORE, "Node")
    }
}

/// The owner reference that controls the object; an object has one at most.
pub fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The NodeOpUpgrade that controls the object, if one does. It is in the object's own namespace.
pub fn upgrade(meta: &ObjectMeta) -> Option<&OwnerReference> {
    controller(meta).filter(|owner| owner.kind == "NodeOpUpgrade")
}

/// UID of the NodeOpUpgrade that controls the object, if one does.
pub fn upgrade_uid(meta: &ObjectMeta) -> Option<&str> {
    upgrade(meta).map(|owner| owner.uid.as_str())
}

/// Whether a NodeOpUpgrade made it.
pub fn is_of_upgrade(meta: &ObjectMeta) -> bool {
    upgrade(meta).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(api_version: &str, kind: &str, controller: Option<bool>) -> ObjectMeta {
        ObjectMeta {
            owner_references: Some(vec![
                OwnerReference { api_version: "v1".into(), kind: "Node".into(), ..OwnerReference::default() },
                OwnerReference {
                    api_version: api_version.into(),
                    kind: kind.into(),
                    name: "a".into(),
                    uid: "u".into(),
                    controller,
                    ..OwnerReference::default()
                },
            ]),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_nodeop_is_told_by_group_kind_and_control() {
        let ours = |meta: &ObjectMeta| Owner::of(meta).is_some_and(|owner| owner.is_nodeop());
        assert!(ours(&meta("operator.kairos.io/v1alpha1", "NodeOp", Some(true))));
        assert!(ours(&meta("operator.kairos.io/v2", "NodeOp", Some(true))));
        assert!(!ours(&meta("operator.kairos.io/v1alpha1", "NodeOp", None)), "it is owned, not controlled");
        assert!(!ours(&meta("operator.kairos.io/v1alpha1", "NodeOpUpgrade", Some(true))));
        assert!(!ours(&meta("another.io/v1alpha1", "NodeOp", Some(true))));
        assert!(!ours(&ObjectMeta::default()));
        assert!(!Owner::default().is_nodeop());
    }

    #[test]
    fn an_owner_is_read_with_its_group_and_without_its_version() {
        let read = |api_version: &str, kind: &str| Owner::of(&meta(api_version, kind, Some(true)));
        assert_eq!(read("operator.kairos.io/v1alpha1", "NodeOp"), Some(Owner::nodeop("a", "u")));
        assert_eq!(read("batch/v1", "Job"), Some(Owner::job("a", "u")));
        assert_eq!(read("v1", "Node"), Some(Owner::node("a", "u")));
        assert!(!read("batch.example.com/v1", "Job").unwrap().is_job());
        assert!(!read("example.com/v1", "Node").unwrap().is_node());
        assert!(!read("v1", "Job").unwrap().is_job(), "the core group has none");
    }
}
