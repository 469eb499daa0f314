//! Short ways to read and write JSON by pointer.
//!
//! The server is generic over resources, so it works on `serde_json::Value`; these helpers keep the absent
//! cases ("no such field" and "field of another type") from cluttering every line.

use serde_json::{Map, Value};

const EMPTY: &[Value] = &[];

/// The string at a JSON pointer, or the empty string.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at a JSON pointer.
pub fn int(value: &Value, pointer: &str) -> Option<i64> {
    value.pointer(pointer).and_then(Value::as_i64)
}

/// Whether the boolean at a JSON pointer is there and true.
pub fn flag(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}

/// The list at a JSON pointer, or an empty one.
pub fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(EMPTY, Vec::as_slice)
}

/// The map at a JSON pointer.
pub fn map<'a>(value: &'a Value, pointer: &str) -> Option<&'a Map<String, Value>> {
    value.pointer(pointer).and_then(Value::as_object)
}

/// Strings of the list at a JSON pointer.
pub fn texts<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a str> {
    list(value, pointer).iter().filter_map(Value::as_str)
}

/// Writes at a JSON pointer, making the maps on the way.
pub fn set(value: &mut Value, pointer: &str, new: impl Into<Value>) {
    let mut at = value;
    for part in pointer.split('/').skip(1) {
        let key = part.replace("~1", "/").replace("~0", "~");
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(map) = at else { return };
        at = map.entry(key).or_insert(Value::Null);
    }
    *at = new.into();
}

/// Writes at a JSON pointer unless something is there.
pub fn set_default(value: &mut Value, pointer: &str, new: impl Into<Value>) {
    if value.pointer(pointer).is_none_or(Value::is_null) {
        set(value, pointer, new);
    }
}

/// Takes the field at a JSON pointer out.
pub fn take(value: &mut Value, pointer: &str) -> Option<Value> {
    let (parent, field) = pointer.rsplit_once('/')?;
    let field = field.replace("~1", "/").replace("~0", "~");
    value.pointer_mut(parent)?.as_object_mut()?.remove(&field)
}

/// Puts a field, or takes it out if there is nothing to put.
pub fn put(value: &mut Value, pointer: &str, new: Option<Value>) {
    match new {
        Some(new) => set(value, pointer, new),
        None => drop(take(value, pointer)),
    }
}

/// Removes null fields, as the decoding of a typed object would.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
