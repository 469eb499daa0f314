//! One request of the waiter: its time limit, and what its answer means.

use std::time::Duration;

use futures::FutureExt;

use crate::api::{
    error_text::{error_message, is_conflict},
    webhooks,
};

/// How long a request may take for which a reboot waits.
pub const SHORT: Duration = Duration::from_secs(5);

/// Why there is no answer.
pub enum RequestError {
    Answer(Box<kube::Error>),
    /// It was awaited for as long as this.
    Timeout(Duration),
}

impl std::fmt::Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Answer(error) => f.write_str(&error_message(error.as_ref())),
            Self::Timeout(limit) => {
                let suspect = if *limit == webhooks::ANSWER_WITHIN { webhooks::SUSPECT } else { "" };
                write!(f, "no answer within {} s{suspect}", limit.as_secs())
            }
        }
    }
}

pub async fn within<T>(
    limit: Duration,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, RequestError> {
    let answer =
        tokio::time::timeout(limit, request).map(|answer| answer.map_err(|_| RequestError::Timeout(limit)));
    answer.await?.map_err(|error| RequestError::Answer(Box::new(error)))
}

pub fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// Whether an admission policy, or RBAC, does not want the change.
pub fn is_denied(error: &kube::Error) -> bool {
    (is_code(error, 403) || is_code(error, 422)) && !is_replaced(error)
}

/// Whether a pod of another UID has our name.
pub fn is_replaced(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if is_conflict(status))
}
