//! A change of a node: one patch, whoever of the planner wants a part of it.

use std::collections::BTreeMap;

use crate::plan::model::{id::OpRef, kept_cordon::KeptCordon, notice::Notice};

/// A change of a node; `None` leaves a field as it is, `Some(None)` removes an annotation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeChange {
    pub unschedulable: Option<bool>,
    pub cordoned_by: Option<Option<OpRef>>,
    pub claimed_by: Option<Option<OpRef>>,
    /// The node failed and stays unschedulable; this stands in place of `cordoned_by`.
    pub kept_cordon: Option<Box<KeptCordon>>,
    /// Labels that say facts, or are about load balancers; `None` removes one.
    pub labels: BTreeMap<String, Option<String>>,
    /// Annotations that say facts, what the node is tried with, or are about autoscalers; `None` removes one.
    pub annotations: BTreeMap<String, Option<String>>,
    /// What is to be said about the node once it is changed.
    pub notice: Option<Box<Notice>>,
}

impl NodeChange {
    /// Whether it would change nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl NodeChange {
    /// Whether no field, label or annotation is changed by both.
    fn is_apart_from(&self, other: &Self) -> bool {
        let Self { unschedulable, cordoned_by, claimed_by, kept_cordon, labels, annotations, notice } = other;
        let fields = [
            (self.unschedulable.is_some(), unschedulable.is_some()),
            (
                self.cordoned_by.is_some() || self.kept_cordon.is_some(),
                cordoned_by.is_some() || kept_cordon.is_some(),
            ),
            (self.claimed_by.is_some(), claimed_by.is_some()),
            (self.notice.is_some(), notice.is_some()),
        ];
        !fields.contains(&(true, true))
            && !labels.keys().any(|key| self.labels.contains_key(key))
            && !annotations.keys().any(|key| self.annotations.contains_key(key))
    }

    /// Adds another change of the same version of the node; it is handed back if both change the same.
    pub fn join(&mut self, other: Self) -> Option<Self> {
        if !self.is_apart_from(&other) {
            return Some(other);
        }
        let Self { unschedulable, cordoned_by, claimed_by, kept_cordon, labels, annotations, notice } = other;
        self.unschedulable = self.unschedulable.or(unschedulable);
        self.cordoned_by = self.cordoned_by.take().or(cordoned_by);
        self.claimed_by = self.claimed_by.take().or(claimed_by);
        self.kept_cordon = self.kept_cordon.take().or(kept_cordon);
        self.labels.extend(labels);
        self.annotations.extend(annotations);
        self.notice = self.notice.take().or(notice);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_changes_are_one_unless_both_change_the_same() {
        let op = OpRef { namespace: "ns".into(), name: "op".into(), uid: "u".into() };
        let text = |key: &str, value: &str| [(key.to_owned(), Some(value.to_owned()))].into();
        let release = || NodeChange {
            unschedulable: Some(false),
            cordoned_by: Some(None),
            claimed_by: Some(None),
            annotations: text("attempted", "1"),
            ..NodeChange::default()
        };
        let facts = NodeChange {
            labels: text("release", "v2"),
            annotations: text("facts-of", "b"),
            ..NodeChange::default()
        };
        let mut both = release();
        assert_eq!(both.join(facts.clone()), None);
        assert_eq!((both.claimed_by.clone(), both.unschedulable), (Some(None), Some(false)));
        assert_eq!((both.labels.len(), both.annotations.len()), (1, 2));
        let kept = KeptCordon { by: op.clone(), deleted: false };
        for other in [
            NodeChange { unschedulable: Some(true), ..NodeChange::default() },
            NodeChange { claimed_by: Some(Some(op.clone())), ..NodeChange::default() },
            NodeChange { kept_cordon: Some(Box::new(kept)), ..NodeChange::default() },
            NodeChange { annotations: text("attempted", "2"), ..facts },
        ] {
            let mut first = release();
            assert_eq!(first.join(other.clone()), Some(other), "the next plan has to see the first");
            assert_eq!(first, release());
        }
    }
}
