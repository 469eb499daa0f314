//! Live reads: each request has a time of its own, and lists are read in pages. How many there are depends on
//! the cluster, and must not decide whether there is an answer.

use std::fmt::Debug;

use anyhow::Context;
use kube::{Api, api::ListParams};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::{act::REQUEST_TIMEOUT, api::pages};

/// Objects in a page.
pub const PAGE: u32 = 50;

/// A request, for which the API server has some time.
pub async fn in_time<T, E>(request: impl Future<Output = Result<T, E>>) -> anyhow::Result<T>
where
    E: Into<anyhow::Error>,
{
    let late = || format!("the API server did not answer within {} s", REQUEST_TIMEOUT.as_secs());
    timeout(REQUEST_TIMEOUT, request).await.with_context(late)?.map_err(Into::into)
}

/// Reads a list page by page.
pub async fn each<K>(api: &Api<K>, params: &ListParams, mut take: impl FnMut(K)) -> anyhow::Result<()>
where
    K: Clone + Debug + DeserializeOwned,
{
    let mut page = params.clone().limit(PAGE);
    loop {
        let list = in_time(api.list(&page)).await?;
        list.items.into_iter().for_each(&mut take);
        match pages::after(page, list.metadata) {
            Some(next) => page = next,
            None => return Ok(()),
        }
    }
}
