//! Asking autoscalers, load balancers and remediators to leave a node that is claimed, with the claim's own
//! patch; and giving back what stood there, with the patch that gives back the claim.
//!
//! What somebody changed while we had the node is theirs and stays, and nothing is set a second time: a
//! person who takes a hint off knows why.
//!
//! A node that failed and stays cordoned stays out of load balancers as well, for as long as it does:
//! somebody is to look at it first. Who uncordons it brings both to an end.

use std::collections::BTreeMap;

use crate::{
    api::names,
    plan::model::{
        action::NodeChange,
        hints::{Hints, all, is_label},
        id::OpRef,
        snapshot::NodeView,
    },
};

/// Bytes of another's value that are remembered. Where a longer one stands, nothing is asked: an object's
/// annotations have a limit together, and a claim must not be refused for a courtesy.
const MAX_REMEMBERED: usize = 1024;

/// What stands on a node in the place of a hint.
fn stands<'a>(node: &'a NodeView, name: &str) -> Option<&'a str> {
    if is_label(name) { node.labels.get(name) } else { node.annotations.get(name).map(String::as_str) }
}

/// Has this stand in the place of a hint.
fn put(change: &mut NodeChange, name: &str, value: Option<String>) {
    let place = if is_label(name) { &mut change.labels } else { &mut change.annotations };
    place.insert(name.to_owned(), value);
}

/// Adds to a claim what asks autoscalers to leave the node, and whoever reads those `labels` that are wanted.
pub fn add(node: &NodeView, me: &OpRef, labels: &[&str], claim: &mut NodeChange) {
    if node.hints.as_ref().is_some_and(|hints| hints.by == *me) {
        return;
    }
    // A claim that somebody removed may have left hints of another NodeOp, and one that failed on the node
    // what keeps load balancers off; they go on under our name.
    let left = node.hints.as_ref().map(|hints| stood_before(node, hints)).unwrap_or_default();
    let mut before = BTreeMap::new();
    for (name, asks) in all() {
        let stands = stands(node, name);
        // Whatever its value is, a label of somebody else's does what ours would, or is not to.
        let wanted = !is_label(name) || labels.contains(&name) && stands.is_none();
        let was = left.get(name).cloned().unwrap_or_else(|| stands.map(str::to_owned));
        let is_bearable = was.as_ref().is_none_or(|was| was.len() <= MAX_REMEMBERED);
        if was.as_deref() != Some(asks) && is_bearable && (wanted || left.contains_key(name)) {
            before.insert(name.to_owned(), was);
            if stands != Some(asks) {
                put(claim, name, Some(asks.to_owned()));
            }
        }
    }
    if !before.is_empty() || node.hints.is_some() {
        let hints = Hints { by: me.clone(), before };
        claim.annotations.insert(names::AUTOSCALER_HINTS.to_owned(), Some(hints.to_string()));
    }
}

/// Adds to what gives a node back what stood there before `me` asked anything of anybody.
pub fn give_back(node: &NodeView, me: &OpRef, change: &mut NodeChange) {
    let Some(hints) = node.hints.as_ref().filter(|hints| hints.by == *me) else { return };
    let mut back = stood_before(node, hints);
    let mut kept = BTreeMap::new();
    if stays_cordoned(node, change)
        && let Some(label) = back.remove_entry(names::NOT_BALANCED)
    {
        kept.extend([label]);
    }
    back.into_iter().for_each(|(name, was)| put(change, &name, was));
    if kept.is_empty() || kept != hints.before {
        let rest = (!kept.is_empty()).then(|| Hints { by: me.clone(), before: kept }.to_string());
        change.annotations.insert(names::AUTOSCALER_HINTS.to_owned(), rest);
    }
}

/// Whether the node is cordoned because an operation failed on it, once it is changed so.
fn stays_cordoned(node: &NodeView, change: &NodeChange) -> bool {
    let was = node.kept_cordon.is_some() && node.unschedulable && change.cordoned_by.is_none();
    change.kept_cordon.is_some() || was
}

/// What stood in the place of each hint that is still as we set it.
fn stood_before(node: &NodeView, hints: &Hints) -> BTreeMap<String, Option<String>> {
    let ours = all().filter(|(name, asks)| stands(node, name).is_some_and(|stands| stands == *asks));
    ours.filter_map(|(name, _)| Some((name.to_owned(), hints.before.get(name)?.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::model::kept_cordon::KeptCordon;

    const AUTOSCALER: &str = names::KEEPS_FROM_SCALE_DOWN[0].0;
    const KARPENTER: &str = names::KEEPS_FROM_SCALE_DOWN[1].0;

    fn op(uid: &str) -> OpRef {
        OpRef { namespace: "ns".into(), name: "op".into(), uid: uid.into() }
    }

    fn node(told: &[(&str, &str)]) -> NodeView {
        let told = told.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        NodeView { annotations: told.collect(), ..NodeView::default() }
    }

    /// The node once it is changed.
    fn changed(mut node: NodeView, change: NodeChange) -> NodeView {
        let mut labels = node.labels.to_map();
        for (name, value) in change.labels {
            match value {
                Some(value) => drop(labels.insert(name, value)),
                None => drop(labels.remove(&name)),
            }
        }
        node.labels = labels.into();
        if let Some(kept) = change.kept_cordon {
            node.kept_cordon = Some(*kept);
        } else if change.cordoned_by.is_some() {
            node.kept_cordon = None;
        }
        node.unschedulable = change.unschedulable.unwrap_or(node.unschedulable);
        for (name, value) in change.annotations {
            match value {
                value if name == names::AUTOSCALER_HINTS => {
                    node.hints = value.map(|text| text.parse().unwrap())
                }
                Some(value) => drop(node.annotations.insert(name, value)),
                None => drop(node.annotations.remove(&name)),
            }
        }
        node
    }

    fn taken(node: NodeView, me: &OpRef) -> NodeView {
        taken_off(node, me, false)
    }

    fn taken_off(node: NodeView, me: &OpRef, leaves_balancers: bool) -> NodeView {
        let labels = [names::NOT_BALANCED];
        asked(node, me, if leaves_balancers { &labels } else { &[] })
    }

    fn asked(node: NodeView, me: &OpRef, labels: &[&str]) -> NodeView {
        let mut change = NodeChange::default();
        add(&node, me, labels, &mut change);
        changed(node, change)
    }

    /// The node once it is given back with this change of its cordon.
    fn given_with(node: NodeView, me: &OpRef, cordon: NodeChange) -> NodeView {
        let mut change = cordon;
        give_back(&node, me, &mut change);
        changed(node, change)
    }

    fn labelled(value: &str) -> NodeView {
        NodeView { labels: [(names::NOT_BALANCED.to_owned(), value.to_owned())].into(), ..node(&[]) }
    }

    fn given(node: NodeView, me: &OpRef) -> NodeView {
        let mut change = NodeChange::default();
        give_back(&node, me, &mut change);
        changed(node, change)
    }

    #[test]
    fn a_node_tells_autoscalers_afterwards_what_it_told_them_before() {
        let me = op("u");
        let long = "x".repeat(MAX_REMEMBERED + 1);
        for told in [
            vec![],
            vec![(KARPENTER, "true")],
            vec![(KARPENTER, "30m"), (AUTOSCALER, "false")],
            vec![(KARPENTER, "true"), (AUTOSCALER, "true")],
            vec![(AUTOSCALER, &*long)],
        ] {
            let before = node(&told);
            let held = taken(before.clone(), &me);
            for (name, asks) in names::KEEPS_FROM_SCALE_DOWN {
                let stands = held.annotations.get(name).map(String::as_str);
                assert!(stands == Some(asks) || stands == Some(&*long), "{told:?}: {name} is {stands:?}");
            }
            assert_eq!(taken(held.clone(), &me), held, "{told:?}: nothing is set twice");
            assert_eq!(given(held.clone(), &op("another")), held, "{told:?}");
            assert_eq!(given(held, &me), before, "{told:?}");
        }
    }

    #[test]
    fn what_somebody_changes_while_we_have_the_node_is_theirs() {
        let me = op("u");
        let mut held = taken(node(&[(KARPENTER, "false")]), &me);
        held.annotations.insert(KARPENTER.into(), "1h".into());
        held.annotations.remove(AUTOSCALER);
        assert_eq!(taken(held.clone(), &me), held, "nor is it set again when a claim was removed");
        assert_eq!(given(held, &me), node(&[(KARPENTER, "1h")]));
    }

    #[test]
    fn load_balancers_leave_a_node_if_that_is_wanted_and_a_label_of_somebody_elses_stays() {
        let me = op("u");
        assert!(!taken(node(&[]), &me).left_balancers(), "it is not wanted");
        let held = taken_off(node(&[]), &me, true);
        assert!(held.left_balancers(), "{held:?}");
        assert_eq!(given(held.clone(), &op("another")), held);
        assert_eq!(given(held.clone(), &me), node(&[]));
        for value in ["", "true", "false"] {
            let held = taken_off(labelled(value), &me, true);
            assert!(!held.left_balancers() && held.labels == labelled(value).labels, "{value:?}: {held:?}");
            assert_eq!(given(held, &me), labelled(value));
        }
        // Somebody changes it, or takes it off, while we have the node.
        let changed = NodeView { labels: labelled("maintenance").labels, ..held.clone() };
        assert_eq!(given(changed, &me), labelled("maintenance"));
        let removed = NodeView { labels: <_>::default(), ..held };
        assert_eq!(taken_off(removed.clone(), &me, true), removed, "nor is it set again");
        assert_eq!(given(removed, &me), node(&[]));
    }

    /// Somebody may have said for good that it is not to be healed, and what failed may need just that.
    #[test]
    fn remediators_leave_a_node_until_it_is_given_back_also_if_it_failed() {
        let me = op("u");
        let labels = [names::NOT_REMEDIATED, names::NOT_BALANCED];
        let held = NodeView { unschedulable: true, ..asked(node(&[]), &me, &labels) };
        let says = |node: &NodeView, name: &str| node.labels.get(name).map(str::to_owned);
        assert_eq!(says(&held, names::NOT_REMEDIATED).as_deref(), Some("true"));
        let kept = Some(Box::new(KeptCordon { by: me.clone(), deleted: false }));
        let failed = given_with(held.clone(), &me, NodeChange { kept_cordon: kept, ..NodeChange::default() });
        assert_eq!(labels.map(|name| says(&failed, name).is_some()), [false, true]);
        assert!(failed.is_kept_off(), "{failed:?}");
        for value in ["", "false", "true"] {
            let theirs = [(names::NOT_REMEDIATED.to_owned(), value.to_owned())];
            let before = NodeView { labels: theirs.into(), ..node(&[]) };
            assert_eq!(given(asked(before.clone(), &me, &labels[..1]), &me), before);
        }
        assert_eq!(given(held, &me), NodeView { unschedulable: true, ..node(&[]) });
    }

    #[test]
    fn a_node_that_failed_is_out_of_load_balancers_until_it_is_uncordoned() {
        let (first, second) = (op("u1"), op("u2"));
        let held = NodeView { unschedulable: true, ..taken_off(node(&[(KARPENTER, "false")]), &first, true) };
        let kept = Some(Box::new(KeptCordon { by: first.clone(), deleted: false }));
        let keep = || NodeChange { kept_cordon: kept.clone(), ..NodeChange::default() };
        let failed = given_with(held, &first, keep());
        assert!(failed.left_balancers() && failed.is_kept_off(), "{failed:?}");
        assert_eq!(failed.annotations, node(&[(KARPENTER, "false")]).annotations, "autoscalers may have it");
        assert_eq!(given(failed.clone(), &first), failed, "nothing else is to be given back");
        // The next operation has it, whether it wants that or not: until it uncordons the node, or not at
        // all.
        for wanted in [false, true] {
            let again = taken_off(failed.clone(), &second, wanted);
            assert!(again.left_balancers() && !again.is_kept_off(), "{again:?}");
            let undone = given(again.clone(), &second);
            assert!(undone.left_balancers() && undone.is_kept_off(), "it was cancelled: {undone:?}");
            let uncordon =
                NodeChange { unschedulable: Some(false), cordoned_by: Some(None), ..NodeChange::default() };
            assert_eq!(given_with(again, &second, uncordon), node(&[(KARPENTER, "false")]));
        }
    }

    #[test]
    fn hints_of_a_claim_that_somebody_removed_go_on_under_the_next_ones_name() {
        let (first, second) = (op("u1"), op("u2"));
        let mut left = taken(node(&[(KARPENTER, "false")]), &first);
        left.annotations.insert(AUTOSCALER.into(), "false".into());
        let held = taken(left, &second);
        assert_eq!(held.annotations[AUTOSCALER], "true");
        assert_eq!(given(held.clone(), &first), held);
        assert_eq!(given(held, &second), node(&[(KARPENTER, "false"), (AUTOSCALER, "false")]));
    }
}
