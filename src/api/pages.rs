//! Long lists are read in pages, so that no more than one of them is in memory.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::api::ListParams;

/// What is asked for after a page, of which this is told; nothing after the last one.
pub fn after(page: ListParams, told: ListMeta) -> Option<ListParams> {
    let token = told.continue_.filter(|token| !token.is_empty())?;
    Some(page.continue_token(&token))
}
