//! Labels that we wrote, and that somebody took off or changed.

use super::*;

/// A selector by one of them would pass the node over until its next boot.
#[test]
fn a_node_of_kairos_whose_labels_somebody_took_off_or_changed_is_read_again() {
    let says_no_more = node("n1");
    let pods = vec![pod(&says_no_more, 0, PodPhase::Succeeded, says("b1"))];
    let written = plan_of(&[says_no_more], pods, 0, &[]);
    let Some(Action::PatchNode { change, .. }) = written.actions.first() else { panic!("{written:?}") };
    let set = |(key, value): (&String, &Option<String>)| Some((key.clone(), value.clone()?));
    let known = NodeView {
        labels: change.labels.iter().filter_map(set).collect(),
        annotations: change.annotations.iter().filter_map(set).collect(),
        ..node("n1")
    };
    let read = |label: &str, value: Option<&str>| {
        let others = known.labels.iter().filter(|(key, _)| *key != label);
        let others = others.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let labels = others.chain(value.map(|value| (label.to_owned(), value.to_owned()))).collect();
        made(&plan_of(&[NodeView { labels, ..known.clone() }], vec![], 0, &[])) == [("n1", 0)]
    };
    for label in ["kairos.io/managed", "kairos.io/release"] {
        assert!(known.labels.contains_key(label), "{:?}", known.labels);
        assert!(read(label, None) && read(label, Some("other")), "{label}");
    }
    assert!(read("kairos.io/model", Some("other")), "it is ours, and not so");
    assert!(!read("kairos.io/site", Some("berlin")), "that is the user's own");
    assert!(!read("kairos.io/managed", Some("false")), "we keep off");
}
