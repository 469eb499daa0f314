//! Our own kinds, as they are read: their metadata is as little ours as any other object's, and what is
//! derived for a kind would refuse an object, and each list that it is in, for a time in it.

/// Makes the type of a kind, of which `$derived` is what `kube` derives.
macro_rules! custom {
    ($(#[$doc:meta])* $kind:ident, $derived:ty, $spec:ty, $status:ty) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, ::serde::Deserialize)]
        pub struct $kind {
            #[serde(deserialize_with = "crate::api::metadata::read")]
            pub metadata: ::kube::core::ObjectMeta,
            pub spec: $spec,
            #[serde(default)]
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
                schemas
                    .filter_map(|schema| schema.open_api_v3_schema.as_mut())
                    .for_each(|schema| schema.title = Some(stringify!($kind).into()));
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
    use serde_json::json;

    use crate::api::{nodeop::NodeOp, upgrade::NodeOpUpgrade};

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
