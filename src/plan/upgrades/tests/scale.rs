//! What a `Continuous` upgrade costs a plan while it has nothing to do: no test, but a measure.

use std::time::Instant;

use serde_json::json;

use super::rounds::over;

/// Nodes of a large cluster.
const NODES: usize = 5_000;
/// Plans that are measured.
const PLANS: u32 = 200;

/// `cargo test --lib plan::upgrades::tests::scale --config 'profile.dev.package.kairos-operator.opt-level=3' --
/// --ignored --nocapture` prints it.
#[test]
#[ignore = "a measure"]
fn what_looking_at_the_nodes_of_an_upgrade_costs() {
    let mut world = over(json!({}));
    for number in 0..NODES {
        let name = format!("node-{number:05}.fleet.example.com");
        world.joins(&name);
        world.runs(&name, "v1");
        let labels = (0..12).map(|label| (format!("example.com/label-{label}"), "value".to_owned()));
        world.node(&name, |node| labels.for_each(|(key, value)| drop(node.labels.insert(key, value))));
    }
    world.settle();
    let began = Instant::now();
    for _ in 0..PLANS {
        let effects = super::super::plan(&world.snapshot);
        assert!(effects.actions.is_empty(), "{effects:?}");
    }
    println!("{NODES} nodes: {:?} a plan", began.elapsed() / PLANS);
}
