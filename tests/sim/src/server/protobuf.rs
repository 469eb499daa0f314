//! Bodies in Kubernetes' protobuf encoding, which kubectl sends where it makes an object itself (`create
//! namespace`, `create secret`, `auth can-i`), read as JSON. Only these kinds, and of them what kubectl can
//! set: fields that are not in a table here are left out.
//!
//! The encoding is that of `runtime.Unknown`: four magic bytes, then the type and the object's own bytes.
//! Field numbers are those of the `generated.proto` files of k8s.io/api and k8s.io/apimachinery.

use serde_json::{Map, Value, json};

const MAGIC: &[u8] = b"k8s\0";

/// How a field is read.
enum Of {
    Text,
    /// As JSON has bytes, in base64.
    Bytes,
    Number,
    Message(&'static [Field]),
    Texts,
    TextMap,
    BytesMap,
}

type Field = (u64, &'static str, Of);

const META: &[Field] = &[
    (1, "name", Of::Text),
    (2, "generateName", Of::Text),
    (3, "namespace", Of::Text),
    (11, "labels", Of::TextMap),
    (12, "annotations", Of::TextMap),
];
const METADATA: Field = (1, "metadata", Of::Message(META));
const NAMESPACE: &[Field] = &[METADATA];
const CONFIG_MAP: &[Field] = &[METADATA, (2, "data", Of::TextMap), (3, "binaryData", Of::BytesMap)];
const SECRET: &[Field] =
    &[METADATA, (2, "data", Of::BytesMap), (3, "type", Of::Text), (4, "stringData", Of::TextMap)];
const EVICTION: &[Field] = &[
    METADATA,
    (
        2,
        "deleteOptions",
        Of::Message(&[
            (1, "gracePeriodSeconds", Of::Number),
            (2, "preconditions", Of::Message(&[(1, "uid", Of::Text), (2, "resourceVersion", Of::Text)])),
            (5, "dryRun", Of::Texts),
        ]),
    ),
];
const ACCESS_REVIEW: &[Field] = &[
    METADATA,
    (
        2,
        "spec",
        Of::Message(&[
            (
                1,
                "resourceAttributes",
                Of::Message(&[
                    (1, "namespace", Of::Text),
                    (2, "verb", Of::Text),
                    (3, "group", Of::Text),
                    (4, "version", Of::Text),
                    (5, "resource", Of::Text),
                    (6, "subresource", Of::Text),
                    (7, "name", Of::Text),
                ]),
            ),
            (2, "nonResourceAttributes", Of::Message(&[(1, "path", Of::Text), (2, "verb", Of::Text)])),
        ]),
    ),
];
const RULES_REVIEW: &[Field] = &[METADATA, (2, "spec", Of::Message(&[(1, "namespace", Of::Text)]))];
const TYPE: &[Field] = &[(1, "apiVersion", Of::Text), (2, "kind", Of::Text)];

/// The object that these bytes are; `None` if they are none, or one of a kind that is not known here.
pub fn read(bytes: &[u8]) -> Option<Value> {
    let (mut object, mut raw) = (Map::new(), None);
    each(bytes.strip_prefix(MAGIC)?, |number, wire| {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => object = message(bytes, TYPE)?,
            (2, Wire::Bytes(bytes)) => raw = Some(bytes),
            _ => {}
        }
        Some(())
    })?;
    let fields = match object.get("kind")?.as_str()? {
        "Namespace" | "ServiceAccount" => NAMESPACE,
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "Eviction" => EVICTION,
        "SelfSubjectAccessReview" => ACCESS_REVIEW,
        "SelfSubjectRulesReview" => RULES_REVIEW,
        _ => return None,
    };
    object.extend(message(raw?, fields)?);
    Some(Value::Object(object))
}

/// What stands on the wire for one field.
enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Other,
}

/// Calls `with` for each field of a message.
fn each<'a>(mut bytes: &'a [u8], mut with: impl FnMut(u64, Wire<'a>) -> Option<()>) -> Option<()> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let wire = match key & 7 {
            0 => Wire::Varint(varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Wire::Bytes(bytes.split_off(..length)?)
            }
            1 => bytes.split_off(..8).map(|_| Wire::Other)?,
            5 => bytes.split_off(..4).map(|_| Wire::Other)?,
            _ => return None,
        };
        with(key >> 3, wire)?;
    }
    Some(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn message(bytes: &[u8], fields: &[Field]) -> Option<Map<String, Value>> {
    let mut object = Map::new();
    each(bytes, |number, wire| {
        let Some((_, name, of)) = fields.iter().find(|(known, _, _)| *known == number) else {
            return Some(());
        };
        match (of, wire) {
            // What is empty is not set; JSON leaves it out.
            (Of::Text | Of::Bytes, Wire::Bytes([])) => {}
            (Of::Text, Wire::Bytes(bytes)) => drop(object.insert((*name).to_owned(), text(bytes)?)),
            (Of::Bytes, Wire::Bytes(bytes)) => drop(object.insert((*name).to_owned(), base64(bytes))),
            (Of::Number, Wire::Varint(value)) => drop(object.insert((*name).to_owned(), value.into())),
            (Of::Message(fields), Wire::Bytes(bytes)) => {
                object.insert((*name).to_owned(), Value::Object(message(bytes, fields)?));
            }
            (Of::Texts, Wire::Bytes(bytes)) => {
                let list = object.entry(*name).or_insert_with(|| json!([]));
                list.as_array_mut()?.push(text(bytes)?);
            }
            (Of::TextMap | Of::BytesMap, Wire::Bytes(bytes)) => {
                let value = if matches!(of, Of::TextMap) { Of::Text } else { Of::Bytes };
                let mut entry = message(bytes, &[(1, "key", Of::Text), (2, "value", value)])?;
                let key = entry.remove("key")?.as_str()?.to_owned();
                let map = object.entry(*name).or_insert_with(|| json!({}));
                map[key] = entry.remove("value").unwrap_or_else(|| "".into());
            }
            _ => return None,
        }
        Some(())
    })?;
    Some(object)
}

fn text(bytes: &[u8]) -> Option<Value> {
    std::str::from_utf8(bytes).ok().map(Value::from)
}

/// As JSON has it.
fn base64(bytes: &[u8]) -> Value {
    serde_json::to_value(k8s_openapi::ByteString(bytes.to_vec())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(bytes.len()).unwrap();
        [&[number << 3 | 2, length], bytes].concat()
    }

    fn object(kind: &str, raw: &[u8]) -> Vec<u8> {
        let of = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC, &field(1, &of), &field(2, raw), &field(3, b""), &field(4, b"")].concat()
    }

    #[test]
    fn what_kubectl_makes_is_read() {
        // As `kubectl create namespace` sends it: with an empty timestamp, spec and status.
        let meta =
            [field(1, b"ops"), field(8, b""), field(11, &[field(1, b"a"), field(2, b"b")].concat())].concat();
        let namespace =
            object("Namespace", &[field(1, &meta), field(2, b""), field(3, &field(1, b""))].concat());
        let wanted = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ops", "labels": {"a": "b"}}});
        assert_eq!(read(&namespace), Some(wanted));
        let data = field(2, &[field(1, b"k"), field(2, &[0, 255])].concat());
        let secret = object("Secret", &[field(1, &field(1, b"s")), data, field(3, b"Opaque")].concat());
        assert_eq!(
            read(&secret),
            Some(
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "AP8="}, "type": "Opaque"})
            )
        );
        let attributes =
            [field(2, b"create"), field(3, b"operator.kairos.io"), field(5, b"nodeops")].concat();
        let review = object("SelfSubjectAccessReview", &field(2, &field(1, &attributes)));
        assert_eq!(
            read(&review).unwrap()["spec"]["resourceAttributes"],
            json!({"verb": "create", "group": "operator.kairos.io", "resource": "nodeops"})
        );
    }

    #[test]
    fn what_is_cut_or_of_another_kind_is_none() {
        let whole = object("Namespace", &field(1, &field(1, b"ops")));
        for length in 0..whole.len() - 4 {
            assert!(read(&whole[..length]).is_none_or(|object| object["metadata"].is_null()), "{length}");
        }
        assert_eq!(read(&object("Pod", b"")), None);
        assert_eq!(read(b"{}"), None);
    }
}
