//! The metadata of objects that others write. Who manages which field (`managedFields`) is as much as the
//! object again and decides nothing, and its times anybody may write who may write the object: it is passed
//! over unread. So is every time that we cannot hold: see [`times`](super::times).

use std::{borrow::Cow, collections::BTreeMap, marker::PhantomData};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer};

use super::{bounded, labels::Labels, times::near};

/// What is read of it: all of its labels, annotations, owners and finalizers, or a bounded part of them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept<Labels, Texts, Owners, Finalizers> {
    name: Option<String>,
    generate_name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    #[serde(default, deserialize_with = "near")]
    creation_timestamp: Option<Time>,
    #[serde(default, deserialize_with = "near")]
    deletion_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
    labels: Option<Labels>,
    annotations: Option<Texts>,
    owner_references: Option<Owners>,
    finalizers: Option<Finalizers>,
}

impl<Labels, Texts, Owners, Finalizers> Kept<Labels, Texts, Owners, Finalizers>
where
    Texts: Into<BTreeMap<String, String>>,
    Owners: Into<Vec<OwnerReference>>,
    Finalizers: Into<Vec<String>>,
{
    /// The labels, and all else.
    fn apart(self) -> (Option<Labels>, ObjectMeta) {
        let rest = ObjectMeta {
            name: self.name,
            generate_name: self.generate_name,
            namespace: self.namespace,
            uid: self.uid,
            resource_version: self.resource_version,
            generation: self.generation,
            creation_timestamp: self.creation_timestamp,
            deletion_timestamp: self.deletion_timestamp,
            deletion_grace_period_seconds: self.deletion_grace_period_seconds,
            labels: None,
            annotations: self.annotations.map(Into::into),
            owner_references: self.owner_references.map(Into::into),
            finalizers: self.finalizers.map(Into::into),
            managed_fields: None,
            self_link: None,
        };
        (self.labels, rest)
    }
}

impl<Texts, Owners, Finalizers> From<Kept<Texts, Texts, Owners, Finalizers>> for ObjectMeta
where
    Texts: Into<BTreeMap<String, String>>,
    Owners: Into<Vec<OwnerReference>>,
    Finalizers: Into<Vec<String>>,
{
    fn from(kept: Kept<Texts, Texts, Owners, Finalizers>) -> Self {
        let (labels, rest) = kept.apart();
        Self { labels: labels.map(Into::into), ..rest }
    }
}

/// Finalizers that are told of.
const MAX_FINALIZERS: usize = 4;

type Texts = BTreeMap<String, String>;
type Whole = Kept<Texts, Texts, Vec<OwnerReference>, Vec<String>>;
type InPart<Labels, Bound> =
    Kept<Labels, bounded::Texts<Bound>, bounded::Owners, bounded::Few<String, MAX_FINALIZERS>>;

/// Reads the metadata of an object.
pub fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    Whole::deserialize(deserializer).map(Into::into)
}

/// Reads no more of the metadata than a bound allows, and in any case what says whose the object is: of an
/// object that anybody may have written, and of which none is written back.
pub(super) fn in_part<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    InPart::<bounded::Texts<bounded::Anybodys>, _>::deserialize(deserializer).map(Into::into)
}

/// Reads no more of a Node's metadata than a bound allows: more of it is looked at, and its kubelet writes a
/// part. Its labels stand beside it, and not in it.
pub(super) fn of_node<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(ObjectMeta, Labels), D::Error> {
    let read = InPart::<bounded::Labels<bounded::OfNode>, bounded::OfNode>::deserialize(deserializer)?;
    let (labels, rest) = read.apart();
    Ok((rest, labels.map(|labels| labels.0).unwrap_or_default()))
}

/// How much is read of an object's metadata.
pub trait Extent {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error>;
}

/// All of it.
#[derive(Clone, Copy, Debug)]
pub enum All {}

impl Extent for All {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
        read(deserializer)
    }
}

/// A bounded part: of an object that anybody may have written.
#[derive(Clone, Copy, Debug)]
pub enum Part {}

impl Extent for Part {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
        in_part(deserializer)
    }
}

/// An object of the kind `K`, of which the API server is asked for nothing but its metadata.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound = "E: Extent")]
pub struct Metadata<K, E = All> {
    #[serde(deserialize_with = "E::read")]
    pub metadata: ObjectMeta,
    #[serde(skip)]
    of: PhantomData<(K, E)>,
}

impl<K: Resource, E> Resource for Metadata<K, E> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn metadata_api() -> bool {
        true
    }

    fn kind(of: &K::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &K::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &K::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &K::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_time_makes_an_object_unreadable_and_what_is_going_says_so() {
        let late = "9999-12-31T23:59:59Z";
        let object = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "7", "generation": 3,
            "creationTimestamp": late, "deletionTimestamp": "33658-09-27T01:46:40Z", "deletionGracePeriodSeconds": 1_000_000_000_000_i64,
            "labels": {"a": "b"}, "annotations": {"c": "d"}, "finalizers": ["e"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "nu", "controller": true}],
            "managedFields": [{"manager": "m", "operation": "Update", "apiVersion": "v1", "time": late, "fieldsType": "FieldsV1", "fieldsV1": {}}]}});
        let read: Metadata<k8s_openapi::api::core::v1::Pod> = serde_json::from_value(object.clone()).unwrap();
        let mut kept = object["metadata"].clone();
        kept.as_object_mut().unwrap().remove("managedFields");
        let end = "9999-12-30T22:00:00Z";
        (kept["creationTimestamp"], kept["deletionTimestamp"]) = (json!(end), json!(end));
        assert_eq!(serde_json::to_value(&read.metadata).unwrap(), kept);
    }
}
