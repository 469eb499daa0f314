//! Label selectors, as the API server reads them.
//!
//! The planner may not use kube; and kube's `Selector` cannot say of labels that are not known yet whether
//! they might match, which [`may_match`] does.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::api::nodeop::NodeOp;

/// The selector of a NodeOp, if it leaves out any node.
pub fn of(op: &NodeOp) -> Option<&LabelSelector> {
    op.spec.node_selector.as_ref().filter(|selector| !selects_all(selector))
}

/// Whether `nodeNames` of a NodeOp leave room for a node.
pub fn is_named(op: &NodeOp, node: &String) -> bool {
    op.spec.node_names.is_empty() || op.spec.node_names.contains(node)
}

/// An empty selector selects everything, like none.
pub fn selects_all(selector: &LabelSelector) -> bool {
    *selector == <_>::default()
}

/// Whether labels, of which `label` says each one's value, match every part of `selector`; an empty selector
/// matches all.
pub fn matches<'a>(selector: &LabelSelector, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    may_match(selector, label, |_| false)
}

/// Whether labels match one expression. An operator that the schema does not know matches nothing: better no
/// node than the wrong one.
pub fn meets<'a>(expression: &LabelSelectorRequirement, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    let value = label(&expression.key);
    let listed = value.is_some_and(|value| expression.values.iter().flatten().any(|v| *v == value));
    match expression.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

/// Whether labels match, or might if those whose keys are `open` were others.
pub fn may_match<'a>(
    selector: &LabelSelector,
    label: impl Fn(&str) -> Option<&'a str>,
    open: impl Fn(&str) -> bool,
) -> bool {
    let wanted = selector.match_labels.iter().flatten();
    wanted.clone().all(|(key, value)| open(key) || label(key) == Some(value))
        && selector.match_expressions.iter().flatten().all(|e| open(&e.key) || meets(e, &label))
}

/// The keys that a selector looks at.
pub fn keys(selector: &LabelSelector) -> impl Iterator<Item = &str> {
    let expressions = selector.match_expressions.iter().flatten().map(|expression| expression.key.as_str());
    selector.match_labels.iter().flatten().map(|(key, _)| key.as_str()).chain(expressions)
}

/// The selector as `kubectl get -l` takes it.
pub fn describe(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let expression = |e: &LabelSelectorRequirement| {
        let (key, values) = (&e.key, e.values.iter().flatten().cloned().collect::<Vec<_>>().join(","));
        match e.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.clone(),
            "DoesNotExist" => format!("!{key}"),
            other => format!("{key} {other} ({values})"),
        }
    };
    labels.chain(selector.match_expressions.iter().flatten().map(expression)).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::names, plan::model::snapshot::NodeView};

    fn expression(operator: &str, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_labels: None,
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "zone".into(),
                operator: operator.into(),
                values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
            }]),
        }
    }

    #[test]
    fn operators_read_as_kubernetes_reads_them() {
        let a = |key: &str| (key == "zone").then_some("a");
        let none = |_: &str| None;
        for (operator, values, on_a, on_none) in [
            ("In", &["a", "b"][..], true, false),
            ("In", &["b"], false, false),
            ("NotIn", &["a"], false, true),
            ("NotIn", &["b"], true, true),
            ("Exists", &[], true, false),
            ("DoesNotExist", &[], false, true),
            ("Near", &["a"], false, false),
        ] {
            let selector = expression(operator, values);
            assert_eq!(
                (matches(&selector, a), matches(&selector, none)),
                (on_a, on_none),
                "{operator} {values:?}"
            );
        }
        assert!(matches(&LabelSelector::default(), none));
    }

    /// Facts are never read of a node of which either says that it is no Linux, so none is waited for.
    #[test]
    fn a_node_is_linux_if_neither_its_label_nor_its_kubelet_says_otherwise() {
        for (label, kubelet, is_linux) in [
            (None, "", true),
            (None, "linux", true),
            (None, "windows", false),
            (Some("linux"), "linux", true),
            (Some("linux"), "", true),
            (Some("linux"), "windows", false),
            (Some("windows"), "linux", false),
            (Some("windows"), "", false),
        ] {
            let mut node = NodeView { os: kubelet.into(), ..NodeView::default() };
            if let Some(label) = label {
                node.labels.insert(names::OS_LABEL.into(), label.into());
            }
            assert_eq!(node.is_selected_by(None), is_linux, "{label:?}, {kubelet:?}");
        }
    }

    /// KWOK's nodes, and those of virtual kubelets: whoever names them gets them.
    #[test]
    fn what_is_no_machine_is_selected_by_name_alone() {
        let node = NodeView { bootless: true, os: "linux".into(), ..NodeView::default() };
        assert!(!node.is_selected_by(None) && !node.is_selected_by(Some(&LabelSelector::default())));
        assert!(node.is_selected_by(Some(&expression("DoesNotExist", &[]))));
    }

    #[test]
    fn what_is_not_known_yet_may_match() {
        let selector = LabelSelector {
            match_labels: Some([("role".to_owned(), "edge".to_owned())].into()),
            match_expressions: expression("In", &["a", "b"]).match_expressions,
        };
        assert_eq!(keys(&selector).collect::<Vec<_>>(), ["role", "zone"]);
        assert_eq!(describe(&selector), "role=edge,zone in (a,b)");
        let labels = |role: &'static str| move |key: &str| (key == "role").then_some(role);
        let zone = |key: &str| key == "zone";
        assert!(may_match(&selector, labels("edge"), zone) && !may_match(&selector, labels("core"), zone));
        assert!(!matches(&selector, labels("edge")));
    }
}
