//! Kubernetes' JSONPath, as far as printer columns use it: `.a.b`, `[0]`, `['a/b']`, `[*]`, and
//! `[?(@.type=="Ready")]`.

use serde_json::Value;

/// The first value that a path finds.
pub fn find<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let path = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    let mut at = value;
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let end = inner.find(']')?;
            at = step(at, &inner[..end])?;
            rest = &inner[end + 1..];
        } else {
            let name = rest.trim_start_matches('.');
            let end = end_of_name(name);
            let field = name[..end].replace("\\.", ".");
            if field.is_empty() {
                return Some(at);
            }
            at = at.get(&field)?;
            rest = &name[end..];
        }
    }
    Some(at)
}

fn end_of_name(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        match c {
            '\\' => escaped = true,
            '.' | '[' if !escaped => return i,
            _ => escaped = false,
        }
    }
    text.len()
}

fn step<'a>(at: &'a Value, inner: &str) -> Option<&'a Value> {
    if inner == "*" {
        return at.as_array()?.first();
    }
    if let Some(test) = inner.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        let (field, wanted) = test.split_once("==")?;
        let wanted = wanted.trim().trim_matches(['"', '\'']);
        let field = field.trim().trim_start_matches('@');
        return at.as_array()?.iter().find(|item| find(item, field).and_then(Value::as_str) == Some(wanted));
    }
    match inner.parse::<usize>() {
        Ok(index) => at.get(index),
        Err(_) => at.get(inner.trim_matches(['"', '\''])),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::find;

    #[test]
    fn printer_columns_find_their_values() {
        let object = json!({"status": {"phase": "Up", "conditions": [{"type": "A", "status": "x"}, {"type": "Ready", "status": "True"}]},
                            "metadata": {"labels": {"a.b/c": "d"}}});
        for (path, wanted) in [
            (".status.phase", "Up"),
            (".status.conditions[?(@.type==\"Ready\")].status", "True"),
            (".status.conditions[0].status", "x"),
            (".metadata.labels['a.b/c']", "d"),
            (".metadata.labels.a\\.b/c", "d"),
        ] {
            assert_eq!(find(&object, path), Some(&json!(wanted)), "{path}");
        }
        assert_eq!(find(&object, ".spec.x"), None);
    }
}
