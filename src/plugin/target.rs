//! Which object is meant, as kubectl's users spell it: `up1`, `nou/up1`, `nodeop/up1`, and `node/n1`.

use std::{fmt, str::FromStr};

use kube::{Api, Client};

use super::{
    connection::Connection,
    failure::{self, Doing, Failure, Result},
    operation::Operation,
};
use crate::api::{names, nodeop::NodeOp, upgrade::NodeOpUpgrade};

/// One of the two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    NodeOp,
    Upgrade,
}

impl Kind {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        match text.strip_suffix(&format!(".{}", names::GROUP)).unwrap_or(&text) {
            "nop" | "nodeop" | "nodeops" => Some(Self::NodeOp),
            "nou" | "nodeopupgrade" | "nodeopupgrades" => Some(Self::Upgrade),
            _ => None,
        }
    }

    /// The short name that kubectl knows, too.
    pub fn short(self) -> &'static str {
        match self {
            Self::NodeOp => "nop",
            Self::Upgrade => "nou",
        }
    }

    /// The name of the resource, as kubectl prints it with `-o name`.
    pub fn resource(self) -> String {
        let singular = match self {
            Self::NodeOp => "nodeop",
            Self::Upgrade => "nodeopupgrade",
        };
        format!("{singular}.{}", names::GROUP)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NodeOp => "NodeOp",
            Self::Upgrade => "NodeOpUpgrade",
        })
    }
}

/// An operation as somebody names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Not said: a NodeOpUpgrade of that name if there is one, since its NodeOp has the same.
    pub kind: Option<Kind>,
    pub name: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let Some((kind, name)) = text.split_once('/') else {
            return if text.is_empty() {
                Err("a name is missing".into())
            } else {
                Ok(Self { kind: None, name: checked(text)? })
            };
        };
        let known = Kind::parse(kind).ok_or_else(|| {
            format!(
                "{kind} is no kind of operation: write NAME, nou/NAME or nop/NAME (the namespace goes to -n)"
            )
        })?;
        if name.is_empty() || name.contains('/') {
            return Err(format!("{text} names no object: write {kind}/NAME"));
        }
        Ok(Self { kind: Some(known), name: checked(name)? })
    }
}

/// A name of an object or a namespace. It becomes a part of an address, where others than these characters,
/// of which Kubernetes' names are made, mean something else.
pub fn checked(name: &str) -> std::result::Result<String, String> {
    match name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')) {
        true => Ok(name.to_owned()),
        false => Err(format!("{name} can be no name: those have letters, digits, - and . alone")),
    }
}

/// The name of a node, which may be written `node/n1`.
pub fn node(text: &str) -> std::result::Result<String, String> {
    let name = ["node/", "nodes/", "no/"].iter().find_map(|kind| text.strip_prefix(kind)).unwrap_or(text);
    if name.is_empty() || name.contains('/') {
        return Err(format!("{text} names no node: write NAME or node/NAME"));
    }
    checked(name)
}

impl Target {
    /// Reads the object.
    pub async fn find(&self, connection: &Connection) -> Result<Operation> {
        let (client, namespace) = (&connection.client, &connection.namespace);
        if self.kind != Some(Kind::NodeOp) {
            let found = get_upgrade(client, namespace, &self.name).await?;
            if let Some(upgrade) = found {
                return Ok(Operation::of_upgrade(&upgrade));
            }
        }
        if self.kind != Some(Kind::Upgrade) {
            let api = Api::<NodeOp>::namespaced(client.clone(), namespace);
            let found = api.get_opt(&self.name).await;
            if let Some(op) = found.doing(|| format!("reading NodeOp {namespace}/{}", self.name))? {
                return Ok(Operation::of_op(&op));
            }
        }
        Err(self.missing(namespace))
    }

    fn missing(&self, namespace: &str) -> Failure {
        let what = match self.kind {
            Some(kind) => format!("there is no {kind} {} in namespace {namespace}", self.name),
            None => format!("there is no NodeOpUpgrade and no NodeOp {} in namespace {namespace}", self.name),
        };
        Failure::new(what).hint("Which there are, in all namespaces: kubectl kairos status -A")
    }
}

/// Reads a NodeOpUpgrade. Whoever may read NodeOps alone is not kept from them.
async fn get_upgrade(client: &Client, namespace: &str, name: &str) -> Result<Option<NodeOpUpgrade>> {
    match Api::<NodeOpUpgrade>::namespaced(client.clone(), namespace).get_opt(name).await {
        Err(error) if failure::is_forbidden(&error) => {
            let op = Api::<NodeOp>::namespaced(client.clone(), namespace).get_opt(name).await;
            if matches!(op, Ok(Some(_))) {
                return Ok(None);
            }
            Err(failure::of_request(&format!("reading NodeOpUpgrade {namespace}/{name}"), &error))
        }
        found => found.doing(|| format!("reading NodeOpUpgrade {namespace}/{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_named_as_kubectl_names_it() {
        let named = |kind, name: &str| Ok(Target { kind, name: name.into() });
        for (text, meant) in [
            ("up1", named(None, "up1")),
            ("nou/up1", named(Some(Kind::Upgrade), "up1")),
            ("NodeOpUpgrade/up1", named(Some(Kind::Upgrade), "up1")),
            ("nodeopupgrades.operator.kairos.io/up1", named(Some(Kind::Upgrade), "up1")),
            ("nodeop/up1", named(Some(Kind::NodeOp), "up1")),
            ("nop/x", named(Some(Kind::NodeOp), "x")),
        ] {
            assert_eq!(text.parse::<Target>(), meant, "{text}");
        }
        for text in ["", "pod/x", "nop/", "nop/a/b", "/x"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
        assert_eq!(
            (node("n1"), node("node/n1"), node("no/n1")),
            (Ok("n1".into()), Ok("n1".into()), Ok("n1".into()))
        );
        assert!(node("pod/x").is_err() && node("node/").is_err());
    }
}
