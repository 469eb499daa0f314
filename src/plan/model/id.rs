//! How objects are named in a plan: namespace and name, or also the UID, where a later object of the same
//! name is another one.

use std::{fmt, str::FromStr};

use crate::api::nodeop::NodeOp;

/// Namespace and name.
pub type Key = (String, String);

/// A NodeOp's identity, as it stands in the node annotations: `<namespace>/<name>@<uid>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl OpRef {
    /// The identity of an object that the API server returned.
    pub fn of(op: &NodeOp) -> Self {
        let meta = &op.metadata;
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
        }
    }

    /// Namespace and name, the key of [`Snapshot::ops`].
    pub fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }
}

impl fmt::Display for OpRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.namespace, self.name, self.uid)
    }
}

impl FromStr for OpRef {
    type Err = ();

    /// A value without a UID (the Go operator's early form, or a human's) names nobody, nor does one with
    /// something behind the UID (see [`KeptCordon`](super::kept_cordon::KeptCordon)).
    fn from_str(text: &str) -> Result<Self, ()> {
        let (path, uid) = text.split_once('@').ok_or(())?;
        let (namespace, name) = path.split_once('/').ok_or(())?;
        if namespace.is_empty() || name.is_empty() || uid.is_empty() || uid.contains('!') {
            return Err(());
        }
        Ok(Self { namespace: namespace.into(), name: name.into(), uid: uid.into() })
    }
}
