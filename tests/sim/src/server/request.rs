//! What a request asks for: its path and query, taken apart.

use std::collections::HashMap;

use super::error::{ApiError, ApiResult};
use crate::kinds::table_name;

/// A request for a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// API group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural name.
    pub plural: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name, or empty for the collection.
    pub name: String,
    /// Subresource, or empty.
    pub sub: String,
}

impl Resource {
    /// Reads a path below `/api` or `/apis`; `None` if it names no resource (discovery, health, OpenAPI).
    pub fn parse(path: &str) -> Option<Self> {
        let parts: Vec<String> = path.split('/').filter(|p| !p.is_empty()).map(decode).collect();
        let mut parts = parts.iter().map(String::as_str);
        let (group, version) = match parts.next()? {
            "api" => ("", parts.next()?),
            "apis" => (parts.next()?, parts.next()?),
            _ => return None,
        };
        let mut rest: Vec<&str> = parts.collect();
        let mut namespace = "";
        // `namespaces/x/pods` is about pods; `namespaces/x`, `…/x/status` and `…/x/finalize` about the
        // namespace.
        if rest.first() == Some(&"namespaces") && rest.len() > 2 && !matches!(rest[2], "status" | "finalize")
        {
            namespace = rest[1];
            rest.drain(..2);
        }
        let at = |i: usize| rest.get(i).map(|s| (*s).to_owned()).unwrap_or_default();
        let resource = Self {
            group: group.into(),
            version: version.into(),
            plural: at(0),
            namespace: namespace.into(),
            name: at(1),
            sub: at(2),
        };
        (!resource.plural.is_empty()).then_some(resource)
    }

    /// Table, with the subresource after a slash.
    pub fn label(&self) -> String {
        let table = table_name(&self.group, &self.plural);
        if self.sub.is_empty() { table } else { format!("{table}/{}", self.sub) }
    }

    /// Plural name, with the subresource after a slash, as rules of a Role name it.
    pub fn rule(&self) -> String {
        if self.sub.is_empty() { self.plural.clone() } else { format!("{}/{}", self.plural, self.sub) }
    }

    /// The verb of authorization and of the audit list.
    pub fn verb(&self, method: &str, query: &Query) -> &'static str {
        match (method, self.name.is_empty()) {
            ("GET" | "HEAD", _) if query.flag("watch") => "watch",
            ("GET" | "HEAD", true) => "list",
            ("GET" | "HEAD", false) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "deletecollection",
            ("DELETE", false) => "delete",
            _ => "unknown",
        }
    }
}

/// Undoes percent-encoding of a path segment, where a plus sign is a plus sign.
fn decode(segment: &str) -> String {
    if !segment.contains('%') {
        return segment.to_owned();
    }
    let escaped = segment.replace('+', "%2B");
    form_urlencoded::parse(escaped.as_bytes()).next().map(|(key, _)| key.into_owned()).unwrap_or_default()
}

/// Parameters of a request.
#[derive(Clone, Debug, Default)]
pub struct Query {
    values: HashMap<String, String>,
}

impl Query {
    /// Reads what follows the question mark.
    pub fn parse(query: &str) -> Self {
        Self { values: form_urlencoded::parse(query.as_bytes()).into_owned().collect() }
    }

    /// A parameter, or the empty string.
    pub fn get(&self, name: &str) -> &str {
        self.values.get(name).map(String::as_str).unwrap_or_default()
    }

    /// The same parameters, with a word replaced in one of them.
    #[must_use]
    pub fn replaced(&self, name: &str, from: &str, to: &str) -> Self {
        let mut query = self.clone();
        if let Some(value) = query.values.get_mut(name) {
            *value = value.replace(from, to);
        }
        query
    }

    /// Whether a parameter is true.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), "true" | "1")
    }

    /// A number.
    pub fn number(&self, name: &str) -> ApiResult<Option<u64>> {
        match self.get(name) {
            "" => Ok(None),
            text => {
                text.parse().map(Some).map_err(|_| ApiError::bad_request(format!("invalid {name}: {text:?}")))
            }
        }
    }

    /// Whether nothing is to be stored.
    pub fn dry_run(&self) -> bool {
        self.get("dryRun") == "All"
    }
}

#[cfg(test)]
mod tests {
    use super::{Query, Resource};

    #[test]
    fn paths_name_group_namespace_object_and_subresource() {
        for (path, label, namespace, name) in [
            ("/api/v1/nodes", "nodes", "", ""),
            ("/api/v1/namespaces/x", "namespaces", "", "x"),
            ("/api/v1/namespaces/x/status", "namespaces/status", "", "x"),
            ("/api/v1/namespaces/x/pods/p/eviction", "pods/eviction", "x", "p"),
            ("/apis/batch/v1/jobs", "jobs.batch", "", ""),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/a%3Ab+c",
                "clusterroles.rbac.authorization.k8s.io",
                "",
                "a:b+c",
            ),
        ] {
            let resource = Resource::parse(path).unwrap();
            assert_eq!(
                (resource.label().as_str(), resource.namespace.as_str(), resource.name.as_str()),
                (label, namespace, name),
                "{path}"
            );
        }
        assert_eq!(Resource::parse("/apis/batch/v1"), None);
        assert_eq!(Resource::parse("/version"), None);
    }

    #[test]
    fn a_watch_is_told_from_a_list() {
        let pods = Resource::parse("/api/v1/pods").unwrap();
        assert_eq!(pods.verb("GET", &Query::parse("watch=1")), "watch");
        assert_eq!(pods.verb("GET", &Query::parse("")), "list");
        assert_eq!(pods.verb("DELETE", &Query::parse("")), "deletecollection");
    }
}
