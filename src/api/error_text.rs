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

/// An error with its causes, each once: most of kube's repeat theirs.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = next.source();
    }
    text
}

/// Whether a write was refused because the object has changed, is another one by now, or exists already. That
/// the object of the name has another UID than a patch says, a server (Kubernetes 1.36, measured) answers
/// with 422, a field that cannot be changed, and not with the 409 that it has for a PUT and for a deletion.
pub fn is_conflict(status: &Status) -> bool {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 409 || status.code == 422 && causes.any(|cause| cause.field == "metadata.uid")
}

/// Why a pod is not evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotEvicted {
    /// It is gone, or goes with its namespace.
    Gone,
    /// Another pod has its name by now.
    Changed,
    /// A budget has no room.
    Budget,
    /// More than one budget selects it, which stays until somebody repairs them.
    Budgets,
    /// The right does not cover it, or a policy or a webhook denies it as if it did not.
    Forbidden,
    /// A policy or a webhook denies it: one that gives no code is a 400, and a policy may give a 422.
    Denied,
}

/// Reads the server's no to an eviction; `None` where that says nothing about the pod, and may pass.
pub fn not_evicted(status: &Status) -> Option<NotEvicted> {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    Some(match status.code {
        404 => NotEvicted::Gone,
        409 => NotEvicted::Changed,
        429 => NotEvicted::Budget,
        500 if status.message.contains("more than one PodDisruptionBudget") => NotEvicted::Budgets,
        403 if causes.any(|cause| cause.reason == "NamespaceTerminating") => NotEvicted::Gone,
        403 => NotEvicted::Forbidden,
        400 | 422 => NotEvicted::Denied,
        _ => return None,
    })
}

/// What refuses an eviction, as a user may read it: the causes, which name a budget, or the message. A
/// webhook or a policy writes in it what it likes.
pub fn refusal(status: &Status) -> String {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let causes: Vec<&str> =
        causes.map(|cause| cause.message.trim()).filter(|message| !message.is_empty()).collect();
    let text = if causes.is_empty() { said(status) } else { causes.join("; ") };
    clipped(&one_line(&text), MAX_ERROR_BYTES)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A policy engine quotes what a tenant wrote into his pod.
    #[test]
    fn what_refuses_an_eviction_is_one_line_and_has_a_limit() {
        let text = format!("denied\n\u{1b}[2Jby\ta policy {}", "x".repeat(10_000));
        let plain = json!({"status": "Failure", "message": text, "reason": "Invalid", "code": 400});
        let caused = json!({"status": "Failure", "message": "no", "reason": "Forbidden", "code": 403,
            "details": {"causes": [{"message": text}]}});
        for status in [plain, caused] {
            let status: Status = serde_json::from_value(status).unwrap();
            let said = refusal(&status);
            assert!(said.starts_with("denied [2Jby a policy x") && said.len() <= MAX_ERROR_BYTES, "{said}");
        }
        assert_eq!(refusal(&Status::failure("", "").with_code(422)), "the API server answered with code 422");
    }
}
