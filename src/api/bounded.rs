//! Lists, maps and texts of somebody else's, read up to a bound. An object may be a megabyte and a half, of
//! which each label of a few bytes is more than a hundred in memory: what is beyond the bound is passed over,
//! and given no place. Whoever writes it decides about nothing but his own object.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{labels, names};

/// How much is kept of an object's labels, and as much of its annotations.
pub(super) trait Bound {
    /// Bytes of all of them, each with `EACH`.
    const BYTES: usize;
    /// What one counts beside its own bytes: many short ones take far more memory than they are long.
    const EACH: usize;
    /// Bytes of one that decides.
    const DECISIVE_BYTES: usize;

    /// Whether something is decided by it. It is kept whatever stands beside it.
    fn is_decisive(name: &str) -> bool;
}

/// Of an object that anybody may have made: two hundred with long names.
pub(super) struct Anybodys;

impl Bound for Anybodys {
    const BYTES: usize = 16 * 1024;
    const EACH: usize = 0;
    const DECISIVE_BYTES: usize = 1024;

    fn is_decisive(name: &str) -> bool {
        [
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
        ]
        .contains(&name)
    }
}

/// Of a Node. Users select nodes by labels of their own, of which feature discovery alone sets two or three
/// hundred: this is room for a thousand. A kubelet may write as many on its own Node as an object holds.
pub(super) struct OfNode;

/// Labels that no kubelet may set on its own Node.
const RESTRICTED: &str = "node-restriction.kubernetes.io/";

impl Bound for OfNode {
    const BYTES: usize = 128 * 1024;
    const EACH: usize = 64;
    /// What autoscalers had been told before stands in one of ours, as somebody wrote it.
    const DECISIVE_BYTES: usize = 8 * 1024;

    fn is_decisive(name: &str) -> bool {
        let ours = [
            names::HOLD,
            names::MANAGED,
            names::BOOT_STATE,
            names::CORDONED_BY,
            names::CLAIMED_BY,
            names::FACTS_OF,
            names::ATTEMPTED,
            names::RELEASE,
            names::BOOT_STATE_OF,
            names::AUTOSCALER_HINTS,
            names::NOT_BALANCED,
            names::NOT_REMEDIATED,
            names::OS_LABEL,
        ];
        let pairs = [
            names::FACT_LABELS.as_slice(),
            &names::FACT_ANNOTATIONS,
            &names::KEEPS_FROM_SCALE_DOWN,
            &names::CONTROL_PLANE_ROLES,
        ];
        ours.contains(&name)
            || names::CONTROL_PLANE_LABELS.contains(&name)
            || pairs.iter().any(|pairs| pairs.iter().any(|(pair, _)| *pair == name))
            || name.starts_with(RESTRICTED)
    }
}

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
pub(super) struct Texts<B>(BTreeMap<String, String>, PhantomData<B>);

impl<B> From<Texts<B>> for BTreeMap<String, String> {
    fn from(texts: Texts<B>) -> Self {
        texts.0
    }
}

impl<'de, B: Bound> Deserialize<'de> for Texts<B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded<B>(PhantomData<B>);

        impl<'de, B: Bound> Visitor<'de> for Bounded<B> {
            type Value = Texts<B>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels or annotations")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts<B>, A::Error> {
                let (mut kept, mut left) = (BTreeMap::new(), B::BYTES);
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    if is_kept::<B>(&mut left, &name, &value) {
                        kept.insert(name, value);
                    }
                }
                Ok(Texts(kept, PhantomData))
            }
        }

        deserializer.deserialize_map(Bounded(PhantomData))
    }
}

/// Whether a label is kept, where that number of bytes is left for it and all that follow.
fn is_kept<B: Bound>(left: &mut usize, name: &str, value: &str) -> bool {
    let bytes = name.len() + value.len();
    let rest = left.checked_sub(bytes + B::EACH);
    *left = rest.unwrap_or(*left);
    rest.is_some() || (B::is_decisive(name) && bytes <= B::DECISIVE_BYTES)
}

/// Labels as one text, and in any case those that decide.
pub(super) struct Labels<B>(pub labels::Labels, PhantomData<B>);

impl<'de, B: Bound> Deserialize<'de> for Labels<B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded<B>(PhantomData<B>);

        impl<'de, B: Bound> Visitor<'de> for Bounded<B> {
            type Value = Labels<B>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels<B>, A::Error> {
                let (mut kept, mut left) = (labels::Builder::default(), B::BYTES);
                while let Some(()) = map.next_key_seed(AddTo(kept.text()))? {
                    let name = kept.text().len();
                    map.next_value_seed(AddTo(kept.text()))?;
                    kept.take(name, |name, value| is_kept::<B>(&mut left, name, value));
                }
                Ok(Labels(kept.build(), PhantomData))
            }
        }

        deserializer.deserialize_map(Bounded(PhantomData))
    }
}

/// Reads a text to the end of another one: most of what comes in are heartbeats, of which none is kept.
struct AddTo<'a>(&'a mut String);

impl<'de> DeserializeSeed<'de> for AddTo<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for AddTo<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0.push_str(text);
        Ok(())
    }
}

/// A text of at most `MOST` bytes. One that is longer is none, and is read as if it were not there: a part of
/// an id would be another one.
pub(super) fn short<'de, D: Deserializer<'de>, const MOST: usize>(
    deserializer: D,
) -> Result<String, D::Error> {
    struct Text<const MOST: usize>;

    impl<const MOST: usize> Visitor<'_> for Text<MOST> {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
            Ok(if text.len() > MOST { String::new() } else { text.to_owned() })
        }

        fn visit_unit<E: Error>(self) -> Result<String, E> {
            Ok(String::new())
        }
    }

    deserializer.deserialize_any(Text::<MOST>)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In any order, some of them twice, and more than there is room for.
    #[test]
    fn as_one_text_the_same_labels_are_kept_as_in_a_map() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut cut, mut disordered) = (0, 0);
        for _ in 0..200 {
            let decisive = [names::HOLD, names::MANAGED, "node-restriction.kubernetes.io/zone"];
            let labels: Vec<(String, String)> = (0..rng.usize(..40))
                .map(|_| {
                    let name = match rng.u8(..4) {
                        0 => (*rng.choice(decisive).unwrap()).to_owned(),
                        _ => format!("\"label\"{}", rng.u8(..60)),
                    };
                    (name, "ä".repeat(rng.usize(..8_000)))
                })
                .collect();
            let pairs = labels.iter().map(|(name, value)| {
                [name, value].map(|text| serde_json::to_string(text).unwrap()).join(":")
            });
            let told = format!("{{{}}}", pairs.collect::<Vec<_>>().join(","));
            let map: BTreeMap<String, String> = serde_json::from_str::<Texts<OfNode>>(&told).unwrap().into();
            let text = serde_json::from_str::<Labels<OfNode>>(&told).unwrap().0;
            assert_eq!(text.to_map(), map);
            assert!(text.iter().is_sorted());
            let all: BTreeMap<_, _> = labels.iter().cloned().collect();
            cut += usize::from(all.len() > map.len());
            disordered += usize::from(!labels.is_sorted());
        }
        assert!(cut > 50 && disordered > 100, "{cut} {disordered}");
        assert!(serde_json::from_str::<Labels<OfNode>>(r#"{"a": 1}"#).is_err(), "that is no label");
    }
}
