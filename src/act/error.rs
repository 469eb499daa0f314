//! What an API error means to us.

use kube::core::Status;

use crate::api::text::{clipped, one_line};

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

/// What went wrong, as a user may read it: what we were at, then the server's own message, without the
/// client's wrapping of them. A test holds that no other way leads from an error to a text.
pub fn error_message(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        match cause.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => {
                parts.push(said(status));
                break;
            }
            Some(kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_)) => {
                parts.push("the API server did not answer".into());
            }
            Some(kube::Error::SerdeError(_) | kube::Error::FromUtf8(_)) => {
                parts.push("the API server's answer cannot be read".into())
            }
            // The others repeat their cause, which comes next.
            Some(_) if cause.source().is_some() => {}
            _ => parts.push(cause.to_string()),
        }
    }
    let text = parts.join(": ");
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
    use anyhow::Context;

    use super::*;

    #[test]
    fn words_are_what_we_were_at_and_what_the_server_said() {
        let refused =
            || kube::Error::Api(Box::new(Status::failure("exceeded quota", "Forbidden").with_code(403)));
        assert_eq!(error_message(&refused().into()), "exceeded quota");
        let error = Err::<(), _>(refused()).context("making the account").unwrap_err();
        assert_eq!(error_message(&error), "making the account: exceeded quota");
        assert!(error_message(&anyhow::anyhow!("no answer")).starts_with("no answer"));
        let empty = kube::Error::Api(Box::new(Status::failure(" ", "Forbidden").with_code(403)));
        assert_eq!(error_message(&empty.into()), "the API server answered with code 403, Forbidden");
    }

    /// What the client calls things by, and how Rust prints them.
    #[test]
    fn no_error_is_told_in_the_clients_words() {
        let io = || {
            std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused\n  (os error 111)")
        };
        let json = || serde_json::from_str::<u8>("x").unwrap_err();
        let status =
            || Box::new(Status::failure("admission webhook denied\nthe request", "Invalid").with_code(422));
        let errors = || {
            [
                kube::Error::Api(status()),
                kube::Error::Service(Box::new(io())),
                kube::Error::Service(Box::new(kube::Error::Api(status()))),
                kube::Error::ReadEvents(io()),
                kube::Error::SerdeError(json()),
                kube::Error::FromUtf8(String::from_utf8(vec![0xff]).unwrap_err()),
                kube::Error::BuildRequest(kube::core::request::Error::Validation("no name".into())),
                kube::Error::LinesCodecMaxLineLengthExceeded,
                kube::Error::TlsRequired,
            ]
        };
        for (bare, wrapped) in errors().into_iter().zip(errors()) {
            let wrapped = anyhow::Error::from(wrapped).context("making the Job").context("on n1");
            for (text, start) in
                [(error_message(&bare.into()), ""), (error_message(&wrapped), "on n1: making the Job: ")]
            {
                let debug = ["ApiError", "Status {", "Some(", "ServiceError", "HyperError", "\n", "  "];
                assert!(
                    text.starts_with(start)
                        && text.len() > start.len()
                        && debug.iter().all(|word| !text.contains(word)),
                    "{text}"
                );
            }
        }
    }
}
