//! One request of the waiter: its time limit, and what its answer means.

use std::time::Duration;

use futures::FutureExt;

use crate::api::error_text::{error_message, is_conflict};

/// How long one request may take. A reboot waits for it, so it is short.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no answer.
pub enum RequestError {
    Answer(Box<kube::Error>),
    Timeout,
}

impl std::fmt::Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Answer(error) => f.write_str(&error_message(error.as_ref())),
            Self::Timeout => write!(f, "no answer within {} s", REQUEST_TIMEOUT.as_secs()),
        }
    }
}

pub async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, RequestError> {
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, request)
        .map(|answer| answer.map_err(|_| RequestError::Timeout));
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
