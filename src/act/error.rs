//! What an API error means to us.

use kube::core::Status;

use crate::api::text::clipped;

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

/// What went wrong, as a user may read it: what we were at, then the server's own words, without the client's wrapping of them.
pub fn words(error: &anyhow::Error) -> String {
    let mut parts = Vec::new();
    for cause in error.chain() {
        if let Some(kube::Error::Api(status)) = cause.downcast_ref::<kube::Error>() {
            parts.push(status.message.clone());
            break;
        }
        parts.push(cause.to_string());
    }
    clipped(&parts.join(": "), WORDS)
}

/// The most bytes of a server's words in a status: the longest ones repeat every field of an object.
const WORDS: usize = 500;

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn words_are_what_we_were_at_and_what_the_server_said() {
        let refused = || kube::Error::Api(Box::new(Status::failure("exceeded quota", "Forbidden").with_code(403)));
        assert_eq!(words(&refused().into()), "exceeded quota");
        let error = Err::<(), _>(refused()).context("making the account").unwrap_err();
        assert_eq!(words(&error), "making the account: exceeded quota");
        assert!(words(&anyhow::anyhow!("no answer")).starts_with("no answer"));
    }
}
