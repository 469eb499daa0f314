//! Which volumes are attached to the nodes that are drained: read once for all nodes that are asked for
//! together, in pages, since a cluster has thousands of attachments and the server selects none by its node.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use kube::{Api, Client, api::ListParams};
use tokio::sync::OnceCell;

use super::reads::{ALL, each};
use crate::{api::volume_attachment::VolumeAttachment, plan::model::question::Question};

/// What is attached, for the questions of one round.
#[derive(Debug, Default)]
pub struct Attachments {
    /// The nodes that are asked for.
    asked: BTreeSet<String>,
    /// The PersistentVolumes on each; nothing before the first question.
    found: OnceCell<BTreeMap<String, BTreeSet<String>>>,
}

impl Attachments {
    /// For these questions.
    pub fn of<'a>(questions: impl IntoIterator<Item = &'a Question>) -> Self {
        let nodes = questions.into_iter().filter_map(|question| match question {
            Question::Volumes(node) => Some(node.clone()),
            _ => None,
        });
        Self { asked: nodes.collect(), found: OnceCell::new() }
    }

    /// The PersistentVolumes that are attached to the node.
    pub async fn on(&self, client: &Client, node: &str) -> anyhow::Result<BTreeSet<String>> {
        let found = self.found.get_or_try_init(|| self.read(client)).await?;
        Ok(found.get(node).cloned().unwrap_or_default())
    }

    async fn read(&self, client: &Client) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
        let all = Api::<VolumeAttachment>::all(client.clone());
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let take = |VolumeAttachment { spec, .. }: VolumeAttachment| {
            if let Some(volume) = spec.source.persistent_volume_name
                && self.asked.contains(&spec.node_name)
            {
                found.entry(spec.node_name).or_default().insert(volume);
            }
        };
        each(&all, &ListParams::default(), ALL, take).await.context("listing VolumeAttachments")?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::future::join_all;
    use serde_json::{Value, json};

    use super::*;
    use crate::act::tests::Server;
    use crate::controllers::reads::PAGE;

    fn attachment(number: usize) -> Value {
        json!({"metadata": {"name": format!("a{number}"), "managedFields": [{"manager": "csi"}]},
            "spec": {"attacher": "csi", "nodeName": format!("n{}", number % 3), "source": {"persistentVolumeName": format!("pv-{number}")}},
            "status": {"attached": true}})
    }

    #[tokio::test]
    async fn all_nodes_are_answered_by_one_list_in_pages() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let queries = asked.clone();
        let client = Server::client(move |request| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let more = !query.contains("continue=more");
            queries.lock().unwrap().push(query);
            let items: Vec<Value> =
                (0..6).map(|number| attachment(if more { number } else { number + 6 })).collect();
            let metadata = if more { json!({"continue": "more"}) } else { json!({}) };
            (200, json!({"metadata": metadata, "items": items}))
        });
        let nodes = ["n0", "n1", "n9"];
        let questions = nodes.map(|node| Question::Volumes(node.into()));
        let attachments = Attachments::of(&questions);
        let found = join_all(nodes.map(|node| attachments.on(&client, node))).await;
        let found: Vec<Vec<String>> =
            found.into_iter().map(|found| found.unwrap().into_iter().collect()).collect();
        assert_eq!(found[0], ["pv-0", "pv-3", "pv-6", "pv-9"]);
        assert_eq!((found[1].len(), found[2].len()), (4, 0));
        let asked = asked.lock().unwrap();
        assert_eq!(asked.len(), 2, "{asked:?}");
        assert!(asked.iter().all(|query| query.contains(&format!("limit={PAGE}"))), "{asked:?}");
        let kept: Vec<&str> = attachments.found.get().unwrap().keys().map(String::as_str).collect();
        assert_eq!(kept, ["n0", "n1"], "nothing is kept of other nodes");
    }

    #[tokio::test]
    async fn a_list_that_failed_is_read_again_for_the_next_node() {
        let (client, _) = crate::act::tests::unavailable();
        let attachments = Attachments::of(&[Question::Volumes("n0".into())]);
        assert!(attachments.on(&client, "n0").await.is_err() && attachments.found.get().is_none());
    }
}
