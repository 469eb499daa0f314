//! What names, labels and annotations may look like.
//!
//! Operators cut and hash long names; a server that takes any string would hide their mistakes.

use serde_json::Value;

use super::Kind;
use crate::{json, server::error::Cause};

/// Bytes of all annotations of an object.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Finalizers without a domain.
const STANDARD_FINALIZERS: [&str; 3] = ["foregroundDeletion", "kubernetes", "orphan"];

/// Faults in an object's metadata.
pub fn check(kind: &Kind, object: &Value) -> Vec<Cause> {
    let name = json::text(object, "/metadata/name");
    let mut causes = Vec::new();
    if !name_fits(kind, name) {
        causes.push(Cause::invalid("metadata.name", &name.into(), "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"));
    }
    check_labels(object, "/metadata/labels", "metadata.labels", &mut causes);
    for key in json::map(object, "/metadata/annotations").into_iter().flatten().map(|(k, _)| k) {
        if !is_qualified(key) {
            causes.push(Cause::invalid(
                "metadata.annotations",
                &key.as_str().into(),
                "name part must consist of alphanumeric characters, '-', '_' or '.'",
            ));
        }
    }
    let annotations = json::map(object, "/metadata/annotations").into_iter().flatten();
    let size: usize = annotations.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size > MAX_ANNOTATIONS {
        let message = format!("Too long: may not be more than {MAX_ANNOTATIONS} bytes");
        causes.push(Cause { reason: "FieldValueTooLong", field: "metadata.annotations".into(), message });
    }
    let finalizers = json::texts(object, "/metadata/finalizers");
    for odd in finalizers.filter(|name| !name.contains('/') && !STANDARD_FINALIZERS.contains(name)) {
        if !kind.is_custom() {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            causes.push(Cause::invalid("metadata.finalizers", &odd.into(), why));
        }
    }
    check_labels(object, "/spec/template/metadata/labels", "spec.template.labels", &mut causes);
    causes
}

fn check_labels(object: &Value, pointer: &str, field: &str, causes: &mut Vec<Cause>) {
    for (key, value) in json::map(object, pointer).into_iter().flatten() {
        if !is_qualified(key) {
            causes.push(Cause::invalid(
                field,
                &key.as_str().into(),
                "name part must consist of alphanumeric characters, '-', '_' or '.', and no more than 63 characters",
            ));
        }
        if !value.as_str().is_some_and(is_label_value) {
            causes.push(Cause::invalid(field, value, "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must be no more than 63 characters"));
        }
    }
}

fn name_fits(kind: &Kind, name: &str) -> bool {
    match (kind.group.as_str(), kind.plural.as_str()) {
        // RBAC names are path segments: anything but separators.
        ("rbac.authorization.k8s.io", _) => !name.is_empty() && !name.contains(['/', '%']),
        ("", "namespaces" | "services") => name.len() <= 63 && is_subdomain(name) && !name.contains('.'),
        _ => is_subdomain(name),
    }
}

/// A name of DNS labels, at most 253 characters.
pub fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_label_of_any_length)
}

fn is_dns_label_of_any_length(label: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !label.is_empty() && label.chars().all(fits) && !label.starts_with('-') && !label.ends_with('-')
}

fn is_label_value(value: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| edge(c) || matches!(c, '-' | '_' | '.');
    value.is_empty()
        || (value.len() <= 63 && value.starts_with(edge) && value.ends_with(edge) && value.chars().all(inner))
}

fn is_qualified(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(p, n)| (Some(p), n));
    !name.is_empty() && is_label_value(name) && prefix.is_none_or(is_subdomain)
}

#[cfg(test)]
mod tests {
    use super::{is_label_value, is_qualified, is_subdomain};

    #[test]
    fn names_follow_dns_and_labels_follow_kubernetes() {
        assert!(is_subdomain("a.b-c.d1"));
        for bad in ["", "A", "-a", "a-", "a..b", "a_b", &"a".repeat(254)] {
            assert!(!is_subdomain(bad), "{bad}");
        }
        assert!(is_label_value("") && is_label_value("A_b.c-1"));
        assert!(!is_label_value(&"a".repeat(64)) && !is_label_value("-a"));
        assert!(
            is_qualified("kairos.io/node")
                && is_qualified("app")
                && !is_qualified("a/b/c")
                && !is_qualified("/x")
        );
    }
}
