//! Optional fields of the CRDs, which the derive would have accept an explicit null.

use schemars::Schema;
use serde_json::Value;

/// Makes every optional field simply optional. The derive says `nullable`, which would keep an explicit null
/// where the Go operator's CRDs dropped it and put the default.
pub(super) fn not_null(schema: &mut Schema) {
    schemars::transform::transform_subschemas(&mut not_null, schema);
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if let Some(Value::Array(choices)) = object.get("anyOf")
        && let Some(Value::Object(choice)) = choices.iter().find(|choice| choice["type"] != "null")
        && choices.len() == 2
    {
        let choice = choice.clone();
        object.remove("anyOf");
        for (key, value) in choice {
            object.entry(key).or_insert(value);
        }
    }
}
