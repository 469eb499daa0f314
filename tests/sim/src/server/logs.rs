//! What a container has printed, as its kubelet would hand it on.

use std::{fs, sync::Arc};

use serde_json::{Value, json};

use super::{
    State,
    error::{ApiError, ApiResult, Cause},
    request::{Query, Resource},
};
use crate::{
    json::{list, text},
    kinds::Kind,
};

impl State {
    /// The log of a container, as far as it goes: following it ends where it ends now. What is no process but
    /// a script has printed its termination message.
    pub fn log(&self, kind: &Arc<Kind>, resource: &Resource, query: &Query) -> ApiResult<String> {
        let pod = self.fetch(kind, resource)?;
        let containers = || list(&pod, "/spec/initContainers").iter().chain(list(&pod, "/spec/containers"));
        let default = text(&pod, "/metadata/annotations/kubectl.kubernetes.io~1default-container");
        let first = list(&pod, "/spec/containers").first().map_or("", |container| text(container, "/name"));
        let named = [query.get("container"), default, first];
        let name = named.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        if !containers().any(|container| text(container, "/name") == name) {
            let pod = &resource.name;
            return Err(ApiError::bad_request(format!("container {name} is not valid for pod {pod}")));
        }
        let statuses = || {
            list(&pod, "/status/initContainerStatuses").iter().chain(list(&pod, "/status/containerStatuses"))
        };
        let status = statuses().find(|status| text(status, "/name") == name).cloned().unwrap_or_default();
        let run = if query.get("previous") == "true" { "/lastState" } else { "/state" };
        let begun =
            ["running", "terminated"].iter().any(|state| status.pointer(&format!("{run}/{state}")).is_some());
        if !begun {
            let reason = text(&status, "/state/waiting/reason");
            let why =
                format!("container \"{name}\" in pod \"{}\" is waiting to start: {reason}", resource.name);
            return Err(ApiError::bad_request(why));
        }
        let (node, pod) = (text(&pod, "/spec/nodeName"), &resource.name);
        let file = self
            .nodes
            .as_ref()
            .map(|nodes| nodes.join(node).join("logs").join(pod).join(format!("{name}.log")));
        let printed = file.and_then(|file| fs::read_to_string(file).ok());
        let message = || status.pointer(&format!("{run}/terminated/message")).and_then(Value::as_str);
        let printed =
            printed.unwrap_or_else(|| message().map_or_else(String::new, |said| format!("{said}\n")));
        let tail = query.get("tailLines");
        if tail.starts_with('-') {
            let why = "must be greater than or equal to 0";
            let cause = Cause::invalid("tailLines", &json!(tail.parse::<i64>().ok()), why);
            return Err(ApiError::invalid("PodLogOptions", &resource.name, &[cause]));
        }
        let tail = tail.parse::<usize>().ok();
        Ok(tail.map_or_else(|| printed.clone(), |most| last(&printed, most)))
    }
}

/// The last lines of a text.
fn last(text: &str, most: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(most)..].iter().map(|line| format!("{line}\n")).collect()
}
