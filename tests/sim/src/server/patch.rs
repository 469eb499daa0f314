//! The four kinds of patches.

use serde_json::Value;

use super::{
    error::{ApiError, ApiResult, Cause},
    strategic,
};
use crate::kinds::Kind;

/// How a patch is written, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// RFC 7396.
    Merge,
    /// RFC 6902.
    Json,
    /// Merge, with lists merged by key.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl Style {
    /// Reads a content type.
    pub fn of(content_type: &str) -> ApiResult<Self> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/json-patch+json" => Ok(Self::Json),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            other => Err(ApiError::new(
                415,
                "UnsupportedMediaType",
                format!("the body of the request was in an unknown format: {other}"),
            )),
        }
    }
}

/// The object after the patch.
pub fn apply(kind: &Kind, style: Style, object: &Value, patch: &Value) -> ApiResult<Value> {
    let mut patched = object.clone();
    match style {
        Style::Merge => json_patch::merge(&mut patched, patch),
        Style::Json => {
            let operations: json_patch::Patch =
                serde_json::from_value(patch.clone()).map_err(|e| ApiError::bad_request(e.to_string()))?;
            json_patch::patch(&mut patched, &operations).map_err(|_| {
                let message = "the server rejected our request due to an error in our request";
                ApiError::new(422, "Invalid", message)
            })?;
        }
        Style::Strategic if kind.is_custom() => {
            let accepted =
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
            let message = format!(
                "the body of the request was in an unknown format - accepted media types include: {accepted}"
            );
            return Err(ApiError::new(415, "UnsupportedMediaType", message));
        }
        Style::Strategic | Style::Apply => strategic::merge(&mut patched, patch),
    }
    Ok(patched)
}

/// A patch after which the object cannot be read is told as an invalid patch, with the object in it.
pub fn unreadable(error: ApiError, object: String) -> ApiError {
    match error.message.split_once(": ") {
        Some((start, why)) if error.code == 400 && start.contains("cannot be handled as a") => {
            ApiError::invalid("", "", &[Cause::invalid("patch", &object.into(), why)])
        }
        _ => error,
    }
}
