//! Lists and maps of somebody else's, read up to a bound. An object may be a megabyte and a half, of which
//! each label of a few bytes is more than a hundred in memory: what is beyond the bound is passed over, and
//! given no place. Whoever writes it decides about nothing but his own object.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::names;

/// Bytes of the labels, and of the annotations, that are kept: of two hundred with long names.
const MAX_BYTES: usize = 16 * 1024;
/// Labels and annotations by which we know what an object is. They are kept whatever stands beside them.
const DECISIVE: [&str; 11] = [
    names::NODEOP,
    names::NODE,
    names::NODE_NAME,
    names::APP,
    names::REBOOT,
    names::PREFLIGHT,
    names::ATTEMPT,
    names::REBOOT_STATE,
    names::WAITS_IN,
    names::SETTLED_IN,
    names::MIRROR,
];
/// Bytes of one of those.
const MAX_DECISIVE: usize = 1024;
/// Owners that are kept. The one that controls the object is, whatever its place.
const MAX_OWNERS: usize = 16;

/// The first `MOST` of a list, which may not be there.
pub(super) fn few<'de, D, T, const MOST: usize>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Few<T, MOST>>::deserialize(deserializer)?.map(|few| few.0))
}

/// The first `MOST` of a list.
pub(super) struct Few<T, const MOST: usize>(Vec<T>);

impl<T, const MOST: usize> From<Few<T, MOST>> for Vec<T> {
    fn from(few: Few<T, MOST>) -> Self {
        few.0
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Few<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct First<T, const MOST: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for First<T, MOST> {
            type Value = Few<T, MOST>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut kept = Vec::new();
                while kept.len() < MOST {
                    let Some(item) = list.next_element()? else { return Ok(Few(kept)) };
                    kept.push(item);
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Few(kept))
            }
        }

        deserializer.deserialize_seq(First(PhantomData))
    }
}

/// The owners of an object, and in any case the one that controls it.
pub(super) struct Owners(Vec<OwnerReference>);

impl From<Owners> for Vec<OwnerReference> {
    fn from(owners: Owners) -> Self {
        owners.0
    }
}

impl<'de> Deserialize<'de> for Owners {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Controller;

        impl<'de> Visitor<'de> for Controller {
            type Value = Owners;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("owner references")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Owners, A::Error> {
                let mut kept: Vec<OwnerReference> = Vec::new();
                while let Some(owner) = list.next_element::<OwnerReference>()? {
                    if kept.len() < MAX_OWNERS || owner.controller == Some(true) {
                        kept.push(owner);
                    }
                }
                Ok(Owners(kept))
            }
        }

        deserializer.deserialize_seq(Controller)
    }
}

/// Labels, or annotations, and in any case those that decide.
pub(super) struct Texts(BTreeMap<String, String>);

impl From<Texts> for BTreeMap<String, String> {
    fn from(texts: Texts) -> Self {
        texts.0
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;

        impl<'de> Visitor<'de> for Bounded {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels or annotations")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                let (mut kept, mut left) = (BTreeMap::new(), MAX_BYTES);
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    let bytes = name.len() + value.len();
                    if let Some(rest) = left.checked_sub(bytes) {
                        left = rest;
                    } else if !DECISIVE.contains(&name.as_str()) || bytes > MAX_DECISIVE {
                        continue;
                    }
                    kept.insert(name, value);
                }
                Ok(Texts(kept))
            }
        }

        deserializer.deserialize_map(Bounded)
    }
}
