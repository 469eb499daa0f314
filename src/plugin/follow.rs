//! Operations as they change.
//!
//! A NodeOpUpgrade copies what its NodeOp says of its nodes every few seconds only. So that NodeOp is
//! followed with it, and while it is not over its nodes are shown as the NodeOp has them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{
    connection::Connection,
    failure::{self, Failure, Result},
    operation::{self, Operation},
    target::Kind,
};
use crate::api::{names, nodeop::NodeOp, upgrade::NodeOpUpgrade};

/// For how long what has been seen may be refused before that is believed. An API server that has just
/// started refuses all but administrators until it has read the roles.
const REFUSED: Duration = Duration::from_secs(30);

/// Which operations are followed.
#[derive(Clone, Debug)]
pub enum Scope {
    /// One of them.
    One { kind: Kind, namespace: String, name: String },
    /// All of a namespace, or of all of them.
    All { namespace: Option<String>, labels: Option<String> },
}

impl Scope {
    /// Exactly this one.
    pub fn of(operation: &Operation) -> Self {
        let Operation { kind, namespace, name, .. } = operation;
        Self::One { kind: *kind, namespace: namespace.clone(), name: name.clone() }
    }

    fn namespace(&self) -> Option<&str> {
        match self {
            Self::One { namespace, .. } => Some(namespace),
            Self::All { namespace, .. } => namespace.as_deref(),
        }
    }

    fn wants(&self, wanted: Kind) -> bool {
        match self {
            Self::One { kind, .. } => *kind == wanted || *kind == Kind::Upgrade,
            Self::All { .. } => true,
        }
    }

    /// Whether NodeOps are followed for the sake of the upgrades that made them.
    fn is_of_upgrades(&self) -> bool {
        !matches!(self, Self::One { kind: Kind::NodeOp, .. })
    }

    /// The objects of a kind that are watched.
    fn config(&self, watched: Kind) -> watcher::Config {
        match self {
            Self::One { kind: Kind::Upgrade, name, .. } if watched == Kind::NodeOp => {
                let label = format!("{}={}", names::UPGRADE_NAME, names::label_value(name));
                watcher::Config::default().labels(&label)
            }
            Self::One { name, .. } => watcher::Config::default().fields(&format!("metadata.name={name}")),
            Self::All { labels: Some(labels), .. } => watcher::Config::default().labels(labels),
            Self::All { labels: None, .. } => watcher::Config::default(),
        }
    }
}

/// What a watch said about objects of one kind.
enum Seen {
    /// What comes is all there is.
    Anew(Kind),
    Here(Box<Operation>),
    Gone(Kind, String, String),
    /// That was all.
    Complete(Kind),
}

/// All followed operations, each time that one of them changes, in the order of their creation. It ends with
/// the first failure that no retry ends.
pub fn follow(connection: &Connection, scope: &Scope) -> impl Stream<Item = Result<Vec<Operation>>> + use<> {
    let mut watches = Vec::new();
    if scope.wants(Kind::Upgrade) {
        watches.push(watch(connection, scope, Kind::Upgrade, |upgrade: &NodeOpUpgrade| {
            Some(Operation::of_upgrade(upgrade))
        }));
    }
    if scope.wants(Kind::NodeOp) {
        watches.push(watch(connection, scope, Kind::NodeOp, |op: &NodeOp| Some(Operation::of_op(op))));
    }
    let (kinds, connection) = (watches.len(), connection.clone());
    let table = Table { of_upgrades: scope.is_of_upgrades(), ..Table::default() };
    stream::unfold(
        (stream::select_all(watches), table, connection),
        move |(mut watches, mut table, connection)| async move {
            loop {
                match watches.next().await? {
                    Err(failure) => return Some((Err(failure), (watches, table, connection))),
                    Ok(seen) => table.see(seen),
                }
                if table.complete.len() == kinds {
                    let mut all = table.operations();
                    for operation in &mut all {
                        operation::complete(&connection, operation).await;
                    }
                    return Some((Ok(all), (watches, table, connection)));
                }
            }
        },
    )
}

type Watch = stream::BoxStream<'static, Result<Seen>>;

/// One kind's watch. What passes is tried again; a refusal ends it.
fn watch<K>(
    connection: &Connection,
    scope: &Scope,
    kind: Kind,
    read: impl Fn(&K) -> Option<Operation> + Send + 'static,
) -> Watch
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
{
    let client = connection.client.clone();
    let api = scope
        .namespace()
        .map_or_else(|| Api::all(client.clone()), |name| Api::<K>::namespaced(client.clone(), name));
    let events = watcher(api, scope.config(kind)).default_backoff();
    // Who may look at an upgrade need not be allowed to look at NodeOps, and sees what the upgrade shows.
    let dispensable = kind == Kind::NodeOp && matches!(scope, Scope::One { kind: Kind::Upgrade, .. });
    // Whether all was seen once, and since when it is refused.
    let (mut complete, mut refused) = (false, None::<Instant>);
    let seen = events.filter_map(move |event| {
        if matches!(event, Ok(Event::Apply(_) | Event::Delete(_) | Event::InitDone)) {
            (complete, refused) = (true, None);
        }
        let seen = match event {
            Ok(Event::Init) => Some(Ok(Seen::Anew(kind))),
            Ok(Event::InitApply(object) | Event::Apply(object)) => {
                read(&object).map(|operation| Ok(Seen::Here(Box::new(operation))))
            }
            Ok(Event::Delete(object)) => {
                Some(Ok(Seen::Gone(kind, object.namespace().unwrap_or_default(), object.name_any())))
            }
            Ok(Event::InitDone) => Some(Ok(Seen::Complete(kind))),
            Err(error) => match lasting(kind, &error) {
                Some(_) if dispensable => Some(Ok(Seen::Complete(kind))),
                Some(_) if complete && refused.get_or_insert_with(Instant::now).elapsed() < REFUSED => None,
                lasts => lasts.map(Err),
            },
        };
        futures::future::ready(seen)
    });
    seen.boxed()
}

/// The failure that a watch's error is, if trying again does not help.
fn lasting(kind: Kind, error: &watcher::Error) -> Option<Failure> {
    let (watcher::Error::InitialListFailed(cause) | watcher::Error::WatchStartFailed(cause)) = error else {
        return None;
    };
    let refused = matches!(cause, kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404));
    refused.then(|| failure::of_request(&format!("watching {kind}s"), cause))
}

/// What is there, by kind, namespace and name.
#[derive(Default)]
struct Table {
    all: BTreeMap<(Kind, String, String), Operation>,
    /// NodeOps that an upgrade made are no operations of their own.
    of_upgrades: bool,
    /// The kinds of which everything has been seen once.
    complete: BTreeSet<Kind>,
}

impl Table {
    fn see(&mut self, seen: Seen) {
        match seen {
            Seen::Anew(kind) => {
                self.all.retain(|(of, _, _), _| *of != kind);
                self.complete.remove(&kind);
            }
            Seen::Here(operation) => {
                let key = (operation.kind, operation.namespace.clone(), operation.name.clone());
                self.all.insert(key, *operation);
            }
            Seen::Gone(kind, namespace, name) => drop(self.all.remove(&(kind, namespace, name))),
            Seen::Complete(kind) => drop(self.complete.insert(kind)),
        }
    }

    fn operations(&self) -> Vec<Operation> {
        let is_child = |operation: &&Operation| self.of_upgrades && operation.upgrade.is_some();
        let mut all: Vec<Operation> =
            self.all.values().filter(|operation| !is_child(operation)).cloned().collect();
        let open = |operation: &&mut Operation| operation.kind == Kind::Upgrade && !operation.is_over();
        for upgrade in all.iter_mut().filter(open) {
            let child = (Kind::NodeOp, upgrade.namespace.clone(), upgrade.node_op.clone());
            if let Some(child) = self.all.get(&child).filter(is_child) {
                // Not its counts: the upgrade's own message has numbers, too, and they come with its own.
                upgrade.nodes.clone_from(&child.nodes);
            }
        }
        all.sort_by(Operation::by_age);
        all
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The upgrade shows its NodeOp's numbers within two seconds.
    #[test]
    fn an_upgrade_under_way_has_the_nodes_of_its_nodeop_and_the_numbers_of_its_own_message() {
        let counts = |completed: i32| {
            json!({"total": 5, "pending": 0, "running": 0, "completed": completed, "failed": 0,
                "done": format!("{completed}/5"), "current": ""})
        };
        let upgrade = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade",
            "metadata": {"name": "up", "namespace": "ns", "uid": "u"}, "spec": {"image": "i"},
            "status": {"phase": "Running", "nodeOpName": "up", "message": "3 of 5 nodes completed", "counts": counts(3)}});
        let owner = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOpUpgrade", "name": "up",
            "uid": "u", "controller": true});
        let op = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": "NodeOp",
            "metadata": {"name": "up", "namespace": "ns", "uid": "c", "ownerReferences": [owner]}, "spec": {"command": []},
            "status": {"phase": "Running", "message": "4 of 5 nodes completed", "counts": counts(4),
                "nodeStatuses": {"n1": {"phase": "Completed"}}}});
        let mut table = Table { of_upgrades: true, ..Table::default() };
        let upgrade: NodeOpUpgrade = serde_json::from_value(upgrade).unwrap();
        let op: NodeOp = serde_json::from_value(op).unwrap();
        table.see(Seen::Here(Box::new(Operation::of_upgrade(&upgrade))));
        table.see(Seen::Here(Box::new(Operation::of_op(&op))));
        let all = table.operations();
        assert_eq!((all.len(), all[0].nodes.len()), (1, 1));
        assert_eq!((all[0].counts.done.as_str(), all[0].message.as_str()), ("3/5", "3 of 5 nodes completed"));
    }
}
