//! An Event, as much of it as is read: of which type it is, what it says, and in which version. Whoever may
//! write Events may write any time into one.

use k8s_openapi::{api::events::v1 as events, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::Deserialize;

use super::{metadata, read_as::read_as};

/// The part of an Event that is told. It is read and never written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Event {
    #[serde(deserialize_with = "metadata::read")]
    pub metadata: ObjectMeta,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub type_: Option<String>,
    pub reason: Option<String>,
    pub note: Option<String>,
}

read_as!(Event, events::Event);
