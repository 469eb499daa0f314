//! What an API error means to us.

use kube::core::Status;

fn status(error: &anyhow::Error) -> Option<&Status> {
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => Some(status),
        _ => None,
    }
}

/// The object has changed, or exists already: the plan was made from an old view, and another one follows.
pub fn is_conflict(error: &anyhow::Error) -> bool {
    status(error).is_some_and(|status| status.code == 409)
}

/// The object is not there (any more).
pub fn is_gone(error: &anyhow::Error) -> bool {
    status(error).is_some_and(|status| status.code == 404)
}

/// The server's own words, if it was the server that said no.
pub fn words(error: &anyhow::Error) -> String {
    status(error).map_or_else(|| format!("{error:#}"), |status| status.message.clone())
}
