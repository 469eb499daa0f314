//! What users write: names, selectors, specs, and what becomes of them in our objects and their arguments.

use std::{collections::BTreeMap, ffi::OsString};

use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
    serde::de::DeserializeOwned,
    serde_json::{self, Value},
};
use kairos_operator::{
    api::{child, names::label_value, nodeop::NodeOp, upgrade::NodeOpUpgrade},
    cli::{self, Applet},
    plan::model::{
        id::OpRef,
        intent::Intent,
        object_name::{accounts, object},
        selector::matches,
    },
    render::{self, RenderConfig},
};

use super::{is_dns_label, is_label_value, text, texts};

/// Any NodeOp and node (name, UID, node, kind, cut at NUL bytes): names of objects, accounts and labels that
/// a server takes.
pub fn names(data: &[u8]) {
    let Some([name, uid, node, kind]) = texts(data) else { return };
    let kind = ["", "reboot", "preflight", "facts"][kind.len() % 4];
    for attempt in [i32::MIN, 0, i32::MAX] {
        let made = object((name, uid), node, kind, attempt);
        assert!(is_dns_label(&made), "{made:?}");
        assert_eq!(made, object((name, uid), node, kind, attempt));
    }
    assert_ne!(object((name, uid), node, kind, 0), object((name, uid), node, kind, 1));
    assert!(accounts((name, uid), node).iter().all(|account| account.len() <= 63));
    for name in [name, node] {
        let value = label_value(name);
        // A node's or NodeOp's own name is a DNS subdomain, and so fit for a label if it is short enough.
        let subdomain = name.split('.').all(is_dns_label);
        assert!(value.len() <= 63 && (!subdomain || is_label_value(&value)), "{value:?}");
    }
}

/// A claim or cordon annotation: what is understood is what was written.
pub fn op_ref(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(of) = text.parse::<OpRef>() {
        assert_eq!(of.to_string(), text);
        assert!(!of.namespace.is_empty() && !of.name.is_empty() && !of.uid.is_empty());
    }
}

/// A selector and labels, as JSON in two lines: each operator is the opposite of another one, and more
/// conditions match less.
pub fn selector(data: &[u8]) {
    let Some((selector, labels)) = text(data).and_then(|text| text.split_once('\n')) else { return };
    let Ok(selector) = serde_json::from_str::<LabelSelector>(selector) else { return };
    let Ok(labels) = serde_json::from_str::<BTreeMap<String, String>>(labels) else { return };
    let label = |key: &str| labels.get(key).map(String::as_str);
    let all = matches(&selector, label);
    let mut parts = Vec::new();
    for expression in selector.match_expressions.iter().flatten() {
        let alone = |operator: &str| {
            let expression = LabelSelectorRequirement { operator: operator.into(), ..expression.clone() };
            matches(&LabelSelector { match_labels: None, match_expressions: Some(vec![expression]) }, label)
        };
        assert_ne!(alone("In"), alone("NotIn"));
        assert_ne!(alone("Exists"), alone("DoesNotExist"));
        assert!(!alone("In") || alone("Exists"));
        parts.push(alone(&expression.operator));
    }
    parts.push(matches(&LabelSelector { match_expressions: None, ..selector }, label));
    assert_eq!(all, parts.into_iter().all(|part| part));
}

fn render_config() -> RenderConfig {
    let own = |text: &str| text.to_owned();
    RenderConfig {
        operator_image: own("operator"),
        operator_pull_policy: "IfNotPresent".into(),
        namespace: own("own"),
        default_image: own("busybox"),
        state_dir: own("/usr/local/.kairos"),
        pull_secrets: vec![own("registry")],
    }
}

/// What the kubelet makes of a container's arguments: `$(NAME)` is a variable's value if there is one, `$$` a
/// dollar sign.
fn expanded(container: &Container) -> Vec<String> {
    let variables: Vec<&str> =
        container.env.iter().flatten().map(|variable| variable.name.as_str()).collect();
    let one = |text: &String| {
        let (mut out, mut rest) = (String::new(), text.as_str());
        while let Some((before, after)) = rest.split_once('$') {
            out += before;
            let variable = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
            (out, rest) = match (after.strip_prefix('$'), variable) {
                (Some(after), _) => (out + "$", after),
                (None, Some((name, after))) if variables.contains(&name) => {
                    (out + "(a variable's value)", after)
                }
                (None, _) => (out + "$", after),
            };
        }
        out + rest
    };
    let whole = container.command.iter().chain(&container.args).flatten();
    whole.map(one).collect()
}

/// What the containers that run our binary are told; the rest is the user's.
fn applets(spec: &PodSpec) -> Vec<Applet> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let ours = containers.filter(|container| {
        container.command.iter().flatten().next().is_some_and(|path| path.ends_with("/kairos-operator"))
    });
    let parsed = |container: &Container| {
        let argv = expanded(container);
        cli::parse(argv.iter().map(OsString::from)).unwrap_or_else(|error| panic!("{argv:?}: {error}"))
    };
    ours.map(parsed).collect()
}

/// The object whose spec this is, as JSON.
fn with_spec<K: DeserializeOwned>(data: &[u8]) -> Option<K> {
    let spec: Value = serde_json::from_slice(data).ok()?;
    let meta = serde_json::json!({"name": "op", "namespace": "ns", "uid": "u"});
    serde_json::from_value(serde_json::json!({"metadata": meta, "spec": spec})).ok()
}

/// A NodeOp as JSON: what is made of it are objects with names and deadlines that a server takes, and applets
/// are told what the user wrote, to the letter.
pub fn nodeop(data: &[u8]) {
    if let Some(op) = with_spec(data) {
        render(&op);
    }
}

fn render(op: &NodeOp) {
    let intent = Intent::of(op);
    assert!(
        intent.concurrency != Some(0)
            && intent.drain.is_none_or(|drain| drain.timeout.is_none_or(|timeout| timeout.is_positive()))
    );
    let job = render::job::job(op, render::job::On { node: "n1", locks: true }, "job", &render_config());
    let of = render::waiter::For { job: "job", succeeded: None };
    let waiter = render::waiter::pod(op, "n1", "waiter", of, "account", &render_config());
    let preflight = render::preflight::pod(op, "n1", "preflight", &render_config());
    let job_pod = job.spec.and_then(|spec| spec.template.spec).expect("a pod");
    let mut specs = vec![job_pod];
    specs.extend(waiter.spec);
    specs.extend(preflight.spec);
    for spec in &specs {
        assert!(
            spec.active_deadline_seconds.is_none_or(|seconds| (1..=i64::from(i32::MAX)).contains(&seconds)),
            "{:?}",
            spec.active_deadline_seconds
        );
        for applet in applets(spec) {
            if let (Applet::Upgrade(args), Some(options)) = (&applet, &op.spec.upgrade) {
                let order = args.order();
                assert_eq!(
                    (order.active, order.recovery, order.force, order.debug),
                    (options.active, options.recovery, options.force, options.debug)
                );
                assert_eq!(order.exclude_paths, options.exclude_paths);
            }
        }
    }
}

/// A NodeOpUpgrade's spec as JSON: its NodeOp is one, and upgrades to its image.
pub fn upgrade(data: &[u8]) {
    let Some(upgrade) = with_spec::<NodeOpUpgrade>(data) else { return };
    let op = child::first(&upgrade);
    assert_eq!(op.spec.image.as_ref(), Some(&upgrade.spec.image));
    assert!(
        op.spec.upgrade.is_some()
            && op.spec.command.is_none()
            && op.spec.concurrency == upgrade.spec.concurrency
    );
    let again = serde_json::to_value(&op)
        .and_then(serde_json::from_value::<NodeOp>)
        .expect("what is sent can be read");
    assert_eq!(again.spec, op.spec);
    render(&op);
}

/// A command line, cut at NUL bytes.
pub fn arguments(data: &[u8]) {
    let Some(line) = text(data) else { return };
    let argv: Vec<OsString> = line.split('\0').map(OsString::from).collect();
    if let Err(error) = cli::parse(argv) {
        assert!(matches!(error.exit_code(), 0 | 2), "{error}");
    }
}
