//! Live reads: each request has a time of its own, and lists are read in pages. How many there are depends on
//! the cluster, and must not decide whether there is an answer. But what a list is selected by, a label or
//! the UID of a pod, anybody may write who may make such objects, as every kubelet may make Events; and
//! nothing of any operation is planned while it is read. So there is an end to it.

use std::{fmt::Debug, time::Duration};

use anyhow::{Context, bail};
use kube::{Api, api::ListParams};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use crate::{act::REQUEST_TIMEOUT, api::pages};

/// Objects in a page.
pub const PAGE: u32 = 50;

/// How much of a list is read.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pages: usize,
    /// No further page is asked for after that.
    within: Duration,
}

/// What one object has: far more than that is somebody's attempt.
pub const FEW: Bound = Bound { pages: 20, within: Duration::from_secs(5) };
/// The end depends on none but those who may do anything to the cluster.
pub const ALL: Bound = Bound { pages: usize::MAX, within: Duration::MAX };
/// For this many nodes an operation has at most a page of objects: a Job, its pods, a waiter, a preflight.
const NODES_TO_A_PAGE: usize = 5;

impl Bound {
    /// What there may be for each node of a cluster.
    pub fn for_nodes(nodes: usize) -> Self {
        let pages = FEW.pages + nodes / NODES_TO_A_PAGE;
        // An API server that takes a second for each page answers nobody else either.
        Self { pages, within: Duration::from_secs(pages.try_into().unwrap_or(u64::MAX)) }
    }
}

/// A request, for which the API server has some time.
pub async fn in_time<T, E>(request: impl Future<Output = Result<T, E>>) -> anyhow::Result<T>
where
    E: Into<anyhow::Error>,
{
    let late = || format!("the API server did not answer within {} s", REQUEST_TIMEOUT.as_secs());
    timeout(REQUEST_TIMEOUT, request).await.with_context(late)?.map_err(Into::into)
}

/// Reads a list page by page. One that goes on beyond the bound is an error.
pub async fn each<K>(
    api: &Api<K>,
    params: &ListParams,
    bound: Bound,
    take: impl FnMut(K),
) -> anyhow::Result<()>
where
    K: Clone + Debug + DeserializeOwned,
{
    let Some(read) = up_to(api, params, bound, take).await? else { return Ok(()) };
    let selectors = [&params.label_selector, &params.field_selector];
    let selectors: Vec<&str> = selectors.into_iter().flatten().map(String::as_str).collect();
    let which = if selectors.is_empty() { String::new() } else { format!(" with {}", selectors.join(",")) };
    bail!("{read} were read{which}, and there are more: find out who makes them, and delete those of others");
}

/// Reads a list page by page, as far as the bound goes: how many objects that were, if there are more.
pub async fn up_to<K>(
    api: &Api<K>,
    params: &ListParams,
    bound: Bound,
    mut take: impl FnMut(K),
) -> anyhow::Result<Option<usize>>
where
    K: Clone + Debug + DeserializeOwned,
{
    let (mut page, mut pages, mut read, began) = (params.clone().limit(PAGE), 0, 0, Instant::now());
    loop {
        let list = in_time(api.list(&page)).await?;
        (pages, read) = (pages + 1, read + list.items.len());
        list.items.into_iter().for_each(&mut take);
        match pages::after(page, list.metadata) {
            Some(_) if pages >= bound.pages || began.elapsed() >= bound.within => return Ok(Some(read)),
            Some(next) => page = next,
            None => return Ok(None),
        }
    }
}
