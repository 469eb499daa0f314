//! What the derive cannot say about the CRDs: corrected schemas of Kubernetes' own types, and the rules in
//! CEL.
//!
//! A refusal is read by somebody who wrote a manifest, so each rule's message says what to write instead. A
//! server estimates the cost of a rule from the bounds of what it reads, and refuses the whole CRD above a
//! limit: rules look at sizes and at single fields, and what they read in a list stands in a list with
//! `maxItems`.

use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::nodeop::{DrainOptions, MAX_NODE_NAMES};
pub(super) use super::not_null::not_null;

/// A CEL rule, and the sentence with which the server refuses an object that breaks it.
type Rule = (&'static str, &'static str);

/// Fields of a NodeOp's spec that may be changed while it runs. They steer what starts next, never what has
/// started.
const MUTABLE: [&str; 4] = ["concurrency", "paused", "stopOnFailure", "notAfter"];

/// The most requirements of a selector. One rule runs for each of them, so the server wants a bound; nobody
/// writes this many.
const MAX_EXPRESSIONS: u32 = 100;

/// The most labels that a selector names.
const MAX_LABELS: u32 = 100;
/// The most values of one requirement, arguments of a command, paths that are left out, and pull secrets.
const MAX_ITEMS: u32 = 100;
/// No name of an image that can be pulled is longer.
const MAX_IMAGE: u32 = 512;
/// The longest argument of a command, and all of them together: a kernel takes no longer one than 128 KiB,
/// and each Job and each pod of an operation holds a copy.
const MAX_ARGUMENT: u32 = 65_536;

const COMMAND_RULES: [Rule; 1] = [(
    "size(self.join('')) <= 65536",
    "the command is longer than 64 KiB: put the script into the image, or fetch it",
)];

const EXCLUDED_PATH_RULES: [Rule; 2] = [
    (
        "self.matches('^(/[^/\\\\x00-\\\\x1f]+)+/?$')",
        "write an absolute path below the root, without an empty part or a control character, for example /etc/motd",
    ),
    ("!self.matches('/[.][.]?(/|$)')", "write the path without . and .. in it, for example /etc/motd"),
];

/// Of years only those that mean something: whoever writes the year 9999 means never, and leaves the field
/// out. Days are counted, leap years too: what passes here is read by the operator, and what it cannot read
/// it would not see at all.
const TIME_RULES: [Rule; 1] = [(
    "self.matches('^((2[0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8])))|((2[0-9](0[48]|[2468][048]|[13579][26])|2[048]00)-02-29))T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])$')",
    "write a time with its zone, for example 2027-01-31T00:00:00Z or 2027-01-31T23:30:00+01:00; for no limit in time leave the field out",
)];

const NODE_NAME_RULES: [Rule; 1] = [(
    "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
    "no node can have this name: write the names as kubectl get nodes does, in lower case, for example worker-1",
)];

/// What is left of a selector when a client drops a misspelt field of it.
const SELECTOR_RULE: Rule = (
    "(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",
    "this selector is empty, and an empty selector matches everything: write matchLabels or matchExpressions in it \
     (is one misspelt?), or leave the whole field out",
);

const LABEL_VALUE_RULES: [Rule; 1] = [(
    "self.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$')",
    "no label can have this value: write at most 63 letters, digits, dashes, dots and underscores, with a letter or digit at both ends",
)];

const LABEL_KEY_RULES: [Rule; 1] = [(
    "self.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')",
    "no label can have this key: write a name of at most 63 letters, digits, dashes, dots and underscores, for example kubernetes.io/hostname",
)];

/// A server takes the keys of a map for endless when it estimates what a rule costs, so the rule looks at
/// their size alone; manifests/rbac/selector-policy.yaml looks at what is in them.
const LABEL_KEYS_RULES: [Rule; 1] = [(
    "self.all(key, size(key) > 0 && size(key) <= 317)",
    "no label can have an empty key, or one of more than 317 characters: write a name, for example kubernetes.io/hostname",
)];

const LOAD_BALANCER_RULES: [Rule; 1] = [(
    "!has(self.waitSeconds) || (has(self.exclude) && self.exclude)",
    "waitSeconds is how long load balancers get to leave a node: set exclude: true, or remove waitSeconds",
)];

const NODEOP_RULES: [Rule; 7] = [
    (
        "has(self.command) || has(self.upgrade)",
        "say what to run: set command (an empty list, command: [], runs the image's own entrypoint); to upgrade Kairos create a NodeOpUpgrade instead",
    ),
    (
        "!has(self.command) || !has(self.upgrade)",
        "command and upgrade exclude each other: remove upgrade to run the command, or remove command to upgrade Kairos",
    ),
    (
        "!has(self.upgrade) || (has(self.image) && size(self.image) > 0)",
        "an upgrade needs image: set it to the Kairos image to upgrade to",
    ),
    (
        "!has(self.upgrade) || !has(self.hostMountPath) || self.hostMountPath == '/host'",
        "an upgrade needs hostMountPath: /host, the only mount that kairos-agent leaves out of the image it writes; remove hostMountPath",
    ),
    (
        "!has(self.upgrade) || !has(self.preflight)",
        "an upgrade brings a preflight of its own: remove preflight, and set upgrade.preflightTimeoutSeconds to change its deadline",
    ),
    (
        "!has(self.drainOptions) || !has(self.drainOptions.enabled) || !self.drainOptions.enabled || (has(self.cordon) && self.cordon)",
        "a drained node must be cordoned, or its pods come straight back: set cordon: true, or drainOptions.enabled: false",
    ),
    (
        "!has(self.loadBalancer) || !has(self.loadBalancer.exclude) || !self.loadBalancer.exclude || (has(self.cordon) && self.cordon)",
        "load balancers leave a node until it is uncordoned: set cordon: true, or remove loadBalancer",
    ),
];

const NODEOPUPGRADE_RULES: [Rule; 3] = [
    (
        "!has(self.upgradeActive) || self.upgradeActive || (has(self.upgradeRecovery) && self.upgradeRecovery)",
        "nothing to upgrade: remove upgradeActive: false, or set upgradeRecovery: true to upgrade the recovery image alone",
    ),
    (
        "!has(self.mode) || self.mode != 'Continuous' || !has(self.upgradeActive) || self.upgradeActive",
        "mode: Continuous needs the active image, whose release a node shows: remove upgradeActive: false, or set mode: Once",
    ),
    (
        "!has(self.loadBalancer) || !has(self.loadBalancer.exclude) || !self.loadBalancer.exclude || !has(self.upgradeActive) || self.upgradeActive \
         || (has(self.drainOptions) && has(self.drainOptions.enabled) && self.drainOptions.enabled)",
        "the recovery image alone is written under a node that stays in service: remove loadBalancer, or set drainOptions.enabled: true",
    ),
];

/// 0 is the smallest number and means all nodes, so whoever lowers `concurrency` to it, or leaves it out,
/// sets loose what they meant to hold. An object that was created with 0 is not concerned.
const SLOWER_RULE: Rule = (
    "!has(oldSelf.concurrency) || oldSelf.concurrency == 0 || (has(self.concurrency) && self.concurrency > 0)",
    "concurrency: 0, the default, means all nodes at once, so it cannot be lowered to that: to start no further node set paused: true; \
     to take more nodes at once set a larger number",
);

const UPGRADE_RULES: [Rule; 1] = [(
    "(has(self.active) && self.active) || (has(self.recovery) && self.recovery)",
    "nothing to upgrade: set active: true, recovery: true, or both",
)];

const MOUNT_PATH_RULES: [Rule; 2] = [
    (
        "self == '' || self.matches('^(/[^/:]+)+/?$')",
        "write an absolute path below the root of the container, without a colon or an empty part, for example /host",
    ),
    ("!self.matches('/[.][.]?(/|$)')", "write the path without . and .. in it, for example /host"),
];

const SELECTOR_RULES: [Rule; 2] = [
    (
        "!(self.operator in ['In', 'NotIn']) || (has(self.values) && size(self.values) > 0)",
        "operators In and NotIn need at least one entry in values; to ask only whether the label is there, use Exists or DoesNotExist",
    ),
    (
        "!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || size(self.values) == 0",
        "operators Exists and DoesNotExist take no values: remove values, or use In or NotIn",
    ),
];

/// `NodeOp.spec`: its rules, and one run only.
pub(super) fn nodeop(schema: &mut Schema) {
    not_null(schema);
    add_rules(schema, &NODEOP_RULES);
    never_loosened(schema);
    immutable(schema);
}

/// `NodeOpUpgrade.spec`: its rules. It may be changed: each change that does not only steer is another run.
pub(super) fn nodeopupgrade(schema: &mut Schema) {
    not_null(schema);
    add_rules(schema, &NODEOPUPGRADE_RULES);
    never_loosened(schema);
}

/// `loadBalancer`: no wait for nothing.
pub(super) fn load_balancer(schema: &mut Schema) {
    add_rules(schema, &LOAD_BALANCER_RULES);
}

/// `NodeOp.spec.upgrade`: at least one of the two images.
pub(super) fn upgrade(schema: &mut Schema) {
    add_rules(schema, &UPGRADE_RULES);
}

/// A path in a container at which the host's root can be mounted.
pub(super) fn mount_path(schema: &mut Schema) {
    schema.insert("maxLength".into(), json!(1024));
    add_rules(schema, &MOUNT_PATH_RULES);
}

/// A command: bounded, so that what is made of it can be stored and started.
pub(super) fn command(schema: &mut Schema) {
    schema.insert("maxItems".into(), json!(MAX_ITEMS));
    schema.insert("items".into(), json!({ "type": "string", "maxLength": MAX_ARGUMENT }));
    add_rules(schema, &COMMAND_RULES);
}

/// The name of an image.
pub(super) fn image(schema: &mut Schema) {
    schema.insert("maxLength".into(), json!(MAX_IMAGE));
}

/// Paths that are left out of an image.
pub(super) fn excluded_paths(schema: &mut Schema) {
    let mut path = schemars::json_schema!({ "type": "string", "maxLength": 1024 });
    add_rules(&mut path, &EXCLUDED_PATH_RULES);
    schema.insert("maxItems".into(), json!(MAX_ITEMS));
    schema.insert("items".into(), path.into());
}

/// Names of nodes. An empty list would mean what none means, all of them.
pub(super) fn node_names(schema: &mut Schema) {
    schema.insert("minItems".into(), json!(1));
    schema.insert("maxItems".into(), json!(MAX_NODE_NAMES));
    let mut name = schemars::json_schema!({ "type": "string", "maxLength": 253 });
    add_rules(&mut name, &NODE_NAME_RULES);
    schema.insert("items".into(), name.into());
    schema.insert("x-kubernetes-list-type".into(), json!("atomic"));
}

/// A moment in RFC 3339, with a zone. Not of the format `date-time`: a server that knows it refuses with the
/// format's name and no example, and has rules see a number of seconds.
pub(super) fn time(schema: &mut Schema) {
    schema.ensure_object().remove("format");
    schema.insert("maxLength".into(), json!(40));
    add_rules(schema, &TIME_RULES);
}

/// A label selector as Kubernetes' own kinds check it: atomic (two appliers never mix theirs), with the four
/// operators.
pub(super) fn selector(_: &mut SchemaGenerator) -> Schema {
    let with = |mut schema: Schema, rules: &[Rule]| {
        add_rules(&mut schema, rules);
        schema
    };
    let value = || with(schemars::json_schema!({ "type": "string", "maxLength": 63 }), &LABEL_VALUE_RULES);
    let key = schemars::json_schema!({ "type": "string", "minLength": 1, "maxLength": 317, "description": "The label's key." });
    let labels = schemars::json_schema!({
        "type": "object",
        "maxProperties": MAX_LABELS,
        "additionalProperties": value(),
        "description": "Labels that must all be there with these values.",
    });
    let mut requirement = schemars::json_schema!({
        "type": "object",
        "description": "One condition on a node's or a pod's labels.",
        "required": ["key", "operator"],
        "properties": {
            "key": with(key, &LABEL_KEY_RULES),
            "operator": {
                "type": "string",
                "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                "description": "How the label is compared: In or NotIn the values, Exists or DoesNotExist.",
            },
            "values": {
                "type": "array",
                "maxItems": MAX_ITEMS,
                "items": value(),
                "x-kubernetes-list-type": "atomic",
                "description": "The values for In and NotIn; none for Exists and DoesNotExist.",
            },
        },
    });
    add_rules(&mut requirement, &SELECTOR_RULES);
    let selector = schemars::json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": with(labels, &LABEL_KEYS_RULES),
            "matchExpressions": {
                "type": "array",
                "maxItems": MAX_EXPRESSIONS,
                "items": requirement,
                "x-kubernetes-list-type": "atomic",
                "description": "Conditions that must all hold.",
            },
        },
    });
    with(selector, &[SELECTOR_RULE])
}

/// References to pull secrets; like Kubernetes' own, an entry may leave its name out.
pub(super) fn pull_secrets(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": MAX_ITEMS,
        "items": {
            "type": "object",
            "x-kubernetes-map-type": "atomic",
            "properties": { "name": { "type": "string", "default": "", "maxLength": 253, "description": "Name of a Secret in this namespace." } },
        },
    })
}

/// `NodeOpUpgrade.spec.drainOptions`: the fields of a NodeOp's without its defaults. A server would fill
/// those in, and a field that the user left out could then not be told from one set to the NodeOp's default,
/// which differs from an upgrade's.
pub(super) fn upgrade_drain(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<DrainOptions>();
    let defaults = [
        ("enabled", "true if the active image is upgraded"),
        ("deleteEmptyDirData", "true"),
        ("ignoreDaemonSets", "true"),
        ("timeoutSeconds", "300"),
        ("force", "false"),
        ("strict", "false"),
    ];
    for (name, property) in properties(&mut schema) {
        let Some(property) = property.as_object_mut() else { continue };
        property.remove("default");
        if let Some((_, default)) = defaults.iter().find(|(field, _)| field == name) {
            let text = property.get("description").and_then(Value::as_str).unwrap_or_default();
            let text = format!("{text} Default for an upgrade: {default}.");
            property.insert("description".into(), text.into());
        }
    }
    schema
}

/// Conditions merge by type, as in Kubernetes' own kinds.
pub(super) fn conditions(schema: &mut Schema) {
    schema.insert("x-kubernetes-list-type".into(), "map".into());
    schema.insert("x-kubernetes-list-map-keys".into(), json!(["type"]));
}

/// Adds `rules` to what the schema already has.
fn add_rules(schema: &mut Schema, rules: &[Rule]) {
    extend_rules(schema, rules.iter().map(|(rule, message)| json!({ "rule": rule, "message": message })));
}

fn extend_rules(schema: &mut Schema, rules: impl Iterator<Item = Value>) {
    let entry = schema.ensure_object().entry("x-kubernetes-validations").or_insert_with(|| json!([]));
    if let Some(list) = entry.as_array_mut() {
        list.extend(rules);
    }
}

/// The rule that keeps `concurrency` from being lowered to "all".
fn never_loosened(schema: &mut Schema) {
    let (rule, message) = SLOWER_RULE;
    extend_rules(
        schema,
        [json!({ "rule": rule, "message": message, "fieldPath": ".concurrency" })].into_iter(),
    );
}

/// One rule for each property but the mutable ones, so that the server names the field that somebody tried to
/// change.
fn immutable(schema: &mut Schema) {
    let names: Vec<String> = properties(schema)
        .map(|(name, _)| name.clone())
        .filter(|name| !MUTABLE.contains(&name.as_str()))
        .collect();
    let rules = names.iter().map(|name| {
        let message = "a NodeOp is one run and cannot be changed once created, except concurrency, paused, stopOnFailure and notAfter: \
             create another one (metadata.generateName and kubectl create give each run a name)";
        json!({
            "rule": format!("has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})"),
            "message": message,
            "fieldPath": format!(".{name}"),
        })
    });
    extend_rules(schema, rules);
}

fn properties(schema: &mut Schema) -> impl Iterator<Item = (&String, &mut Value)> {
    schema
        .ensure_object()
        .get_mut("properties")
        .and_then(Value::as_object_mut)
        .map(Map::iter_mut)
        .into_iter()
        .flatten()
}
