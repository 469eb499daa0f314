//! Pure: from what a plan asks for to the Kubernetes objects that do it.
//!
//! Everything that runs on a node in our name is described here, and nowhere else: what it may do is read off
//! these files.

pub mod access;
pub mod facts;
pub mod job;
mod lock;
pub mod parts;
pub mod preflight;
pub mod upgrade;
pub mod waiter;

/// What the administrator set, as far as rendered objects depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderConfig {
    /// Our own image, for everything that we make ourselves.
    pub operator_image: String,
    /// When a node pulls that image, as `imagePullPolicy` says it.
    pub operator_pull_policy: String,
    /// Our own namespace, where facts pods are.
    pub namespace: String,
    /// For a NodeOp that names no image.
    pub default_image: String,
    /// The directory on the host that keeps sentinels and results over a reboot.
    pub state_dir: String,
    /// Names of the Secrets that pods with our own image pull with, each in the pod's namespace.
    pub pull_secrets: Vec<String>,
}

#[cfg(test)]
impl RenderConfig {
    /// What a test renders with that looks at none of it.
    pub fn of_tests() -> Self {
        Self {
            operator_image: "operator:v1".into(),
            operator_pull_policy: "IfNotPresent".into(),
            namespace: "operator-system".into(),
            default_image: "busybox".into(),
            state_dir: "/usr/local/.kairos".into(),
            pull_secrets: vec![],
        }
    }
}

impl RenderConfig {
    /// The state directory's parent and its own name: waiters mount the parent, see
    /// [`crate::contract::WAITER_MOUNT`].
    pub fn state_dir_parts(&self) -> (&str, &str) {
        let (parent, name) =
            self.state_dir.trim_end_matches('/').rsplit_once('/').unwrap_or(("", &self.state_dir));
        (if parent.is_empty() { "/" } else { parent }, name)
    }
}
