//! Who asks: bearer tokens of the administrator, of the simulator's own clients and of service accounts.
//!
//! A request without a token is the administrator's: kubectl sends none over plain HTTP, as it did not to the
//! insecure port of old.

pub mod rbac;

use std::collections::HashMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    json::{int, set, text},
    server::{
        State,
        error::{ApiError, ApiResult},
        request::Resource,
    },
    store::Key,
};

/// The name of the client that tests use beside the one under test.
pub const TEST_USER: &str = "kairos-sim:test";

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Groups, without `system:authenticated`.
    pub groups: Vec<String>,
}

impl User {
    /// A user with groups.
    pub fn new(name: &str, groups: &[&str]) -> Self {
        Self { name: name.into(), groups: groups.iter().map(|&g| g.to_owned()).collect() }
    }

    /// A service account.
    pub fn account(namespace: &str, name: &str) -> Self {
        let all = "system:serviceaccounts".to_owned();
        Self {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            groups: vec![all.clone(), format!("{all}:{namespace}")],
        }
    }

    /// Whether nothing is refused to this user.
    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|g| g == MASTERS)
    }
}

#[derive(Clone, Debug)]
struct Token {
    user: User,
    /// Objects with which the token ends: its service account, and the pod that it is bound to.
    bound: Vec<(Key, String)>,
}

/// Tokens that are known.
#[derive(Debug, Default)]
pub struct Users {
    tokens: HashMap<String, Token>,
}

impl State {
    /// Who holds a token. No token: the administrator.
    pub fn authenticate(&self, authorization: Option<&str>) -> ApiResult<User> {
        let Some(token) = authorization.and_then(|a| a.strip_prefix("Bearer ")) else {
            return Ok(User::new("system:unsecured", &[MASTERS]));
        };
        let unauthorized = || ApiError::new(401, "Unauthorized", "Unauthorized");
        let token = self.users.tokens.get(token.trim()).ok_or_else(unauthorized)?;
        let alive = |(key, uid): &(Key, String)| {
            self.store.get(key).is_some_and(|o| text(&o, "/metadata/uid") == uid)
        };
        if token.bound.iter().all(alive) { Ok(token.user.clone()) } else { Err(unauthorized()) }
    }

    /// A new token of a user.
    pub fn token(&mut self, user: User) -> String {
        self.new_token(user, Vec::new())
    }

    fn new_token(&mut self, user: User, bound: Vec<(Key, String)>) -> String {
        let token = format!("sim-{:016x}{:016x}", self.random.u64(..), self.random.u64(..));
        self.users.tokens.insert(token.clone(), Token { user, bound });
        token
    }

    /// A new token of a service account.
    pub fn account_token(&mut self, namespace: &str, name: &str) -> ApiResult<String> {
        let (key, uid) = self.identify("serviceaccounts", namespace, name)?;
        Ok(self.new_token(User::account(namespace, name), vec![(key, uid)]))
    }

    fn identify(&self, table: &str, namespace: &str, name: &str) -> ApiResult<(Key, String)> {
        let key = Key::new(table, namespace, name);
        let object = self.store.get(&key).ok_or_else(|| ApiError::not_found(table, name))?;
        Ok((key, text(&object, "/metadata/uid").to_owned()))
    }

    /// Answers a `TokenRequest`, which is how a kubelet gets the token of a pod.
    pub fn issue(&mut self, resource: &Resource, mut request: Value) -> ApiResult<Value> {
        let (namespace, account) = (&resource.namespace, &resource.name);
        let mut bound = vec![self.identify("serviceaccounts", namespace, account)?];
        if text(&request, "/spec/boundObjectRef/kind") == "Pod" {
            let pod = self.identify("pods", namespace, text(&request, "/spec/boundObjectRef/name"))?;
            let wanted = text(&request, "/spec/boundObjectRef/uid");
            if !wanted.is_empty() && wanted != pod.1 {
                return Err(ApiError::conflict(
                    "serviceaccounts/token",
                    account,
                    "the UID in the bound object reference does not match",
                ));
            }
            bound.push(pod);
        }
        let token = self.new_token(User::account(namespace, account), bound);
        let lifetime = int(&request, "/spec/expirationSeconds").unwrap_or(3600);
        let end =
            crate::clock::now().saturating_add(SignedDuration::from_secs(lifetime)).unwrap_or(Timestamp::MAX);
        set(
            &mut request,
            "/status",
            json!({"token": token, "expirationTimestamp": end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}),
        );
        Ok(request)
    }
}
