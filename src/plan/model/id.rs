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

/// The longest name of a namespace, and of a NodeOp: a DNS label, and a DNS subdomain.
const MAX_NAMESPACE: usize = 63;
const MAX_NAME: usize = 253;
/// The API server's UIDs have 36 characters.
const MAX_UID: usize = 64;

fn is_name(text: &str, longest: usize, dots: bool) -> bool {
    let may_be = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || (dots && c == '.');
    let at_ends = |c: char| c.is_ascii_alphanumeric();
    (1..=longest).contains(&text.len())
        && text.chars().all(may_be)
        && text.starts_with(at_ends)
        && text.ends_with(at_ends)
}

fn is_uid(text: &str) -> bool {
    (1..=MAX_UID).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
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
    /// something behind the UID (see [`KeptCordon`](super::kept_cordon::KeptCordon)), nor one that no object
    /// can have: what is of a NodeOp is looked for in the namespace that a node names, and nothing is planned
    /// before it was found.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (path, uid) = text.split_once('@').ok_or(())?;
        let (namespace, name) = path.split_once('/').ok_or(())?;
        let is_valid =
            is_name(namespace, MAX_NAMESPACE, false) && is_name(name, MAX_NAME, true) && is_uid(uid);
        if !is_valid {
            return Err(());
        }
        Ok(Self { namespace: namespace.into(), name: name.into(), uid: uid.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_nodeop_can_be_called_names_nobody() {
        let of = |text: &str| text.parse::<OpRef>().ok();
        let real = "operator-system/upgrade.v2@6f1c2d3e-0000-4000-8000-1234567890ab";
        assert_eq!(of(real).map(|of| of.to_string()).as_deref(), Some(real));
        let long = "n".repeat(300);
        for text in [
            "op",
            "ns/op",
            "ns/op@",
            "/op@u",
            "ns/@u",
            "ns/op@u!failed",
            "my ns/op@u",
            "ns/../op@u",
            "Ns/op@u",
            "n.s/op@u",
            "ns/-op@u",
            "ns/op@u u",
            &format!("{long}/op@u"),
            &format!("ns/{long}@u"),
            &format!("ns/op@{long}"),
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
