//! What was asked of the server: the list in which tests count requests, and the rights that were used.

use std::time::Duration;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it was answered, since the cluster started; a watch when it began.
    pub at: Duration,
    /// Who asked.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`; the method for
    /// other paths.
    pub verb: String,
    /// Table, with the subresource after a slash: `pods`, `jobs.batch`, `pods/eviction`.
    pub resource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name, or empty.
    pub name: String,
    /// Query as it was sent.
    pub query: String,
    /// The store's version when it was answered: what this request changed is not younger, and whoever sees
    /// that change finds this request in the list.
    pub version: u64,
    /// HTTP status of the answer; 0 if the connection was dropped instead.
    pub code: u16,
}

impl Request {
    /// Whether this request changes something, or tries to.
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }
}

/// A right that somebody used: authorization was asked for it and said yes. One request may use several, as a
/// server-side apply that makes the object needs `patch` and `create`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// Who.
    pub user: String,
    /// The verb, as in a rule.
    pub verb: String,
    /// The API group, empty for the core group.
    pub group: String,
    /// Plural name, with the subresource after a slash, as in a rule: `pods/eviction`.
    pub resource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// The name that was asked for, also by a list or watch of one object; empty for any.
    pub name: String,
}
