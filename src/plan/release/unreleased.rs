//! Why a node that its NodeOp is done with is not given back yet: as a type, and as the sentence that people
//! read.

use std::fmt;

use crate::plan::model::id::Key;

/// Why a node still has its claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreleased {
    /// A Job of the operation can still make a pod.
    Job(Key),
    /// A pod of the operation can still act.
    Pod(Key),
    /// The API server may still be at an eviction that was cancelled.
    Eviction,
    /// Nothing keeps it but the write itself.
    BeingGivenBack { last_error: Option<String> },
    /// Its end has to stand in the status first.
    EndUnrecorded,
    /// It looks free; a live read decides.
    Unconfirmed,
}

impl fmt::Display for Unreleased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job((namespace, name)) => write!(f, "waiting for Job {namespace}/{name} to end"),
            Self::Pod((namespace, name)) => write!(f, "waiting for pod {namespace}/{name} to end"),
            Self::Eviction => f.write_str("an eviction is under way"),
            Self::BeingGivenBack { last_error } => {
                f.write_str("the node is being given back")?;
                match last_error {
                    Some(error) => write!(f, "; {error}"),
                    None => Ok(()),
                }
            }
            Self::EndUnrecorded => f.write_str("its end is being recorded"),
            Self::Unconfirmed => f.write_str("checking that it was given back"),
        }
    }
}
