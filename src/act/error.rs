//! What an API error means to us.

use kube::core::Status;

use crate::api::error_text;

fn status(error: &anyhow::Error) -> Option<&Status> {
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => Some(status),
        _ => None,
    }
}

/// The object has changed, is another one by now, or exists already: the plan was made from an old view, and
/// another one follows.
pub fn is_conflict(error: &anyhow::Error) -> bool {
    status(error).is_some_and(error_text::is_conflict)
}

/// The object is not there (any more).
pub fn is_gone(error: &anyhow::Error) -> bool {
    status(error).is_some_and(|status| status.code == 404)
}

/// The server has answered, and its answer is about what was asked of it, and not about its own state.
pub fn is_refusal(error: &anyhow::Error) -> bool {
    status(error).is_some_and(|status| (400..500).contains(&status.code) && status.code != 429)
}

/// The server was told to keep all or nothing, and knows no such field.
pub fn is_unknown_field(error: &anyhow::Error) -> bool {
    status(error).is_some_and(|status| status.message.contains("strict decoding error"))
}

/// Whether the server knows no field of this name, and was told to keep all or nothing.
pub fn is_unknown(error: &anyhow::Error, field: &str) -> bool {
    // It names the whole path of each field that it does not know.
    let named = |message: &str| message.contains(&format!(".{field}\""));
    is_unknown_field(error) && status(error).is_some_and(|status| named(&status.message))
}

/// What went wrong, as a user may read it.
pub fn error_message(error: &anyhow::Error) -> String {
    error_text::error_message(error.as_ref())
}

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

    /// Nobody listens: the HTTP client says "client error (Connect)", and then why.
    #[tokio::test]
    async fn a_connection_that_fails_is_told_without_the_clients_names_for_it() {
        use hyper_util::{client::legacy::Client, rt::TokioExecutor};

        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client: Client<_, http_body_util::Empty<hyper::body::Bytes>> =
            Client::builder(TokioExecutor::new()).build_http();
        let failed = client.get(format!("http://{nobody}/").parse().unwrap()).await.unwrap_err();
        assert!(failed.to_string().contains("client error ("), "{failed}");
        let told = error_message(&kube::Error::Service(Box::new(failed)).into());
        assert!(
            told.starts_with("the API server did not answer: ") && !told.contains("client error ("),
            "{told}"
        );
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
