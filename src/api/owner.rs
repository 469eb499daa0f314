//! Who owns an object, by its owner references.
//!
//! The answer to "is this ours?" hangs on these and never on a label: anybody may set a label, while the garbage collector
//! takes away what names an owner that is not there.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::names;

/// The owner that controls the object; an object has one at most.
pub fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The NodeOp that controls the object, of any version of our group. Whether that NodeOp is still there is not looked at.
pub fn nodeop(meta: &ObjectMeta) -> Option<&OwnerReference> {
    let of_our_group = |owner: &&OwnerReference| owner.api_version.split('/').next() == Some(names::GROUP);
    controller(meta).filter(of_our_group).filter(|owner| owner.kind == "NodeOp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodeop_is_told_by_group_kind_and_control() {
        let meta = |api_version: &str, kind: &str, controller: Option<bool>| ObjectMeta {
            owner_references: Some(vec![
                OwnerReference { api_version: "v1".into(), kind: "Node".into(), ..OwnerReference::default() },
                OwnerReference { api_version: api_version.into(), kind: kind.into(), controller, ..OwnerReference::default() },
            ]),
            ..ObjectMeta::default()
        };
        let ours = |meta: &ObjectMeta| nodeop(meta).is_some();
        assert!(ours(&meta("operator.kairos.io/v1alpha1", "NodeOp", Some(true))));
        assert!(ours(&meta("operator.kairos.io/v2", "NodeOp", Some(true))));
        assert!(!ours(&meta("operator.kairos.io/v1alpha1", "NodeOp", None)), "it is owned, not controlled");
        assert!(!ours(&meta("operator.kairos.io/v1alpha1", "NodeOpUpgrade", Some(true))));
        assert!(!ours(&meta("another.io/v1alpha1", "NodeOp", Some(true))));
        assert!(!ours(&ObjectMeta::default()));
    }
}
