//! What an action or a question is, whatever is said of it.
//!
//! Failures and their pauses are remembered by it. A sentence would not do: the same pod may be deleted for
//! two reasons, and whoever improves a log line must not change when something is tried again.

use std::fmt;

use crate::plan::model::question::Question;

/// The key under which failures are remembered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Id {
    Action { does: &'static str, to: String },
    Question(Question),
}

/// Something that may fail, and how it is told.
pub trait Identified: fmt::Display {
    fn id(&self) -> Id;
}

impl Identified for Question {
    fn id(&self) -> Id {
        Id::Question(self.clone())
    }
}
