//! Strategic merge patch, and the merge of server-side apply, which here is the same: lists of known names
//! are merged by key, all others replaced.
//!
//! Server-side apply has no managed fields here: what an applier stops naming stays.

use serde_json::{Map, Value};

/// Merge keys of lists, by the name of the field that holds them.
const MERGE_KEYS: [(&str, &[&str]); 12] = [
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("ephemeralContainers", &["name"]),
    ("volumes", &["name"]),
    ("env", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("ports", &["containerPort", "port"]),
    ("conditions", &["type"]),
    ("addresses", &["type"]),
    ("ownerReferences", &["uid"]),
    ("imagePullSecrets", &["name"]),
    ("topologySpreadConstraints", &["topologyKey"]),
];

/// Lists of strings that are sets.
const SETS: [&str; 1] = ["finalizers"];

/// Merges a patch into a value.
pub fn merge(value: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *value = patch.clone();
        return;
    };
    if !value.is_object() || directive(patch) == Some("replace") {
        *value = Value::Object(Map::new());
    }
    let Value::Object(fields) = value else { return };
    for (key, change) in changes {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            remove_members(fields, list, change);
        } else if key.starts_with('$') {
            // Order and retained keys: what is there keeps its place.
        } else if change.is_null() || directive(change) == Some("delete") {
            fields.remove(key);
        } else {
            merge_field(fields, key, change);
        }
    }
}

fn merge_field(fields: &mut Map<String, Value>, key: &str, change: &Value) {
    let field = fields.entry(key.to_owned()).or_insert(Value::Null);
    match (field, change) {
        (Value::Array(items), Value::Array(changes)) if SETS.contains(&key) => {
            items.extend(changes.iter().filter(|c| !items.contains(c)).cloned().collect::<Vec<_>>());
        }
        (Value::Array(items), Value::Array(changes)) => match merge_key(key, changes) {
            Some(by) => merge_list(items, changes, by),
            None => items.clone_from(changes),
        },
        (field, Value::Array(changes)) => {
            *field = changes.iter().filter(|c| directive(c).is_none()).cloned().collect();
        }
        (field, change) => merge(field, change),
    }
}

fn merge_key(field: &str, changes: &[Value]) -> Option<&'static str> {
    let (_, keys) = MERGE_KEYS.iter().find(|(name, _)| *name == field)?;
    keys.iter()
        .copied()
        .find(|key| changes.iter().all(|c| c.get(key).is_some() || directive(c) == Some("replace")))
}

fn merge_list(items: &mut Vec<Value>, changes: &[Value], by: &str) {
    if changes.iter().any(|c| directive(c) == Some("replace")) {
        items.clear();
    }
    for change in changes.iter().filter(|c| directive(c) != Some("replace")) {
        let at = items.iter().position(|item| item.get(by) == change.get(by));
        match (at, directive(change)) {
            (Some(at), Some("delete")) => drop(items.remove(at)),
            (None, Some("delete")) => {}
            (Some(at), _) => merge(&mut items[at], change),
            (None, _) => items.push(change.clone()),
        }
    }
}

fn directive(value: &Value) -> Option<&str> {
    value.get("$patch").and_then(Value::as_str)
}

fn remove_members(fields: &mut Map<String, Value>, list: &str, members: &Value) {
    let members = members.as_array().map(Vec::as_slice).unwrap_or_default();
    if let Some(items) = fields.get_mut(list).and_then(Value::as_array_mut) {
        items.retain(|item| !members.contains(item));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::merge;

    #[test]
    fn lists_are_merged_by_key_and_directives_obeyed() {
        let mut pod = json!({"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}, "metadata": {"finalizers": ["f"]}});
        merge(
            &mut pod,
            &json!({"spec": {"containers": [{"name": "b", "image": "z"}, {"name": "a", "$patch": "delete"}], "$setElementOrder/containers": [{"name": "b"}]},
                    "metadata": {"finalizers": ["g"], "$deleteFromPrimitiveList/finalizers": ["f"], "labels": {"k": null, "l": "m"}}}),
        );
        assert_eq!(pod["spec"]["containers"], json!([{"name": "b", "image": "z"}]));
        assert_eq!(pod["metadata"]["finalizers"], json!(["g"]));
        assert_eq!(pod["metadata"]["labels"], json!({"l": "m"}));
    }
}
