//! What is kept of a finished NodeOp: a record of less than 200 bytes in place of an object of
//! more than a thousand.
//!
//! Each run of an operation is an object of its own, and nobody deletes the old ones, so in the end nearly
//! all NodeOps are over. They are not nothing, for they still decide:
//!
//! - whether a name is taken, by whom (UID), and which version of it is an old one: a list that is read anew,
//!   a late answer, a store that went back;
//! - whose a claim, a cordon, a Job or a pod is that turns up late, and that it is to be given back or ended;
//! - in which namespaces Jobs and pods are watched;
//! - what the metrics show of operations that ended within a day.
//!
//! A record says exactly as much as the NodeOp of which it was made ([`FinishedOp::of`] makes none where it
//! would not), so that whoever looks one up gets that NodeOp again, and no decision knows the difference.
//! Those of which more is to be known stay whole: with a finalizer, a time to be deleted at, a NodeOpUpgrade
//! that made them, a spec that was edited since, or while they are being deleted. A plan does not pass by
//! records one by one; it looks up those of which something is left ([`Snapshot::finished_with_open_pods`]).
//!
//! Measured with 2,000 of them, allocations rounded as glibc does: one that was kept whole took 2.2 KB in
//! cache, snapshot and metrics, and 3.4 KB of resident memory; a record takes less than 0.2 KB.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};

use super::Snapshot;
use crate::{
    api::nodeop::{Counts, NodeOp, NodeOpSpec, NodeOpStatus, Phase},
    plan::model::id::Key,
};

/// Parts in which the records are kept. One that changes is copied while a snapshot shows it as it was, so a
/// part is small: with 100,000 records it has a hundred.
const PARTS: usize = 1024;

/// A UID. What the API server makes takes less room as a number.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Uid {
    Number([u8; 16]),
    Text(Arc<str>),
}

impl Uid {
    fn of(text: &str) -> Self {
        let digits: String = text.chars().filter(|char| *char != '-').collect();
        let number = u128::from_str_radix(&digits, 16).ok().map(|number| Self::Number(number.to_be_bytes()));
        number.filter(|number| number.text() == text).unwrap_or_else(|| Self::Text(text.into()))
    }

    fn text(&self) -> String {
        match self {
            Self::Number(bytes) => {
                let mut text = format!("{:032x}", u128::from_be_bytes(*bytes));
                [20, 16, 12, 8].into_iter().for_each(|at| text.insert(at, '-'));
                text
            }
            Self::Text(text) => text.as_ref().into(),
        }
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub struct FinishedOp {
    namespace: Arc<str>,
    name: Arc<str>,
    uid: Uid,
    version: u64,
    /// `Completed` or `Failed`.
    phase: Phase,
    /// In the order of [`Counts`].
    counts: Option<[i32; 6]>,
    /// 0: it says none.
    generation: u32,
    observed_generation: u32,
    /// Seconds since 1970; 0: it says nothing.
    created: u32,
    last_updated: u32,
}

impl FinishedOp {
    /// The record of a NodeOp; none if it is not over, or says anything that a record does not.
    pub fn of(op: &NodeOp) -> Option<Self> {
        let (meta, status) = (&op.metadata, op.status.as_ref()?);
        let phase = status.phase.filter(|phase| phase.is_final() && op.is_observed())?;
        let number = |generation: Option<i64>| u32::try_from(generation.unwrap_or(0)).ok();
        let time = |time: Option<&Time>| u32::try_from(time.map_or(0, |time| time.0.as_second())).ok();
        let record = Self {
            namespace: meta.namespace.as_deref()?.into(),
            name: meta.name.as_deref()?.into(),
            uid: Uid::of(meta.uid.as_deref()?),
            version: meta.resource_version.as_ref()?.parse().ok()?,
            phase,
            counts: status.counts.as_ref().map(
                |Counts { total, pending, running, completed, failed, skipped, done: _, current: _ }| {
                    [*total, *pending, *running, *completed, *failed, *skipped]
                },
            ),
            generation: number(meta.generation)?,
            observed_generation: number(status.observed_generation)?,
            created: time(meta.creation_timestamp.as_ref())?,
            last_updated: time(status.last_updated.as_ref())?,
        };
        let again = record.nodeop();
        let same = again.metadata == op.metadata && again.spec == op.spec && again.status == op.status;
        same.then_some(record)
    }

    /// The NodeOp of which it was made.
    pub fn nodeop(&self) -> NodeOp {
        let number = |number: u32| (number != 0).then_some(i64::from(number));
        let time = |seconds: u32| {
            let time = Timestamp::from_second(i64::from(seconds)).ok();
            time.filter(|_| seconds != 0).map(Time)
        };
        let counts = self.counts.map(|[total, pending, running, completed, failed, skipped]| {
            let (done, current) = (format!("{}/{total}", completed.saturating_add(failed)), String::new());
            Counts { total, pending, running, completed, failed, skipped, done, current }
        });
        NodeOp {
            metadata: ObjectMeta {
                namespace: Some(self.namespace.as_ref().into()),
                name: Some(self.name.as_ref().into()),
                uid: Some(self.uid.text()),
                resource_version: Some(self.version.to_string()),
                generation: number(self.generation),
                creation_timestamp: time(self.created),
                ..ObjectMeta::default()
            },
            spec: NodeOpSpec::default(),
            status: Some(NodeOpStatus {
                phase: Some(self.phase),
                counts,
                observed_generation: number(self.observed_generation),
                last_updated: time(self.last_updated),
                ..NodeOpStatus::default()
            }),
        }
    }

    /// Namespace and name.
    pub fn path(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }

    pub fn key(&self) -> Key {
        (self.namespace.as_ref().into(), self.name.as_ref().into())
    }

    pub fn uid(&self) -> String {
        self.uid.text()
    }

    /// Whether it has this UID.
    pub fn is(&self, uid: &str) -> bool {
        self.uid == Uid::of(uid)
    }

    /// Its resourceVersion.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// When its status was written for the last time, which is when it was over.
    pub fn ended(&self) -> Timestamp {
        Timestamp::from_second(i64::from(self.last_updated)).unwrap_or_default()
    }

    /// Whether the one says of the NodeOp what the other says, but for its version.
    pub fn says_the_same(&self, other: &Self) -> bool {
        Self { version: other.version, ..self.clone() } == *other
    }

    fn has(&self, (namespace, name): &Key) -> bool {
        *self.name == **name && *self.namespace == **namespace
    }
}

/// All of them, by namespace and name. A clone costs nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FinishedOps(Arc<Kept>);

#[derive(Clone, Debug, Default, PartialEq)]
struct Kept {
    /// [`PARTS`] of them, as soon as there is one record; each without room for more.
    parts: Vec<Arc<[FinishedOp]>>,
    /// How many records there are in each namespace.
    namespaces: BTreeMap<Arc<str>, usize>,
}

impl FinishedOps {
    pub fn get(&self, key: &Key) -> Option<&FinishedOp> {
        self.0.parts.get(part(key))?.iter().find(|op| op.has(key))
    }

    pub fn iter(&self) -> impl Iterator<Item = &FinishedOp> {
        self.0.parts.iter().flat_map(|part| part.iter())
    }

    pub fn is_empty(&self) -> bool {
        self.0.namespaces.is_empty()
    }

    /// Whether nothing has come or gone between the two, as far as a glance tells.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The namespaces in which there are some.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.0.namespaces.keys().map(AsRef::as_ref)
    }

    /// Keeps this one, in place of another one of that name.
    pub fn insert(&mut self, mut op: FinishedOp) {
        let key = op.key();
        self.remove(&key);
        let Kept { parts, namespaces } = Arc::make_mut(&mut self.0);
        parts.resize_with(PARTS, Arc::default);
        // One text for all of a namespace.
        if let Some((namespace, _)) = namespaces.get_key_value(&op.namespace) {
            op.namespace = namespace.clone();
        }
        *namespaces.entry(op.namespace.clone()).or_default() += 1;
        if let Some(part) = parts.get_mut(part(&key)) {
            *part = part.iter().cloned().chain([op]).collect::<Vec<_>>().into();
        }
    }

    pub fn remove(&mut self, key: &Key) -> Option<FinishedOp> {
        let gone = self.get(key)?.clone();
        let Kept { parts, namespaces } = Arc::make_mut(&mut self.0);
        if let Some(part) = parts.get_mut(part(key)) {
            *part = part.iter().filter(|op| !op.has(key)).cloned().collect::<Vec<_>>().into();
        }
        if let Some(count) = namespaces.get_mut(&gone.namespace) {
            *count -= 1;
            if *count == 0 {
                namespaces.remove(&gone.namespace);
            }
        }
        Some(gone)
    }
}

impl FromIterator<FinishedOp> for FinishedOps {
    fn from_iter<I: IntoIterator<Item = FinishedOp>>(ops: I) -> Self {
        let mut finished = Self::default();
        ops.into_iter().for_each(|op| finished.insert(op));
        finished
    }
}

/// In which part a name is looked for.
fn part(key: &Key) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    usize::try_from(hasher.finish() % PARTS as u64).unwrap_or(0)
}

impl Snapshot {
    /// The NodeOp of this name, whatever is kept of it.
    pub fn op_named(&self, key: &Key) -> Option<Arc<NodeOp>> {
        let whole = self.ops.get(key).cloned();
        whole.or_else(|| self.finished.get(key).map(|op| Arc::new(op.nodeop())))
    }

    /// The NodeOps of which a record is kept and something is left that may still run, each once.
    pub fn finished_with_open_pods(&self) -> BTreeMap<Key, Arc<NodeOp>> {
        if self.finished.is_empty() {
            return BTreeMap::new();
        }
        let owners = self.pods.open().filter(|pod| pod.owner.is_nodeop());
        let owned = owners.filter_map(|pod| {
            let key = (pod.namespace.clone(), pod.owner.name.clone());
            let op = self.finished.get(&key).filter(|op| op.is(&pod.owner.uid))?;
            Some((key, Arc::new(op.nodeop())))
        });
        owned.collect()
    }
}

#[cfg(test)]
mod tests;
