//! HTTP: connections, bodies, faults, and the audit list.

use std::{io, time::Duration};

use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Response,
    body::Bytes,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet};

use super::{
    Shared, State,
    error::{ApiError, ApiResult},
    handle::{Answer, Call},
    protobuf,
    request::{Query, Resource},
    watch::Watch,
};
use crate::{
    audit,
    auth::User,
    faults::{Effect, is_ours},
    show::{Form, discovery, openapi},
};

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Longer than any client waits.
const FOREVER: Duration = Duration::from_secs(86_400);

/// Serves connections until it is dropped, and them with it.
pub async fn serve(listener: TcpListener, shared: Shared) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                let shared = shared.clone();
                connections.spawn(async move {
                    let _ = socket.set_nodelay(true);
                    let service = service_fn(move |request| answer(shared.clone(), request));
                    // A connection ends with an error when its client goes, and when a fault drops it.
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// A request, as far as it can be read without its body.
struct Asked {
    user: User,
    method: Method,
    path: String,
    raw_query: String,
    query: Query,
    form: Form,
    content_type: String,
}

impl Asked {
    fn read<B>(shared: &Shared, request: &hyper::Request<B>) -> ApiResult<Self> {
        let header = |name: HeaderName| request.headers().get(name).and_then(|v| v.to_str().ok());
        let raw_query = request.uri().query().unwrap_or_default().to_owned();
        Ok(Self {
            user: shared.lock().authenticate(header(AUTHORIZATION))?,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            query: Query::parse(&raw_query),
            raw_query,
            form: Form::of(header(ACCEPT).unwrap_or_default()),
            content_type: header(CONTENT_TYPE).unwrap_or("application/json").to_owned(),
        })
    }

    fn record(&self, shared: &Shared, verb: &str, resource: Option<&Resource>, code: u16) {
        self.record_in(&mut shared.lock(), shared.age(), verb, resource, code);
    }

    fn record_in(&self, state: &mut State, at: Duration, verb: &str, resource: Option<&Resource>, code: u16) {
        let record = audit::Request {
            at,
            user: self.user.name.clone(),
            verb: verb.into(),
            resource: resource.map_or_else(|| self.path.clone(), Resource::label),
            namespace: resource.map(|r| r.namespace.clone()).unwrap_or_default(),
            name: resource.map(|r| r.name.clone()).unwrap_or_default(),
            query: self.raw_query.clone(),
            version: state.store.version(),
            code,
        };
        state.audit.push(record);
    }
}

/// Answers one request; an error is a connection that is dropped instead of an answer.
pub async fn answer<B>(shared: Shared, request: hyper::Request<B>) -> io::Result<Response<Body>>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let asked = match Asked::read(&shared, &request) {
        Ok(asked) => asked,
        Err(error) => return Ok(refusal(&error)),
    };
    let Some(resource) = Resource::parse(&asked.path) else { return other(&shared, &asked) };
    let verb = resource.verb(asked.method.as_str(), &asked.query);
    let (effect, words) =
        shared.faults.take(verb, &resource.label(), &resource.name, &asked.user.name).unzip();
    if let Some(refused) = suffer(effect, words.flatten()).await {
        let refused = refused.inspect_err(|_| asked.record(&shared, verb, Some(&resource), 0))?;
        asked.record(&shared, verb, Some(&resource), refused.code);
        return Ok(refusal(&refused));
    }
    let dropped = effect == Some(Effect::ApplyAndDrop);
    let shown = |code: u16| if dropped { 0 } else { code };
    let answered = if verb == "watch" {
        let answered = watch(&shared, &asked, &resource);
        asked.record(
            &shared,
            verb,
            Some(&resource),
            shown(answered.as_ref().map_or_else(|error| error.code, |r| r.status().as_u16())),
        );
        answered
    } else {
        let body = read_body(&asked, request).await;
        let mut state = shared.lock();
        let answered = body.and_then(|body| call(&mut state, &asked, &resource, verb, body));
        // Under the lock that the change was made under: whoever sees the change finds the request that made
        // it.
        let code = answered.as_ref().map_or_else(|error| error.code, Answer::code);
        asked.record_in(&mut state, shared.age(), verb, Some(&resource), shown(code));
        drop(state);
        answered.map(|answer| shape(answer, asked.form))
    };
    if dropped {
        Err(io::ErrorKind::ConnectionReset.into())
    } else {
        Ok(answered.unwrap_or_else(|error| refusal(&error)))
    }
}

/// What a fault does before the request is looked at: an answer instead of the real one, or a dropped
/// connection.
async fn suffer(effect: Option<Effect>, words: Option<String>) -> Option<io::Result<ApiError>> {
    match effect? {
        Effect::Refuse(code) => Some(Ok(injected(code, words))),
        Effect::Drop => Some(Err(io::ErrorKind::ConnectionReset.into())),
        Effect::Delay(time) => {
            tokio::time::sleep(time).await;
            None
        }
        Effect::Hang => {
            tokio::time::sleep(FOREVER).await;
            Some(Err(io::ErrorKind::TimedOut.into()))
        }
        Effect::ApplyAndDrop => None,
    }
}

fn injected(code: u16, words: Option<String>) -> ApiError {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        413 => "RequestEntityTooLarge",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    ApiError::new(code, reason, words.unwrap_or_else(|| "injected by a fault of the simulator".into()))
}

fn watch(shared: &Shared, asked: &Asked, resource: &Resource) -> ApiResult<Response<Body>> {
    let kind = {
        let mut state = shared.lock();
        let kind = state
            .registry
            .find(&resource.group, &resource.version, &resource.plural)
            .ok_or_else(ApiError::no_path)?;
        let named = crate::server::read::selector(&kind, resource, &asked.query)?;
        state.demand(&asked.user, "watch", resource, named.name().unwrap_or_default())?;
        kind
    };
    let watch = Watch::begin(shared, &kind, resource, &asked.query, asked.form, !is_ours(&asked.user.name))?;
    Ok(response(200, StreamBody::new(watch.into_stream()).boxed_unsync()))
}

async fn read_body<B>(asked: &Asked, request: hyper::Request<B>) -> ApiResult<Value>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let bytes =
        request.into_body().collect().await.map_err(|e| ApiError::bad_request(e.to_string()))?.to_bytes();
    parse(&asked.content_type, &bytes)
}

fn call(state: &mut State, asked: &Asked, resource: &Resource, verb: &str, body: Value) -> ApiResult<Answer> {
    let name = match verb {
        "list" | "deletecollection" => asked_name(&asked.query),
        _ => resource.name.clone(),
    };
    state.demand(&asked.user, verb, resource, &name)?;
    state.answer(Call {
        user: &asked.user,
        resource,
        query: &asked.query,
        verb,
        content_type: &asked.content_type,
        body,
    })
}

fn shape(answer: Answer, form: Form) -> Response<Body> {
    let (code, value) = match answer {
        Answer::Raw(code, Value::String(text)) => (code, text),
        Answer::Raw(code, value) => (code, value.to_string()),
        Answer::Object(code, kind, object) if form != Form::Plain => {
            (code, form.one(&kind, &object).to_string())
        }
        Answer::Object(code, _, object) => (code, object.to_string()),
        Answer::List(kind, listed) => (200, form.many(&kind, &listed).to_string()),
    };
    response(code, whole(value))
}

/// A list that is allowed by name only must ask by name.
fn asked_name(query: &Query) -> String {
    let selector = crate::store::selector::Selector::parse(None, "", query.get("fieldSelector"));
    selector.ok().and_then(|s| s.name().map(str::to_owned)).unwrap_or_default()
}

fn parse(content_type: &str, bytes: &[u8]) -> ApiResult<Value> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    if content_type.contains("protobuf")
        && let Some(object) = protobuf::read(bytes)
    {
        return Ok(object);
    }
    if content_type.contains("protobuf") || content_type.contains("cbor") {
        return Err(ApiError::new(
            415,
            "UnsupportedMediaType",
            format!("the body of the request was in an unknown format: {content_type}"),
        ));
    }
    let undecodable = |error: String| ApiError::bad_request(format!("error decoding the request: {error}"));
    if content_type.contains("yaml") {
        let text = std::str::from_utf8(bytes).map_err(|e| undecodable(e.to_string()))?;
        return serde_saphyr::from_str(text).map_err(|e| undecodable(e.to_string()));
    }
    serde_json::from_slice(bytes).map_err(|e| undecodable(e.to_string()))
}

fn other(shared: &Shared, asked: &Asked) -> io::Result<Response<Body>> {
    let effect = shared.faults.take("get", &asked.path, "", &asked.user.name).map(|(effect, _)| effect);
    if let Some(refused) = effect.filter(|e| *e == Effect::Drop) {
        debug_assert_eq!(refused, Effect::Drop, "other faults name resources");
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    let answer = {
        let state = shared.lock();
        discovery::answer(&state.registry, &asked.path)
            .or_else(|| openapi::answer(&state.registry, &asked.path))
    };
    asked.record(
        shared,
        &asked.method.as_str().to_lowercase(),
        None,
        if answer.is_some() { 200 } else { 404 },
    );
    Ok(match answer {
        Some(Value::String(text)) => response(200, whole(text)),
        Some(value) => response(200, whole(value.to_string())),
        None => refusal(&ApiError::no_path()),
    })
}

fn whole(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
}

fn refusal(error: &ApiError) -> Response<Body> {
    let mut response = response(error.code, whole(error.status().to_string()));
    if let Some(seconds) = error.details.get("retryAfterSeconds").and_then(Value::as_i64) {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}

fn response(code: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        hyper::StatusCode::from_u16(code).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}
