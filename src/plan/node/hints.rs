//! Asking autoscalers to leave a node that is claimed, with the claim's own patch; and giving back what stood
//! there, with the patch that gives back the claim.
//!
//! What somebody changed while we had the node is theirs and stays, and nothing is set a second time: a
//! person who takes a hint off knows why.

use std::collections::BTreeMap;

use crate::{
    api::names,
    plan::model::{action::NodeChange, hints::Hints, id::OpRef, snapshot::NodeView},
};

/// Bytes of another's value that are remembered. Where a longer one stands, nothing is asked: an object's
/// annotations have a limit together, and a claim must not be refused for a courtesy.
const MAX_REMEMBERED: usize = 1024;

/// Adds to a claim what asks autoscalers to leave the node.
pub fn take(node: &NodeView, me: &OpRef, claim: &mut NodeChange) {
    if node.hints.as_ref().is_some_and(|hints| hints.by == *me) {
        return;
    }
    // A claim that somebody removed may have left hints of another NodeOp, which go on under our name.
    let left = node.hints.as_ref().map(|hints| stood_before(node, hints)).unwrap_or_default();
    let mut before = BTreeMap::new();
    for (name, asks) in names::KEEPS_FROM_SCALE_DOWN {
        let stands = node.annotations.get(name).map(String::as_str);
        let was = left.get(name).cloned().unwrap_or_else(|| stands.map(str::to_owned));
        let is_bearable = was.as_ref().is_none_or(|was| was.len() <= MAX_REMEMBERED);
        if was.as_deref() != Some(asks) && is_bearable {
            before.insert(name.to_owned(), was);
            if stands != Some(asks) {
                claim.annotations.insert(name.to_owned(), Some(asks.to_owned()));
            }
        }
    }
    if !before.is_empty() || node.hints.is_some() {
        let hints = Hints { by: me.clone(), before };
        claim.annotations.insert(names::AUTOSCALER_HINTS.to_owned(), Some(hints.to_string()));
    }
}

/// Adds to what gives a node back what stood there before `me` asked anything of autoscalers.
pub fn give_back(node: &NodeView, me: &OpRef, change: &mut NodeChange) {
    if let Some(hints) = node.hints.as_ref().filter(|hints| hints.by == *me) {
        change.annotations.extend(stood_before(node, hints));
        change.annotations.insert(names::AUTOSCALER_HINTS.to_owned(), None);
    }
}

/// What stood in the place of each hint that is still as we set it.
fn stood_before(node: &NodeView, hints: &Hints) -> BTreeMap<String, Option<String>> {
    let ours = names::KEEPS_FROM_SCALE_DOWN
        .into_iter()
        .filter(|(name, asks)| node.annotations.get(*name).is_some_and(|stands| stands == asks));
    ours.filter_map(|(name, _)| Some((name.to_owned(), hints.before.get(name)?.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut change = NodeChange::default();
        take(&node, me, &mut change);
        changed(node, change)
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
