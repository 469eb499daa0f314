//! Operations that are about to be created: from flags, or from a file.

use std::{fs, io, path::Path};

use clap::{Args, builder::NonEmptyStringValueParser};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{
    Api, ResourceExt,
    api::{ObjectMeta, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::{
    connection::Connection,
    failure::{self, Code, Failure, Result},
    operation::Operation,
    selector,
    target::Kind,
};
use crate::{
    api::error_text::error_message,
    api::{
        nodeop::{NodeOp, NodeOpSpec},
        upgrade::{NodeOpUpgrade, NodeOpUpgradeSpec},
    },
};

/// Which nodes, and how many at once.
#[derive(Clone, Debug, Args)]
pub struct RolloutArgs {
    /// Only nodes with these labels; unset, all Linux nodes
    #[arg(short = 'l', long, value_name = "SELECTOR", value_parser = selector::parse)]
    pub selector: Option<LabelSelector>,
    /// Nodes that may be in progress at once; 0 is all of them, unset is 1
    #[arg(long, value_name = "NODES", value_parser = clap::value_parser!(i32).range(0..))]
    pub concurrency: Option<i32>,
    /// Start no further node once one has failed
    #[arg(long)]
    pub stop_on_failure: bool,
    /// The operation's name; unset, the API server makes one up
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub name: Option<String>,
}

impl RolloutArgs {
    /// The first of these flags that was given.
    pub fn given(&self) -> Option<&'static str> {
        let given = [
            (self.selector.is_some(), "--selector"),
            (self.concurrency.is_some(), "--concurrency"),
            (self.stop_on_failure, "--stop-on-failure"),
            (self.name.is_some(), "--name"),
        ];
        given.into_iter().find_map(|(given, flag)| given.then_some(flag))
    }
}

/// An operation that is to be created.
#[derive(Clone, Debug)]
pub enum New {
    Op(Box<NodeOp>),
    Upgrade(Box<NodeOpUpgrade>),
}

/// What the API server said of a dry run of its creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    Admitted,
    Refused(String),
    /// The user may not create it, so nothing is known.
    NotTried(String),
}

impl New {
    /// An upgrade, with all that its spec says beyond which nodes it is about.
    pub fn upgrade(spec: NodeOpUpgradeSpec, rollout: &RolloutArgs, namespace: &str) -> Self {
        let spec = NodeOpUpgradeSpec {
            node_selector: rollout.selector.clone(),
            concurrency: rollout.concurrency.unwrap_or(1),
            stop_on_failure: rollout.stop_on_failure.then_some(true),
            ..spec
        };
        let metadata = meta(rollout, namespace, "upgrade-");
        Self::Upgrade(Box::new(NodeOpUpgrade { metadata, spec, status: None }))
    }

    /// A command, with all that its spec says beyond which nodes it is about.
    pub fn op(spec: NodeOpSpec, rollout: &RolloutArgs, namespace: &str) -> Self {
        let spec = NodeOpSpec {
            node_selector: rollout.selector.clone(),
            concurrency: rollout.concurrency.unwrap_or(1),
            stop_on_failure: rollout.stop_on_failure.then_some(true),
            ..spec
        };
        Self::Op(Box::new(NodeOp { metadata: meta(rollout, namespace, "run-"), spec, status: None }))
    }

    /// The one operation of a file; `-` is standard input.
    pub fn read(path: &Path, namespace: &str) -> Result<Self> {
        let name = path.display();
        let text =
            if path == Path::new("-") { io::read_to_string(io::stdin()) } else { fs::read_to_string(path) };
        let text = text.map_err(|error| Failure::new(format!("reading {name}: {error}")))?;
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).map_err(|error| {
            Failure::new(format!("reading {name}: {}", crate::api::text::one_line(&error.to_string())))
        })?;
        let mut ours = documents
            .iter()
            .filter(|object| matches!(object["kind"].as_str(), Some("NodeOp" | "NodeOpUpgrade")));
        let (Some(object), None) = (ours.next(), ours.next()) else {
            return Err(Failure::new(format!("{name} does not hold exactly one NodeOp or NodeOpUpgrade"))
                .hint("Plan one operation at a time: they are served one after the other."));
        };
        Self::of(object, namespace).map_err(|why| Failure::new(format!("{name}: {why}")))
    }

    fn of(object: &Value, namespace: &str) -> std::result::Result<Self, String> {
        let mut new = if object["kind"] == "NodeOp" {
            Self::Op(Box::new(typed(object)?))
        } else {
            Self::Upgrade(Box::new(typed(object)?))
        };
        let meta = new.meta_mut();
        if meta.name.is_none() && meta.generate_name.is_none() {
            return Err("metadata.name is missing".into());
        }
        meta.namespace.get_or_insert_with(|| namespace.into());
        Ok(new)
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Op(_) => Kind::NodeOp,
            Self::Upgrade(_) => Kind::Upgrade,
        }
    }

    pub fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Op(op) => &op.metadata,
            Self::Upgrade(upgrade) => &upgrade.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Op(op) => &mut op.metadata,
            Self::Upgrade(upgrade) => &mut upgrade.metadata,
        }
    }

    /// The object as a file would hold it.
    pub fn value(&self) -> Value {
        let mut value = match self {
            Self::Op(op) => json!(op),
            Self::Upgrade(upgrade) => json!(upgrade),
        };
        if let Some(object) = value.as_object_mut() {
            object.remove("status");
        }
        value
    }

    /// Creates it, or tries to: a dry run changes nothing.
    pub async fn create(
        &self,
        connection: &Connection,
        dry_run: bool,
    ) -> std::result::Result<Operation, kube::Error> {
        let namespace = self.meta().namespace.clone().unwrap_or_default();
        let params = PostParams { dry_run, field_manager: Some("kubectl-kairos".into()) };
        Ok(match self {
            Self::Op(op) => {
                let api = Api::<NodeOp>::namespaced(connection.client.clone(), &namespace);
                Operation::of_op(&api.create(&params, op).await?)
            }
            Self::Upgrade(upgrade) => {
                let api = Api::<NodeOpUpgrade>::namespaced(connection.client.clone(), &namespace);
                Operation::of_upgrade(&api.create(&params, upgrade).await?)
            }
        })
    }

    /// Whether the API server would take it.
    pub async fn admission(&self, connection: &Connection) -> Result<Admission> {
        match self.create(connection, true).await {
            Ok(_) => Ok(Admission::Admitted),
            Err(error) if failure::lacks_right(&error) => {
                Ok(Admission::NotTried(format!("you may not create {}s", self.kind())))
            }
            Err(error) if failure::is_verdict(&error) && !failure::is_not_installed(&error) => {
                Ok(Admission::Refused(error_message(&error)))
            }
            Err(error) => Err(failure::of_request(&format!("trying to create the {}", self.kind()), &error)),
        }
    }

    /// What its creation is refused with, for people.
    pub fn refused(&self, error: &kube::Error) -> Failure {
        let name = named(self.meta());
        let namespace = self.meta().namespace.clone().unwrap_or_default();
        let failure = failure::of_request(&format!("creating {} {namespace}/{name}", self.kind()), error);
        match error {
            kube::Error::Api(status) if status.code == 409 => failure
                .ending(Code::Refused)
                .hint("An operation runs once: give this one another --name, or none, and the API server makes one up."),
            error if failure::is_verdict(error) && !failure::is_not_installed(error) => {
                failure.ending(Code::Refused)
            }
            _ => failure,
        }
    }
}

/// The name of an object, or how the one begins that the API server will make up.
pub fn named(meta: &ObjectMeta) -> String {
    let made_up = || format!("{}…", meta.generate_name.clone().unwrap_or_default());
    meta.name.clone().unwrap_or_else(made_up)
}

fn meta(rollout: &RolloutArgs, namespace: &str, prefix: &str) -> ObjectMeta {
    ObjectMeta {
        name: rollout.name.clone(),
        generate_name: rollout.name.is_none().then(|| prefix.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    }
}

/// The object of a file, of which every field has to be known: an unknown one would be dropped without a
/// word, and a selector that is dropped selects all nodes.
fn typed<K: DeserializeOwned + Serialize + ResourceExt>(object: &Value) -> std::result::Result<K, String> {
    let read: K = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let back = serde_json::to_value(&read).map_err(|error| error.to_string())?;
    match unknown(&object["spec"], &back["spec"], "spec") {
        Some(path) => Err(format!("unknown field {path}")),
        None => Ok(read),
    }
}

/// The first field that was written and is not read. An empty one may be left out.
fn unknown(written: &Value, read: &Value, path: &str) -> Option<String> {
    let empty = Map::new();
    match (written, read) {
        (Value::Object(written), read) => written.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            match read.as_object().unwrap_or(&empty).get(key) {
                Some(read) => unknown(value, read, &path),
                None if is_empty(value) => None,
                None => Some(path),
            }
        }),
        (Value::Array(written), Value::Array(read)) => {
            written.iter().zip(read).find_map(|(written, read)| unknown(written, read, path))
        }
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_what_was_refused_also_if_the_server_was_to_make_up_its_name() {
        let meta = |name: Option<&str>| ObjectMeta {
            name: name.map(str::to_owned),
            generate_name: name.is_none().then(|| "run-".into()),
            namespace: Some("ops".into()),
            ..ObjectMeta::default()
        };
        let status = kube::core::Status::failure("exceeded quota", "Forbidden").with_code(403);
        let error = kube::Error::Api(Box::new(status));
        for (name, said) in [(None, "creating NodeOp ops/run-…: "), (Some("fw"), "creating NodeOp ops/fw: ")]
        {
            let new =
                New::Op(Box::new(NodeOp { metadata: meta(name), spec: NodeOpSpec::default(), status: None }));
            let said_of = new.refused(&error).what;
            assert!(said_of.starts_with(said), "{said_of}");
        }
    }

    #[test]
    fn a_field_that_nobody_reads_is_named() {
        let read = |spec: Value| {
            let object = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade", "metadata": {"name": "a"}, "spec": spec});
            New::of(&object, "ns").map(|new| new.meta().namespace.clone())
        };
        assert_eq!(
            read(json!({"image": "i", "nodeSelector": {"matchLabels": {"a": "b"}}, "excludePaths": []})),
            Ok(Some("ns".into()))
        );
        assert_eq!(
            read(json!({"image": "i", "nodeSelector": {"kubernetes.io/hostname": "n2"}})),
            Err("unknown field spec.nodeSelector.kubernetes.io/hostname".into())
        );
        assert_eq!(read(json!({"image": "i", "conurrency": 1})), Err("unknown field spec.conurrency".into()));
        assert!(read(json!({"image": 3})).is_err());
    }
}
