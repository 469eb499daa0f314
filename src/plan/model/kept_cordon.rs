//! The cordon of a node that failed: nobody lifts it but a human, or an operation that succeeds on the node
//! later.
//!
//! That a node failed is known to the NodeOp, and when the NodeOp has been deleted nobody knows it any more.
//! So it stands on the node, in the annotation `cordoned-by`, behind the NodeOp's identity:
//! `<namespace>/<name>@<uid>!failed`, and once it was told that this NodeOp is gone,
//! `<namespace>/<name>@<uid>!failed!deleted`.

use std::{fmt, str::FromStr};

use crate::plan::model::id::OpRef;

const FAILED: &str = "!failed";
const DELETED: &str = "!deleted";

/// Whose operation failed on a node that stays cordoned for that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptCordon {
    pub by: OpRef,
    /// An Event has told that the NodeOp is gone, and how to lift the cordon.
    pub deleted: bool,
}

impl fmt::Display for KeptCordon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deleted = if self.deleted { DELETED } else { "" };
        write!(f, "{}{FAILED}{deleted}", self.by)
    }
}

impl FromStr for KeptCordon {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (text, deleted) = text.strip_suffix(DELETED).map_or((text, false), |text| (text, true));
        let by = text.strip_suffix(FAILED).ok_or(())?.parse()?;
        Ok(Self { by, deleted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_as_it_was_written_and_is_no_cordon_of_an_operation_under_way() {
        let by = OpRef { namespace: "ns".into(), name: "op".into(), uid: "u".into() };
        for (deleted, text) in [(false, "ns/op@u!failed"), (true, "ns/op@u!failed!deleted")] {
            let mark = KeptCordon { by: by.clone(), deleted };
            assert_eq!(mark.to_string(), text);
            assert_eq!(text.parse(), Ok(mark));
            assert_eq!(text.parse::<OpRef>(), Err(()));
        }
        for text in ["ns/op@u", "ns/op@u!deleted", "ns/op!failed", "!failed", "ns/op@u!failed!failed", ""] {
            assert_eq!(text.parse::<KeptCordon>(), Err(()), "{text}");
        }
    }
}
