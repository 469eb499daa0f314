//! What a NodeOp asks of autoscalers, load balancers and remediators for a node that it has claimed, and what
//! they had been told before.
//!
//! Cluster Autoscaler and Karpenter read an annotation each on the Node ([`names::KEEPS_FROM_SCALE_DOWN`]),
//! load balancers a label ([`names::NOT_BALANCED`]), and so does what heals nodes ([`names::NOT_REMEDIATED`]).
//! One that is left behind keeps the node from ever being removed, from ever serving again, or from ever being
//! healed; and one of somebody else that is taken away exposes it. So what stood
//! there stands in an annotation of ours, which outlives operator and NodeOp:
//! `{"by":"<namespace>/<name>@<uid>","before":{"<annotation or label>":"<value>"}}`, with `null` for none. It
//! is named after autoscalers, who were the first.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{api::names, plan::model::id::OpRef};

/// Who has set hints on a node, and what each of those that it set was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hints {
    pub by: OpRef,
    pub before: BTreeMap<String, Option<String>>,
}

/// The labels among what is asked, of load balancers and of remediators, each with its value. Another's, with
/// whatever value, is left as it is.
pub const LABELS: [(&str, &str); 2] =
    [(names::NOT_BALANCED, names::NOT_BALANCED_VALUE), (names::NOT_REMEDIATED, names::NOT_REMEDIATED_VALUE)];

/// All that is ever asked: annotations of autoscalers, and those labels, each with its value.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    names::KEEPS_FROM_SCALE_DOWN.into_iter().chain(LABELS)
}

/// Whether it is asked by a label, and not by an annotation.
pub fn is_label(name: &str) -> bool {
    LABELS.iter().any(|(label, _)| *label == name)
}

impl Hints {
    /// Whether this annotation or label was set.
    pub fn has(&self, name: &str) -> bool {
        self.before.contains_key(name)
    }
}

/// The same, as it is written.
#[derive(Deserialize, Serialize)]
struct Written {
    by: String,
    before: BTreeMap<String, Option<String>>,
}

impl fmt::Display for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = Written { by: self.by.to_string(), before: self.before.clone() };
        f.write_str(&serde_json::to_string(&written).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Hints {
    type Err = ();

    /// Other annotations and labels than those that we set are none of ours, whatever is written here.
    fn from_str(text: &str) -> Result<Self, ()> {
        let Written { by, mut before } = serde_json::from_str(text).map_err(|_| ())?;
        before.retain(|name, _| all().any(|(ours, _)| ours == name));
        Ok(Self { by: by.parse()?, before })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_read_as_they_were_written_and_name_no_other_annotation() {
        let by = OpRef { namespace: "ns".into(), name: "op".into(), uid: "u".into() };
        let [(autoscaler, _), (karpenter, _)] = names::KEEPS_FROM_SCALE_DOWN;
        let before = [
            (autoscaler.to_owned(), None),
            (karpenter.to_owned(), Some("false \"ü\"".to_owned())),
            (names::NOT_BALANCED.to_owned(), None),
            (names::NOT_REMEDIATED.to_owned(), None),
        ];
        let hints = Hints { by: by.clone(), before: before.into() };
        assert_eq!(hints.to_string().parse(), Ok(hints));
        let forged = r#"{"by":"ns/op@u","before":{"operator.kairos.io/claimed-by":"ns/other@v"}}"#;
        assert_eq!(forged.parse(), Ok(Hints { by, before: BTreeMap::new() }));
        for text in ["", "ns/op@u", r#"{"by":"ns/op","before":{}}"#, r#"{"by":"ns/op@u"}"#] {
            assert_eq!(text.parse::<Hints>(), Err(()), "{text}");
        }
    }
}
