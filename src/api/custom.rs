//! Our own kinds, as they are read: their metadata is as little ours as any other object's, and what is
//! derived for a kind would refuse an object, and each list that it is in, for a time in it.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSON, JSONSchemaProps};
use serde::{Deserialize, Deserializer};

/// The generation that an object's first status follows, which the API server gives it: none. kstatus, and
/// with it Flux and Helm, takes an object without any status for done, so what waits would go on before the
/// operator has looked at it.
const UNSEEN: i64 = -1;

/// Has the API server give each object that first status, as Flux' own kinds have it.
pub(super) fn default_status(schema: &mut JSONSchemaProps) {
    let status = schema.properties.iter_mut().find_map(|properties| properties.get_mut("status"));
    if let Some(status) = status {
        status.default = Some(JSON(serde_json::json!({ "observedGeneration": UNSEEN })));
    }
}

/// The status of a kind of ours.
pub(super) trait Observed: Default + PartialEq {
    /// Which generation it follows.
    fn observed(&mut self) -> &mut Option<i64>;
}

/// Reads a status. That of the API server is none; and one in which somebody else has written beside its
/// generation follows none, like those of the Go operator.
pub(super) fn read_status<'de, D: Deserializer<'de>, S: Observed + Deserialize<'de>>(
    from: D,
) -> Result<Option<S>, D::Error> {
    let mut status = Option::<S>::deserialize(from)?;
    if let Some(read) = &mut status
        && read.observed().is_some_and(|generation| generation <= 0)
    {
        *read.observed() = None;
        return Ok(status.filter(|status| *status != S::default()));
    }
    Ok(status)
}

/// Makes the type of a kind, of which `$derived` is what `kube` derives.
macro_rules! custom {
    ($(#[$doc:meta])* $kind:ident, $derived:ty, $spec:ty, $status:ty) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, ::serde::Deserialize)]
        pub struct $kind {
            #[serde(deserialize_with = "crate::api::metadata::read")]
            pub metadata: ::kube::core::ObjectMeta,
            pub spec: $spec,
            #[serde(default, deserialize_with = "crate::api::custom::read_status")]
            pub status: Option<$status>,
        }

        impl $kind {
            /// An object of this name, and nothing else yet.
            pub fn new(name: &str, spec: $spec) -> Self {
                let metadata =
                    ::kube::core::ObjectMeta { name: Some(name.into()), ..::kube::core::ObjectMeta::default() };
                Self { metadata, spec, status: None }
            }
        }

        impl $crate::api::custom::Observed for $status {
            fn observed(&mut self) -> &mut Option<i64> {
                &mut self.observed_generation
            }
        }

        impl ::serde::Serialize for $kind {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use ::kube::Resource;
                use ::serde::ser::SerializeStruct;

                let mut object =
                    serializer.serialize_struct(stringify!($kind), 4 + usize::from(self.status.is_some()))?;
                object.serialize_field("apiVersion", &Self::api_version(&()))?;
                object.serialize_field("kind", &Self::kind(&()))?;
                object.serialize_field("metadata", &self.metadata)?;
                object.serialize_field("spec", &self.spec)?;
                if let Some(status) = &self.status {
                    object.serialize_field("status", status)?;
                }
                object.end()
            }
        }

        impl ::kube::CustomResourceExt for $kind {
            fn crd() -> ::k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition {
                let mut crd = <$derived as ::kube::CustomResourceExt>::crd();
                let schemas = crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut());
                for schema in schemas.filter_map(|schema| schema.open_api_v3_schema.as_mut()) {
                    schema.title = Some(stringify!($kind).into());
                    $crate::api::custom::default_status(schema);
                }
                crd
            }

            fn crd_name() -> &'static str {
                <$derived as ::kube::CustomResourceExt>::crd_name()
            }

            fn api_resource() -> ::kube::core::ApiResource {
                <$derived as ::kube::CustomResourceExt>::api_resource()
            }

            fn shortnames() -> &'static [&'static str] {
                <$derived as ::kube::CustomResourceExt>::shortnames()
            }
        }

        impl ::kube::core::object::HasStatus for $kind {
            type Status = $status;

            fn status(&self) -> Option<&$status> {
                self.status.as_ref()
            }

            fn status_mut(&mut self) -> &mut Option<$status> {
                &mut self.status
            }
        }

        $crate::api::read_as::read_as!($kind, $derived);
    };
}

pub(super) use custom;

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;
    use serde_json::json;

    use crate::api::{nodeop::NodeOp, upgrade::NodeOpUpgrade};

    /// Whatever else stands in it was written by an operator: a record of nodes is one under any generation.
    #[test]
    fn the_status_that_the_api_server_gives_is_none() {
        let read = |kind: &str, status: serde_json::Value| {
            let object = json!({"metadata": {"name": "op"}, "spec": {"image": "i"}, "status": status});
            match kind {
                "NodeOp" => serde_json::from_value::<NodeOp>(object).unwrap().status.is_some(),
                _ => serde_json::from_value::<NodeOpUpgrade>(object).unwrap().status.is_some(),
            }
        };
        for (kind, crd) in [("NodeOp", NodeOp::crd()), ("NodeOpUpgrade", NodeOpUpgrade::crd())] {
            let schema = crd.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
            let default = schema.properties.unwrap()["status"].default.clone().unwrap().0;
            assert_eq!(default, json!({"observedGeneration": -1}), "{kind}");
            assert!(!read(kind, default), "{kind}");
            for written in [
                json!({}),
                json!({"observedGeneration": 1}),
                json!({"observedGeneration": -1, "phase": "Pending"}),
                json!({"observedGeneration": -1, "nodeStatuses": {"n1": {"phase": "Running"}}}),
            ] {
                assert!(read(kind, written.clone()), "{kind} {written}");
            }
        }
    }

    /// Whoever may write one NodeOp may write who manages which of its fields, and since when.
    #[test]
    fn no_time_in_the_metadata_of_one_makes_a_list_of_our_kinds_unreadable() {
        for kind in ["NodeOp", "NodeOpUpgrade"] {
            let written = json!({"apiVersion": "operator.kairos.io/v1alpha1", "kind": kind,
                "metadata": {"name": "op", "namespace": "ns", "creationTimestamp": "2026-05-28T20:26:40Z", "labels": {"a": "b"}},
                "spec": {"image": "kairos:v3.5.0"}, "status": {"phase": "Pending"}});
            let mut object = written.clone();
            let late = "9999-12-31T23:59:59Z";
            object["metadata"]["managedFields"] =
                json!([{"manager": "m", "operation": "Update", "time": late}]);
            let read = match kind {
                "NodeOp" => serde_json::from_value::<NodeOp>(object).map(|op| json!(op)),
                _ => serde_json::from_value::<NodeOpUpgrade>(object).map(|upgrade| json!(upgrade)),
            };
            let read = read.unwrap();
            let of = |object: &serde_json::Value| {
                ["apiVersion", "kind", "metadata"].map(|field| object[field].clone())
            };
            assert_eq!(of(&read), of(&written));
            assert_eq!(
                (&read["spec"]["image"], &read["status"]["phase"]),
                (&json!("kairos:v3.5.0"), &json!("Pending"))
            );
        }
    }
}
