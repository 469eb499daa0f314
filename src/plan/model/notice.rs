//! What is said once, in an Event.

/// An Event: said once, after the status that it tells of has been written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether it is a warning.
    pub warning: bool,
    /// One word in CamelCase.
    pub reason: &'static str,
    pub message: String,
    /// Also said about this node.
    pub node: Option<String>,
}
