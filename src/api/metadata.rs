//! The metadata of objects that others write. Who manages which field (`managedFields`) is as much as the
//! object again and decides nothing, and its times anybody may write who may write the object: it is passed
//! over unread. So is every time that we cannot hold: see [`times`](super::times).

use std::{borrow::Cow, collections::BTreeMap, marker::PhantomData};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer};

use super::{bounded, times::near};

/// What is read of it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
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
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
}

/// The same of an object that anybody may have written, and of which none is written back.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeptInPart {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    #[serde(default, deserialize_with = "near")]
    creation_timestamp: Option<Time>,
    #[serde(default, deserialize_with = "near")]
    deletion_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
    #[serde(default, deserialize_with = "bounded::texts")]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "bounded::texts")]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "bounded::owners")]
    owner_references: Option<Vec<OwnerReference>>,
    #[serde(default, deserialize_with = "bounded::few::<_, _, MAX_FINALIZERS>")]
    finalizers: Option<Vec<String>>,
}

/// Finalizers that are told of.
const MAX_FINALIZERS: usize = 4;

/// Reads no more of the metadata than a bound allows, and in any case what says whose the object is.
pub(super) fn in_part<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let KeptInPart {
        name,
        namespace,
        uid,
        resource_version,
        generation,
        creation_timestamp,
        deletion_timestamp,
        deletion_grace_period_seconds,
        labels,
        annotations,
        owner_references,
        finalizers,
    } = KeptInPart::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name,
        namespace,
        uid,
        resource_version,
        generation,
        creation_timestamp,
        deletion_timestamp,
        deletion_grace_period_seconds,
        labels,
        annotations,
        owner_references,
        finalizers,
        ..ObjectMeta::default()
    })
}

/// Reads the metadata of an object.
pub fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let Kept {
        name,
        generate_name,
        namespace,
        uid,
        resource_version,
        generation,
        creation_timestamp,
        deletion_timestamp,
        deletion_grace_period_seconds,
        labels,
        annotations,
        owner_references,
        finalizers,
    } = Kept::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name,
        generate_name,
        namespace,
        uid,
        resource_version,
        generation,
        creation_timestamp,
        deletion_timestamp,
        deletion_grace_period_seconds,
        labels,
        annotations,
        owner_references,
        finalizers,
        managed_fields: None,
        self_link: None,
    })
}

/// An object of the kind `K`, of which the API server is asked for nothing but its metadata.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound = "")]
pub struct Metadata<K> {
    #[serde(deserialize_with = "read")]
    pub metadata: ObjectMeta,
    #[serde(skip)]
    of: PhantomData<K>,
}

impl<K: Resource> Resource for Metadata<K> {
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
