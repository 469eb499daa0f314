//! What went wrong in a request to the API server, for people: the controller says it in statuses, Events and
//! logs, a reboot waiter in its log and its termination message.

use std::error::Error;

use kube::core::Status;

use super::text::{clipped, one_line};

/// What went wrong, as a user may read it: what we were at, then the server's own message, without the
/// client's wrapping of them. A test holds that no other way leads from an error to a text.
pub fn error_message(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let (mut rest, mut unanswered) = (Some(error), false);
    while let Some(cause) = rest {
        rest = cause.source();
        match cause.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => {
                parts.push(said(status));
                break;
            }
            // One client may be a service of another, which wraps the error once more.
            Some(kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_)) => {
                parts.extend((!unanswered).then(|| "the API server did not answer".to_owned()));
                unanswered = true;
            }
            Some(kube::Error::SerdeError(_) | kube::Error::FromUtf8(_)) => {
                parts.push("the API server's answer cannot be read".into())
            }
            // The others repeat their cause, which comes next.
            Some(_) if cause.source().is_some() => {}
            // Where in the client it was ("client error (SendRequest)") is no matter of a user's: the first
            // cause is.
            None if unanswered && cause.source().is_some() => {}
            _ => parts.push(cause.to_string()),
        }
    }
    let text = parts.join(": ");
    clipped(&one_line(&text), MAX_ERROR_BYTES)
}

/// Whether a write was refused because the object has changed, is another one by now, or exists already. That
/// the object of the name has another UID than a patch says, a server (Kubernetes 1.36, measured) answers
/// with 422, a field that cannot be changed, and not with the 409 that it has for a PUT and for a deletion.
pub fn is_conflict(status: &Status) -> bool {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 409 || status.code == 422 && causes.any(|cause| cause.field == "metadata.uid")
}

/// The server's message, or what there is instead of one.
fn said(status: &Status) -> String {
    match (status.message.trim(), status.reason.as_str()) {
        ("", "") => format!("the API server answered with code {}", status.code),
        ("", reason) => format!("the API server answered with code {}, {reason}", status.code),
        (message, _) => message.to_owned(),
    }
}

/// The most bytes of a server's message in a status: the longest ones repeat every field of an object.
const MAX_ERROR_BYTES: usize = 500;
