//! Requests of one user, and their answers as they come over the wire: code, body, warnings.

use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt, stream::BoxStream};
use http_body_util::BodyExt;
use hyper::{Request, http::HeaderValue};
use kube::{Client, client::Body};
use serde_json::{Value, json};

use crate::LONG;

/// Resources that the tests name, and where a server has them: prefix, and whether they are in a namespace.
const PLACES: &[(&str, &str, bool)] = &[
    ("configmaps", "/api/v1", true),
    ("events", "/apis/events.k8s.io/v1", true),
    ("jobs", "/apis/batch/v1", true),
    ("leases", "/apis/coordination.k8s.io/v1", true),
    ("namespaces", "/api/v1", false),
    ("nodes", "/api/v1", false),
    ("nodeops", "/apis/operator.kairos.io/v1alpha1", true),
    ("nodeopupgrades", "/apis/operator.kairos.io/v1alpha1", true),
    ("oldevents", "/api/v1", true),
    ("poddisruptionbudgets", "/apis/policy/v1", true),
    ("pods", "/api/v1", true),
    ("resourcequotas", "/api/v1", true),
    ("rolebindings", "/apis/rbac.authorization.k8s.io/v1", true),
    ("roles", "/apis/rbac.authorization.k8s.io/v1", true),
    ("selfsubjectaccessreviews", "/apis/authorization.k8s.io/v1", false),
    ("serviceaccounts", "/api/v1", true),
    ("subjectaccessreviews", "/apis/authorization.k8s.io/v1", false),
];

const JSON: &str = "application/json";
pub const MERGE: &str = "application/merge-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub const JSON_PATCH: &str = "application/json-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";
/// How a server is asked for an object's metadata alone.
pub const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
/// The same for a list.
pub const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// A user in a namespace.
#[derive(Clone)]
pub struct Session {
    pub client: Client,
    pub namespace: String,
}

/// What a server answers.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub body: Value,
    /// Texts of the `Warning` headers.
    pub warnings: Vec<String>,
    /// Seconds of the header `Retry-After`.
    pub retry_after: Option<String>,
}

impl Answer {
    /// The object of an answer that is no refusal.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.code), "refused: {self:#?}");
        self.body
    }

    /// The message of a refusal that has this code and reason.
    #[track_caller]
    pub fn refused(&self, code: u16, reason: &str) -> &str {
        let told = (self.code, self.body["reason"].as_str().unwrap_or_default());
        assert_eq!(told, (code, reason), "{self:#?}");
        self.body["message"].as_str().unwrap_or_default()
    }

    /// The first cause of a refusal: reason, message, field.
    pub fn cause(&self) -> [&str; 3] {
        let cause = &self.body["details"]["causes"][0];
        ["reason", "message", "field"].map(|field| cause[field].as_str().unwrap_or_default())
    }
}

impl Session {
    /// `configmaps/a?dryRun=All` as a server has it. What begins with a slash is a whole path, in which
    /// `{namespace}` is this session's.
    pub fn path(&self, short: &str) -> String {
        if short.starts_with('/') {
            return short.replace("{namespace}", &self.namespace);
        }
        let end = short.find(['/', '?']).unwrap_or(short.len());
        let (plural, rest) = short.split_at(end);
        let (_, prefix, namespaced) = PLACES.iter().find(|(name, ..)| *name == plural).unwrap();
        let plural = plural.trim_start_matches("old");
        if *namespaced {
            format!("{prefix}/namespaces/{}/{plural}{rest}", self.namespace)
        } else {
            format!("{prefix}/{plural}{rest}")
        }
    }

    async fn answered(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> hyper::Response<Body> {
        let mut request = Request::builder().method(method).uri(self.path(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map(Value::to_string).unwrap_or_default().into_bytes();
        self.client.send(request.body(Body::from(body)).unwrap()).await.unwrap()
    }

    /// Any request.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let answer = self.answered(method, path, headers, body).await;
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        let warnings = answer.headers().get_all("warning").iter().map(text).collect();
        let (code, retry_after) = (answer.status().as_u16(), answer.headers().get("retry-after").map(text));
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Answer { code, body, warnings, retry_after }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None).await
    }

    pub async fn post(&self, path: &str, object: &Value) -> Answer {
        self.send("POST", path, &[("content-type", JSON)], Some(object)).await
    }

    pub async fn put(&self, path: &str, object: &Value) -> Answer {
        self.send("PUT", path, &[("content-type", JSON)], Some(object)).await
    }

    /// A patch of this content type.
    pub async fn patch(&self, path: &str, style: &str, patch: &Value) -> Answer {
        self.send("PATCH", path, &[("content-type", style)], Some(patch)).await
    }

    pub async fn merge(&self, path: &str, patch: &Value) -> Answer {
        self.patch(path, MERGE, patch).await
    }

    /// Deletes with these `DeleteOptions`.
    pub async fn delete(&self, path: &str, options: &Value) -> Answer {
        let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        body.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        self.send("DELETE", path, &[("content-type", JSON)], Some(&body)).await
    }

    /// What a watch tells, until it ends: type and object of each event.
    pub async fn watch(&self, path: &str, accept: &str) -> BoxStream<'static, (String, Value)> {
        let mut answer = self.answered("GET", path, &[("accept", accept)], None).await;
        // Until it has all objects of a kind that is new, a server asks to come back later.
        while answer.status() == 429 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            answer = self.answered("GET", path, &[("accept", accept)], None).await;
        }
        assert_eq!(answer.status(), 200, "{path}");
        let lines = answer.into_body().into_data_stream().map_err(std::io::Error::other);
        // One that is cut off ends in an error.
        let lines = lines.into_async_read().lines().take_while(|line| std::future::ready(line.is_ok()));
        lines
            .map(|line| {
                let mut event: Value = serde_json::from_str(&line.unwrap()).unwrap();
                (event["type"].as_str().unwrap_or("none").to_owned(), event["object"].take())
            })
            .boxed()
    }

    /// Waits until an object is as wanted, and returns it. `Null` stands for one that is not there.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let (plural, name) = path.split_once('/').unwrap();
        let fields = format!("{plural}?fieldSelector=metadata.name%3D{name}");
        let found = async {
            loop {
                let list = self.get(&fields).await.ok();
                let present = list["items"].get(0).cloned().unwrap_or_default();
                if wanted(&present) {
                    return present;
                }
                let version = list["metadata"]["resourceVersion"].as_str().unwrap();
                let mut told = self.watch(&format!("{fields}&watch=1&resourceVersion={version}"), JSON).await;
                while let Some((kind, object)) = told.next().await {
                    let object = if kind == "DELETED" { Value::Null } else { object };
                    if kind != "ERROR" && kind != "BOOKMARK" && wanted(&object) {
                        return object;
                    }
                }
            }
        };
        match tokio::time::timeout(LONG, found).await {
            Ok(found) => found,
            Err(_) => panic!("{path} is not as wanted: {:#}", self.get(path).await.body),
        }
    }

    /// Waits for the first of a list that is as wanted.
    pub async fn until_one(&self, list: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let items = self.get(list).await.ok()["items"].take();
                if let Some(found) = items.as_array().into_iter().flatten().find(|item| wanted(item)) {
                    return found.clone();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        match tokio::time::timeout(LONG, found).await {
            Ok(found) => found,
            Err(_) => panic!("none of {list} is as wanted: {:#}", self.get(list).await.body),
        }
    }
}
